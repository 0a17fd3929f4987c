/* SPDX-License-Identifier: GPL-2.0-only */
/* Lengths that the verifier believes, and the sum of a number of bytes. */
#ifndef CAROM_BOUNDED_H
#define CAROM_BOUNDED_H

#include <uapi/linux/bpf.h>

/*
 * The same value, for callers that have checked it to be from 1 to `bound` (a power of two). The
 * verifier loses that check where clang folds it into another; this mask it sees.
 */
static __always_inline u32 bounded(u32 value, u32 bound)
{
	value -= 1;
	asm volatile("" : "+r"(value));
	value &= bound - 1;
	return value + 1;
}

/*
 * A loop's counter: clang is not to count anything else, such as what is left, or where a pointer is, of
 * which the verifier does not see that it ends.
 */
#define counted(n) asm volatile("" : "+r"(n))

/*
 * The same value, of which the verifier is to know nothing: it would follow what comes behind once for
 * each way that led to one. `unknown` is a number that it does not know.
 */
static __always_inline u32 forgotten(u32 value, u32 unknown)
{
	value += unknown;
	asm volatile("" : "+r"(value));
	return value - unknown;
}

/* These bits where a number is 0, and nothing else; without a branch, for the verifier. */
static __always_inline u32 bits_without(u64 number, u32 bits)
{
	asm volatile("" : "+r"(number));
	return ((number | -number) >> 63 ^ 1) * bits;
}

/*
 * The one's-complement sum of `length` bytes, at most `room` (a constant); they are zero up to a
 * word. bpf_csum_diff takes at most 512 bytes on kernels before 6.13.
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
