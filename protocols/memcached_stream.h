/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached over TCP: the same commands in a stream, read step by step, and the cells of `versions`
 * that a connection's last writes void. Pure functions on a state, which the caller keeps:
 *
 *   memcached_stream_begin(stream, sequence)
 *       On a SYN; `sequence` is that of the byte behind it. A connection with data beside its SYN,
 *       or that was not seen to begin, is lost: set `lost`.
 *   memcached_stream_arrive(stream, sequence, length)
 *       Before a segment of `length` bytes is read. Out of sequence, the stream is lost.
 *   memcached_stream_held(stream, text), memcached_stream_read(stream, text, length, key, &intent)
 *       One step. The first puts what is held of an unfinished line to text + MEMCACHED_HEADER and
 *       says how much that is. Behind it the caller loads what of the segment is not read yet, as
 *       far as TEXT_ROOM goes, and zeros to the next whole 8 bytes; `length` counts header, held
 *       bytes and all that is not read yet, in the room or not. The second returns how much of the
 *       latter it has dealt with, and says what it wants: INTENT_OTHER, or INTENT_WRITE of `key`
 *       (which comes in as zeros), or INTENT_WRITE_ALL, with INTENT_QUIET as in protocol.h.
 *   memcached_stream_wrote(stream, cell), memcached_stream_answered(stream, n)
 *       Remember a write's cell, and have back the one that it displaces, which may not have been
 *       acknowledged: nothing may fill it for as long as after a quiet write. The n-th of the cells
 *       to void again when the server has sent a payload, any payload; n < MEMCACHED_STREAM_CELLS.
 *
 * A segment takes as many steps as it has commands, and up to three more for a value that is not
 * all in the room. A caller makes a few steps in one program and tail-calls itself as long as
 * something is left; a segment that is not done after all calls is lost. On a lost stream every
 * payload, either way, voids the whole service.
 */
#ifndef CAROM_MEMCACHED_STREAM_H
#define CAROM_MEMCACHED_STREAM_H

#include "memcached.h"

#define MEMCACHED_STREAM_CELLS 16  /* a power of two */
#define MEMCACHED_NO_CELL 0xffffffff
#define MEMCACHED_HELD_MAX 256     /* bytes of an unfinished line that are kept for its rest */

/* All zeros but for `next`, where a connection begins. */
struct memcached_stream {
	u32 next;    /* sequence number of the client's next byte */
	u32 skip;    /* bytes of a value still to come, its line's end with them */
	u16 held;    /* bytes in `line` */
	u8 lost;     /* not understood: it may write anything from here on */
	u8 in_line;  /* within a line that writes nothing, however it ends */
	u32 writes;  /* how many there were, modulo 2^32; the last are in `cells` */
	u32 cells[MEMCACHED_STREAM_CELLS];
	u8 line[MEMCACHED_HELD_MAX];
};

static __always_inline void memcached_stream_begin(struct memcached_stream *stream, u32 sequence)
{
	__builtin_memset(stream, 0, sizeof(*stream));
	stream->next = sequence;
}

/*
 * A segment that comes again is out of sequence too: it was seen, but the first one may have been
 * another, with a wrong checksum, for here that is not known yet.
 */
static __always_inline bool memcached_stream_arrive(struct memcached_stream *stream, u32 sequence,
						    u32 length)
{
	if (sequence != stream->next)
		stream->lost = 1;
	stream->next = sequence + length;
	return !stream->lost;
}

/* Up to MEMCACHED_HELD_MAX bytes, and more up to the next whole 8. */
static __always_inline void copy_line(u8 *to, const u8 *from, u32 length)
{
	for (u32 at = 0; at < MEMCACHED_HELD_MAX; at += sizeof(u64)) {
		u64 word = *(const u64 *)(from + at);

		if (at >= length)
			break;
		asm volatile("" : "+r"(word));  /* or clang makes a call to memmove of this */
		*(u64 *)(to + at) = word;
	}
}

static __always_inline u32 memcached_stream_held(const struct memcached_stream *stream, u8 *text)
{
	u32 held = *(volatile const u16 *)&stream->held;

	copy_line(text + MEMCACHED_HEADER, stream->line, held);
	return held;
}

/* Keep a line whose end is to come; false where it is too long. */
static __always_inline bool hold_line(struct memcached_stream *stream, const u8 *text, u32 length)
{
	u32 held = length - MEMCACHED_HEADER;

	if (held > MEMCACHED_HELD_MAX)
		return false;
	copy_line(stream->line, text + MEMCACHED_HEADER, held);
	stream->held = held;
	return true;
}

static __always_inline enum intent lose_stream(struct memcached_stream *stream)
{
	stream->lost = 1;
	return INTENT_WRITE_ALL | INTENT_QUIET;
}

/*
 * Within a value: leave its bytes out unseen, but see that a line's end follows. Versions differ in
 * where they go on behind one that is missing. `*end` moves to where the text is read to.
 */
static __always_inline enum intent skip_value(struct memcached_stream *stream, const u8 *text,
					      u32 length, u32 *end)
{
	u32 skip = stream->skip, left = length - MEMCACHED_HEADER;
	u8 next = text[MEMCACHED_HEADER];

	if (skip > 2) {
		left = left < skip - 2 ? left : skip - 2;
		stream->skip = skip - left;
		*end = MEMCACHED_HEADER + left;
		return INTENT_OTHER;
	}
	if (next != (skip == 2 ? '\r' : '\n'))
		return lose_stream(stream);
	stream->skip = skip - 1;
	*end = MEMCACHED_HEADER + 1;
	return INTENT_OTHER;
}

/* A store command's data: taken, where they are all in the room and proper, or to be skipped. */
static __always_inline void take_data(struct memcached_stream *stream, const u8 *text, u32 length,
				      u32 data, u32 *end)
{
	u32 behind = *end + data;

	if (!data)
		return;
	if (behind <= length && behind <= TEXT_ROOM &&
	    text_byte(text, behind - 2, TEXT_ROOM) == '\r' &&
	    text_byte(text, behind - 1, TEXT_ROOM) == '\n')
		*end = behind;
	else
		stream->skip = data;
}

/* A command that was not understood to its end, or has not come to its end yet. */
static __always_inline enum intent judge_line(struct memcached_stream *stream, const u8 *text,
					      u32 length, enum memcached_kind kind, bool keyed,
					      u32 *end)
{
	bool reads = kind == KIND_QUERY || kind == KIND_GET || kind == KIND_GETS;
	u32 behind = find_line(text, length);

	if (!behind && reads) {
		stream->in_line = 1;
		*end = length < TEXT_ROOM ? length : TEXT_ROOM;
		return INTENT_OTHER;
	}
	if (!behind) {
		*end = length;
		return hold_line(stream, text, length) ? INTENT_OTHER : lose_stream(stream);
	}
	*end = behind;
	switch (kind) {
	case KIND_QUERY:
	case KIND_GET:
	case KIND_GETS:
		return INTENT_OTHER;
	case KIND_LINE:
		return keyed ? INTENT_WRITE | INTENT_QUIET : INTENT_WRITE_ALL | INTENT_QUIET;
	case KIND_GAT:
	case KIND_MG:
	case KIND_META:
	case KIND_FLUSH:
		return INTENT_WRITE_ALL | INTENT_QUIET;  /* of one line, whatever else it may be */
	default:
		return lose_stream(stream);
	}
}

static __always_inline enum intent read_step(struct memcached_stream *stream, const u8 *text,
					     u32 length, struct key *key, u32 *end)
{
	struct memcached_command command = {};
	enum intent intent = read_text(text, key, &command);
	u16 *cell = &key->length;
	enum memcached_kind kind;
	bool keyed;
	u32 data;

	*end = forget(cell, command.end);
	if (intent != INTENT_WRITE_ALL && *end && *end <= length) {
		intent = forget(cell, intent);
		data = command.data;
		key->length = MEMCACHED_SLOT_FROM + command.key_length;
		take_data(stream, text, length, data, end);
		return intent == INTENT_READ ? INTENT_OTHER : intent;
	}
	keyed = forget(cell, command.keyed);
	kind = forget(cell, command.kind);
	key->length = MEMCACHED_SLOT_FROM + command.key_length;
	return judge_line(stream, text, length, kind, keyed, end);
}

static __always_inline u32 memcached_stream_read(struct memcached_stream *stream, const u8 *text,
						 u32 length, struct key *key, enum intent *intent)
{
	u32 end = length, held = stream->held;

	stream->held = 0;
	*intent = INTENT_OTHER;
	if (length <= MEMCACHED_HEADER)
		return 0;
	if (stream->skip) {
		*intent = skip_value(stream, text, length, &end);
	} else if (stream->in_line) {
		end = find_line(text, length);
		stream->in_line = !end;
		if (!end)
			end = length < TEXT_ROOM ? length : TEXT_ROOM;
	} else if (stream->lost || text[MEMCACHED_HEADER] == MEMCACHED_BINARY) {
		*intent = lose_stream(stream);
	} else {
		*intent = read_step(stream, text, length, key, &end);
	}
	return (stream->lost ? length : end) - MEMCACHED_HEADER - held;
}

static __always_inline u32 memcached_stream_wrote(struct memcached_stream *stream, u32 cell)
{
	u32 writes = stream->writes, at = writes & (MEMCACHED_STREAM_CELLS - 1);
	u32 displaced = writes < MEMCACHED_STREAM_CELLS ? MEMCACHED_NO_CELL : stream->cells[at];

	stream->cells[at] = cell;
	stream->writes = writes + 1 ? writes + 1 : MEMCACHED_STREAM_CELLS;
	return displaced;
}

static __always_inline u32 memcached_stream_answered(const struct memcached_stream *stream, u32 n)
{
	return n < stream->writes ? stream->cells[n & (MEMCACHED_STREAM_CELLS - 1)]
				  : MEMCACHED_NO_CELL;
}

#endif
