/* SPDX-License-Identifier: GPL-2.0-only */
/* An entry found by its key and copied out, if its token still holds (docs/consistency.md). */
#ifndef CAROM_LOOKUP_H
#define CAROM_LOOKUP_H

#include "abi.h"
#include "bounded.h"
#include "copy.h"
#include "directory.h"
#include "maps.h"
#include "moved.h"
#include "token.h"
#include "walk.h"
#include "whole.h"

#define SHORT_REPLY 64  /* bytes that are copied at once, whatever is behind the reply */

/* Count a hit, for whoever looks for room: rarely a store, so that CPUs share the line. */
static __always_inline void note_use(struct entry *entry)
{
	u8 used = *(volatile u8 *)&entry->meta.used;

	if (!SAID(dry) && used < USED_MAX)
		*(volatile u8 *)&entry->meta.used = used + 1;
}

/* Copy whole blocks, at most MOVED_MAX bytes, whatever is behind the last words. */
static __always_inline void copy_blocks(u64 *to, const u64 *from, u64 length)
{
	for (u64 at = 0; at < MOVED_MAX / sizeof(u64); at += MOVED / sizeof(u64)) {
		counted(at);
		if (at * sizeof(u64) >= length)
			break;
		to[at] = from[at];
		to[at + 1] = from[at + 1];
		to[at + 2] = from[at + 2];
		to[at + 3] = from[at + 3];
	}
}

/*
 * Copy an entry's facts, and its reply to `at` in the scratch's, with zeros behind it up to whole words; false for lengths that no
 * entry has. Nothing is decided on the entry's own memory, which may be written meanwhile: the
 * sequence number tells.
 */
static __always_inline bool copy_entry(const struct entry *entry, u32 key_length,
				       struct scratch *scratch, u32 at)
{
	const u64 *from;
	u32 stored;
	u64 *to;

	scratch->meta = entry->meta;
	stored = (scratch->meta.stored + 7) & ~7u;
	if (stored > REPLY_MAX || scratch->meta.length > stored)
		return false;
	from = (const u64 *)(entry->data + key_room(key_length));
	to = (u64 *)(scratch->reply + at);
	if (stored > MOVED_MAX)
		return !copy_kernel(to, bounded(stored, REPLY_ROOM), from);
	if (stored > SHORT_REPLY) {
		copy_blocks(to, from, stored);
		return true;
	}
#pragma unroll
	for (u32 n = 0; n < SHORT_REPLY / sizeof(u64); n++)
		to[n] = from[n];
	return true;
}

/* The entry that the directory has for a hash; NULL if there is none. */
static __always_inline struct entry *entry_for(const struct limits *limits, u64 hash,
					       const struct scratch *scratch)
{
	struct bucket *bucket = bucket_of(limits, hash);
	u64 word = bucket ? find_word(bucket, hash) : 0;

	if (!word)
		return NULL;
	if (scratch->voided)
		expect_version(word);
	return entry_at(line_in(word));
}

/*
 * The token of the copy is judged here, at the read, and nowhere else (docs/consistency.md). Where nothing at all
 * was voided since, no cell has to come from memory.
 */
static __always_inline enum verdict judge(const struct service *service, struct scratch *scratch)
{
	const struct meta *meta = &scratch->meta;
	u32 voided = meta->token < take_token();

	if (scratch->voided != voided)
		scratch->voided = voided;
	if (voided && (meta->token < version(meta->slot) ||
		       meta->token < version(SLOTS + service->id)))
		return MISS_VOID;
	return now() >= meta->expires ? MISS_EXPIRED : HIT;
}

/* Copy an entry that was read since it had this sequence number; is its key the `same`? */
static __always_inline enum verdict finish_reading(struct entry *entry, u64 sequence, bool same,
						   u32 key_length, const struct service *service,
						   struct scratch *scratch, u32 at)
{
	enum verdict verdict;

	if (!copy_entry(entry, key_length, scratch, at))
		return MISS_TORN;
	fence();
	if (sequence_of(entry) != sequence)
		return MISS_TORN;
	if (!same)
		return MISS;
	verdict = judge(service, scratch);
	if (verdict == HIT)
		note_use(entry);
	return verdict;
}

/* Find the reply to the key in scratch, and copy it to `at`. */
static __always_inline enum verdict look_up(const struct service *service,
					    struct scratch *scratch, u32 at)
{
	struct limits *limits;
	struct entry *entry;
	u32 only = 0;
	u64 sequence;
	bool same;

	limits = store_limits.lookup(&only);
	entry = limits ? entry_for(limits, hash_of(&scratch->key, limits->weights), scratch) : NULL;
	if (!entry)
		return MISS;
	sequence = sequence_of(entry);
	if (sequence & 1)
		return MISS_TORN;
	fence();
	same = has_key(entry, &scratch->key);
	return finish_reading(entry, sequence, same, scratch->key.length, service, scratch, at);
}

/* The same where the payload is the key. */
static __always_inline enum verdict look_up_whole(const struct packet *packet,
						  struct request *request,
						  const struct service *service,
						  struct scratch *scratch)
{
	struct whole whole = { packet, request, now() };
	u16 in_key = key_service(service->id, service->view);
	struct limits *limits;
	struct entry *entry;
	u32 only = 0;
	u64 sequence, hash;
	bool same;

	limits = store_limits.lookup(&only);
	if (!limits)
		return MISS;
	if (!hash_whole(&whole, in_key, limits->weights, &hash))
		return PASS_TRUNCATED;
	entry = entry_for(limits, hash, scratch);
	if (!entry)
		return MISS;
	sequence = sequence_of(entry);
	if (sequence & 1)
		return MISS_TORN;
	fence();
	same = is_whole(&whole, in_key, entry);
	return finish_reading(entry, sequence, same, whole_length(&whole), service, scratch,
			      0);
}

#endif
