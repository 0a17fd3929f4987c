/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The cell of `versions` that a key hashes to: Hashes.slot_of() of hashes.py in C. A write voids
 * all that is in its cell, so nobody outside may know two keys that share one.
 */
#ifndef CAROM_SLOT_H
#define CAROM_SLOT_H

#include "abi.h"
#include "parameter.h"
#include "siphash.h"

#define SLOT_BEFORE 32  /* bytes hashed before each key; slot_v0 to slot_v3: the state after them */
#define SLOT_SHIFT 48   /* the hash's upper bits are the cell: SLOTS is 2^16 */

/*
 * A number that tells items apart, by the bytes of a key that its slot is computed from. Seven
 * bytes behind KEY_MAX of them have to be readable, with any content.
 */
static __always_inline u64 item_hash(const u8 *bytes, u32 length)
{
	struct siphash state = { SAID(slot_v0), SAID(slot_v1), SAID(slot_v2),
				 SAID(slot_v3) };

	return siphash_bytes(&state, SLOT_BEFORE, bytes, length, (KEY_MAX + 7) & ~7u, 1, 3);
}

static __always_inline u32 item_slot(u64 item)
{
	return item >> SLOT_SHIFT;
}

static __always_inline u32 key_slot(const u8 *bytes, u32 length)
{
	return item_slot(item_hash(bytes, length));
}

#endif
