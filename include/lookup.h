/* SPDX-License-Identifier: GPL-2.0-only */
/* An entry found by its key and copied out, if its token still holds (docs/consistency.md). */
#ifndef CAROM_LOOKUP_H
#define CAROM_LOOKUP_H

#include "abi.h"
#include "bounded.h"
#include "copy.h"
#include "directory.h"
#include "maps.h"
#include "token.h"

/* Count a hit, for whoever looks for room: rarely a store, so that CPUs share the line. */
static __always_inline void note_use(struct entry *entry)
{
	u8 used = *(volatile u8 *)&entry->meta.used;

	if (used < USED_MAX)
		*(volatile u8 *)&entry->meta.used = used + 1;
}

/*
 * Copy the entry of scratch->key, with zeros behind the reply up to whole words. Nothing is decided
 * on the entry's own memory, which may be written meanwhile: the sequence number tells.
 */
static __always_inline enum verdict copy_entry(struct entry *entry, struct scratch *scratch)
{
	u64 sequence = sequence_of(entry);
	u32 stored;
	bool same;

	if (sequence & 1)
		return MISS_TORN;
	fence();
	same = has_key(entry, &scratch->key);
	scratch->meta = entry->meta;
	stored = (scratch->meta.stored + 7) & ~7u;
	if (stored > REPLY_MAX || scratch->meta.length > stored ||
	    (same && stored &&
	     copy_kernel(scratch->reply, bounded(stored, REPLY_ROOM),
			 entry->data + key_room(scratch->key.length))))
		return MISS_TORN;
	fence();
	if (sequence_of(entry) != sequence)
		return MISS_TORN;
	return same ? HIT : MISS;
}

/* The token is judged here, at the read, and nowhere else (docs/consistency.md). */
static __always_inline enum verdict look_up(const struct service *service,
					    struct scratch *scratch)
{
	struct meta *meta = &scratch->meta;
	struct limits *limits;
	struct bucket *bucket;
	struct entry *entry;
	enum verdict verdict;
	u32 only = 0;
	u64 hash, word;

	limits = store_limits.lookup(&only);
	if (!limits)
		return MISS;
	hash = hash_of(&scratch->key, limits->weights);
	bucket = bucket_of(limits, hash);
	word = bucket ? find_word(bucket, hash) : 0;
	entry = word ? entry_at(word) : NULL;
	if (!entry)
		return MISS;
	verdict = copy_entry(entry, scratch);
	if (verdict != HIT)
		return verdict;
	if (meta->token < version(meta->slot) ||
	    meta->token < version(SLOTS + service->id))
		return MISS_VOID;
	if (now() >= meta->expires)
		return MISS_EXPIRED;
	note_use(entry);
	return HIT;
}

#endif
