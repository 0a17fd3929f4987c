/* SPDX-License-Identifier: GPL-2.0-only */
/* A request's payload where it lies: a helper that copies it out costs more than to look at it. */
#ifndef CAROM_PAYLOAD_H
#define CAROM_PAYLOAD_H

#include "bounded.h"
#include "clock.h"
#include "hook.h"
#include "little.h"
#include "parse.h"

#define BLOCK 128          /* bytes that are summed at once */
#define LENGTH_BITS 0x7ff  /* of a payload's length, which is at most REPLY_MAX */

/* At TC: bring a payload of `length` bytes to where pointers reach it. */
static __always_inline bool pull_payload(const struct packet *packet, struct request *request,
					 u32 length)
{
	u32 bytes = headers_length(request) + length;

	if (packet->hook != TC || packet_start(packet) + bytes <= packet_end(packet))
		return true;
	return !bpf_skb_pull_data(packet->context, bytes) && locate(packet, request);
}

/*
 * Does an access behind a pointer reach beyond the packet's end? (clang would take the size from the
 * end instead, and the verifier would not know what that says of the pointer.)
 */
static __always_inline bool beyond(const u8 *at, u32 size, const void *end)
{
	asm volatile("" : "+r"(at));
	return (const void *)(at + size) > end;
}

/* The sum of some whole words (a constant number of bytes), in two parts that do not wait for each other. */
static __always_inline u64 summed(const u8 *at, const u32 bytes)
{
	const u32 *words = (const u32 *)at;
	u64 even = 0, odd = 0;

#pragma unroll
	for (u32 n = 0; n < bytes / sizeof(*words); n += 2) {
		even += words[n];
		odd += words[n + 1];
	}
	return even + odd;
}

/* The sum of whole blocks. */
static __always_inline bool sum_blocks(const u8 *at, u64 length, const void *end, u64 *sum)
{
	for (u64 n = 0; n < REPLY_MAX / BLOCK; n++) {
		counted(n);
		if (length < BLOCK)
			break;
		if (beyond(at, BLOCK, end))
			return false;
		*sum += summed(at, BLOCK);
		at += BLOCK;
		length -= BLOCK;
	}
	return true;
}

/* Add the part of that many bytes (a power of two below BLOCK), if the length has one behind larger ones. */
static __always_inline bool sum_part(const u8 *start, u64 length, const u32 part, const void *end,
				     u64 *sum)
{
	const u8 *at = start + (length & LENGTH_BITS & -(u64)(2 * part));

	if (!(length & part))
		return true;
	if (beyond(at, part, end))
		return false;
	*sum += summed(at, part);
	return true;
}

/* The last `length % 8` bytes: of the eight that end with the payload, those at the end. */
static __always_inline bool sum_tail(const u8 *start, u64 length, const void *end, u64 *sum)
{
	const u8 *at = start + (length & LENGTH_BITS) - sizeof(u64);
	u64 rest = length % sizeof(u64), word;

	if (!rest)
		return true;
	if (beyond(at, sizeof(word), end))
		return false;
	word = little_u64(little_u64(*(const u64 *)at) >> (64 - 8 * rest));
	*sum += (u32)word;
	*sum += word >> 32;
	return true;
}

/*
 * The one's-complement sum of a payload of `length` bytes, at most REPLY_MAX. Behind the loop the
 * headers are found anew, and the length is hidden: otherwise the verifier would follow all behind
 * once for each number of turns. For the same reason the sum begins with a number that it does not
 * know.
 */
static __always_inline bool sum_payload(const struct packet *packet, struct request *request,
					u32 length, u64 *sum)
{
	u64 unknown = now(), total = unknown, size;
	const void *end;
	const u8 *start;

	if (!sum_blocks((const u8 *)(request->udp + 1), length, packet_end(packet), &total) ||
	    !locate(packet, request))
		return false;
	size = forgotten(length, unknown);
	end = packet_end(packet);
	start = (const u8 *)(request->udp + 1);
	if (!sum_part(start, size, 64, end, &total) || !sum_part(start, size, 32, end, &total) ||
	    !sum_part(start, size, 16, end, &total) || !sum_part(start, size, 8, end, &total) ||
	    !sum_tail(start, size, end, &total) || !locate(packet, request))
		return false;
	*sum = total - unknown;
	return true;
}

#endif
