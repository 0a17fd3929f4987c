/* SPDX-License-Identifier: GPL-2.0-only */
/* Which replies the store keeps where it is full: those to keys that were missed before. */
#ifndef CAROM_ADMISSION_H
#define CAROM_ADMISSION_H

#include "abi.h"
#include "bounded.h"
#include "clock.h"
#include "maps.h"

/* Was this the last key seen in its cell? It is now. */
static __always_inline bool seen_before(const struct limits *limits, u64 hash)
{
	u32 cell = hash % limits->seen, mark = hash >> 32;
	u32 *last = seen.lookup(&cell);

	if (!last)
		return false;
	if (*(volatile u32 *)last == mark)
		return true;
	*(volatile u32 *)last = mark;
	return false;
}

/*
 * May a reply be stored? `hash` is its key's. A `known` key takes nobody's place. `before` becomes
 * whether it was missed before.
 */
static __always_inline bool admit(const struct limits *limits, const struct usage *usage, u64 hash,
				  bool known, u32 *before)
{
	bool seen;

	seen = seen_before(limits, hash);
	*before = forgotten(seen, now());
	return limits->always | seen | known | (*(volatile u64 *)&usage->entries < limits->capacity);
}

#endif
