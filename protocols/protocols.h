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

static __always_inline bool learn(u32 protocol, u8 *reply, u32 *length, struct key *key,
				  u32 *stored, u32 *ttl)
{
	switch (protocol) {
#ifdef WITH_MEMCACHED
	case MEMCACHED:
		return memcached_learn(reply, length, key, stored, ttl);
#endif
#ifdef WITH_DNS
	case DNS:
		return dns_learn(reply, length, key, stored, ttl);
#endif
	default:
		return false;
	}
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

#endif
