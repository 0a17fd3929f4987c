/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bytes between a packet and memory without a helper, whose call alone takes as long as a hundred bytes: by
 * blocks, and behind them by what the length's lower bits say. Each part is found by its offset from the
 * packet's start, and the length is hidden, as in payload.h.
 */
#ifndef CAROM_MOVED_H
#define CAROM_MOVED_H

#include "bounded.h"
#include "clock.h"
#include "hook.h"
#include "little.h"
#include "parse.h"
#include "payload.h"

#define MOVED 32        /* bytes of a block */
#define MOVED_MAX 512   /* bytes of a reply for which a helper would take longer; it takes more of them */

/*
 * A sum of words of 8 bytes: of all of each, and of its upper half. The first may run over; the second tells
 * how often.
 */
struct halves {
	u64 all;
	u64 upper;
};

static __always_inline u64 added(struct halves *halves, u64 word)
{
	halves->all += word;
	halves->upper += word >> 32;
	return word;
}

/* The sum of their halves. */
static __always_inline u64 sum_of_halves(const struct halves *halves)
{
	return halves->all - (halves->upper << 32) + halves->upper;
}

static __always_inline void take_words(u8 *to, const u8 *from, const u32 bytes,
				       struct halves *halves)
{
#pragma unroll
	for (u32 n = 0; n < bytes / sizeof(u64); n++)
		((u64 *)to)[n] = added(halves, ((const u64 *)from)[n]);
}

static __always_inline bool give_words(u8 *to, const u8 *from, const u32 bytes, const void *end)
{
	to = opaque(to);
	if (beyond(to, bytes, end))
		return false;
#pragma unroll
	for (u32 n = 0; n < bytes / sizeof(u64); n++)
		((u64 *)to)[n] = ((const u64 *)from)[n];
	return true;
}

/* The blocks of a payload. */
static __always_inline bool take_blocks(u8 *to, const u8 *from, const void *end, u64 length,
					const u32 room, struct halves *halves)
{
	for (u64 at = 0; at < room; at += MOVED) {
		const u8 *here;

		counted(at);
		if (length < MOVED)
			break;
		here = opaque((void *)from + at);
		if (beyond(here, MOVED, end))
			return false;
		take_words(to + at, here, MOVED, halves);
		length -= MOVED;
	}
	return true;
}

/* The part of that many bytes (a power of two below MOVED), if the length has one behind larger ones. */
static __always_inline bool take_part(u8 *to, const u8 *start, u64 length, const u32 part,
				      const void *end, struct halves *halves)
{
	u64 at = length & -(u64)(2 * part);

	if (!(length & part))
		return true;
	if (beyond(start + at, part, end))
		return false;
	take_words(to + at, start + at, part, halves);
	return true;
}

/* The last `length % 8` bytes, with zeros behind them; or only zeros. */
static __always_inline bool take_tail(u8 *to, const u8 *start, u64 length, const void *end,
				      struct halves *halves)
{
	const u8 *at = start + length - sizeof(u64);
	u64 rest = length % sizeof(u64), word = 0;

	if (rest) {
		if (beyond(at, sizeof(u64), end))
			return false;
		word = little_u64(little_u64(*(const u64 *)at) >> (64 - 8 * rest));
	}
	*(u64 *)(to + (length & -sizeof(u64))) = added(halves, word);
	return true;
}

/*
 * Copy a request's payload of `length` bytes, at least 1 and less than `room` (a constant, a power of two),
 * and zeros up to the next whole word; `sum` becomes its one's-complement sum. False where the packet ends
 * before.
 */
static __always_inline bool take_payload(const struct packet *packet, struct request *request,
					 u32 length, u8 *to, const u32 room, u64 *sum)
{
	u64 unknown = now(), size = forgotten(length, unknown) & (room - 1);
	struct halves halves = { unknown, unknown };
	const u8 *start;
	const void *end;

	if (!take_blocks(to, (const u8 *)(request->udp + 1), packet_end(packet), size, room,
			 &halves) ||
	    !locate(packet, request))
		return false;
	end = packet_end(packet);
	start = (const u8 *)(request->udp + 1);
	size = forgotten(length, unknown) & (room - 1);
	if (!take_part(to, start, size, 16, end, &halves) ||
	    !take_part(to, start, size, 8, end, &halves) ||
	    !take_tail(to, start, size, end, &halves))
		return false;
	halves.all -= unknown;
	halves.upper -= unknown;
	*sum = sum_of_halves(&halves);
	return true;
}

/*
 * Write `length` bytes behind the headers. False for too few or too many, or where pointers do not reach
 * there: then a helper has to write all of them.
 */
static __always_inline bool give_payload(const struct packet *packet, struct request *request,
					 u32 length, const u8 *from)
{
	u64 unknown = now(), size = forgotten(length, unknown) & (2 * MOVED_MAX - 1), left = size;
	const void *end = packet_end(packet);
	u8 *to;

	if (length < sizeof(u64) || length > MOVED_MAX || !locate(packet, request))
		return false;
	to = (u8 *)(request->udp + 1);
	for (u64 at = 0; at < MOVED_MAX; at += MOVED) {
		counted(at);
		if (left < MOVED)
			break;
		if (!give_words(to + at, from + at, MOVED, end))
			return false;
		left -= MOVED;
	}
	if (!locate(packet, request))
		return false;
	to = (u8 *)(request->udp + 1);
	end = packet_end(packet);
	size = forgotten(length, unknown) & (2 * MOVED_MAX - 1);
	if (size & 16 && !give_words(to + (size & -MOVED), from + (size & -MOVED), 16, end))
		return false;
	if (size & 8 && !give_words(to + (size & -16), from + (size & -16), 8, end))
		return false;
	return !(size & 7) || give_words(to + size - 8, from + size - 8, 8, end);
}

#endif
