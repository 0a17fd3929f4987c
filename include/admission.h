/* SPDX-License-Identifier: GPL-2.0-only */
/* Which replies the cache keeps where it is full: those to keys that were missed before. */
#ifndef CAROM_ADMISSION_H
#define CAROM_ADMISSION_H

#include "abi.h"
#include "maps.h"

#ifdef SEEN
/* Take one of the places that were free when the daemon last counted. It never falls below zero. */
static __always_inline bool take_room(void)
{
	u32 only = 0;
	u64 *places = room.lookup(&only);
	u64 left = places ? *(volatile u64 *)places : 0;

	if (left)
		*(volatile u64 *)places = left - 1;
	return left;
}

/* Was this the last key seen in its cell? It is now. */
static __always_inline bool seen_before(u64 hash)
{
	u32 cell = hash % SEEN;
	u64 *last = seen.lookup(&cell);

	if (!last)
		return false;
	if (*(volatile u64 *)last == hash)
		return true;
	*(volatile u64 *)last = hash;
	return false;
}
#endif

/*
 * May a reply to this key be stored? `hash` is the key's. An entry that is there may be replaced.
 */
static __always_inline bool admit(struct key *key, u64 hash)
{
#ifdef SEEN
	bool free = take_room();

	if (seen_before(hash) || free)
		return true;
	return key->length <= KEY_SHORT ? !!short_entries.lookup((struct short_key *)key)
					: !!long_entries.lookup(key);
#else
	return true;
#endif
}

#endif
