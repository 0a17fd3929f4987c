/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A request whose whole payload is the key, read where it lies: hashed, and compared with an entry's
 * key. Behind each loop the headers are found anew, and the length is hidden, as in payload.h.
 */
#ifndef CAROM_WHOLE_H
#define CAROM_WHOLE_H

#include "abi.h"
#include "directory.h"
#include "key_hash.h"
#include "parse.h"
#include "payload.h"

#define KEY_BLOCK 32  /* bytes that are looked at together */
#define WHOLE_BITS 0x1ff

/* A payload of a length from 1 to WHOLE_MAX. */
struct whole {
	const struct packet *packet;
	struct request *request;
	u64 unknown;
	u64 rest;  /* its last `length % 8` bytes, with zeros behind */
};

/* The length; the verifier knows nothing of it but its bound. */
static __always_inline u32 whole_length(const struct whole *whole)
{
	return forgotten(whole->request->length, whole->unknown) & WHOLE_BITS;
}

static __always_inline const u8 *whole_at(const struct whole *whole, u32 offset)
{
	return (const u8 *)(whole->request->udp + 1) + offset;
}

/* Read the last bytes: of the eight that end with the payload, those that are behind whole words. */
static __always_inline bool read_rest(struct whole *whole)
{
	u32 length = whole_length(whole), rest = length % sizeof(u64);
	const u8 *at = whole_at(whole, length) - sizeof(u64);

	whole->rest = 0;
	if (!rest)
		return true;
	if (beyond(at, sizeof(u64), packet_end(whole->packet)))
		return false;
	whole->rest = little_u64(little_u64(*(const u64 *)at) >> (64 - 8 * rest));
	return true;
}

static __always_inline u64 weigh(const u8 *at, const u64 *weights)
{
	const u32 *words = (const u32 *)at;

	return weights[0] * words[0] + weights[1] * words[1];
}

/* Add the whole blocks of the payload to a hash. */
static __always_inline bool hash_blocks(const struct whole *whole, const u64 *weights, u64 *sum)
{
	const u8 *at = whole_at(whole, 0);
	const void *end = packet_end(whole->packet);
	u32 left = whole_length(whole);
	u64 even = 0, odd = 0;

	for (u32 n = 0; n < WHOLE_MAX / KEY_BLOCK; n++) {
		counted(n);
		if (left < KEY_BLOCK)
			break;
		if (beyond(at, KEY_BLOCK, end))
			return false;
		even += weigh(at, weights) + weigh(at + 16, weights + 4);
		odd += weigh(at + 8, weights + 2) + weigh(at + 24, weights + 6);
		at += KEY_BLOCK;
		left -= KEY_BLOCK;
		weights += KEY_BLOCK / sizeof(u32);
	}
	*sum += even + odd;
	return locate(whole->packet, whole->request);
}

/* Add the whole words behind them. */
static __always_inline bool hash_words(const struct whole *whole, const u64 *weights, u64 *sum)
{
	u32 length = whole_length(whole), from = length & ~(KEY_BLOCK - 1);
	const u8 *at = whole_at(whole, from);
	const void *end = packet_end(whole->packet);

	length %= KEY_BLOCK;
	weights += from / sizeof(u32);
	for (u32 n = 0; n < KEY_BLOCK / sizeof(u64) - 1; n++) {
		counted(n);
		if (length < sizeof(u64))
			break;
		if (beyond(at, sizeof(u64), end))
			return false;
		*sum += weigh(at, weights);
		at += sizeof(u64);
		length -= sizeof(u64);
		weights += 2;
	}
	return locate(whole->packet, whole->request);
}

/* hash_of() of the key that a payload is; false where the frame ends before. */
static __always_inline bool hash_whole(struct whole *whole, u16 service, const u64 *weights,
				       u64 *hash)
{
	struct key key = { .service = service, .length = whole_length(whole) };
	u64 sum = whole->unknown + weights[0] * *(const u32 *)&key;

	weights += 2;
	if (!hash_blocks(whole, weights, &sum) || !hash_words(whole, weights, &sum) ||
	    !read_rest(whole) || !locate(whole->packet, whole->request))
		return false;
	weights += whole_length(whole) / sizeof(u64) * 2;
	sum += weights[0] * ((const u32 *)&whole->rest)[0] +
	       weights[1] * ((const u32 *)&whole->rest)[1];
	*hash = mixed(sum - whole->unknown);
	return true;
}

static __always_inline bool same_blocks(const struct whole *whole, const u8 *key, u64 *differ)
{
	const u8 *at = whole_at(whole, 0);
	const void *end = packet_end(whole->packet);
	u32 left = whole_length(whole);

	for (u32 n = 0; n < WHOLE_MAX / KEY_BLOCK; n++) {
		const u64 *ours = (const u64 *)at, *theirs = (const u64 *)key;

		counted(n);
		if (left < KEY_BLOCK)
			break;
		if (beyond(at, KEY_BLOCK, end))
			return false;
		*differ |= (ours[0] ^ theirs[0]) | (ours[1] ^ theirs[1]) | (ours[2] ^ theirs[2]) |
			   (ours[3] ^ theirs[3]);
		at += KEY_BLOCK;
		key += KEY_BLOCK;
		left -= KEY_BLOCK;
	}
	return locate(whole->packet, whole->request);
}

static __always_inline bool same_words(const struct whole *whole, const u8 *key, u64 *differ)
{
	u32 length = whole_length(whole), from = length & ~(KEY_BLOCK - 1);
	const u8 *at = whole_at(whole, from);
	const void *end = packet_end(whole->packet);

	length %= KEY_BLOCK;
	key += from;
	for (u32 n = 0; n < KEY_BLOCK / sizeof(u64) - 1; n++) {
		counted(n);
		if (length < sizeof(u64))
			break;
		if (beyond(at, sizeof(u64), end))
			return false;
		*differ |= *(const u64 *)at ^ *(const u64 *)key;
		at += sizeof(u64);
		key += sizeof(u64);
		length -= sizeof(u64);
	}
	return locate(whole->packet, whole->request);
}

/* Is the payload an entry's key? Nothing is decided before the sequence number is looked at again. */
static __always_inline bool is_whole(struct whole *whole, u16 service, const struct entry *entry)
{
	u32 length = whole_length(whole);
	u64 differ = 0;

	if (*(volatile u16 *)&entry->key_length != length ||
	    *(volatile u16 *)&entry->service != service ||
	    !same_blocks(whole, entry->data, &differ) || !same_words(whole, entry->data, &differ))
		return false;
	if (length % sizeof(u64))
		differ |= whole->rest ^ *(const u64 *)(entry->data + (whole_length(whole) & ~7u));
	return !differ;
}

#endif
