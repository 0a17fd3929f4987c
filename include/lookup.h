/* SPDX-License-Identifier: GPL-2.0-only */
/* An entry found by its key and copied out, if its token still holds (docs/consistency.md). */
#ifndef CAROM_LOOKUP_H
#define CAROM_LOOKUP_H

#include "abi.h"
#include "copy.h"
#include "maps.h"
#include "token.h"

/*
 * Copy the reply of the entry in scratch->meta to scratch->reply, with zeros up to whole eight
 * bytes. Each class has a map of its own. False when the reply is not there, or is not this
 * entry's.
 */
static __always_inline bool copy_reply(struct scratch *scratch, u8 *inline_reply)
{
	u32 size = (scratch->meta.stored + 7) & ~7u;
	struct medium_reply *medium;
	struct long_reply *longer;
	u64 head, tail, again;

	if (scratch->meta.length > scratch->meta.stored)
		return false;
	if (size <= REPLY_SHORT) {
		__builtin_memcpy(scratch->reply, inline_reply, REPLY_SHORT);
		return true;
	}
	if (size <= REPLY_MEDIUM) {
		medium = medium_replies.lookup(&scratch->meta.body);
		if (!medium)
			return false;
		tail = *(volatile u64 *)&medium->tail;
		if (copy_kernel(&scratch->reply_head,
				sizeof(u64) + bounded(size, REPLY_MEDIUM), medium) ||
		    medium_replies.lookup(&scratch->meta.body) != medium)
			return false;
		head = *(volatile u64 *)&medium->head;
		again = *(volatile u64 *)&medium->tail;
	} else if (size <= REPLY_MAX) {
		longer = long_replies.lookup(&scratch->meta.body);
		if (!longer)
			return false;
		tail = *(volatile u64 *)&longer->tail;
		if (copy_kernel(&scratch->reply_head,
				sizeof(u64) + bounded(size, REPLY_ROOM), longer) ||
		    long_replies.lookup(&scratch->meta.body) != longer)
			return false;
		head = *(volatile u64 *)&longer->head;
		again = *(volatile u64 *)&longer->tail;
	} else {
		return false;
	}
	return head == tail && again == tail && scratch->reply_head == tail &&
	       tail == scratch->meta.head;
}

/* Both keys are zero behind their length. */
static __always_inline bool same_key(const struct key *a, const struct key *b, u32 room)
{
	const u64 *left = (const u64 *)a, *right = (const u64 *)b;

	for (u32 i = 0; i < room / sizeof(u64); i++) {
		if (left[i] != right[i])
			return false;
		if ((i + 1) * sizeof(u64) >= offsetof(struct key, bytes) + b->length)
			break;
	}
	return true;
}

/*
 * Copy the entry of scratch->key and judge the copy. Nothing is decided on the map's own memory: an
 * element can be reused while it is read. A second look-up finds that out, for the stores of one
 * map update become visible in any order, and the stamps at both ends perhaps last.
 */
static __always_inline enum verdict copy_short(struct scratch *scratch)
{
	struct short_entry *copy = &scratch->short_entry;
	struct short_entry *entry = short_entries.lookup((struct short_key *)&scratch->key);
	u64 tail;

	if (!entry)
		return MISS;
	tail = *(volatile u64 *)&entry->tail;
	if (copy_kernel(copy, sizeof(*copy), entry) ||
	    short_entries.lookup((struct short_key *)&scratch->key) != entry ||
	    *(volatile u64 *)&entry->meta.head != tail || copy->meta.head != tail ||
	    copy->tail != tail ||
	    !same_key((struct key *)&copy->key, &scratch->key, sizeof(copy->key)) ||
	    !copy_reply(scratch, copy->reply))
		return MISS_TORN;
	return HIT;
}

static __always_inline enum verdict copy_long(struct scratch *scratch)
{
	struct long_entry *copy = &scratch->long_entry;
	struct long_entry *entry = long_entries.lookup(&scratch->key);
	u64 tail;

	if (!entry)
		return MISS;
	tail = *(volatile u64 *)&entry->tail;
	if (copy_kernel(copy, sizeof(*copy), entry) ||
	    long_entries.lookup(&scratch->key) != entry ||
	    *(volatile u64 *)&entry->meta.head != tail || copy->meta.head != tail ||
	    copy->tail != tail ||
	    !same_key(&copy->key, &scratch->key, sizeof(copy->key)) ||
	    !copy_reply(scratch, copy->reply))
		return MISS_TORN;
	return HIT;
}

/* The token is judged here, at the read, and nowhere else (docs/consistency.md). */
static __always_inline enum verdict look_up(const struct service *service,
					    struct scratch *scratch)
{
	struct meta *meta = &scratch->meta;
	enum verdict verdict;

	verdict = scratch->key.length <= KEY_SHORT ? copy_short(scratch) : copy_long(scratch);
	if (verdict != HIT)
		return verdict;
	if (meta->token < version(meta->slot) ||
	    meta->token < version(SLOTS + service->id))
		return MISS_VOID;
	if (now() >= meta->expires)
		return MISS_EXPIRED;
	return HIT;
}

#endif
