/* SPDX-License-Identifier: GPL-2.0-only */
/* Lengths whose bounds the verifier sees, and the sum of a number of bytes. */
#ifndef CAROM_BOUNDED_H
#define CAROM_BOUNDED_H

#include <uapi/linux/bpf.h>

/*
 * The same value, for callers that have checked that it is from 1 to `bound` (a power of two). The
 * verifier loses that check where clang folds it into another; it does see this mask.
 */
static __always_inline u32 bounded(u32 value, u32 bound)
{
	value -= 1;
	asm volatile("" : "+r"(value));
	value &= bound - 1;
	return value + 1;
}

/*
 * A loop's counter. It keeps clang from counting something else, such as what is left or a pointer:
 * then the verifier would not see that the loop ends.
 */
#define counted(n) asm volatile("" : "+r"(n))

/*
 * The same value, hidden from the verifier: it would follow the code behind once for each value
 * that it knows. `unknown` is a number of which the verifier knows no bit.
 */
static __always_inline u32 forgotten(u64 value, u64 unknown)
{
	value ^= unknown;
	asm volatile("" : "+r"(value));
	return value ^ unknown;
}

/* `bits` if a number is 0, else 0; without a branch, for the verifier. */
static __always_inline u32 bits_without(u64 number, u32 bits)
{
	asm volatile("" : "+r"(number));
	return ((number | -number) >> 63 ^ 1) * bits;
}

/*
 * The one's-complement sum of `length` bytes, at most `room` (a constant). The bytes behind them
 * are zero up to a whole word. bpf_csum_diff takes at most 512 bytes on kernels before 6.13.
 */
static __always_inline u64 sum_bytes(u8 *bytes, u32 length, const u32 room)
{
	u64 sum = 0;

#pragma unroll
	for (u32 start = 0; start < room; start += 512) {
		u32 size = length > start ? length - start : 0;

		if (size > 512)
			size = 512;
		if (start + size > room)
			size = room - start;
		size = (size + 3) & ~3u;
		if (size)
			sum += (u32)bpf_csum_diff(NULL, 0, (__be32 *)(bytes + start),
						  bounded(size, 512), 0);
	}
	return sum;
}

#endif
