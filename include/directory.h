/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The directory: from a key's hash to the line of its entry. Each bucket is two cache lines; a word in it
 * may be of an entry that is gone or another's by now, as nobody waits for anybody to change one.
 */
#ifndef CAROM_DIRECTORY_H
#define CAROM_DIRECTORY_H

#include "abi.h"
#include "arena.h"
#include "key_hash.h"
#include "maps.h"

#define FIRST_WAY_SHIFT 60  /* the upper bits of a hash: WAYS is 16 */

static __always_inline struct bucket *bucket_of(const struct limits *limits, u64 hash)
{
	u32 number = hash & limits->buckets;

	return buckets.lookup(&number);
}

/* What stands in a bucket for an entry; never 0, as no entry is at line 0. */
static __always_inline u64 word_of(u64 hash, u32 slot, u32 line)
{
	return hash >> TAG_SHIFT << TAG_SHIFT | (u64)(slot / SLOTS_LINE) << LINE_BITS | line;
}

static __always_inline bool of_hash(u64 word, u64 hash)
{
	return word >> TAG_SHIFT == hash >> TAG_SHIFT;
}

/* The line of the entry that a word stands for. */
static __always_inline u32 line_in(u64 word)
{
	return word & ((1 << LINE_BITS) - 1);
}

/* Have the version that an entry is judged by come from memory while the entry does. */
static __always_inline void expect_version(u64 word)
{
	u32 cell = (word >> LINE_BITS) % (SLOTS / SLOTS_LINE) * SLOTS_LINE;
	u64 *number = versions.lookup(&cell);

	if (number)
		(void)*(volatile u64 *)number;
}

/* The way of a bucket that a hash's word is in, if that was free when the word came. */
static __always_inline u32 first_way(u64 hash)
{
	return hash >> FIRST_WAY_SHIFT;
}

/*
 * The word of a hash, or 0. Most are in the first way that is looked at: the processor guesses that, and goes
 * on with the entry before the bucket is there.
 */
static __always_inline u64 find_word(const struct bucket *bucket, u64 hash)
{
	u64 first = *(volatile u64 *)&bucket->ways[first_way(hash)];

	if (__builtin_expect(of_hash(first, hash), 1))
		return first;
#pragma unroll
	for (u32 n = 0; n < WAYS; n++) {
		u64 word = *(volatile u64 *)&bucket->ways[n];

		if (of_hash(word, hash))
			return word;
	}
	return 0;
}

/* Another word of the same hash than this one, or 0: the one that find_word() would find. */
static __always_inline u64 other_word(const struct bucket *bucket, u64 hash, u64 mine)
{
	u64 first = *(volatile u64 *)&bucket->ways[first_way(hash)];

	if (first != mine && of_hash(first, hash))
		return first;
	for (u32 n = 0; n < WAYS; n++) {
		u64 word = *(volatile u64 *)&bucket->ways[n];

		counted(n);
		if (word != mine && of_hash(word, hash))
			return word;
	}
	return 0;
}

/* Put a word into the place of another, wherever that is; of a free one (0), first where it is looked for. */
static __always_inline bool swap_word(struct bucket *bucket, u64 word, u64 other)
{
	if (!word && __sync_val_compare_and_swap(&bucket->ways[first_way(other)], 0, other) == 0)
		return true;
	for (u32 n = 0; n < WAYS; n++) {
		counted(n);
		if (__sync_val_compare_and_swap(&bucket->ways[n], word, other) == word)
			return true;
	}
	return false;
}

/* Take the words out that lead a hash to a line: their other bits are a hint, and may be old. */
static __always_inline void take_words_out(struct bucket *bucket, u64 hash, u32 line)
{
	for (u32 n = 0; n < WAYS; n++) {
		u64 word = *(volatile u64 *)&bucket->ways[n];

		counted(n);
		if (line_in(word) == line && of_hash(word, hash))
			__sync_val_compare_and_swap(&bucket->ways[n], word, 0);
	}
}

/* Is a key the entry's? Both have zeros up to a whole word. Nothing is decided before the sequence
 * number is looked at again. */
static __always_inline bool has_key(const struct entry *entry, const struct key *key)
{
	const u64 *ours = (const u64 *)key->bytes, *theirs = (const u64 *)entry->data;
	u32 count = words_of(key->length);
	u64 differ = 0;

	if (entry->key_length != key->length || entry->service != key->service)
		return false;
	for (u32 n = 0; n < KEY_WORDS; n++) {
		counted(n);
		if (n >= count)
			break;
		differ |= ours[n] ^ theirs[n];
	}
	return !differ;
}

/* The bytes of a key of that length in an entry. */
static __always_inline u32 key_room(u32 length)
{
	return words_of(length) * sizeof(u64);
}

#endif
