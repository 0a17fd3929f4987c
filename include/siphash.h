/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SipHash (Aumasson and Bernstein, 2012), a hash with a secret of 128 bits: without the secret
 * nobody can find two inputs that collide. SipHash-c-d makes c rounds for each word and d at the
 * end.
 */
#ifndef CAROM_SIPHASH_H
#define CAROM_SIPHASH_H

#include <uapi/linux/bpf.h>

#include "bounded.h"
#include "little.h"

struct siphash {
	u64 v0, v1, v2, v3;
};

static __always_inline u64 rotated(u64 word, u32 bits)
{
	return word << bits | word >> (64 - bits);
}

/* The secret's two halves, as little-endian numbers. */
static __always_inline void siphash_begin(struct siphash *state, u64 secret0, u64 secret1)
{
	state->v0 = secret0 ^ 0x736f6d6570736575ull;
	state->v1 = secret1 ^ 0x646f72616e646f6dull;
	state->v2 = secret0 ^ 0x6c7967656e657261ull;
	state->v3 = secret1 ^ 0x7465646279746573ull;
}

static __always_inline void siphash_rounds(struct siphash *s, const u32 rounds)
{
#pragma unroll
	for (u32 n = 0; n < rounds; n++) {
		s->v0 += s->v1;
		s->v1 = rotated(s->v1, 13) ^ s->v0;
		s->v0 = rotated(s->v0, 32);
		s->v2 += s->v3;
		s->v3 = rotated(s->v3, 16) ^ s->v2;
		s->v0 += s->v3;
		s->v3 = rotated(s->v3, 21) ^ s->v0;
		s->v2 += s->v1;
		s->v1 = rotated(s->v1, 17) ^ s->v2;
		s->v2 = rotated(s->v2, 32);
	}
}

/* Take in eight bytes as they are in memory; `rounds` (a constant) is SipHash's c. */
static __always_inline void siphash_word(struct siphash *s, u64 word, const u32 rounds)
{
	word = little_u64(word);
	s->v3 ^= word;
	siphash_rounds(s, rounds);
	s->v0 ^= word;
}

/*
 * The hash of what came before and of the last `length % 8` bytes, as a little-endian number in
 * `rest`. `length` counts all bytes; `word_rounds` and `last_rounds` are c and d.
 */
static __always_inline u64 siphash_end(struct siphash *s, u64 rest, u32 length,
				       const u32 word_rounds, const u32 last_rounds)
{
	rest |= (u64)length << 56;
	s->v3 ^= rest;
	siphash_rounds(s, word_rounds);
	s->v0 ^= rest;
	s->v2 ^= 0xff;
	siphash_rounds(s, last_rounds);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The first `left` bytes (fewer than eight) of a word as they are in memory, then zeros. */
static __always_inline u64 siphash_front(u64 word, u32 left)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return left ? word & ~0ull << 8 * (8 - left) : 0;
#else
	return word & ((1ull << 8 * left) - 1);
#endif
}

/*
 * The hash of what came before, `before` bytes (whole words), and of `length` bytes, at most `room`
 * (a constant, whole words). Up to the next whole word they have to be readable, with any content.
 */
static __always_inline u64 siphash_bytes(struct siphash *s, u32 before, const u8 *bytes,
					 u32 length, const u32 room, const u32 word_rounds,
					 const u32 last_rounds)
{
	/*
	 * Three numbers, so that the loop's bounds on one do not part the verifier's states after
	 * it.
	 */
	u32 words = length / sizeof(u64), at = length & ~7u, left = length & 7;
	u64 rest = 0;

	for (u32 n = 0; n < room / sizeof(u64); n++) {
		counted(n);
		if (n >= words)
			break;
		siphash_word(s, *(const u64 *)(bytes + n * sizeof(u64)), word_rounds);
	}
	asm volatile("" : "+r"(at));  /* or clang concludes the bound itself and drops it */
	if (left && at <= room - sizeof(u64))
		rest = little_u64(siphash_front(*(const u64 *)(bytes + at), left));
	return siphash_end(s, rest, before + length, word_rounds, last_rounds);
}

#endif
