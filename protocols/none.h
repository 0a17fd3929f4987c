/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The functions of the contract (protocol.h) for a protocol that lacks something: each says so.
 * They are taken where a protocol's SPEC does not name a function.
 */
#ifndef CAROM_NONE_H
#define CAROM_NONE_H

#include "protocol.h"

static __always_inline enum intent none_request(const u8 *text, u32 length, struct key *key)
{
	return INTENT_OTHER;
}

/* The stored reply is the reply, unchanged. */
static __always_inline bool none_answer(u8 *reply, u32 length, u32 stored, const u8 *text,
					u32 text_length, u32 age, u64 *sum)
{
	return true;
}

static __always_inline u32 none_next_key(const u8 *text, u32 at, struct key *key)
{
	return NO_KEY;
}

static __always_inline u32 none_truncated(u8 *reply, const u8 *text, const struct key *key,
					  u32 length)
{
	return 0;
}

static __always_inline const u8 *none_cookie(const u8 *text, const struct key *key)
{
	return NULL;
}

static __always_inline bool none_cookie_is_bare(const u8 *option)
{
	return false;
}

static __always_inline bool none_cookie_is_whole(const u8 *option)
{
	return false;
}

static __always_inline bool none_cookie_is_right(const u8 *option, const struct address *client,
						 const struct cookies *known, u32 seconds)
{
	return false;
}

static __always_inline bool none_cookie_right(const u8 *cookie, const struct address *client,
					      const struct cookies *known)
{
	return false;
}

/* A reply has no cookie at its end. */
static __always_inline u32 none_cookie_from_end(const u8 *tail)
{
	return 0;
}

static __always_inline bool none_may_have_cookie(const u8 *front)
{
	return false;
}

static __always_inline bool none_return_cookie(u8 *reply, u32 *length, const u8 *text,
					       const struct key *key, u64 *sum)
{
	return false;
}

static __always_inline u32 none_asked(enum intent intent, const struct key *key)
{
	return 0;
}

/*
 * The bytes of a key that name what a write voids begin where the SPEC says, and end with the key.
 */
static __always_inline u32 none_slot_start(const struct key *key)
{
	return 0;
}

static __always_inline u32 none_slot_end(const struct key *key)
{
	return key->length;
}

static __always_inline bool none_learn(u8 *reply, u32 *length, struct key *key, u32 *stored,
				       u32 *ttl, u32 asked)
{
	return false;
}

static __always_inline bool none_spelled(const u8 *reply, u32 length, struct spelled *spelled)
{
	return false;
}

static __always_inline void none_give_any(u8 *reply, u32 length)
{
}

static __always_inline bool none_may_be_learned(const u8 *text, enum intent intent)
{
	return true;
}

static __always_inline bool none_answers_more(enum intent intent)
{
	return intent != INTENT_READ;
}

static __always_inline enum answer none_message_answer(const u8 *header, u32 length)
{
	return ANSWER_READ;
}

static __always_inline enum answer none_what_answer(const u8 *reply, u32 length)
{
	return ANSWER_OTHER;
}

static __always_inline bool none_counts_off(const u8 *reply)
{
	return false;
}

static __always_inline bool none_says_stored(const u8 *reply)
{
	return false;
}

static __always_inline u32 none_stream_front(void)
{
	return 0;
}

static __always_inline bool none_stream_is_readable(const u8 *text)
{
	return false;
}

static __always_inline u32 none_stream_held(const struct stream *stream, u8 *text)
{
	return 0;
}

/* Nobody can read it, so it may write anything. */
static __always_inline u32 none_stream_read(struct stream *stream, const u8 *text, u32 length,
					    struct key *key, enum intent *intent)
{
	stream->lost = 1;
	*intent = INTENT_WRITE_ALL | INTENT_QUIET;
	return length;
}

static __always_inline u32 none_stream_ahead(const struct stream *stream, const u8 *text,
					     u32 length)
{
	return 0;
}

static __always_inline bool none_stream_agrees(struct stream *stream, u8 first)
{
	return false;
}

static __always_inline u32 none_stream_replies(const struct stream *stream, u64 word)
{
	return 0;
}

static __always_inline u64 none_stream_row(u64 row)
{
	return 0;
}

static __always_inline bool none_stream_refuses(const struct stream *stream, u64 word, u32 length,
						u32 replies, bool row)
{
	return false;
}

static __always_inline bool none_stream_is_whole(const struct stream *stream, u64 first,
						 u64 second, u64 last, u32 length, u32 replies)
{
	return false;
}

static __always_inline bool none_stream_refuses_line(const struct stream *stream, u64 first)
{
	return false;
}

static __always_inline bool none_stream_says_stored(const struct stream *stream, u64 first)
{
	return false;
}

static __always_inline bool none_stream_is_of_quiet(const struct stream *stream, u64 first)
{
	return false;
}

static __always_inline bool none_stream_is_value(u8 *reply, u64 last, u32 length, struct key *key)
{
	return false;
}

static __always_inline bool none_stream_in_binary(const struct stream *stream)
{
	return false;
}

static __always_inline bool none_stream_may_begin(u64 word)
{
	return false;
}

static __always_inline bool none_stream_reads(const struct stream *stream, u64 word)
{
	return true;
}

static __always_inline bool none_stream_writes(const struct stream *stream, u64 word)
{
	return false;
}

#endif
