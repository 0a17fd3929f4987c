/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a reply costs its prefix and its service: its bytes and, where responses are counted, one
 * response. It is judged before the packet is touched and charged when it is sent, so that a reply
 * costs nothing if XDP leaves it to TC or nobody sends it. But responses beyond the rate are
 * counted when they are judged (within_responses): that second's are spent by then.
 */
#ifndef CAROM_BILL_H
#define CAROM_BILL_H

#include "abi.h"
#include "cell.h"
#include "maps.h"
#include "walk.h"

#define RATE_PREFIX6 64      /* bits of an IPv6 source that have one byte rate */
#define RESPONSES_PREFIX6 56 /* and one rate of responses, as BIND's rate-limit has it */

/* The cells of a source; it is gone from the packet when they are charged. */
struct bill {
	u32 prefix;
	u32 responses;
};

static __always_inline struct bill bill_of(const struct request *request,
					   const struct service *service)
{
	struct bill bill = {};

	if (!service->rated)
		return bill;
	if (service->prefix_rate)
		bill.prefix = cell_of(source_prefix(request, RATE_PREFIX6), service->id);
	if (service->responses)
		bill.responses = cell_of(source_prefix(request, RESPONSES_PREFIX6), service->id);
	return bill;
}

static __always_inline bool within_rates(const struct service *service, const struct bill *bill,
					 u32 bytes)
{
	u32 cell = bill->prefix;
	struct budget *budget;

	if (!service->rated)
		return true;
	if (service->prefix_rate) {
		budget = budgets.lookup(&cell);
		if (!budget || !covers(budget, service->prefix_rate, bytes))
			return false;
	}
	if (service->total_rate) {
		cell = service->id;
		budget = totals.lookup(&cell);
		if (!budget || !covers(budget, service->total_rate, bytes))
			return false;
	}
	return true;
}

/* HIT within the responses a second; beyond, SLIP for every `slip`th, else PASS_RESPONSES. */
static __always_inline enum verdict within_responses(const struct service *service,
						     const struct bill *bill)
{
	u32 cell = bill->responses;
	struct budget *budget;
	u64 over;

	if (!service->responses)
		return HIT;
	budget = responses.lookup(&cell);
	if (!budget)
		return PASS_RESPONSES;
	if (covers(budget, service->responses, 1))
		return HIT;
	if (!SAID(dry))
		charge(budget, 1);
	over = *(volatile u64 *)&budget->spent + SAID(dry) - service->responses;
	return service->slip && !(over % service->slip) ? SLIP : PASS_RESPONSES;
}

/* The reply leaves. A slip is no `response`: it was counted when it was judged. */
static __always_inline void pay(const struct service *service, const struct bill *bill, u32 bytes,
				bool response)
{
	u32 cell = bill->prefix;
	struct budget *budget;

	if (SAID(dry) || !service->rated)
		return;
	if (service->prefix_rate) {
		budget = budgets.lookup(&cell);
		if (budget)
			charge(budget, bytes);
	}
	if (service->total_rate) {
		cell = service->id;
		budget = totals.lookup(&cell);
		if (budget)
			charge(budget, bytes);
	}
	if (service->responses && response) {
		cell = bill->responses;
		budget = responses.lookup(&cell);
		if (budget)
			charge(budget, 1);
	}
}

#endif
