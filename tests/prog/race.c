/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A server, a learner and their clients as BPF programs, so that two CPUs can race at full speed
 * through the fast path's own look_up(): a state that is written, voided and acknowledged, replies
 * made from it and filled, and readers that know what was acknowledged before they asked. Two may void at once, too.
 *
 * Each of the orders that the argument rests on can be broken, one a build: see test_race.py.
 */

/* As long as some look-ups take, so that the other CPU gets in between. */
static __always_inline void linger(void)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 16; i++)
		bpf_get_prandom_u32();
}

#include "fastpath.h"
#include "hand.c"
#include "tally.h"

#ifndef WRITE_EVERY
#define WRITE_EVERY 16  /* one round in so many writes a key */
#endif
#define FLUSH_EVERY 64  /* one write in so many changes all keys and flushes */

#ifndef KEYS
#define KEYS 12         /* two lengths of keys, three of replies, twice */
#endif
#ifndef REPLY_KIND
#define REPLY_KIND(k) ((k) / 2 % 3)
#endif
#define PREPARED 4      /* fills made beforehand: keys 0 and 2, then 1 and 3 */
#define SERVICE 0
#define FIRST_SLOT 100
#define NEVER_WRITTEN 99
#define SHORT_LENGTH 8
#define LONG_LENGTH 100
#define MULTIPLIER 0x9e3779b97f4a7c15ull

BPF_ARRAY(states, u64, KEYS);        /* what the server would answer now */
BPF_ARRAY(acknowledged, u64, KEYS);  /* what the last acknowledged write left there */
BPF_PERCPU_ARRAY(fills, u64, 1);
BPF_PERCPU_ARRAY(own_drafts, struct draft, 1);
BPF_ARRAY(prepared, struct draft, PREPARED);

static __always_inline u32 any_key(void)
{
	return bpf_get_prandom_u32() % KEYS;
}

/* Two keys share a slot. */
static __always_inline u32 key_cell(u32 k)
{
	return FIRST_SLOT + k / 2;
}

static __always_inline void make_key(struct key *key, u32 k)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->service = SERVICE;
	key->length = k % 2 ? LONG_LENGTH : SHORT_LENGTH;
	key->bytes[0] = k + 1;
	key->bytes[SHORT_LENGTH - 1] = 1;
	if (k % 2)
		key->bytes[LONG_LENGTH - 1] = k + 1;
}

/* Bytes of a reply, of entries of three sizes. */
static __always_inline u32 reply_length(u32 k)
{
	switch (REPLY_KIND(k)) {
	case 0:
		return 64;
	case 1:
		return 512;
	default:
		return REPLY_MAX;
	}
}

/* The words of a reply: its value, its key, and then what only its own fill can have put there. */
static __always_inline u64 nth_word(u32 i, u64 value, u32 k, u64 stamp)
{
	if (i == 0)
		return value;
	if (i == 1)
		return k;
	return (stamp + i) * MULTIPLIER;
}

/* The part of the server */

static __always_inline void change(u32 k)
{
	u64 *state = states.lookup(&k);

	if (state)
		__sync_fetch_and_add(state, 1);
}

/* One CPU writes, so that the state is what its last write left. */
static __always_inline void acknowledge(u32 k)
{
	u64 *state = states.lookup(&k), *floor = acknowledged.lookup(&k);

	if (state && floor)
		*(volatile u64 *)floor = *(volatile u64 *)state;
}

#ifdef DECIDE_AT_FILL
/* Where nobody compares at the read, a write has to remove what is there. */
static __always_inline void remove_entry(u32 k)
{
	u32 only = 0;
	struct draft *draft = own_drafts.lookup(&only);
	struct placing placing = {};

	if (!draft)
		return;
	make_key(&draft->key, k);
	draft->meta.stored = 0;
	if (begin_placing(draft, &placing) && placing.entry)
		free_entry(placing.limits, placing.usage, placing.entry, placing.sequence,
			   placing.word);
}
#endif

static __always_inline void write_one(u32 k)
{
#if defined(DECIDE_AT_FILL)
	change(k);
	void_now(key_cell(k));
	remove_entry(k);
	acknowledge(k);
#elif defined(VOID_BEFORE_CHANGE)
	void_now(key_cell(k));
	linger();
	change(k);
	acknowledge(k);
#elif defined(ACKNOWLEDGE_BEFORE_VOID)
	change(k);
	acknowledge(k);
	linger();
	void_now(key_cell(k));
#elif defined(NEVER_VOID)
	change(k);
	acknowledge(k);
#else
	change(k);
	linger();
	void_now(key_cell(k));
	acknowledge(k);
#endif
	note(WRITES);
}

static __always_inline void write_all(void)
{
	for (u32 k = 0; k < KEYS; k++)
		change(k);
	void_now(SLOTS + SERVICE);
	for (u32 k = 0; k < KEYS; k++)
		acknowledge(k);
	note(FLUSHES);
}

/* The part of the learner */

/* What is the same in all fills of a key. */
static __always_inline void make_draft(struct draft *draft, u32 k)
{
	__builtin_memset(&draft->meta, 0, sizeof(draft->meta));
	make_key(&draft->key, k);
	draft->meta.expires = ~0ull;
	draft->meta.slot = key_cell(k);
	draft->meta.length = reply_length(k);
	draft->meta.stored = reply_length(k);
}

/* What is this fill's own: every part of an entry has something of it. */
static __always_inline void stamp_draft(struct draft *draft, u32 k, u64 value, u64 stamp)
{
	u64 *words = (u64 *)draft->bytes;

	draft->meta.filled = stamp;
	draft->meta.sum = stamp;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < REPLY_MAX / sizeof(u64); i++) {
		if (i >= reply_length(k) / sizeof(u64))
			break;
		words[i] = nth_word(i, value, k, stamp);
	}
}

static __always_inline void store_draft(struct draft *draft)
{
	struct placing placing = {};
	bool stored = begin_placing(draft, &placing) && store(draft, &placing) == STORED;

	note(stored ? FILLS : DENIED);
}

/* Unique to a fill. */
static __always_inline u64 next_stamp(void)
{
	u32 only = 0;
	u64 *count = fills.lookup(&only);

	if (!count)
		return 0;
	*count += 1;
	return *count << 8 | (bpf_get_smp_processor_id() + 1);
}

static __always_inline void fill_key(u32 k)
{
	u32 only = 0;
	u64 *state = states.lookup(&k);
	struct draft *draft = own_drafts.lookup(&only);
	u64 token, value;

	if (!state || !draft)
		return;
#ifdef TOKEN_AFTER_STATE
	value = *(volatile u64 *)state;
	linger();
	token = take_token();
#else
	token = take_token();
	value = *(volatile u64 *)state;
#endif
	make_draft(draft, k);
	stamp_draft(draft, k, value, next_stamp());
	draft->meta.token = token;
#ifdef DECIDE_AT_FILL
	/* The reader compares with a cell that nothing changes, as if it did not compare. */
	draft->meta.slot = NEVER_WRITTEN;
	draft->meta.token = take_token();
	if (token < version(key_cell(k)) || token < version(SLOTS + SERVICE)) {
		note(DENIED);
		return;
	}
#endif
	store_draft(draft);
}

/* The part of the client */

static __always_inline bool whole(const struct scratch *scratch, u32 k)
{
	const u64 *words = (const u64 *)scratch->reply;
	const struct meta *meta = &scratch->meta;
	u32 length = reply_length(k);

	if (meta->length != length || meta->sum != (u16)meta->filled)
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 1; i < REPLY_MAX / sizeof(u64); i++) {
		if (i >= length / sizeof(u64))
			break;
		if (words[i] != nth_word(i, 0, k, meta->filled))
			return false;
	}
	return true;
}

/* What was acknowledged is read before the look-up, as a client knows it before it asks. */
static __always_inline void ask(u32 k)
{
	u32 only = 0;
	u64 *cell = acknowledged.lookup(&k);
	struct scratch *scratch = scratches.lookup(&only);
	const struct service service = { .id = SERVICE };
	u64 floor;

	if (!cell || !scratch)
		return;
	floor = *(volatile u64 *)cell;
	make_key(&scratch->key, k);
	switch (look_up(&service, scratch, 0)) {
	case HIT:
		note(HITS);
		if (!whole(scratch, k))
			note(TORN);
		else if (*(u64 *)scratch->reply < floor)
			note(STALE);
		break;
	case MISS:
		note(ABSENT);
		break;
	case MISS_VOID:
		note(VOID);
		break;
	case MISS_TORN:
		note(REPLACED);
		break;
	default:
		note(OTHER);
	}
}

/*
 * Two CPUs void the same cells. What was made with a token from before a void is void behind it, and
 * whoever counts from then on has counted it.
 */
int void_and_compare(struct xdp_md *context)
{
	u32 cell = FIRST_SLOT + bpf_get_prandom_u32() % 2;
	u64 token = take_token();

	void_now(cell);
	note(WRITES);
	if (token >= version(cell))
		note(STALE);
	if (token >= take_token())
		note(OTHER);
	return XDP_PASS;
}

int write_and_ask(struct xdp_md *context)
{
	if (bpf_get_prandom_u32() % WRITE_EVERY == 0) {
		if (bpf_get_prandom_u32() % FLUSH_EVERY == 0)
			write_all();
		else
			write_one(any_key());
	}
	ask(any_key());
	return XDP_PASS;
}

int fill_and_ask(struct xdp_md *context)
{
	fill_key(any_key());
	ask(any_key());
	return XDP_PASS;
}

/* A reply of any length, whatever the key had before: its entry moves. */
int fill_any_length(struct xdp_md *context)
{
	u32 only = 0, length = bpf_get_prandom_u32() % REPLY_MAX;
	struct draft *draft = own_drafts.lookup(&only);

	if (!draft)
		return XDP_ABORTED;
	make_draft(draft, any_key());
	draft->meta.token = take_token();
	draft->meta.length = length;
	draft->meta.stored = length;
	store_draft(draft);
	return XDP_PASS;
}

/* Fills as fast as the store takes them, of entries that are read at the same time. */

static __always_inline u32 prepared_key(u32 i)
{
	return i % 2 * 2 + i / 2;
}

int prepare(struct xdp_md *context)
{
	for (u32 i = 0; i < PREPARED; i++) {
		u32 index = i;
		struct draft *draft = prepared.lookup(&index);

		if (!draft)
			return XDP_ABORTED;
		make_draft(draft, prepared_key(i));
		draft->meta.token = take_token();
	}
	return XDP_PASS;
}

int refill(struct xdp_md *context)
{
	for (u32 i = 0; i < PREPARED; i++) {
		u32 index = i;
		struct draft *draft = prepared.lookup(&index);

		if (!draft)
			return XDP_ABORTED;
		stamp_draft(draft, prepared_key(i), i, next_stamp());
		store_draft(draft);
	}
	return XDP_PASS;
}

int only_ask(struct xdp_md *context)
{
	ask(bpf_get_prandom_u32() % 4);
	return XDP_PASS;
}
