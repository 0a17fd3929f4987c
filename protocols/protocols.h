/* SPDX-License-Identifier: GPL-2.0-only */
/* The protocols that this build knows (-DWITH_NAME), each by what protocol.h asks of it. */
#ifndef CAROM_PROTOCOLS_H
#define CAROM_PROTOCOLS_H

#include "protocol.h"
#ifdef WITH_KV
#include "kv.h"
#endif
#ifdef WITH_MEMCACHED
#include "memcached.h"
#include "memcached_stream.h"
#endif
#ifdef WITH_DNS
#include "dns.h"
#endif

/* The longest payload that may be a request to answer. */
static __always_inline u32 request_max(u32 protocol)
{
	switch (protocol) {
#ifdef WITH_KV
	case KV:
		return KV_REQUEST_MAX;
#endif
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return MEMCACHED_REQUEST_MAX;
#endif
#ifdef WITH_DNS
	case DNS:
		return DNS_REQUEST_MAX;
#endif
	default:
		return 0;
	}
}

/* Where in a key the bytes begin that its slot is computed from. */
static __always_inline u32 slot_from(u32 protocol)
{
#ifdef WITH_MEMCACHED
	if (protocol == MEMCACHED)
		return MEMCACHED_SLOT_FROM;
#endif
	return 0;
}

static __always_inline enum intent understand(u32 protocol, const u8 *text, u32 length,
					      struct key *key)
{
	switch (protocol) {
#ifdef WITH_KV
	case KV:
		return kv_request(text, length, key);
#endif
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return memcached_request(text, length, key);
#endif
#ifdef WITH_DNS
	case DNS:
		return dns_request(text, length, key);
#endif
	default:
		return INTENT_OTHER;
	}
}

static __always_inline bool adapt(u32 protocol, u8 *reply, u32 length, u32 stored, const u8 *text,
				  u32 text_length, u32 age, u64 *sum)
{
	switch (protocol) {
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return memcached_answer(reply, length, stored, text, text_length, age, sum);
#endif
#ifdef WITH_DNS
	case DNS:
		return dns_answer(reply, length, stored, text, text_length, age, sum);
#endif
	default:
		return true;
	}
}

/* The length of a reply that says nothing but "ask over TCP", made from the one stored; or 0. */
static __always_inline u32 truncated(u32 protocol, u8 *reply, const u8 *text,
				     const struct key *key, u32 length)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return dns_truncated(reply, text, key, length);
#endif
	return 0;
}

/* The cookie in a read: its option, or NULL. */
static __always_inline const u8 *cookie_of(u32 protocol, const u8 *text, const struct key *key)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return dns_cookie(text, key);
#endif
	return NULL;
}

static __always_inline bool return_cookie(u32 protocol, u8 *reply, u32 *length, const u8 *text,
					  const struct key *key, u64 *sum)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return dns_return_cookie(reply, length, text, key, sum);
#endif
	return false;
}

/* What of a request its reply may not tell, so that it has to be remembered. */
static __always_inline u32 asked_besides(u32 protocol, enum intent intent, const struct key *key)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return intent == INTENT_READ ? dns_asked(key) : ASKED_UNKNOWN;
#endif
	return 0;
}

static __always_inline bool learn(u32 protocol, u8 *reply, u32 *length, struct key *key,
				  u32 *stored, u32 *ttl, u32 asked)
{
	switch (protocol) {
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return memcached_learn(reply, length, key, stored, ttl);
#endif
#ifdef WITH_DNS
	case DNS:
		return asked < ASKED_UNKNOWN &&
		       dns_learn(reply, length, key, stored, ttl, asked);
#endif
	default:
		return false;
	}
}

/* How was the request of a learned reply spelled? False where a key has one spelling. */
static __always_inline bool spelled_how(u32 protocol, const u8 *reply, u32 length,
					struct spelled *spelled)
{
#ifdef WITH_DNS
	if (protocol == DNS) {
		dns_spelled(reply, length, spelled);
		return true;
	}
#endif
	return false;
}

/* A learned reply may be given to any spelling of its request. */
static __always_inline void give_any(u32 protocol, u8 *reply, u32 length)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		dns_give_any(reply, length);
#endif
}

/* May a request get a reply that can be learned? */
static __always_inline bool may_be_learned(u32 protocol, const u8 *text, enum intent intent)
{
#ifdef WITH_MEMCACHED
	if (protocol == MEMCACHED)
		return memcached_may_be_learned(text, intent);
#endif
	return true;
}

/* Or more than one, so that none is counted? */
static __always_inline bool answers_more(u32 protocol, enum intent intent)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return false;
#endif
	return intent != INTENT_READ;
}

/* Does a reply alone say what was written? Then nothing is void before it leaves. */
static __always_inline bool says_what_it_wrote(u32 protocol)
{
#ifdef WITH_DNS
	return protocol == DNS;
#else
	return false;
#endif
}

#define MESSAGE_HEADER 12  /* bytes of such a protocol's messages over TCP that say what was written */

/* What a reply over TCP says, by its header; `length` is the whole message's. */
static __always_inline enum answer message_answer(u32 protocol, const u8 *header, u32 length)
{
#ifdef WITH_DNS
	if (protocol == DNS)
		return dns_what_answer(header, length);
#endif
	return ANSWER_READ;
}

static __always_inline enum answer what_answer(u32 protocol, const u8 *reply, u32 length)
{
	switch (protocol) {
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return memcached_what_answer(reply, length);
#endif
#ifdef WITH_DNS
	case DNS:
		return dns_what_answer(reply, length);
#endif
	default:
		return ANSWER_OTHER;
	}
}

/* Was something stored as it was to be, by the first datagram of a reply? */
static __always_inline bool says_stored(u32 protocol, const u8 *reply)
{
#ifdef WITH_MEMCACHED
	return protocol == MEMCACHED && memcached_says_stored(reply);
#else
	return false;
#endif
}

/* Does the protocol write over TCP too? If so, the rest is as memcached_stream.h has it. */
static __always_inline bool writes_by_stream(u32 protocol)
{
#ifdef WITH_MEMCACHED
	return protocol == MEMCACHED;
#else
	return false;
#endif
}

/* Where in the text a stream's bytes begin, and how many are there already. */
static __always_inline u32 stream_held(u32 protocol, const struct stream *stream, u8 *text,
				       u32 *from)
{
#ifdef WITH_MEMCACHED
	*from = MEMCACHED_HEADER;
	return memcached_stream_held(stream, text);
#else
	*from = 0;
	return 0;
#endif
}

static __always_inline u32 stream_read(u32 protocol, struct stream *stream, const u8 *text,
				       u32 length, struct key *key, enum intent *intent)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_read(stream, text, length, key, intent);
#else
	stream->lost = 1;
	*intent = INTENT_WRITE_ALL | INTENT_QUIET;
	return length;
#endif
}

/* How long is the read that stands behind datagram_front() bytes of a text, if it is sure to be one? */
static __always_inline u32 stream_ahead(u32 protocol, const struct stream *stream, const u8 *text,
					u32 length)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_ahead(stream, text, length);
#else
	return 0;
#endif
}

static __always_inline bool stream_agrees(u32 protocol, struct stream *stream, u8 first)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_agrees(stream, first);
#else
	return false;
#endif
}

static __always_inline u32 stream_replies(u32 protocol, const struct stream *stream, u64 word)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_replies(stream, word);
#else
	return 0;
#endif
}

/* The next eight bytes of a row of lines that refuse something, behind those in `row`; or the first. */
static __always_inline u64 stream_row(u32 protocol, u64 row)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_row(row);
#else
	return 0;
#endif
}

/* Is a server's payload nothing but so many lines that refuse something? `row` for that of above. */
static __always_inline bool stream_refuses(u32 protocol, const struct stream *stream, u64 word,
					   u32 length, u32 replies, bool row)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_refuses(stream, word, length, replies, row);
#else
	return false;
#endif
}

/* By a payload's first 16 and last eight bytes, and its replies: is it the whole reply to one command? */
static __always_inline bool stream_is_whole(u32 protocol, const struct stream *stream, u64 first,
					    u64 second, u64 last, u32 length, u32 replies)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_is_whole(stream, first, second, last, length, replies);
#else
	return false;
#endif
}

/* Begins a payload as the refusal of a line for what it is? Its data may be taken for commands then. */
static __always_inline bool stream_refuses_line(u32 protocol, const struct stream *stream, u64 first)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_refuses_line(stream, first);
#else
	return false;
#endif
}

/* Begins a payload as the acknowledgement of a store? */
static __always_inline bool stream_says_stored(u32 protocol, const struct stream *stream, u64 first)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_says_stored(stream, first);
#else
	return false;
#endif
}

/* May a payload be the reply to a write that asked for none? */
static __always_inline bool stream_is_of_quiet(u32 protocol, const struct stream *stream, u64 first)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_is_of_quiet(stream, first);
#else
	return false;
#endif
}

/* Is it one value, whole? Its front is to be loaded to datagram_front() bytes behind `reply`. */
static __always_inline bool stream_is_value(u32 protocol, u8 *reply, u64 last, u32 length,
					    struct key *key)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_is_value(reply, last, length, key);
#else
	return false;
#endif
}

/* Do both sides speak a language that cannot be taken for another? */
static __always_inline bool stream_in_binary(u32 protocol, const struct stream *stream)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_in_binary(stream);
#else
	return false;
#endif
}

/* Does a client's segment, by its first eight bytes, begin as a command? */
static __always_inline bool stream_may_begin(u32 protocol, u64 word)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_may_begin(word);
#else
	return false;
#endif
}

/* Does a payload, by its first eight bytes, begin with the reply to a read? */
static __always_inline bool stream_reads(u32 protocol, const struct stream *stream, u64 word)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_reads(stream, word);
#else
	return true;
#endif
}

/* Does a payload, by its first eight bytes, begin with the acknowledgement of a write? */
static __always_inline bool stream_writes(u32 protocol, const struct stream *stream, u64 word)
{
#ifdef WITH_MEMCACHED
	return memcached_stream_writes(stream, word);
#else
	return false;
#endif
}

/* Can the commands of a datagram be read one by one at all? */
static __always_inline bool is_readable(u32 protocol, const u8 *text)
{
#ifdef WITH_MEMCACHED
	return text[MEMCACHED_HEADER] != MEMCACHED_BINARY;
#else
	return false;
#endif
}

/* Bytes of a datagram before its commands. */
static __always_inline u32 datagram_front(u32 protocol)
{
#ifdef WITH_MEMCACHED
	return MEMCACHED_HEADER;
#else
	return 0;
#endif
}

#endif
