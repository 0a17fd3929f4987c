/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Items of a fronted server that do not end by themselves, by the write that stored them or by the
 * server's own word. The server is not asked about them until a write may have given one an end: so
 * a reply need not wait for the daemon (daemon/lifetimes.py).
 *
 * The server may do a write up to half of FLIGHT_SECONDS after it was seen. What became known
 * within that time may be true of the item as it was before.
 */
#ifndef CAROM_LASTING_H
#define CAROM_LASTING_H

#include "abi.h"
#include "clock.h"
#include "maps.h"
#include "protocol.h"

#define LASTING_ROOM 65536  /* unless the cache has more */

/* By item_in(): jiffies when it was stored, or its server was asked. */
BPF_TABLE("lru_hash", u64, u64, lasting, LASTING_ROOM);
/*
 * By cell: jiffies of the last write that may give an end; 0 for none. Then by service: jiffies of
 * the last readable write that may give an end to items that it does not name.
 */
BPF_F_TABLE("array", u32, u64, ended, SLOTS + 2 * SERVICES_MAX, BPF_F_MMAPABLE);
/* By service: jiffies when its server said that no flush is due, or 0. The daemon writes it. */
BPF_F_TABLE("array", u32, u64, settled, SERVICES_MAX, BPF_F_MMAPABLE);

/* An item's key in `lasting`: the same name in two services is two items. */
static __always_inline u64 item_in(u64 item, u32 service)
{
	return item + service;
}

/* item_in() where `alone` is 1 and the intent is endless, or 0; without a branch, for the verifier. */
static __always_inline u64 endless_item(u64 item, u32 service, u32 intent, u32 alone)
{
	u64 endless = alone & (intent / INTENT_ENDLESS);

	asm volatile("" : "+r"(endless));
	return item_in(item, service) & -(endless & 1);
}

/* Note a write of this cell, understood as `intent`, before it reaches the server. */
static __always_inline void note_ending(u32 cell, u32 intent)
{
	u64 *last = ended.lookup(&cell);

	if (last && !(intent & INTENT_LASTING))
		*(volatile u64 *)last = now();
}

/* The cell of `ended` for writes that were readable, and name no item. */
static __always_inline u32 unnamed(u32 service)
{
	return SLOTS + SERVICES_MAX + service;
}

/* Note that what was stored under this item at `when` does not end by itself. */
static __always_inline void note_lasting(u64 item, u64 when)
{
	lasting.update(&item, &when);
}

/* Was a write ever seen that may give an end to an item of this cell? */
static __always_inline bool may_end(u32 cell)
{
	u64 *last = ended.lookup(&cell);

	return !last || *(volatile u64 *)last;
}

/* Was this known after each write that may give an end was done? */
static __always_inline bool is_behind_ends(u64 known, u32 cell)
{
	u64 *last = ended.lookup(&cell);
	u64 write = last ? *(volatile u64 *)last : ~0ull;

	return !write || (known > write && known - write > FLIGHT_SECONDS / 2 * TICKS);
}

/* Does this item, in this cell, certainly not end by itself, nor by a flush? */
static __always_inline bool lasts(u64 item, u32 cell, u32 service)
{
	u64 *known = lasting.lookup(&item), *flush = settled.lookup(&service);
	u64 when, asked;

	if (!known || !flush)
		return false;
	when = *(volatile u64 *)known;
	asked = *(volatile u64 *)flush;
	if (lasting.lookup(&item) != known)
		return false;  /* the element was reused for another item */
	return asked && is_behind_ends(when, cell) && is_behind_ends(when, SLOTS + service) &&
	       is_behind_ends(asked, SLOTS + service);
}

#endif
