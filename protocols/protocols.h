/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contract of protocol.h, by a protocol's number. loaded.h is no file: the loader writes it
 * from the SPECs of the protocols that are loaded (protocols/loaded.py). It has their numbers and
 * sizes, and the lists that the switches here go through.
 */
#ifndef CAROM_PROTOCOLS_H
#define CAROM_PROTOCOLS_H

#include "none.h"
#include "parameter.h"
#include "protocol.h"
#include "loaded.h"

/* Of the protocols that are compiled, which does the loader want? The verifier removes the others. */
#define WANTED(BITS) (SAID(languages) & (BITS))
#define IS(NAME) (protocol == NAME && WANTED(1ull << NAME))

/* The last one that is wanted of the BITS is not compared: it is the only one left. */
#define IS_OR_LAST(NAME, BITS)                                                                     \
	(WANTED(1ull << NAME) && (protocol == NAME || !WANTED((BITS) & ~1ull << NAME)))

#define RETURN_FUNCTION(NAME, name, function, ...)                                                 \
	if (IS(NAME))                                                                              \
		return name##_##function(__VA_ARGS__);
#define RETURN_NUMBER(NAME, name, NUMBER)                                                          \
	if (IS(NAME))                                                                              \
		return NAME##_##NUMBER;
#define RETURN_LEARNED(NAME, name, NUMBER)                                                         \
	if (IS_OR_LAST(NAME, EVERY_LEARNED))                                                       \
		return NAME##_##NUMBER;
#define RETURN_STREAM(NAME, name, function, ...)                                                   \
	if (IS_OR_LAST(NAME, WITH_STREAM))                                                         \
		return name##_##function(__VA_ARGS__);
#define RETURN_COOKIE(NAME, name, function, ...)                                                   \
	if (IS_OR_LAST(NAME, WITH_COOKIES))                                                        \
		return name##_##function(__VA_ARGS__);

/* Call a function of the contract, of a protocol that has it. */
#define CHOOSE(function, ...)                                                                      \
	HAVE_##function(RETURN_FUNCTION, function, __VA_ARGS__)                                    \
	return none_##function(__VA_ARGS__);

/* The same of learned protocols only: a number; of those with a stream, or cookies: a function. */
#define CHOOSE_LEARNED(NUMBER)                                                                     \
	EACH_LEARNED(RETURN_LEARNED, NUMBER)                                                       \
	return 0;
#define CHOOSE_STREAM(function, ...)                                                               \
	HAVE_##function(RETURN_STREAM, function, __VA_ARGS__)                                      \
	return none_##function(__VA_ARGS__);
#define CHOOSE_COOKIE(function, ...)                                                               \
	HAVE_##function(RETURN_COOKIE, function, __VA_ARGS__)                                      \
	return none_##function(__VA_ARGS__);

/* A number from its SPEC, or 0. */
#define CHOOSE_NUMBER(NUMBER)                                                                      \
	HAVE_##NUMBER(RETURN_NUMBER, NUMBER)                                                       \
	return 0;

/* Is the protocol, which is a wanted one, among those with these bits? */
#define IS_AMONG(BITS) return WANTED(BITS) && WANTED(BITS) >> protocol & 1;

/* The longest payload that may be a request to answer. */
static __always_inline u32 request_max(u32 protocol)
{
	CHOOSE_NUMBER(REQUEST_MAX)
}

/* Is the whole payload a request's key? Then there is nothing to understand in it. */
static __always_inline bool is_whole_key(u32 protocol)
{
	return WHOLE_KEYS >> protocol & 1;
}

/* Where the bytes of a key that its slot is computed from begin, and where they end. */
static __always_inline u32 slot_from(u32 protocol, const struct key *key)
{
	HAVE_SLOT_FROM(RETURN_NUMBER, SLOT_FROM)
	HAVE_slot_start(RETURN_FUNCTION, slot_start, key)
	return none_slot_start(key);
}

static __always_inline u32 slot_end(u32 protocol, const struct key *key)
{
	CHOOSE(slot_end, key)
}

/* Offset in a request of the 16 bits that stay the same when it is sent again. */
static __always_inline u32 repeat_at(u32 protocol)
{
	CHOOSE_LEARNED(REPEAT_AT)
}

/* Do replies not name their key? Then it is remembered from the request (cgroup/nameless.h). */
static __always_inline bool is_nameless(u32 protocol)
{
	IS_AMONG(NAMELESS)
}

/* Offset in a payload of its request's id, and the id's size in bytes. */
static __always_inline u32 id_at(u32 protocol)
{
	CHOOSE_LEARNED(ID_AT)
}

static __always_inline u32 id_size(u32 protocol)
{
	CHOOSE_LEARNED(ID_SIZE)
}

/* Is the lower half of a payload's first byte the size of the id? */
static __always_inline bool id_size_varies(u32 protocol)
{
	CHOOSE_LEARNED(ID_SIZE_VARIES)
}

static __always_inline u32 shorter_id(u8 first, u32 size)
{
	return (first & 15) < size ? first & 15 : size;
}

/* The id in a payload, which has zeros behind its end; an `id_word` has room for the longest id. */
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

/* A key of a request that reads several of them. */
static __always_inline u32 next_key(u32 protocol, const u8 *text, u32 at, struct key *key)
{
	CHOOSE(next_key, text, at, key)
}

/* Bytes at the end of each of their replies that only the last one keeps. */
static __always_inline u32 joined_tail(u32 protocol)
{
	CHOOSE_NUMBER(JOINED_TAIL)
}

/* The most bytes of the replies when they are joined. */
static __always_inline u32 joined_max(u32 protocol)
{
	CHOOSE_NUMBER(JOINED_MAX)
}

static __always_inline bool adapt(u32 protocol, u8 *reply, u32 length, u32 stored, const u8 *text,
				  u32 text_length, u32 age, u64 *sum)
{
	CHOOSE(answer, reply, length, stored, text, text_length, age, sum)
}

/* Make the stored reply one that only says "ask over TCP"; its length, or 0. */
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

/* Has a cookie no server's part? This and the next are for cookies that cookie_of() has found. */
static __always_inline bool cookie_is_bare(u32 protocol, const u8 *option)
{
	CHOOSE_COOKIE(cookie_is_bare, option)
}

/* Has it a server's part that can be judged? */
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

/* How far from a reply's end a cookie begins, by the last COOKIE_TAIL bytes; or 0. */
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

/* May a reply have a cookie at its end, by the first MESSAGE_HEADER bytes? */
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
	IS_AMONG(WITH_COOKIES)
}

/* What a request asks besides: its reply may not tell that, so it has to be remembered. */
static __always_inline u32 asked_besides(u32 protocol, enum intent intent, const struct key *key)
{
	CHOOSE(asked, intent, key)
}

static __always_inline bool learn(u32 protocol, u8 *reply, u32 *length, struct key *key,
				  u32 *stored, u32 *ttl, u32 asked)
{
	CHOOSE(learn, reply, length, key, stored, ttl, asked)
}

/* How was the request of a learned reply spelled? False if a key has only one spelling. */
static __always_inline bool spelled_how(u32 protocol, const u8 *reply, u32 length,
					struct spelled *spelled)
{
	CHOOSE(spelled, reply, length, spelled)
}

/* Mark a learned reply: it may be given to any spelling of its request. */
static __always_inline void give_any(u32 protocol, u8 *reply, u32 length)
{
	CHOOSE(give_any, reply, length)
}

/* May a request get a reply that can be learned? */
static __always_inline bool may_be_learned(u32 protocol, const u8 *text, enum intent intent)
{
	CHOOSE(may_be_learned, text, intent)
}

/* May a request get more than one reply, so that none is counted? */
static __always_inline bool answers_more(u32 protocol, enum intent intent)
{
	CHOOSE(answers_more, intent)
}

/* Does only a reply tell what was written? Then nothing is void before the reply leaves. */
static __always_inline bool says_what_it_wrote(u32 protocol)
{
	IS_AMONG(WITH_MESSAGES)
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

/* Is a reply that is no read's the only one of a request that may be a read? */
static __always_inline bool counts_off(u32 protocol, const u8 *reply)
{
	CHOOSE(counts_off, reply)
}

/* Does the first datagram of a reply say that something was stored as asked? */
static __always_inline bool says_stored(u32 protocol, const u8 *reply)
{
	CHOOSE(says_stored, reply)
}

/* Do commands come over TCP too, one after the other? All below is for such protocols only. */
static __always_inline bool writes_by_stream(u32 protocol)
{
	IS_AMONG(WITH_STREAM)
}

/* Can TCP not be read at all? Then anything that comes may write anything. */
static __always_inline bool has_no_stream(u32 protocol)
{
	IS_AMONG(WITHOUT_STREAM)
}

/* Bytes of a datagram before its commands. */
static __always_inline u32 datagram_front(u32 protocol)
{
	CHOOSE_STREAM(stream_front)
}

/* Can the commands of a datagram be read one by one? */
static __always_inline bool is_readable(u32 protocol, const u8 *text)
{
	CHOOSE_STREAM(stream_is_readable, text)
}

/* Put the held bytes of a stream into the text, behind datagram_front(); how many there are. */
static __always_inline u32 stream_held(u32 protocol, const struct stream *stream, u8 *text)
{
	CHOOSE_STREAM(stream_held, stream, text)
}

static __always_inline u32 stream_read(u32 protocol, struct stream *stream, const u8 *text,
				       u32 length, struct key *key, enum intent *intent)
{
	CHOOSE_STREAM(stream_read, stream, text, length, key, intent)
}

/* The length of the read behind datagram_front() bytes of a text, if it certainly is one; or 0. */
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

/* The next eight bytes of a row of refusals, behind those in `row`; the first ones for 0. */
static __always_inline u64 stream_row(u32 protocol, u64 row)
{
	CHOOSE_STREAM(stream_row, row)
}

/* Is a server's payload nothing but this many refusals? `row`: how it differs from stream_row(). */
static __always_inline bool stream_refuses(u32 protocol, const struct stream *stream, u64 word,
					   u32 length, u32 replies, bool row)
{
	CHOOSE_STREAM(stream_refuses, stream, word, length, replies, row)
}

/*
 * Is a payload the whole reply to one command, by its first 16 and last eight bytes, and its
 * replies?
 */
static __always_inline bool stream_is_whole(u32 protocol, const struct stream *stream, u64 first,
					    u64 second, u64 last, u32 length, u32 replies)
{
	CHOOSE_STREAM(stream_is_whole, stream, first, second, last, length, replies)
}

/* Does a payload begin as the refusal of a line itself? Then its data may be taken for commands. */
static __always_inline bool stream_refuses_line(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_refuses_line, stream, first)
}

/* Does a payload begin as the acknowledgement of a store? */
static __always_inline bool stream_says_stored(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_says_stored, stream, first)
}

/* May a payload be the reply to a write that asked for none? */
static __always_inline bool stream_is_of_quiet(u32 protocol, const struct stream *stream, u64 first)
{
	CHOOSE_STREAM(stream_is_of_quiet, stream, first)
}

/* Is it one whole value? The caller loads its front to datagram_front() bytes behind `reply`. */
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
