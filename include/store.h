/* SPDX-License-Identifier: GPL-2.0-only */
/* A fill from inside the kernel: an entry, and its reply in the map of its length class. */
#ifndef CAROM_STORE_H
#define CAROM_STORE_H

#include "abi.h"
#include "bounded.h"
#include "hash.h"
#include "maps.h"
#include "token.h"

/*
 * What a fill is made from. `reply` is laid out as a long_reply. A medium_reply takes the front of
 * it, and its tail is then in the middle.
 */
struct draft {
	struct key key;
	union {
		struct short_entry short_entry;
		struct long_entry long_entry;
		struct meta meta;
	};
	union {
		struct long_reply reply;
		struct medium_reply medium;
		struct {
			u64 head;
			u8 bytes[REPLY_ROOM + sizeof(u64)];
		};
	};
};

/* The one's-complement sum of the reply, which is zero up to a whole word. */
static __always_inline u16 draft_sum(const struct draft *draft, u32 length)
{
	u64 sum = 0;

	for (u32 at = 0; at < REPLY_MAX; at += sizeof(u32)) {
		counted(at);
		if (at >= length || at > REPLY_MAX - sizeof(u32))
			break;
		sum += *(const u32 *)(draft->bytes + at);
	}
	return fold(sum);
}

/*
 * Store the reply under its entry: until then a reader finds no reply with its stamp, and misses.
 */
static __always_inline bool store_reply(struct draft *draft, u32 stored, u64 stamp)
{
	u64 body = draft->meta.body;

	if (stored <= REPLY_SHORT)
		return true;
	draft->head = stamp;
	if (stored <= REPLY_MEDIUM) {
		draft->medium.tail = stamp;
		return !medium_replies.update(&body, &draft->medium);
	}
	draft->reply.tail = stamp;
	return !long_replies.update(&body, &draft->reply);
}

static __always_inline bool store_entry(struct draft *draft, u64 stamp)
{
	if (draft->key.length <= KEY_SHORT) {
		struct short_entry *entry = &draft->short_entry;

		__builtin_memcpy(&entry->key, &draft->key, sizeof(entry->key));
		__builtin_memcpy(entry->reply, draft->bytes, sizeof(entry->reply));
		entry->tail = stamp;
		return !short_entries.update(&entry->key, entry);
	}
	draft->long_entry.key = draft->key;
	__builtin_memcpy(draft->long_entry.reply, draft->bytes, sizeof(draft->long_entry.reply));
	draft->long_entry.tail = stamp;
	return !long_entries.update(&draft->key, &draft->long_entry);
}

/*
 * Store draft->bytes, of which `length` are the reply, under draft->key, with a miss's token and
 * for `ttl` seconds; `slot` is the key's. False when the cache has no room.
 */
static __always_inline bool store(struct draft *draft, u64 token, u32 slot, u32 length, u32 stored,
				  u32 ttl)
{
	u64 stamp = bpf_ktime_get_ns() << 10 | bpf_get_smp_processor_id();
	struct meta *meta = &draft->meta;
	u64 jiffies = now();

	meta->head = stamp;
	meta->expires = jiffies + (u64)ttl * TICKS;
	meta->filled = jiffies;
	meta->token = token;
	meta->body = stored > REPLY_SHORT ? hash_key(&draft->key) : 0;
	meta->slot = slot;
	meta->length = length;
	meta->stored = stored;
	meta->sum = draft_sum(draft, length);
	meta->loops = 0;  /* a learned reply is no request of its protocol */
	/*
	 * Entry first: if there is no room for the reply, the entry alone is a miss, and expires.
	 */
	return store_entry(draft, stamp) && store_reply(draft, stored, stamp);
}

#endif
