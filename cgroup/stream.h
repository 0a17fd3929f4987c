/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes on a TCP connection. A segment that is one command, understood to its last byte, voids its
 * key, and every payload that the server sends on the connection voids the keys of its last writes
 * once more, for it may acknowledge any of them. Whatever is not so plain voids the whole service.
 */
#ifndef CAROM_STREAM_H
#define CAROM_STREAM_H

#include "edge.h"

#define STREAM_ID 0xffffffff  /* where UDP requests have theirs, of 16 bits */

/* Whatever passes may write anything, now and from now on. */
static __always_inline void lose(struct stream *stream, const struct watch *watch)
{
	if (stream)
		stream->lost = 1;
	count_event(STREAM_LOST);
	void_cell(SLOTS + watch->service, false);
}

static __always_inline void begin_stream(const struct datagram *datagram, const struct watch *watch,
					 struct edge_scratch *scratch)
{
	struct stream fresh = { .next = datagram->sequence + 1 };

	fresh.lost = datagram->length != 0;  /* data with the SYN: its place is not known here */
	if (fresh.lost)
		void_cell(SLOTS + watch->service, false);
	streams.update(&scratch->asked, &fresh);
}

/*
 * The segment behind a frame header as UDP has it, so that one parser reads both; 0 where it does
 * not end a line, and so may be the front of a command whose rest is to come.
 */
static __always_inline u32 load_segment(const struct datagram *datagram,
					struct edge_scratch *scratch)
{
	u32 length = datagram->length < TEXT_ROOM - 8 ? datagram->length : TEXT_ROOM - 8;
	u8 last = 0;

	*(u64 *)scratch->text = 0;
	scratch->text[5] = 1;  /* one datagram */
	length = bounded(length, TEXT_ROOM);
	if (length > TEXT_ROOM - 8)
		return 0;
	*(u64 *)(scratch->text + 8 + (length & ~7u)) = 0;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->text + 8, length) ||
	    bpf_skb_load_bytes(datagram->skb, datagram->offset + datagram->length - 1, &last, 1) ||
	    last != '\n')
		return 0;
	return 8 + datagram->length;
}

/* The cell of one more write, in the place of the oldest: that is held, for it may not be done yet. */
static __always_inline void remember_cell(struct stream *stream, u32 cell)
{
	u32 at = stream->writes & (STREAM_CELLS - 1);

	if (stream->writes >= STREAM_CELLS)
		void_cell(stream->cells[at], true);
	stream->cells[at] = cell;
	stream->writes += 1;
}

static __always_inline void see_commands(const struct datagram *datagram, const struct watch *watch,
					 struct stream *stream, struct edge_scratch *scratch)
{
	u32 length = load_segment(datagram, scratch), cell;
	enum intent intent;

	__builtin_memset(&scratch->draft.key, 0, sizeof(scratch->draft.key));
	intent = length ? understand(watch->protocol, scratch->text, length, &scratch->draft.key)
			: INTENT_WRITE_ALL;
	stream->unanswered += 1;
	if ((intent & INTENT_MASK) == INTENT_WRITE_ALL || stream->unanswered > STREAM_CELLS) {
		lose(stream, watch);
		return;
	}
	if ((intent & INTENT_MASK) != INTENT_WRITE)
		return;
	cell = slot_of(&scratch->draft.key, slot_from(watch->protocol));
	void_cell(cell, intent & INTENT_QUIET);
	count_event(WRITE_SEEN);
	remember_cell(stream, cell);
}

static __always_inline void see_payload(const struct watch *watch, struct stream *stream)
{
	for (u32 i = 0; i < STREAM_CELLS; i++) {
		if (i >= stream->writes)
			break;
		void_cell(stream->cells[i], false);
		count_event(WRITE_DONE);
	}
	if (stream->unanswered)
		stream->unanswered -= 1;
}

static __always_inline void see_stream(const struct datagram *datagram, const struct watch *watch,
				       bool ingress, struct edge_scratch *scratch)
{
	struct stream *stream;

	if (!writes_by_stream(watch->protocol))
		return;
	scratch->asked.key_hash = 0;
	scratch->asked.id = STREAM_ID;
	if (ingress && datagram->begins) {
		begin_stream(datagram, watch, scratch);
		return;
	}
	if (!datagram->length)
		return;
	stream = streams.lookup(&scratch->asked);
	if (!stream || stream->lost || (ingress && datagram->sequence != stream->next)) {
		lose(stream, watch);
		return;
	}
	if (ingress) {
		stream->next += datagram->length;
		see_commands(datagram, watch, stream, scratch);
	} else {
		see_payload(watch, stream);
	}
}

#endif
