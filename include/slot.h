/* SPDX-License-Identifier: GPL-2.0-only */
/* The cell of `versions` that a key hashes to: slot_of() of abi.py in C. */
#ifndef CAROM_SLOT_H
#define CAROM_SLOT_H

#include "abi.h"

#define SLOT_PRIME 65519
#define SLOT_RADIX 289  /* 2^32 modulo SLOT_PRIME */
#define SLOT_CARRY 17   /* 2^16 modulo SLOT_PRIME */

static __always_inline u32 little_u32(u32 word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return __builtin_bswap32(word);
#else
	return word;
#endif
}

/*
 * `length` bytes as a little-endian number, modulo SLOT_PRIME: Horner from the top, 32 bits at a
 * time. The bytes up to the next whole 4 are zero. Folding at 2^16 keeps the remainder short (below
 * 2^31) without a division, which costs more than all the rest.
 */
static __always_inline u32 key_slot(const u8 *bytes, u32 length)
{
	u32 at = (length + 3) & ~3u;
	u64 rest = 0;

	for (u32 n = 0; n < KEY_MAX / 4; n++) {
		at -= 4;
		asm volatile("" : "+r"(at));  /* or clang drops the bound for its own reasoning */
		if (at > KEY_MAX - 4)
			break;  /* below zero: all done */
		rest = rest * SLOT_RADIX + little_u32(*(const u32 *)(bytes + at));
		rest = (rest & 0xffff) + (rest >> 16) * SLOT_CARRY;
	}
	return rest % SLOT_PRIME;
}

#endif
