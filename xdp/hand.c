/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Userspace's hand: programs that it runs by BPF_PROG_TEST_RUN, and never attaches. What they do has to
 * be atomic with what the other programs do. Drafts are stored by a program that packets come to as well:
 * xdp_store (fastpath.c).
 */
#include "abi.h"
#include "order.h"
#include "store.h"
#include "token.h"

/* Void a cell. */
int bump(struct xdp_md *context)
{
	struct order *order = order_of(context);

	if (!order || order->cell >= SLOTS + SERVICES_MAX)
		return XDP_ABORTED;
	void_cell(order->cell, false);
	return XDP_PASS;
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
