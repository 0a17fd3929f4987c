/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached's binary protocol, one request at a time (protocol-binary.xml of memcached; what that
 * leaves open was taken from how 1.6.18 behaves). A header of 24 bytes, in network byte order:
 *
 *   magic 8, opcode 8, key length 16, extras length 8, data type 8, vbucket 16, body length 32,
 *   opaque 32, cas 64
 *
 * and the body: extras, key, value. memcached ends the connection if the sizes do not fit the
 * opcode, and loses its place after an unknown opcode. Such requests are not proper.
 */
#ifndef CAROM_MEMCACHED_BINARY_H
#define CAROM_MEMCACHED_BINARY_H

#include "memcached_text.h"

#define BINARY_REPLY 0x81  /* first byte of a reply */
#define BINARY_HEADER 24
#define BINARY_VALUE_MAX (1 << 30)  /* no server stores that much */

/* Opcodes as bits: what a request is, and what it may have. */
#define BINARY_SET 0x01
#define OPCODE(number) (1ull << (number))
#define OPCODES_GET (OPCODE(0x00) | OPCODE(0x09) | OPCODE(0x0c) | OPCODE(0x0d))
#define OPCODES_STORE (OPCODE(0x01) | OPCODE(0x02) | OPCODE(0x03))     /* set, add, replace */
#define OPCODES_STOREQ (OPCODE(0x11) | OPCODE(0x12) | OPCODE(0x13))
#define OPCODES_JOIN (OPCODE(0x0e) | OPCODE(0x0f))                     /* append, prepend */
#define OPCODES_JOINQ (OPCODE(0x19) | OPCODE(0x1a))
#define OPCODES_DELETE OPCODE(0x04)
#define OPCODES_DELETEQ OPCODE(0x14)
#define OPCODES_COUNT (OPCODE(0x05) | OPCODE(0x06))                    /* increment, decrement */
#define OPCODES_COUNTQ (OPCODE(0x15) | OPCODE(0x16))
#define OPCODES_TOUCH (OPCODE(0x1c) | OPCODE(0x1d) | OPCODE(0x23))     /* touch, gat, gatk */
#define OPCODES_TOUCHQ (OPCODE(0x1e) | OPCODE(0x24))
#define OPCODES_FLUSH (OPCODE(0x08) | OPCODE(0x18))
#define OPCODES_QUERY (OPCODE(0x07) | OPCODE(0x17) | OPCODE(0x0a) | OPCODE(0x0b) | OPCODE(0x20))
#define OPCODES_STAT OPCODE(0x10)
#define OPCODES_SASL (OPCODE(0x21) | OPCODE(0x22))                     /* auth, step */

#define OPCODES_QUIET (OPCODES_STOREQ | OPCODES_JOINQ | OPCODES_DELETEQ | OPCODES_COUNTQ |  \
		       OPCODES_TOUCHQ)
#define OPCODES_WRITE (OPCODES_STORE | OPCODES_JOIN | OPCODES_DELETE | OPCODES_COUNT |      \
		       OPCODES_TOUCH | OPCODES_QUIET)
#define OPCODES_KEYED (OPCODES_GET | OPCODES_WRITE | OPCODES_SASL)
#define OPCODES_VALUED (OPCODES_STORE | OPCODES_STOREQ | OPCODES_JOIN | OPCODES_JOINQ | OPCODES_SASL)
/* Opcodes that certainly have one reply, and are not quiet. */
#define OPCODES_ANSWERED_ONCE (OPCODE(0x00) | OPCODE(0x0c) | OPCODES_STORE | OPCODES_JOIN |          \
			       OPCODES_DELETE | OPCODES_COUNT | OPCODES_TOUCH | OPCODE(0x08) |       \
			       OPCODE(0x0a) | OPCODE(0x0b))
#define OPCODES_KNOWN (OPCODES_KEYED | OPCODES_FLUSH | OPCODES_QUERY | OPCODES_STAT)

/* What was found out about a request. */
struct memcached_binary {
	bool proper;
	u32 key_length;
	u32 end;   /* behind its key, which may not be there yet */
	u32 data;  /* bytes of its value */
};

/* The right number of bytes of extras for a request that has `extras` of them. */
static __always_inline u32 proper_extras(u64 opcode, u32 extras)
{
	if (opcode & (OPCODES_STORE | OPCODES_STOREQ))
		return 8;  /* flags, exptime */
	if (opcode & (OPCODES_COUNT | OPCODES_COUNTQ))
		return 20;  /* delta, initial value, exptime */
	if (opcode & (OPCODES_TOUCH | OPCODES_TOUCHQ))
		return 4;  /* exptime */
	return opcode & OPCODES_FLUSH ? extras & 4 : 0;  /* with a delay, or without */
}

static __always_inline bool proper_key(u64 opcode, u32 length)
{
	if (!length)
		return !(opcode & OPCODES_KEYED);
	return length <= MEMCACHED_KEY_MAX && (opcode & (OPCODES_KEYED | OPCODES_STAT));
}

/* Copy a key to `to`, which is zero and has room for MEMCACHED_KEY_MAX and six more. */
static __always_inline void copy_bytes(const u8 *text, u32 at, u32 length, u8 *to)
{
	u32 last = length & 0xf8;

	at &= 63;  /* where a proper request has its key; the verifier is told so */
	for (u32 done = 0; done < MEMCACHED_KEY_MAX; done += sizeof(u64)) {
		counted(done);
		if (done >= length)
			break;
		*(u64 *)(to + done) = *(const u64 *)(text + at + done);
	}
	if (last != length)
		*(u64 *)(to + last) &= little_u64(~0ull >> (64 - 8 * (length & 7)));
}

/* The exptime in the extras, if they may have one; a count without one has all ones there. */
static __always_inline u32 binary_exptime(const u8 *extras, u64 opcode)
{
	u32 exptime;

	if (opcode & (OPCODES_STORE | OPCODES_STOREQ))
		return *(const u32 *)(extras + 4);
	if (opcode & (OPCODES_COUNT | OPCODES_COUNTQ)) {
		exptime = *(const u32 *)(extras + 16);
		return exptime == 0xffffffff ? 0 : exptime;
	}
	return (opcode & (OPCODES_TOUCH | OPCODES_TOUCHQ)) != 0;
}

/* 0 for a set that does not depend on what was there before: without a cas number. */
static __always_inline u64 binary_condition(const u8 *header, u64 opcode)
{
	return *(const u64 *)(header + 16) | header[5] | !(opcode & (OPCODE(0x01) | OPCODE(0x11)));
}

static __always_inline enum intent binary_intent(const u8 *header, u64 opcode)
{
	u32 intent = INTENT_WRITE, exptime = binary_exptime(header + BINARY_HEADER, opcode);

	if (opcode & OPCODES_FLUSH)
		return INTENT_WRITE_ALL | INTENT_QUIET;
	if (!(opcode & OPCODES_WRITE))
		return INTENT_OTHER;
	if (opcode & OPCODES_QUIET)
		intent |= INTENT_QUIET;
	intent |= bits_without(exptime | binary_condition(header, opcode), INTENT_ENDLESS);
	return intent | lasting_without(exptime);
}

/* Read the request that begins the text, of which the header is there. */
static __always_inline enum intent read_binary(const u8 *text, struct key *key,
					       struct memcached_binary *binary)
{
	const u8 *header = text + MEMCACHED_HEADER;
	u64 opcode = header[1] < 64 ? OPCODE(header[1]) & OPCODES_KNOWN : 0;
	u32 key_length = (u32)header[2] << 8 | header[3], extras = header[4];
	u32 body = ntohl(*(const __be32 *)(header + 8)), at;
	u16 *cell = &key->length;
	enum intent intent;

	binary->data = body - extras - key_length;
	binary->proper = opcode && header[0] == MEMCACHED_BINARY && body >= extras + key_length &&
			 binary->data <= (opcode & OPCODES_VALUED ? BINARY_VALUE_MAX : 0) &&
			 extras == proper_extras(opcode, extras) && proper_key(opcode, key_length);
	if (!binary->proper)
		return INTENT_WRITE_ALL | INTENT_QUIET;
	intent = forget(cell, binary_intent(header, opcode));
	at = forget(cell, MEMCACHED_HEADER + BINARY_HEADER + extras);
	copy_bytes(text, at, forget(cell, key_length), key->bytes + MEMCACHED_SLOT_FROM);
	binary->key_length = *(volatile u16 *)cell;  /* read anew: its bits are known by now */
	binary->end = at + binary->key_length;
	return intent;
}

#endif
