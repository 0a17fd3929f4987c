/* SPDX-License-Identifier: GPL-2.0-only */
/* A reply put into the store, and what makes room for it. */
#ifndef CAROM_STORE_H
#define CAROM_STORE_H

#include "abi.h"
#include "admission.h"
#include "bounded.h"
#include "copy.h"
#include "directory.h"
#include "maps.h"
#include "shadow.h"
#include "token.h"

/* What became of a reply. kernel/abi.py has the same numbers. */
enum stored {
	STORED = 0,
	STORED_NOT_ADMITTED = 1,  /* the store is full, and the key was not missed before */
	STORED_FULL = 2,          /* no room */
	STORED_NO_PAGE = 3,       /* none until the arena has more pages */
	STORED_KINDS = 4,
};

/* What is known of the key of a draft, and of the entry that it has. */
struct placing {
	struct limits *limits;
	struct usage *usage;
	struct bucket *bucket;
	struct entry *entry;  /* the key's own, as it was at `sequence`; or NULL */
	u64 sequence;
	u64 word;             /* of the directory: the entry's, or of the same hash; or 0 */
	u64 hash;
	u32 size;             /* that the draft needs */
	u32 before;           /* 1: its key was missed before */
};

/* The one's-complement sum of whole words, no more than `room` bytes (a constant). */
static __always_inline u16 sum_of_words(const u8 *bytes, u32 length, const u32 room)
{
	u32 words = (length + 7) / sizeof(u64);
	u64 unknown = now(), sum = unknown;

	for (u32 n = 0; n < room / sizeof(u64); n++) {
		u64 word;

		counted(n);
		if (n >= words)
			break;
		word = *(const u64 *)(bytes + n * sizeof(u64));
		sum += (u32)word;
		sum += word >> 32;
	}
	return fold(sum - unknown);
}

/* Make the sums of what is in a draft: both parts have zeros up to whole words. */
static __always_inline void sum_draft(struct draft *draft)
{
	draft->meta.sum = sum_of_words(draft->bytes, draft->meta.length, REPLY_MAX);
	draft->meta.key_sum = sum_of_words(draft->key.bytes, draft->key.length, KEY_MAX);
}

/* Say what a reply that is in a draft is stored with: a miss's token, its key's slot, its lengths. */
static __always_inline void draft_reply(struct draft *draft, u64 token, u32 slot, u32 length,
					u32 stored, u32 ttl)
{
	u64 jiffies = now();

	draft->meta = (struct meta){
		.token = token,
		.expires = jiffies + (u64)ttl * TICKS,
		.filled = jiffies,
		.slot = slot,
		.length = length,
		.stored = stored,
	};
	sum_draft(draft);
}

/* Find out where a draft would be stored; false for one that cannot be. */
static __always_inline bool begin_placing(const struct draft *draft, struct placing *placing)
{
	u32 only = 0, stored = (draft->meta.stored + 7) & ~7u;
	struct entry *entry;

	placing->limits = store_limits.lookup(&only);
	placing->usage = store_usage.lookup(&only);
	if (!placing->limits || !placing->usage || stored > REPLY_MAX ||
	    draft->meta.length > stored || !draft->key.length || draft->key.length > KEY_MAX)
		return false;
	placing->size = size_for(sizeof(struct entry) + key_room(draft->key.length) + stored);
	placing->hash = hash_of(&draft->key, placing->limits->weights);
	placing->bucket = bucket_of(placing->limits, placing->hash);
	if (!placing->bucket)
		return false;
	placing->word = find_word(placing->bucket, placing->hash);
	entry = placing->word ? entry_at(line_in(placing->word)) : NULL;
	if (!entry)
		return true;
	placing->sequence = sequence_of(entry);
	fence();
	if (has_key(entry, &draft->key))
		placing->entry = entry;
	return true;
}

/* The size of the entries in a line's page. */
static __always_inline u32 size_at(u32 line)
{
	struct page_head *head = (struct page_head *)page_at(line / PAGE_LINES);

	return head ? *(volatile u32 *)&head->size_plus_one - 1 : SIZES;
}

/* Take an entry out of the directory, if it is there. */
static __always_inline void unlink_entry(const struct limits *limits, const struct entry *entry,
					 u32 line)
{
	struct bucket *bucket = bucket_of(limits, entry->hash);

	if (bucket)
		take_words_out(bucket, entry->hash, line);
}

/* Remove what is stored in a locked entry, and give its line back. */
static __always_inline void clear_entry(const struct limits *limits, struct usage *usage,
					struct shelf *shelf, struct entry *entry, u32 line)
{
	*(volatile u16 *)&entry->key_length = 0;  /* first: check_link() looks at it */
	unlink_entry(limits, entry, line);
	__sync_fetch_and_add(&shelf->entries, -1);
	__sync_fetch_and_add(&usage->entries, -1);
	unlock_entry(entry);
	put_line(shelf, entry, line);
}

/*
 * Remove an entry, if it is what it was at this number. A free line is never locked: who takes it has
 * to find it so.
 */
static __always_inline bool free_entry(const struct limits *limits, struct usage *usage,
				       struct entry *entry, u64 sequence, u32 line)
{
	u32 size = size_at(line);
	struct shelf *shelf = shelves.lookup(&size);

	if (!shelf || !*(volatile u16 *)&entry->key_length || !lock_entry(entry, sequence))
		return false;
	clear_entry(limits, usage, shelf, entry, line);
	return true;
}

/*
 * May this entry make room? Each hit since the last look puts it off by one (the clock algorithm with
 * counters). At the `last` look only the most used may stay.
 */
static __always_inline bool may_go(struct entry *entry, bool last)
{
	u8 used = *(volatile u8 *)&entry->meta.used;

	if (!*(volatile u16 *)&entry->key_length)
		return false;
	if (!used || now() >= *(volatile u64 *)&entry->meta.expires)
		return true;
	*(volatile u8 *)&entry->meta.used = used - 1;
	return last && used < USED_MAX;
}

/*
 * Lock an entry of a size that may make room; its line, or 0. Of a loop with many turns the verifier forgets
 * where it has been, and follows the way from one look to the next again: hence eight looks in a turn.
 */
static __always_inline u32 lock_victim(struct shelf *shelf, u32 size)
{
	u64 lines = lines_of(size), entries = entries_of(size);

	if (!shelf->pages)
		return 0;
#pragma unroll 8
	for (u64 n = 0; n < LOOKS; n++) {
		u64 hand = *(volatile u64 *)&shelf->hand, at = 1 + (u32)hand * lines, sequence;
		struct arena_page *page = page_at(hand >> 32);
		struct entry *entry;

		if (!page || at > PAGE_LAST)
			break;
		entry = (struct entry *)(page->bytes + at * LINE);
		sequence = sequence_of(entry);  /* the exchange is a fence */
		if (__sync_val_compare_and_swap(&shelf->hand, hand,
						hand_behind(shelf, page, hand, entries)) == hand &&
		    may_go(entry, n == LOOKS - 1) && lock_entry(entry, sequence))
			return (hand >> 32) * PAGE_LINES + at;
	}
	return 0;
}

/* Remember a new entry, by its line and what its sequence number ends with. */
static __always_inline void note_new(const struct limits *limits, struct usage *usage,
				     u64 sequence, u32 line)
{
	u32 at = __sync_fetch_and_add(&usage->newest, 1) & (limits->recents - 1);
	u64 *word = recents.lookup(&at);

	if (word)
		*(volatile u64 *)word = sequence << 32 | line;
}

/* The next of the new entries that may make room, so many of them that they do; its word, or 0. */
static __always_inline u64 next_new(const struct limits *limits, struct usage *usage)
{
	u64 oldest = *(volatile u64 *)&usage->oldest, count, *word;
	u32 at = oldest & (limits->recents - 1);

	count = *(volatile u64 *)&usage->newest - oldest;
	if (count < limits->recents - limits->recents / 8)
		return 0;
	word = recents.lookup(&at);
	/* Those that newer ones have overwritten are new no more. */
	if (!word || __sync_val_compare_and_swap(&usage->oldest, oldest,
						 oldest + (count > limits->recents
								   ? count - limits->recents
								   : 1)) != oldest)
		return 0;
	return *(volatile u64 *)word;
}

/*
 * Lock the oldest of the new entries that was never hit; its line, or 0. One that was hit, or filled
 * again, is new no more (S3-FIFO: Yang and others, 2023).
 */
static __always_inline u32 lock_new(const struct limits *limits, struct usage *usage)
{
	for (u32 n = 0; n < LOOKS_NEW; n++) {
		u64 word = next_new(limits, usage), sequence;
		struct entry *entry = word ? entry_at(word) : NULL;

		counted(n);
		if (!entry)
			break;
		sequence = sequence_of(entry);
		fence();
		if ((u32)sequence == word >> 32 && !*(volatile u8 *)&entry->meta.used &&
		    lock_entry(entry, sequence))
			return word;
	}
	return 0;
}

/* A size that has entries, by chance: as likely as it has many. */
static __always_inline u32 any_size(const struct usage *usage)
{
	u64 left = bpf_get_prandom_u32() % (*(volatile u64 *)&usage->entries | 1);
	u32 any = SIZES;

	for (u32 n = 0; n < SIZES; n++) {
		u32 size = n;
		struct shelf *shelf = shelves.lookup(&size);
		u64 entries = shelf ? *(volatile u64 *)&shelf->entries : 0;

		counted(n);
		if (entries)
			any = forgotten(n, now());
		if (left < entries)
			break;
		left -= entries;
	}
	return any;
}

/* May there be a line of a size where nothing is stored? */
static __always_inline bool has_line(const struct limits *limits, const struct usage *usage,
				     const struct shelf *shelf, u32 size)
{
	u64 fresh = *(volatile u64 *)&shelf->fresh;

	return (u32)*(volatile u64 *)&shelf->free ||
	       (fresh && (u32)fresh < entries_of(size)) || has_page(limits, usage, shelf);
}

/*
 * Have an entry make room: where the store is full, of those that are new, or of a size by chance, as
 * likely as it has many; else of this size.
 */
static __always_inline void make_room(const struct limits *limits, struct usage *usage, u32 size,
				      bool full)
{
	for (u32 n = full ? 0 : 2; n < 3; n++) {
		u32 from = n == 1 ? any_size(usage) : size, line;
		struct shelf *shelf;
		struct entry *entry;

		counted(n);
		if (n) {
			shelf = shelves.lookup(&from);
			line = shelf ? lock_victim(shelf, from) : 0;
		} else {
			line = lock_new(limits, usage);
			from = size_at(line);
			shelf = shelves.lookup(&from);
		}
		entry = line ? entry_at(line) : NULL;
		if (entry && shelf) {
			clear_entry(limits, usage, shelf, entry, line);
			break;
		}
	}
}

/* A line for one more entry, which is counted; 0 with `why` if there is none. */
static __always_inline u32 take_line(const struct limits *limits, struct usage *usage, u32 size,
				     enum stored *why)
{
	u32 full = forgotten(__sync_fetch_and_add(&usage->entries, 1) >= limits->capacity, now());
	struct shelf *shelf = shelves.lookup(&size);
	u32 line;

	if (shelf && limits->evicts &&
	    (full || (!limits->grows && !has_line(limits, usage, shelf, size))))
		make_room(limits, usage, size, full);
	full = full && *(volatile u64 *)&usage->entries > limits->capacity;
	*why = full ? STORED_FULL : STORED_NO_PAGE;
	if (shelf && !full) {
		line = reuse_line(shelf);
		if (!line)
			line = fresh_line(limits, usage, shelf, size);
		if (line)
			return line;
	}
	__sync_fetch_and_add(&usage->entries, -1);
	return 0;
}

/* Write a locked entry. (The copies are between maps: they do not fail.) */
static __always_inline void write_entry(struct entry *entry, const struct draft *draft, u64 hash)
{
	u32 room = key_room(draft->key.length), stored = (draft->meta.stored + 7) & ~7u;

	entry->hash = hash;
	entry->service = draft->key.service;
	entry->key_length = draft->key.length;
	entry->meta = draft->meta;
	if (room)
		copy_kernel(entry->data, bounded(room, 512), draft->key.bytes);
	if (stored && stored <= REPLY_MAX)
		copy_kernel(entry->data + room, bounded(stored, REPLY_ROOM), draft->bytes);
}

/* Remove a word of the bucket, and its entry; but not one that is being written. */
static __always_inline void remove_word(const struct placing *placing, u64 word)
{
	struct entry *entry = entry_at(line_in(word));
	u64 sequence = entry ? sequence_of(entry) : 0;

	fence();
	if (entry && *(volatile u16 *)&entry->key_length && of_hash(word, entry->hash) &&
	    bucket_of(placing->limits, entry->hash) == placing->bucket)
		free_entry(placing->limits, placing->usage, entry, sequence, line_in(word));
	else
		swap_word(placing->bucket, word, 0);
}

/*
 * Put an entry's word into the directory. Returns the word that has to go, with its entry, or 0: its own
 * where its bucket has no way for it; one of the same hash, of another key or of the same key's entry that
 * another CPU has stored meanwhile.
 */
static __always_inline u64 link_entry(struct placing *placing, u64 word)
{
	u64 other = placing->word;

	if (swap_word(placing->bucket, 0, word))
		return other_word(placing->bucket, placing->hash, word);
	if (!other && placing->limits->evicts)
		other = *(volatile u64 *)&placing->bucket->ways[first_way(placing->hash)];
	return other && swap_word(placing->bucket, other, word) ? other : word;
}

/*
 * Take an entry's word out of the directory again where it leads nowhere: the entry may have made room
 * before its word came.
 */
static __always_inline void check_link(const struct placing *placing, const struct entry *entry,
				       u64 sequence, u64 word)
{
	if (sequence_of(entry) == sequence)
		return;
	if (!*(volatile u16 *)&entry->key_length ||
	    *(volatile u64 *)&entry->hash != placing->hash)
		swap_word(placing->bucket, word, 0);
}

/* Store it in an entry of its own, new in the directory. */
static __always_inline enum stored store_new(struct draft *draft, struct placing *placing)
{
	struct shelf *shelf = shelves.lookup(&placing->size);
	enum stored why;
	u32 line = take_line(placing->limits, placing->usage, placing->size, &why);
	struct entry *entry = entry_at(line);
	u64 sequence, word, gone;

	if (!line)
		return why;
	if (!shelf || !entry)
		return STORED_FULL;
	sequence = sequence_of(entry);
	if (!lock_entry(entry, sequence)) {
		put_line(shelf, entry, line);
		__sync_fetch_and_add(&placing->usage->entries, -1);
		return STORED_FULL;
	}
	write_entry(entry, draft, placing->hash);
	__sync_fetch_and_add(&shelf->entries, 1);
	unlock_entry(entry);
	sequence += 2;
	word = word_of(placing->hash, draft->meta.slot, line);
	gone = link_entry(placing, word);
	if (gone)
		remove_word(placing, gone);
	if (gone == word)
		return STORED_FULL;
	if (!placing->before)
		note_new(placing->limits, placing->usage, sequence, line);
	check_link(placing, entry, sequence, word);
	return STORED;
}

/*
 * Store a draft, all of which is there, by what is known of its key. An entry of another size makes room
 * for it: a key has its place also where the store is full.
 */
static __always_inline enum stored store(struct draft *draft, struct placing *placing)
{
	struct entry *own = placing->entry;

	if (SAID(shadow) && own)
		hand_pair(own, placing->sequence, draft);
	if (own && size_at(line_in(placing->word)) == placing->size) {
		if (!lock_entry(own, placing->sequence))
			return STORED_FULL;
		write_entry(own, draft, placing->hash);
		unlock_entry(own);
		return STORED;
	}
	if (own)
		free_entry(placing->limits, placing->usage, own, placing->sequence,
			   line_in(placing->word));
	return store_new(draft, placing);
}

/* May it be stored? */
static __always_inline bool admitted(struct placing *placing)
{
	return admit(placing->limits, placing->usage, placing->hash, placing->entry,
		     &placing->before);
}

#endif
