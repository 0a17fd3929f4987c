/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tokens and what voids them (docs/consistency.md). Voids are counted. A token is the count before
 * the server saw a request; a void writes its own number to a cell of `versions`; a hit asks that
 * its entry's token is no smaller. Nothing else decides.
 */
#ifndef CAROM_TOKEN_H
#define CAROM_TOKEN_H

#include "abi.h"
#include "clock.h"
#include "hash.h"
#include "maps.h"
#include "slot.h"

/* The number of a cell's last void. */
static __always_inline u64 version(u32 cell)
{
	u64 *number = versions.lookup(&cell);

	return number ? *(volatile u64 *)number : ~0ull;
}

/*
 * A token that is taken before the server sees a request is good for its reply and all later ones.
 */
static __always_inline u64 take_token(void)
{
	u32 only = 0;
	u64 *count = voids.lookup(&only);

	return count ? *(volatile u64 *)count : 0;
}

/*
 * Was a write without acknowledgement seen at this cell since then? A reply may be older than it.
 */
static __always_inline bool held(u32 cell, u64 since)
{
	u64 *until = holds.lookup(&cell);

	return !until || since < *(volatile u64 *)until;
}

/* One at a time: otherwise, of two at once, the shorter hold might stay. */
static __always_inline void hold_cell(u32 cell, u64 until)
{
	u32 only = 0;
	struct gate *gate = gates.lookup(&only);
	u64 *held = holds.lookup(&cell);

	if (!gate || !held)
		return;
	lock_value(&gate->lock);
	if (*(volatile u64 *)held < until)
		*(volatile u64 *)held = until;
	unlock_value(&gate->lock);
}

/* Void what was stored under a cell, and every fill whose token was taken before. */
static __always_inline void void_now(u32 cell)
{
	u32 only = 0;
	struct gate *gate = gates.lookup(&only);
	u64 *count = voids.lookup(&only);
	u64 *last = versions.lookup(&cell);
	u64 number;

	if (!gate || !count || !last)
		return;
	/* Without the lock, of two voids at once the lower number might stay. */
	lock_value(&gate->lock);
	number = *count + 1;
	*(volatile u64 *)count = number;
	*(volatile u64 *)last = number;
	unlock_value(&gate->lock);
}

/*
 * The same for a write. After a `quiet` one there is no acknowledgement: replies to what is asked
 * shortly after it are not filled either.
 */
static __always_inline void void_cell(u32 cell, bool quiet)
{
	if (quiet)
		hold_cell(cell, now() + HOLD_MS * TICKS / 1000 + 1);
	void_now(cell);
}

/* The part of a key that tells services, and a service's views, apart. */
static __always_inline u16 key_service(u16 service, u16 view)
{
	return view << 8 | service;
}

/* The item that a protocol's key names, by its bytes from `from` to `end`. */
static __always_inline u64 item_of(const struct key *key, u32 from, u32 end)
{
	return item_hash(key->bytes + from, end - from);
}

/* The slot of the same bytes. */
static __always_inline u32 slot_of(const struct key *key, u32 from, u32 end)
{
	return key_slot(key->bytes + from, end - from);
}

#endif
