/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hash that the directory finds a key by: a multilinear sum of its words of 32 bits, each with a
 * secret weight of 64 (Lemire and Kaser, "Strongly universal string hashing is fast", 2014). Of the
 * sum's upper 32 bits any two keys of one length have the same with a probability of 2^-32, whoever
 * chose them. SipHash would cost four times as much, and all that a collision can do is a miss.
 */
#ifndef CAROM_KEY_HASH_H
#define CAROM_KEY_HASH_H

#include "abi.h"
#include "bounded.h"
#include "clock.h"

#define KEY_WORDS ((KEY_MAX + 7) / 8)
#define HASH_FACTOR 0x9e3779b97f4a7c15ull  /* odd, so that no two sums become one */

/* Mix a sum: the upper bits choose a bucket, all of them the way in it. */
static __always_inline u64 mixed(u64 sum)
{
	sum = (sum ^ sum >> 32) * HASH_FACTOR;
	return sum ^ sum >> 32;
}

/* Words of 8 bytes that a key's bytes take; the verifier knows no more of it than its bound. */
static __always_inline u32 words_of(u32 length)
{
	return (forgotten(length, now()) + 7) / 8 & 63;
}

/* Words are pairs of weights; the first pair is for service and length. */
static __always_inline u64 hash_of(const struct key *key, const u64 *weights)
{
	const u32 *words = (const u32 *)key;
	u32 count = words_of(key->length);
	u64 unknown = now(), sum = unknown + weights[0] * words[0];

	words = (const u32 *)key->bytes;
	for (u32 n = 0; n < KEY_WORDS; n++) {
		counted(n);
		if (n >= count)
			break;
		sum += weights[2 * n + 2] * words[2 * n] + weights[2 * n + 3] * words[2 * n + 1];
	}
	return mixed(sum - unknown);
}

#endif
