/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached over TCP: the same commands in a stream, read step by step. A connection is in text or
 * in binary, as its first byte says. Pure functions on a state, which the caller keeps
 * (include/connection.h):
 *
 *   memcached_stream_held(stream, text), memcached_stream_read(stream, text, length, key, &intent)
 *       One step. The first puts what is held of an unfinished line to text + MEMCACHED_HEADER and
 *       says how much that is. Behind it the caller loads what of the segment is not read yet, as
 *       far as TEXT_ROOM goes, and zeros to the next whole 8 bytes; `length` counts header, held
 *       bytes and all that is not read yet, in the room or not. The second returns how much of the
 *       latter it has dealt with, and says what it wants: INTENT_OTHER, or INTENT_WRITE of `key`
 *       (which comes in as zeros), or INTENT_WRITE_ALL, with INTENT_QUIET as in protocol.h.
 *   memcached_stream_agrees(stream, first)
 *       Whether the server's payload, by its first byte, is a reply to what was read.
 *   memcached_stream_replies(stream, word)
 *       How many replies to writes are in eight bytes that the server sent, at most.
 *
 * A segment takes as many steps as it has commands, and up to three more for a value that is not
 * all in the room.
 */
#ifndef CAROM_MEMCACHED_STREAM_H
#define CAROM_MEMCACHED_STREAM_H

#include "memcached_binary.h"
#include "memcached_text.h"

enum memcached_dialect {
	DIALECT_UNKNOWN = 0,
	DIALECT_TEXT,
	DIALECT_BINARY,
	DIALECT_AGREED,  /* binary, and the server has replied in it */
};

/* Up to STREAM_LINE_MAX bytes, and more up to the next whole 8. */
static __always_inline void copy_line(u8 *to, const u8 *from, u32 length)
{
	for (u32 at = 0; at < STREAM_LINE_MAX; at += sizeof(u64)) {
		u64 word = *(const u64 *)(from + at);

		asm volatile("" : "+r"(at));  /* or clang makes one bound of two, of which one is lost */
		if (at >= length)
			break;
		asm volatile("" : "+r"(word));  /* or clang makes a call to memmove of this */
		*(u64 *)(to + at) = word;
	}
}

static __always_inline u32 memcached_stream_held(const struct stream *stream, u8 *text)
{
	copy_line(text + MEMCACHED_HEADER, stream->line, *(volatile const u16 *)&stream->held);
	return *(volatile const u16 *)&stream->held;  /* read anew: of the first, bits are known */
}

static __always_inline enum intent lose_stream(struct stream *stream)
{
	stream->lost = 1;
	return INTENT_WRITE_ALL | INTENT_QUIET;
}

/* Keep what is there of a command for its rest. */
static __always_inline enum intent hold_line(struct stream *stream, const u8 *text, u32 length)
{
	u32 held = length - MEMCACHED_HEADER;

	if (held > STREAM_LINE_MAX)
		return lose_stream(stream);
	copy_line(stream->line, text + MEMCACHED_HEADER, held);
	stream->held = held;
	return INTENT_OTHER;
}

/*
 * Within a value: leave its bytes out unseen, but see that in text a line's end follows. Versions
 * differ in where they go on behind one that is missing. `*end` moves to where the text is read to.
 */
static __always_inline enum intent skip_value(struct stream *stream, const u8 *text,
					      u32 length, u32 *end)
{
	u32 skip = stream->skip, left = length - MEMCACHED_HEADER;
	u32 line_end = stream->dialect == DIALECT_TEXT ? 2 : 0;
	u8 next = text[MEMCACHED_HEADER];

	if (skip > line_end) {
		left = left < skip - line_end ? left : skip - line_end;
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
static __always_inline void take_data(struct stream *stream, const u8 *text, u32 length,
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

/* Which ends the connection. Over UDP no client has one to end, and memcached does other things. */
static __always_inline bool says_quit(const u8 *text)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM);

	return STARTS(word, 5, TEXT4('q', 'u', 'i', 't') | (u64)'\r' << 32) ||
	       STARTS(word, 5, TEXT4('q', 'u', 'i', 't') | (u64)'\n' << 32);
}

/* A command that was not understood to its end, or has not come to its end yet: `*end` is 0. */
static __always_inline enum intent judge_line(struct stream *stream, const u8 *text,
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
	*end = behind;
	if (!behind)
		return INTENT_OTHER;
	if (says_quit(text))
		return INTENT_OTHER;
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

static __always_inline enum intent read_step(struct stream *stream, const u8 *text,
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

/* As read_step(). */
static __always_inline enum intent read_binary_step(struct stream *stream, const u8 *text,
						    u32 length, struct key *key, u32 *end)
{
	struct memcached_binary binary = {};
	enum intent intent;
	u32 data;

	if (text[MEMCACHED_HEADER] != MEMCACHED_BINARY)
		return lose_stream(stream);
	*end = 0;
	if (length < MEMCACHED_HEADER + BINARY_HEADER)
		return INTENT_OTHER;
	intent = read_binary(text, key, &binary);
	if (!binary.proper)
		return lose_stream(stream);
	if (length < binary.end)
		return INTENT_OTHER;
	data = length - binary.end < binary.data ? length - binary.end : binary.data;
	stream->skip = binary.data - data;
	*end = binary.end + data;
	key->length = MEMCACHED_SLOT_FROM + binary.key_length;
	return intent;
}

static __always_inline u32 memcached_stream_read(struct stream *stream, const u8 *text,
						 u32 length, struct key *key, enum intent *intent)
{
	u32 end = length, held = stream->held;

	stream->held = 0;
	*intent = INTENT_OTHER;
	if (length <= MEMCACHED_HEADER)
		return 0;
	if (!stream->dialect)
		stream->dialect = text[MEMCACHED_HEADER] == MEMCACHED_BINARY ? DIALECT_BINARY
									   : DIALECT_TEXT;
	if (stream->skip) {
		*intent = skip_value(stream, text, length, &end);
	} else if (stream->in_line) {
		end = find_line(text, length);
		stream->in_line = !end;
		if (!end)
			end = length < TEXT_ROOM ? length : TEXT_ROOM;
	} else if (stream->lost) {
		*intent = lose_stream(stream);
	} else {
		*intent = stream->dialect == DIALECT_TEXT
				  ? read_step(stream, text, length, key, &end)
				  : read_binary_step(stream, text, length, key, &end);
		if (!end && !stream->lost) {
			*intent = hold_line(stream, text, length);
			end = length;
		}
	}
	return (stream->lost ? length : end) - MEMCACHED_HEADER - held;
}

/* A server that was told to speak text only takes what looks binary for lines, and obeys them. */
static __always_inline bool memcached_stream_agrees(struct stream *stream, u8 first)
{
	if (stream->dialect == DIALECT_BINARY && first == BINARY_REPLY)
		stream->dialect = DIALECT_AGREED;
	return stream->dialect != DIALECT_BINARY;
}

/*
 * The lines that end there, or in binary the replies that may begin there. To a write that wants an
 * answer memcached sends one of either; those of reads, and of values, are more than there need be.
 */
static __always_inline u32 memcached_stream_replies(const struct stream *stream, u64 word)
{
	u8 mark = stream->dialect == DIALECT_AGREED ? BINARY_REPLY : '\n';
	u64 others = word ^ (mark * ONES), low = ~HIGHS;

	others = (((others & low) + low) | others) & HIGHS;  /* no byte carries into the next */
	return (((others ^ HIGHS) >> 7) * ONES) >> 56;
}

#endif
