/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contract of protocol.h, asked by a protocol's number. loaded.h is not a file: the loader writes it
 * from the SPECs of the protocols that are loaded (protocols/loaded.py). It has their numbers and sizes
 * and the lists that the switches here go through.
 */
#ifndef CAROM_PROTOCOLS_H
#define CAROM_PROTOCOLS_H

#include "none.h"
#include "protocol.h"
#include "loaded.h"

#define RETURN_FUNCTION(NAME, name, function, ...) case NAME: return name##_##function(__VA_ARGS__);
#define RETURN_NUMBER(NAME, name, NUMBER) case NAME: return NAME##_##NUMBER;

/* By those protocols that have the function. */
#define CHOOSE(function, ...)                                                                      \
	switch (protocol) {                                                                        \
		HAVE_##function(RETURN_FUNCTION, function, __VA_ARGS__)                            \
	default:                                                                                   \
		return none_##function(__VA_ARGS__);                                               \
	}

/* Is it one of those that are so? */
#define IS_AMONG(CASES)                                                                            \
	switch (protocol) {                                                                        \
		CASES return true;                                                                 \
	default:                                                                                   \
		return false;                                                                      \
	}

/* A number of its SPEC's, or 0. */
#define CHOOSE_NUMBER(NUMBER)                                                                      \
	switch (protocol) {                                                                        \
		HAVE_##NUMBER(RETURN_NUMBER, NUMBER)                                               \
	default:                                                                                   \
		return 0;                                                                          \
	}

/* Of learned protocols alone: the last of them is not asked for, for it is the only one left. */
#define CHOOSE_LEARNED(NUMBER)                                                                     \
	switch (protocol) {                                                                        \
		LEARNED_BUT_LAST(RETURN_NUMBER, NUMBER)                                            \
	default:                                                                                   \
		return LAST_LEARNED(NUMBER);                                                       \
	}

/* The same of those whose commands come by TCP as well. */
#define CHOOSE_STREAM(function, ...)                                                               \
	switch (protocol) {                                                                        \
		STREAMS_BUT_LAST(RETURN_FUNCTION, function, __VA_ARGS__)                           \
	default:                                                                                   \
		return LAST_STREAM(function)(__VA_ARGS__);                                         \
	}

/* And of those whose clients send cookies. */
#define CHOOSE_COOKIE(function, ...)                                                               \
	switch (protocol) {                                                                        \
		COOKIES_BUT_LAST(RETURN_FUNCTION, function, __VA_ARGS__)                           \
	default:                                                                                   \
		return LAST_COOKIE(function)(__VA_ARGS__);                                         \
	}

/* The longest payload that may be a request to answer. */
static __always_inline u32 request_max(u32 protocol)
{
	CHOOSE_NUMBER(REQUEST_MAX)
}

/* Is the whole payload a request's key? Then there is nothing to understand in it. */
static __always_inline bool is_whole_key(u32 protocol)
{
	IS_AMONG(WHOLE_KEYS)
}

/* Where in a key the bytes begin that its slot is computed from, and where they end. */
static __always_inline u32 slot_from(u32 protocol, const struct key *key)
{
	switch (protocol) {
		HAVE_SLOT_FROM(RETURN_NUMBER, SLOT_FROM)
		HAVE_slot_start(RETURN_FUNCTION, slot_start, key)
	default:
		return none_slot_start(key);
	}
}

static __always_inline u32 slot_end(u32 protocol, const struct key *key)
{
	CHOOSE(slot_end, key)
}

/* Where in a request the 16 bits are that it keeps when it is sent again. */
static __always_inline u32 repeat_at(u32 protocol)
{
	CHOOSE_LEARNED(REPEAT_AT)
}

/* Do replies not name their key? Then it is remembered from the request (cgroup/nameless.h). */
static __always_inline bool is_nameless(u32 protocol)
{
	IS_AMONG(NAMELESS)
}

/* Where in a payload its request's id is, and how many bytes of it. */
static __always_inline u32 id_at(u32 protocol)
{
	CHOOSE_LEARNED(ID_AT)
}

static __always_inline u32 id_size(u32 protocol)
{
	CHOOSE_LEARNED(ID_SIZE)
}

/* Does the lower half of a payload's first byte say how many bytes of it are the id's? */
static __always_inline bool id_size_varies(u32 protocol)
{
	CHOOSE_LEARNED(ID_SIZE_VARIES)
}

static __always_inline u32 shorter_id(u8 first, u32 size)
{
	return (first & 15) < size ? first & 15 : size;
}

/* The id in a payload, which has zeros behind its end; `id_word` takes the longest that there is. */
static __always_inline id_word id_in(u32 protocol, const u8 *payload)
{
	id_word id = *(const id_word *)(payload + id_at(protocol));
	u32 size = id_size(protocol);

	if (id_size_varies(protocol))
		size = shorter_id(payload[0], size);
	if (size >= sizeof(id))
		return id;
	return size ? id & ~0ull >> (64 - 8 * size) : 0;
}

static __always_inline enum intent understand(u32 protocol, const u8 *text, u32 length,
					      struct key *key)
{
	CHOOSE(request, text, length, key)
}

static __always_inline bool adapt(u32 protocol, u8 *reply, u32 length, u32 stored, const u8 *text,
				  u32 text_length, u32 age, u64 *sum)
{
	CHOOSE(answer, reply, length, stored, text, text_length, age, sum)
}

/* The length of a reply that says nothing but "ask over TCP", made from the one stored; or 0. */
static __always_inline u32 truncated(u32 protocol, u8 *reply, const u8 *text,
				     const struct key *key, u32 length)
{
	CHOOSE(truncated, reply, text, key, length)
}

/* The cookie in a read: its option, or NULL. */
static __always_inline const u8 *cookie_of(u32 protocol, const u8 *text, const struct key *key)
{
	CHOOSE(cookie, text, key)
}

/* Has a cookie nothing of the server's? This and the next are for those that cookie_of() has found. */
static __always_inline bool cookie_is_bare(u32 protocol, const u8 *option)
{
	CHOOSE_COOKIE(cookie_is_bare, option)
}

/* Has it as much of the server's as can be judged? */
static __always_inline bool cookie_is_whole(u32 protocol, const u8 *option)
{
	CHOOSE_COOKIE(cookie_is_whole, option)
}

static __always_inline bool cookie_is_right(u32 protocol, const u8 *option,
					    const struct address *client,
					    const struct cookies *known, u32 seconds)
{
	CHOOSE_COOKIE(cookie_is_right, option, client, known, seconds)
}

/* Of a protocol with cookies, a reply's last COOKIE_TAIL bytes: how far from the end one begins; or 0. */
static __always_inline u32 cookie_from_end(u32 protocol, const u8 *tail)
{
	CHOOSE_COOKIE(cookie_from_end, tail)
}

/* Was a reply's cookie, of COOKIE_WHOLE bytes, made for this client by a secret that is known? */
static __always_inline bool cookie_is_ours(u32 protocol, const u8 *cookie,
					   const struct address *client,
					   const struct cookies *known)
{
	CHOOSE_COOKIE(cookie_right, cookie, client, known)
}

/* And by its first MESSAGE_HEADER bytes: may that be one? */
static __always_inline bool may_have_cookie(u32 protocol, const u8 *front)
{
	CHOOSE_COOKIE(may_have_cookie, front)
}

static __always_inline bool return_cookie(u32 protocol, u8 *reply, u32 *length, const u8 *text,
					  const struct key *key, u64 *sum)
{
	CHOOSE(return_cookie, reply, length, text, key, sum)
}

/* Do servers give cookies? */
static __always_inline bool gives_cookies(u32 protocol)
{
	IS_AMONG(GIVE_COOKIES)
}

/* What of a request its reply may not tell, so that it has to be remembered. */
static __always_inline u32 asked_besides(u32 protocol, enum intent intent, const struct key *key)
{
	CHOOSE(asked, intent, key)
}

static __always_inline bool learn(u32 protocol, u8 *reply, u32 *length, struct key *key,
				  u32 *stored, u32 *ttl, u32 asked)
{
	CHOOSE(learn, reply, length, key, stored, ttl, asked)
}

/* How was the request of a learned reply spelled? False where a key has one spelling. */
static __always_inline bool spelled_how(u32 protocol, const u8 *reply, u32 length,
					struct spelled *spelled)
{
	CHOOSE(spelled, reply, length, spelled)
}

/* A learned reply may be given to any spelling of its request. */
static __always_inline void give_any(u32 protocol, u8 *reply, u32 length)
{
	CHOOSE(give_any, reply, length)
}

/* May a request get a reply that can be learned? */
static __always_inline bool may_be_learned(u32 protocol, const u8 *text, enum intent intent)
{
	CHOOSE(may_be_learned, text, intent)
}

/* Or more than one, so that none is counted? */
static __always_inline bool answers_more(u32 protocol, enum intent intent)
{
	CHOOSE(answers_more, intent)
}

/* Does a reply alone say what was written? Then nothing is void before it leaves. */
static __always_inline bool says_what_it_wrote(u32 protocol)
{
	IS_AMONG(REPLIES_TELL)
}

/* What a reply over TCP says, by its header; `length` is the whole message's. */
static __always_inline enum answer message_answer(u32 protocol, const u8 *header, u32 length)
{
	CHOOSE(message_answer, header, length)
}

static __always_inline enum answer what_answer(u32 protocol, const u8 *reply, u32 length)
{
	CHOOSE(what_answer, reply, length)
}

/* Was something stored as it was to be, by the first datagram of a reply? */
static __always_inline bool says_stored(u32 protocol, const u8 *reply)
{
	CHOOSE(says_stored, reply)
}

/* Do commands come over TCP too, one behind the other? What is below is for such protocols alone. */
static __always_inline bool writes_by_stream(u32 protocol)
{
	IS_AMONG(WITH_STREAM)
}

/* Is nothing known of what comes over TCP? Then any of it may write anything. */
static __always_inline bool has_no_stream(u32 protocol)
{
	IS_AMONG(WITHOUT_STREAM)
}

/* Bytes of a datagram before its commands. */
static __always_inline u32 datagram_front(u32 protocol)
{
	CHOOSE_STREAM(stream_front)
}

/* Can the commands of a datagram be read one by one at all? */
static __always_inline bool is_readable(u32 protocol, const u8 *text)
{
	CHOOSE_STREAM(stream_is_readable, text)
}

/* How many of a stream's bytes are in the text already, behind datagram_front(). */
static __always_inline u32 stream_held(u32 protocol, const struct stream *stream, u8 *text)
{
	CHOOSE_STREAM(stream_held, stream, text)
}

static __always_inline u32 stream_read(u32 protocol, struct stream *stream, const u8 *text,
				       u32 length, struct key *key, enum intent *intent)
{
	CHOOSE_STREAM(stream_read, stream, text, length, key, intent)
}

/* How long is the read that stands behind datagram_front() bytes of a text, if it is sure to be one? */
static __always_inline u32 stream_ahead(u32 protocol, const struct stream *stream, const u8 *text,
					u32 length)
{
	CHOOSE_STREAM(stream_ahead, stream, text, length)
}

static __always_inline bool stream_agrees(u32 protocol, struct stream *stream, u8 first)
{
	CHOOSE_STREAM(stream_agrees, stream, first)
}

static __always_inline u32 stream_replies(u32 protocol, const struct stream *stream, u64 word)
{
	CHOOSE_STREAM(stream_replies, stream, word)
}

/* The next eight bytes of a row of lines that refuse something, behind those in `row`; or the first. */
static __always_inline u64 stream_row(u32 protocol, u64 row)
{
	CHOOSE_STREAM(stream_row, row)
}

/* Is a server's payload nothing but so many lines that refuse something? `row` for that of above. */
static __always_inline bool stream_refuses(u32 protocol, const struct stream *stream, u64 word,
					   u32 length, u32 replies, bool row)
{
	CHOOSE_STREAM(stream_refuses, stream, word, length, replies, row)
}

/* By a payload's first 16 and last eight bytes, and its replies: is it the whole reply to one command? */
static __always_inline bool stream_is_whole(u32 protocol, const struct stream *stream, u64 first,
					    u64 second, u64 last, u32 length, u32 replies)
{
	CHOOSE_STREAM(stream_is_whole, stream, first, second, last, length, replies)
}

/* Begins a payload as the refusal of a line for what it is? Its data may be taken for commands then. */
static __always_inline bool stream_refuses_line(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_refuses_line, stream, first)
}

/* Begins a payload as the acknowledgement of a store? */
static __always_inline bool stream_says_stored(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_says_stored, stream, first)
}

/* May a payload be the reply to a write that asked for none? */
static __always_inline bool stream_is_of_quiet(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_is_of_quiet, stream, first)
}

/* Is it one value, whole? Its front is to be loaded to datagram_front() bytes behind `reply`. */
static __always_inline bool stream_is_value(u32 protocol, u8 *reply, u64 last, u32 length,
					    struct key *key)
{
	CHOOSE_STREAM(stream_is_value, reply, last, length, key)
}

/* Do both sides speak a language that cannot be taken for another? */
static __always_inline bool stream_in_binary(u32 protocol, const struct stream *stream)
{
	CHOOSE_STREAM(stream_in_binary, stream)
}

/* Does a client's segment, by its first eight bytes, begin as a command? */
static __always_inline bool stream_may_begin(u32 protocol, u64 word)
{
	CHOOSE_STREAM(stream_may_begin, word)
}

/* Does a payload, by its first eight bytes, begin with the reply to a read? */
static __always_inline bool stream_reads(u32 protocol, const struct stream *stream, u64 word)
{
	CHOOSE_STREAM(stream_reads, stream, word)
}

/* Does a payload, by its first eight bytes, begin with the acknowledgement of a write? */
static __always_inline bool stream_writes(u32 protocol, const struct stream *stream, u64 word)
{
	CHOOSE_STREAM(stream_writes, stream, word)
}

#endif
