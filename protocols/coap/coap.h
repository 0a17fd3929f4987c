/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * coap: CoAP over UDP (RFC 7252), its replies learned from the server, which answers every client alike.
 *
 * A read is a GET, confirmable or not, with known options only: Uri-Host, Uri-Port, Uri-Path,
 * Uri-Query, Accept and one ETag. Options that are no part of a cache's key (5.4.6) and that a
 * server may ignore are skipped. A request with another option goes up: Observe, Block1 and Block2,
 * proxying, and all that is critical and not known here. So does a GET with a payload or with an
 * empty segment in its path.
 *
 * The key is the length of the token, and the options as they are on the wire: a sequence of
 * options has only one encoding. A request with an ETag has a key of its own, under which 2.05 and
 * 2.03 are kept, each with its own age.
 *
 * The slot is that of the path alone. A write voids all that was learned for its path, whatever
 * host, port, query and representation were asked for: most servers do not tell hosts apart, and
 * what PUT sets shows in every query. POST may write anything, and its reply may look like a read's
 * (FETCH's does). So the path is held, and an acknowledgement of a POST voids the service.
 *
 * A reply has nothing of its request but the token, by which the key is remembered
 * (cgroup/nameless.h). Only a response that comes with the acknowledgement of a confirmable request
 * (5.2.1) is learned. A separate response, or one that is not confirmable, is not: a server may
 * send it again, or unasked, so it cannot be counted off against requests. Nor is the response to a
 * request that is sent again, by its Message ID: the server may repeat what it said before (4.2).
 *
 * The stored reply has no type, no Message ID and no token. It has a Max-Age: 60 seconds if the
 * server gave none (5.10.5). Each client gets its own type, id and token, and what is left of the
 * Max-Age. A reply that is not confirmable gets its request's Message ID, which its client has not
 * used otherwise lately.
 */
#ifndef CAROM_COAP_H
#define CAROM_COAP_H

#include "bounded.h"
#include "clock.h"
#include "protocol.h"

#define COAP_HEADER 4
#define COAP_TOKEN_MAX 8
#define COAP_OPTIONS_MAX 24   /* of a request; a reply that is learned has three at most */
#define COAP_ROOM 216         /* bytes of a request's options that are part of its key */
#define COAP_SCRATCH 220      /* offset of notes in a key's bytes, behind the key itself */
#define COAP_REPLY_SCRATCH 1536  /* offset of notes in a reply's room, behind REPLY_MAX */
#define COAP_FRESH 60         /* seconds, if a reply does not say (5.10.5) */

/* The first byte, without the token's length. */
#define COAP_VERSION 0x40
#define COAP_TYPE 0x30
#define COAP_CON 0x00
#define COAP_NON 0x10
#define COAP_ACK 0x20

/* Below version 1, DTLS has its content types (RFC 9147 4.1). */
#define COAP_DTLS_FIRST 20
#define COAP_DTLS_LAST 63

enum {
	COAP_GET = 0x01,
	COAP_POST = 0x02,
	COAP_FETCH = 0x05,
	COAP_LAST_METHOD = 0x07,  /* iPATCH */
	COAP_LAST_REQUEST = 0x1f,
	COAP_VALID = 0x43,
	COAP_CONTENT = 0x45,
};

enum {
	COAP_URI_HOST = 3,
	COAP_ETAG = 4,
	COAP_URI_PORT = 7,
	COAP_URI_PATH = 11,
	COAP_CONTENT_FORMAT = 12,
	COAP_MAX_AGE = 14,
	COAP_URI_QUERY = 15,
	COAP_ACCEPT = 17,
	COAP_PROXY_URI = 35,
	COAP_PROXY_SCHEME = 39,
};

/* A number in map memory, read anew: the verifier knows nothing of it. */
#define COAP_ANEW(field) (*(volatile typeof(field) *)&(field))

/* How far options have been read. */
struct coap_walk {
	u32 at;        /* where the next begins */
	u32 number;    /* of the last; 0 at first */
	u32 value;     /* where its value begins */
	u32 size;
	u32 kept;      /* behind the last that is part of the key */
	u32 path;      /* the value of the path's first segment; 0 where there is none */
	u32 path_end;  /* behind its last */
	u32 strange;   /* not 0 if it is no plain read; 2: nor a write of one path */
	u32 age;       /* offset of the value of a reply's Max-Age, and its size; or 0 */
	u32 age_size;
};

/* At the front of a key's bytes. */
struct coap_front {
	u8 token;  /* bytes of the request's token */
	u8 path;   /* where among the bytes the path's first segment has its value */
	u8 end;    /* behind its last */
	u8 zero;
};

/* Behind a stored reply, at the next whole 8 bytes. */
struct coap_note {
	u16 age;       /* where Max-Age has its value */
	u16 age_size;
	u32 seconds;   /* what it said */
};

static __always_inline u8 coap_byte(const u8 *text, u32 at, const u32 room)
{
	asm volatile("" : "+r"(at));
	return text[at & (room - 1)];
}

/* Four bits of an option's head, and what extends them (3.1). More than 65,804 for 15, which is none. */
static __always_inline u32 coap_extended(const u8 *text, u32 nibble, struct coap_walk *walk,
					 const u32 room)
{
	u32 at = COAP_ANEW(walk->at);

	if (nibble == 13) {
		COAP_ANEW(walk->at) = at + 1;
		return 13 + coap_byte(text, at, room);
	}
	if (nibble == 14) {
		COAP_ANEW(walk->at) = at + 2;
		return 269 + (coap_byte(text, at, room) << 8 | coap_byte(text, at + 1, room));
	}
	return nibble < 13 ? nibble : 1 << 20;
}

/* The next option; false where it does not end within `length`, or has no right head. */
static __always_inline bool coap_option(const u8 *text, u32 length, struct coap_walk *walk,
					const u32 room)
{
	u32 at = COAP_ANEW(walk->at), end;
	u8 head = coap_byte(text, at, room);

	COAP_ANEW(walk->at) = at + 1;
	COAP_ANEW(walk->number) += coap_extended(text, head >> 4, walk, room);
	COAP_ANEW(walk->size) = coap_extended(text, head & 15, walk, room);
	COAP_ANEW(walk->value) = COAP_ANEW(walk->at);
	end = COAP_ANEW(walk->value) + COAP_ANEW(walk->size);
	COAP_ANEW(walk->at) = end;
	return COAP_ANEW(walk->number) < 1 << 20 && end <= length && end <= room;
}

/* Is an option no part of a cache's key, and may the server ignore it (5.4.6)? */
static __always_inline bool coap_is_no_key(u32 number)
{
	return (number & 0x1f) == 0x1c;
}

/* Take note of a request's option; `before` is the one before it. */
static __always_inline void coap_take(struct coap_walk *walk, u32 before)
{
	u32 number = COAP_ANEW(walk->number), size = COAP_ANEW(walk->size);
	u32 end = COAP_ANEW(walk->at);

	switch (number) {
	case COAP_URI_PATH:
		if (!COAP_ANEW(walk->path))
			COAP_ANEW(walk->path) = COAP_ANEW(walk->value);
		COAP_ANEW(walk->path_end) = end;
		if (!size)
			COAP_ANEW(walk->strange) = 2;
		break;
	case COAP_URI_QUERY:
		break;
	case COAP_URI_HOST:
	case COAP_ETAG:
	case COAP_URI_PORT:
	case COAP_ACCEPT:
		if (number == before || size > (number == COAP_URI_HOST ? 255 : COAP_TOKEN_MAX))
			COAP_ANEW(walk->strange) |= 1;
		break;
	case COAP_PROXY_URI:
	case COAP_PROXY_SCHEME:
		COAP_ANEW(walk->strange) = 2;
		return;
	default:
		if (!coap_is_no_key(number))
			COAP_ANEW(walk->strange) |= 1;
		return;
	}
	COAP_ANEW(walk->kept) = end;
}

/* All options of a request. False where they are not understood to their end. */
static __always_inline bool coap_options(const u8 *text, u32 length, struct coap_walk *walk)
{
	for (u32 n = 0; n < COAP_OPTIONS_MAX; n++) {
		u32 at = COAP_ANEW(walk->at), before = COAP_ANEW(walk->number);

		counted(n);
		if (at == length)
			return true;
		if (at >= TEXT_ROOM)
			return false;
		if (coap_byte(text, at, TEXT_ROOM) == 0xff) {
			COAP_ANEW(walk->strange) |= 1;  /* a GET has no payload */
			return true;
		}
		if (!coap_option(text, length, walk, TEXT_ROOM))
			return false;
		coap_take(walk, before);
	}
	return COAP_ANEW(walk->at) == length;
}

/* Bytes `from` to `end` of a text behind the front of a key; false where there are too many. */
static __always_inline bool coap_copy(const u8 *text, u32 from, u32 end, struct key *key)
{
	struct coap_walk *walk = (struct coap_walk *)(key->bytes + COAP_SCRATCH);
	u32 size = end - from;

	if (size > COAP_ROOM)
		return false;
	COAP_ANEW(walk->at) = from;
	COAP_ANEW(walk->size) = size;
	for (u32 at = 0; at < COAP_ROOM; at += sizeof(u64)) {
		u64 start = COAP_ANEW(walk->at) + at, word;
		u32 left = COAP_ANEW(walk->size) - at;

		counted(at);
		if (at >= COAP_ANEW(walk->size) || at > COAP_ROOM - sizeof(u64))
			break;
		asm volatile("" : "+r"(start));
		if (start > TEXT_ROOM - sizeof(u64))
			return false;
		word = *(const u64 *)(text + start);
		if (left < sizeof(u64))
			word &= little_u64(~0ull >> (64 - 8 * (left & 7)));
		*(u64 *)(key->bytes + sizeof(struct coap_front) + at) = word;
	}
	return true;
}

/* The key of a read, with all its options, or of a write, with the path only. */
static __always_inline bool coap_key(const u8 *text, bool read, struct key *key)
{
	struct coap_walk *walk = (struct coap_walk *)(key->bytes + COAP_SCRATCH);
	struct coap_front *front = (struct coap_front *)key->bytes;
	u32 token = text[0] & 15, path = COAP_ANEW(walk->path), path_end = COAP_ANEW(walk->path_end);
	u32 from = read ? COAP_HEADER + token : path, end = read ? COAP_ANEW(walk->kept) : path_end;
	u64 unknown = now();

	if (end < from)
		end = from;
	if (!path)
		path = path_end = from;
	/* Hidden: the verifier would follow the copying once for each way to find out what is copied. */
	from = forgotten(from, unknown);
	end = forgotten(end, unknown);
	path = forgotten(path, unknown);
	path_end = forgotten(path_end, unknown);
	if (!coap_copy(text, from, end, key))
		return false;
	front->token = read ? token : 0;
	front->path = sizeof(*front) + path - from;
	front->end = sizeof(*front) + path_end - from;
	key->length = sizeof(*front) + end - from;
	return true;
}

static __always_inline enum intent coap_intent(const u8 *text, u32 length, struct key *key)
{
	struct coap_walk *walk = (struct coap_walk *)(key->bytes + COAP_SCRATCH);
	u32 read = forgotten(text[1] == COAP_GET, now()), token = text[0] & 15;
	bool known;

	COAP_ANEW(walk->at) = COAP_HEADER + token;
	known = COAP_HEADER + token <= length && coap_options(text, length, walk) &&
		COAP_ANEW(walk->strange) <= !read && text[1] <= COAP_LAST_METHOD &&
		coap_key(text, read, key);
	if (read)
		return known && length <= COAP_REQUEST_MAX ? INTENT_READ : INTENT_OTHER;
	if (!known)
		return INTENT_WRITE_ALL | INTENT_QUIET;
	return INTENT_WRITE | ((text[0] & COAP_TYPE) == COAP_NON ? INTENT_QUIET : 0) |
	       (text[1] == COAP_POST || text[1] == COAP_FETCH ? INTENT_ANSWERS : 0);
}

/* Is it DTLS, at another port of the server's, which cannot be read? */
static __always_inline bool coap_is_sealed(u8 first)
{
	return first >= COAP_DTLS_FIRST && first <= COAP_DTLS_LAST;
}

static __always_inline enum intent coap_request(const u8 *text, u32 length, struct key *key)
{
	enum intent intent;

	if (length && coap_is_sealed(text[0]))
		return INTENT_WRITE_ALL | INTENT_QUIET;
	if (length < COAP_HEADER || text[0] >> 6 != 1 || (text[0] & COAP_TYPE) > COAP_NON ||
	    (text[0] & 15) > COAP_TOKEN_MAX || !text[1] || text[1] > COAP_LAST_REQUEST)
		return INTENT_OTHER;
	intent = coap_intent(text, length, key);
	__builtin_memset(key->bytes + COAP_SCRATCH, 0, sizeof(struct coap_walk));
	return intent;
}

static __always_inline u32 coap_slot_start(const struct key *key)
{
	return ((const struct coap_front *)key->bytes)->path;
}

static __always_inline u32 coap_slot_end(const struct key *key)
{
	return ((const struct coap_front *)key->bytes)->end;
}

/* May the reply come with the acknowledgement, so that it can be counted off? */
static __always_inline bool coap_may_be_learned(const u8 *text, enum intent intent)
{
	return (text[0] & (0xc0 | COAP_TYPE)) == (COAP_VERSION | COAP_CON) && text[1] &&
	       text[1] <= COAP_LAST_REQUEST;
}

/* Only one reply comes with the acknowledgement, whatever the request wants; others are not counted. */
static __always_inline bool coap_answers_more(enum intent intent)
{
	return false;
}

/*
 * An error may be the reply to a write that was done in part. An empty message only tells that a
 * request came; a server's own request, or a message that it sends unasked, tells of no write.
 */
static __always_inline enum answer coap_what_answer(const u8 *reply, u32 length)
{
	u8 code = reply[1];

	if (length && coap_is_sealed(reply[0]))
		return ANSWER_WRITTEN;
	if (length < COAP_HEADER || reply[0] >> 6 != 1 || code <= COAP_LAST_REQUEST)
		return ANSWER_PART;
	if (code == COAP_CONTENT || code == COAP_VALID)
		return (reply[0] & COAP_TYPE) == COAP_ACK ? ANSWER_READ : ANSWER_PART;
	return code >> 5 == 2 ? ANSWER_WRITTEN : ANSWER_OTHER;
}

/* It comes with the acknowledgement of a request that coap_may_be_learned() counts. */
static __always_inline bool coap_counts_off(const u8 *reply)
{
	return (reply[0] & (0xc0 | COAP_TYPE)) == (COAP_VERSION | COAP_ACK) &&
	       reply[1] > COAP_LAST_REQUEST;
}

/* Take note of a reply's option. False if it is not known, or is there a second time. */
static __always_inline bool coap_take_replys(struct coap_walk *walk, u32 before)
{
	u32 number = COAP_ANEW(walk->number), size = COAP_ANEW(walk->size);

	if (number == before)
		return false;
	if (number == COAP_ETAG)
		return size && size <= COAP_TOKEN_MAX;
	if (number == COAP_CONTENT_FORMAT)
		return size <= 2;
	if (number != COAP_MAX_AGE || !size || size > 4)
		return false;
	COAP_ANEW(walk->age) = COAP_ANEW(walk->value);
	COAP_ANEW(walk->age_size) = size;
	return true;
}

/* All options of a reply; `at` is behind them. */
static __always_inline bool coap_replys_options(const u8 *reply, u32 length, struct coap_walk *walk)
{
	for (u32 n = 0; n < 4; n++) {
		u32 at = COAP_ANEW(walk->at), before = COAP_ANEW(walk->number);

		counted(n);
		if (at == length)
			return true;
		if (at > length || at >= REPLY_MAX)
			return false;
		if (coap_byte(reply, at, REPLY_ROOM) == 0xff)
			return at + 1 < length;
		if (!coap_option(reply, length, walk, REPLY_ROOM) ||
		    !coap_take_replys(walk, before))
			return false;
	}
	return false;
}

/* Eight bytes as they are in memory: the first `few` of one word, and the rest of another. */
static __always_inline u64 coap_joined(u64 first, u64 rest, u32 few)
{
	u64 mask = few & 7 ? little_u64(~0ull >> (64 - 8 * (few & 7))) : 0;

	return (first & mask) | (rest & ~mask);
}

/* Make room for 2 or 3 bytes at `at`: what is behind moves, in whole words from the end. */
static __always_inline void coap_move(u8 *reply, struct coap_walk *walk, u32 length, u32 more)
{
	u32 at = COAP_ANEW(walk->at);
	u64 first = at & (REPLY_ROOM - 1) & ~7u, before;

	asm volatile("" : "+r"(first));
	if (first > REPLY_MAX)
		return;
	before = *(u64 *)(reply + first);
	COAP_ANEW(walk->value) = length & ~7u;
	for (u32 n = 0; n <= REPLY_MAX / sizeof(u64); n++) {
		u64 from = (u32)(COAP_ANEW(walk->value) - 8 * n), word;

		counted(n);
		if (from > REPLY_MAX || from < (COAP_ANEW(walk->at) & ~7u))
			break;
		asm volatile("" : "+r"(from));
		if (from > REPLY_MAX)
			break;
		word = *(u64 *)(reply + from);
		*(u64 *)(reply + from + more) = word;
	}
	*(u64 *)(reply + first) = coap_joined(before, *(u64 *)(reply + first), at);
}

/* Add Max-Age behind the last option with a smaller number; the new length. */
static __always_inline u32 coap_add_age(u8 *reply, struct coap_walk *walk, u32 length)
{
	u32 more = COAP_MAX_AGE - COAP_ANEW(walk->number) < 13 ? 2 : 3, delta, at;

	more = forgotten(more, now());
	coap_move(reply, walk, length, more & 3);
	delta = COAP_MAX_AGE - COAP_ANEW(walk->number);
	at = COAP_ANEW(walk->at);
	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	if (at > REPLY_MAX)
		return 0;
	if (more == 2) {
		reply[at] = delta << 4 | 1;
		reply[at + 1] = COAP_FRESH;
	} else {
		reply[at] = 13 << 4 | 1;
		reply[at + 1] = delta - 13;
		reply[at + 2] = COAP_FRESH;
	}
	COAP_ANEW(walk->age) = at + more - 1;
	COAP_ANEW(walk->age_size) = 1;
	return length + more;
}

/* Take Max-Age's value out of a reply. */
static __always_inline u32 coap_take_age(u8 *reply, struct coap_walk *walk)
{
	u32 at = COAP_ANEW(walk->age), size = COAP_ANEW(walk->age_size), seconds = 0;

	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	if (at > REPLY_MAX)
		return 0;
#pragma unroll
	for (u32 n = 0; n < 4; n++) {
		if (n < size) {
			seconds = seconds << 8 | reply[at + n];
			reply[at + n] = 0;
		}
	}
	return seconds;
}

static __always_inline u32 coap_aligned(u32 length)
{
	return (length + 7) & ~7u;
}

/* Put what coap_answer() needs behind the reply, with zeros between. */
static __always_inline bool coap_note_age(u8 *reply, u32 length, const struct coap_walk *walk,
					  u32 seconds, u32 *stored)
{
	u32 at = coap_aligned(length);
	struct coap_note *note;

	if (length > REPLY_MAX - 2 * sizeof(u64))
		return false;
	asm volatile("" : "+r"(length));
	length &= REPLY_ROOM - 1;
	*(u64 *)(reply + length) = 0;
	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	if (at > REPLY_MAX)
		return false;
	note = (struct coap_note *)(reply + at);
	note->age = COAP_ANEW(walk->age);
	note->age_size = COAP_ANEW(walk->age_size);
	note->seconds = seconds;
	*stored = at + sizeof(*note);
	return true;
}

static __always_inline u64 coap_token(const u8 *payload, u32 token)
{
	u64 word = *(const u64 *)(payload + COAP_HEADER);

	return token ? word & little_u64(~0ull >> (64 - 8 * token)) : 0;
}

static __always_inline bool coap_learn(u8 *reply, u32 *length, struct key *key, u32 *stored, u32 *ttl,
				       u32 asked)
{
	struct coap_walk *walk = (struct coap_walk *)(reply + COAP_REPLY_SCRATCH);
	u32 token = reply[0] & 15, whole = *length, seconds;

	if (whole > REPLY_MAX - 3 * sizeof(u64) || whole < COAP_HEADER + token ||
	    token > COAP_TOKEN_MAX || reply[0] >> 4 != (COAP_VERSION | COAP_ACK) >> 4 ||
	    (reply[1] != COAP_CONTENT && reply[1] != COAP_VALID))
		return false;
	__builtin_memset(walk, 0, sizeof(*walk));
	walk->at = COAP_HEADER + token;
	if (!coap_replys_options(reply, whole, walk))
		return false;
	/* Hidden: the verifier would follow the moving once for each way through the options. */
	token = forgotten(token, now());
	*length = whole = forgotten(whole, now());
	if (!COAP_ANEW(walk->age))
		whole = coap_add_age(reply, walk, whole);
	seconds = coap_take_age(reply, walk);
	if (!whole || !seconds || !coap_note_age(reply, whole, walk, seconds, stored))
		return false;
	reply[0] = token;
	*(u16 *)(reply + 2) = 0;
	*(u64 *)(reply + COAP_HEADER) ^= coap_token(reply, token);
	*length = whole;
	if (seconds < *ttl)
		*ttl = seconds;
	return true;
}

/* What a byte at an offset adds to a sum of words in memory order. */
static __always_inline u32 coap_summand(u8 byte, u32 at)
{
	return at & 1 ? htons(byte) : htons((u16)byte << 8);
}

static __always_inline u64 coap_sum_word(u64 word)
{
	return (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
}

/* Write what is left of Max-Age, in as many bytes as it had. */
static __always_inline bool coap_give_age(u8 *reply, const struct coap_note *note, u32 age, u64 *sum)
{
	u32 left = note->seconds - age, at = note->age, size = note->age_size;

	if (age >= note->seconds)
		return false;
	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	if (at > REPLY_MAX)
		return false;
#pragma unroll
	for (u32 n = 0; n < 4; n++) {
		if (n < size) {
			u8 byte = left >> (8 * (size - 1 - n) & 31);

			reply[at + n] = byte;
			*sum += coap_summand(byte, at + n);
		}
	}
	return true;
}

static __always_inline bool coap_answer(u8 *reply, u32 length, u32 stored, const u8 *text,
					u32 text_length, u32 age, u64 *sum)
{
	u8 type = (text[0] & COAP_TYPE) == COAP_NON ? COAP_NON : COAP_ACK;
	u32 token = text[0] & 15, at = coap_aligned(length);
	u16 id = *(const u16 *)(text + 2);
	u64 word = coap_token(text, token);

	if (reply[0] != token || stored != at + sizeof(struct coap_note))
		return false;
	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	if (at > REPLY_MAX ||
	    !coap_give_age(reply, (const struct coap_note *)(reply + at), age, sum))
		return false;
	reply[0] = COAP_VERSION | type | token;
	*(u16 *)(reply + 2) = id;
	*(u64 *)(reply + COAP_HEADER) |= word;
	*sum += coap_summand(COAP_VERSION | type, 0) + id + coap_sum_word(word);
	return true;
}

#endif
