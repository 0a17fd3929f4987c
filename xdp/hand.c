/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Userspace's hand: programs that it runs by BPF_PROG_TEST_RUN, and never attaches. What they do has to
 * be atomic with what the other programs do.
 */
#include "abi.h"
#include "next.h"
#include "store.h"
#include "token.h"
#include "waiting_drafts.h"

/* What a program is to do, in the frame that it is run with. */
struct order {
	u64 sequence;  /* of the entry, when it was looked at; or what a draft's `ready` becomes, or 0 */
	u64 expires;   /* jiffies */
	u32 line;      /* its entry's */
	u32 cell;      /* of `versions`; or a service */
};

static __always_inline struct order *order_of(struct xdp_md *context)
{
	struct order *order = (void *)(long)context->data;

	return (void *)(order + 1) > (void *)(long)context->data_end ? NULL : order;
}

/* Void a cell. */
int bump(struct xdp_md *context)
{
	struct order *order = order_of(context);

	if (!order || order->cell >= SLOTS + SERVICES_MAX)
		return XDP_ABORTED;
	void_cell(order->cell, false);
	return XDP_PASS;
}

/* Store the next draft of a service; first finish one, if that is asked. */
int drain(struct xdp_md *context)
{
	struct order *order = order_of(context);

	struct scratch *scratch;
	u32 only = 0;

	scratch = scratches.lookup(&only);
	if (!order || !scratch)
		return XDP_ABORTED;
	if (order->sequence)
		finish_draft(order->cell, order->sequence);
	scratch->service.id = order->cell;
	scratch->by_hand = 1;
	xdp_next.call(context, XDP_STORE);
	scratch->by_hand = 0;  /* it is not there */
	return XDP_ABORTED;
}

/* Remove an entry, if nobody has written it since. */
int drop(struct xdp_md *context)
{
	struct order *order = order_of(context);
	struct limits *limits;
	struct entry *entry;
	struct usage *usage;
	u32 only = 0;

	limits = store_limits.lookup(&only);
	usage = store_usage.lookup(&only);
	if (!order || !limits || !usage)
		return XDP_ABORTED;
	entry = entry_at(order->line);
	if (!entry)
		return XDP_ABORTED;
	return free_entry(limits, usage, entry, order->sequence, order->line) ? XDP_PASS
									       : XDP_DROP;
}

/* Let an entry live, if nobody has written it since. */
int prolong(struct xdp_md *context)
{
	struct order *order = order_of(context);
	struct entry *entry = order ? entry_at(order->line) : NULL;

	if (!entry)
		return XDP_ABORTED;
	if (!lock_entry(entry, order->sequence))
		return XDP_DROP;
	entry->meta.expires = order->expires;
	unlock_entry(entry);
	return XDP_PASS;
}
