/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes on a TCP connection. A segment is read command by command, and each voids its key; every
 * payload that the server sends on the connection voids the keys of its last writes once more, for
 * it may acknowledge any of them. A connection that is not understood voids the whole service, with
 * whatever passes on it, either way.
 *
 * Segments come here before the socket is locked, so two CPUs may have one each. `inside` lets one
 * of them read; the other's segment is not read, and so the connection is lost. What the server
 * sends may pass at the same time: a cell is in `cells` before its segment reaches the server, so
 * before it is acknowledged, and one that is displaced is held before it is gone from there.
 */
#ifndef CAROM_STREAM_H
#define CAROM_STREAM_H

#include "connection.h"
#include "edge.h"

#define STREAM_ID 0xffffffff  /* where UDP requests have theirs, of 16 bits */
#define STREAM_STEPS 6       /* commands that one run of edge_stream reads; it runs 33 times */
#define REPLIES_ROOM 512      /* bytes of a server's payload that are looked at */

BPF_PROG_ARRAY(stream_programs, 1);  /* edge_stream */

/* What passes may write anything; where that wants no acknowledgement, nothing else will tell. */
static __always_inline void void_service(u32 service, bool ingress)
{
	count_event(STREAM_LOST);
	void_cell(SLOTS + service, ingress);
}

static __always_inline bool enter_stream(struct stream *stream)
{
	__sync_fetch_and_add(&stream->inside, 1);
	return *(volatile u32 *)&stream->inside == 1;
}

static __always_inline void leave_stream(struct stream *stream)
{
	__sync_fetch_and_add(&stream->inside, -1);
}

/* A port that is used again, or a SYN that came twice: what was written before is to be held. */
static __always_inline void begin_again(struct stream *stream, const struct datagram *datagram,
					u32 service)
{
	bool alone = enter_stream(stream);
	u32 nothing = 0;

	asm volatile("" : "+r"(nothing));  /* clang would not add it */
	if (stream->lost || !alone)
		void_cell(SLOTS + service, true);
	for (u32 n = 0; n < STREAM_CELLS; n++) {
		u32 cell = stream_cell(stream, n);

		if (cell == NO_CELL)
			break;
		void_cell(cell, true);
	}
	stream_begin(stream, datagram->sequence + 1);
	__sync_fetch_and_add(&stream->inside, nothing);  /* begun before we look who came */
	if (!alone || datagram->length || *(volatile u32 *)&stream->inside != 1)
		stream->lost = 1;
	leave_stream(stream);
}

static __always_inline void begin_stream(const struct datagram *datagram, const struct watch *watch,
					 struct edge_scratch *scratch)
{
	struct stream *stream = streams.lookup(&scratch->asked);

	if (stream) {
		begin_again(stream, datagram, watch->service);
	} else {
		scratch->fresh.next = datagram->sequence + 1;
		scratch->fresh.lost = datagram->length != 0;  /* with the SYN: its place is not known */
		streams.update(&scratch->asked, &scratch->fresh);
	}
	if (datagram->length)
		void_service(watch->service, true);
}

/* A segment of the client's: true where there is something to read in it. Then it is inside. */
static __always_inline bool see_segment(const struct datagram *datagram, const struct watch *watch,
					struct edge_scratch *scratch)
{
	struct stream *stream;
	bool alone;

	if (!writes_by_stream(watch->protocol))
		return false;
	scratch->asked.key_hash = 0;
	scratch->asked.id = STREAM_ID;
	if (datagram->begins) {
		begin_stream(datagram, watch, scratch);
		return false;
	}
	stream = streams.lookup(&scratch->asked);
	if (!stream) {
		void_service(watch->service, true);
		return false;
	}
	alone = enter_stream(stream);
	if (!alone || datagram->urgent)
		stream->lost = 1;
	if (!alone || !stream_arrive(stream, datagram->sequence, datagram->length)) {
		leave_stream(stream);
		void_service(watch->service, true);
		return false;
	}
	scratch->unread.offset = datagram->offset;
	scratch->unread.left = datagram->length;
	scratch->unread.service = watch->service;
	scratch->unread.protocol = watch->protocol;
	return true;
}

/* What is held of a line and behind it what is unread, as stream_read() wants it; 0: it cannot. */
static __always_inline u32 load_unread(struct __sk_buff *skb, const struct stream *stream,
				       struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	u32 left = unread->left, from, size;
	u32 held = stream_held(unread->protocol, stream, scratch->text, &from);

	if (!left || held > STREAM_LINE_MAX)
		return 0;
	size = TEXT_ROOM - from - held;
	if (size > left)
		size = left;
	size = bounded(size, TEXT_ROOM);
	held = bounded(from + held, 2 * STREAM_LINE_MAX);
	*(u64 *)(scratch->text + held + size) = 0;
	if (bpf_skb_load_bytes(skb, unread->offset, scratch->text + held, size))
		return 0;
	return held + *(volatile u32 *)&unread->left;
}

static __always_inline void write_cell(struct stream *stream, u32 service, u32 cell, bool quiet)
{
	u32 displaced = stream_displaces(stream);

	void_cell(cell, quiet);
	if (displaced != NO_CELL)
		void_cell(displaced, true);
	asm volatile("" ::: "memory");
	stream_wrote(stream, cell, quiet);
	if (stream_unanswered(stream) > STREAM_CELLS)
		void_service(service, true);
}

/* Read one command, or a part of one. */
static __always_inline void step(struct __sk_buff *skb, struct stream *stream,
				 struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	struct key *key = &scratch->draft.key;
	u32 length = load_unread(skb, stream, scratch), done, cell;
	enum intent intent;
	bool all;

	if (!length) {
		stream->lost = 1;
		return;
	}
	__builtin_memset(key, 0, sizeof(*key));
	done = stream_read(unread->protocol, stream, scratch->text, length, key, &intent);
	unread->offset += done;
	unread->left -= done;
	if ((intent & INTENT_MASK) < INTENT_WRITE || stream->lost)
		return;
	all = (intent & INTENT_MASK) == INTENT_WRITE_ALL;
	cell = all ? SLOTS + unread->service : slot_of(key, slot_from(unread->protocol));
	count_event(all ? WRITE_ALL_SEEN : WRITE_SEEN);
	write_cell(stream, unread->service, cell, intent & INTENT_QUIET);
}

/* Have edge_stream read what is unread. Does not come back, unless that cannot be. */
static __always_inline void go_on(struct __sk_buff *skb, struct edge_scratch *scratch)
{
	struct stream *stream;

	stream_programs.call(skb, 0);
	stream = streams.lookup(&scratch->asked);
	if (stream) {
		stream->lost = 1;
		leave_stream(stream);
	}
	void_service(scratch->unread.service, true);
}

/* Read on in a segment. The scratch memory is ours since edge_ingress. */
static __always_inline void read_segment(struct __sk_buff *skb, struct edge_scratch *scratch)
{
	struct stream *stream = streams.lookup(&scratch->asked);

	if (!stream) {
		void_service(scratch->unread.service, true);
		return;
	}
	for (u32 n = 0; n < STREAM_STEPS && scratch->unread.left && !stream->lost; n++)
		step(skb, stream, scratch);
	if (scratch->unread.left && !stream->lost) {
		go_on(skb, scratch);
		return;
	}
	if (stream->lost)
		void_service(scratch->unread.service, true);
	leave_stream(stream);
}

/* Is a payload of the server's in the language of what was read? */
static __always_inline bool agrees(const struct datagram *datagram, u32 protocol,
				   struct stream *stream)
{
	u8 first;

	return !bpf_skb_load_bytes(datagram->skb, datagram->offset, &first, sizeof(first)) &&
	       stream_agrees(protocol, stream, first);
}

/* How many replies a payload of the server's may be; of a long one nobody counts them. */
static __always_inline u32 count_replies(const struct datagram *datagram, u32 protocol,
					 const struct stream *stream)
{
	u32 replies = 0;

	if (datagram->length > REPLIES_ROOM)
		return 0xffffffff;
	for (u32 at = 0; at < REPLIES_ROOM; at += sizeof(u64)) {
		u32 left = datagram->length - at;
		u64 word = 0;

		asm volatile("" : "+r"(at));
		if (at >= datagram->length)
			break;
		left = bounded(left < sizeof(word) ? left : sizeof(word), sizeof(word));
		if (bpf_skb_load_bytes(datagram->skb, datagram->offset + at, &word, left))
			break;
		replies += stream_replies(protocol, stream, word);
	}
	return replies;
}

/* A payload of the server's. It needs no scratch memory, and so comes upon nobody else's. */
static __always_inline void see_payload(const struct datagram *datagram, const struct watch *watch)
{
	struct asked asked = { .id = STREAM_ID };
	struct stream *stream;

	if (!writes_by_stream(watch->protocol) || !datagram->length)
		return;
	identify(datagram, watch, &asked);
	stream = streams.lookup(&asked);
	if (stream && !agrees(datagram, watch->protocol, stream))
		stream->lost = 1;
	if (!stream || stream->lost || stream_unanswered(stream) > STREAM_CELLS)
		void_service(watch->service, false);
	if (!stream)
		return;
	for (u32 n = 0; n < STREAM_CELLS; n++) {
		u32 cell = stream_cell(stream, n);

		if (cell == NO_CELL)
			break;
		void_cell(cell, false);
		count_event(WRITE_DONE);
	}
	stream_answered(stream, count_replies(datagram, watch->protocol, stream));
}

#endif
