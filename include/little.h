/* SPDX-License-Identifier: GPL-2.0-only */
/* A little-endian number from bytes in memory, and bytes for memory from such a number. */
#ifndef CAROM_LITTLE_H
#define CAROM_LITTLE_H

#include <uapi/linux/bpf.h>

static __always_inline u64 little_u64(u64 word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return __builtin_bswap64(word);
#else
	return word;
#endif
}

static __always_inline u32 little_u32(u32 word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return __builtin_bswap32(word);
#else
	return word;
#endif
}

#endif
