/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached over TCP: the same commands in a stream, read step by step. A connection is in text or
 * in binary, as its first byte says. Pure functions on a state, which the caller keeps
 * (include/connection.h):
 *
 *   memcached_stream_held(stream, text), memcached_stream_read(stream, text, length, key, &intent)
 *       One step. The first puts the held part of an unfinished line to text + MEMCACHED_HEADER and
 *       returns its length. Behind it the caller loads the unread part of the segment, as far as
 *       TEXT_ROOM goes, and zeros to the next whole 8 bytes; `length` counts header, held bytes and
 *       all unread bytes, in the room or not. The second returns how many of the unread bytes it
 *       has dealt with, and what they want: INTENT_OTHER, or INTENT_WRITE of `key` (which comes in
 *       as zeros), or INTENT_WRITE_ALL, with INTENT_QUIET as in protocol.h.
 *   memcached_stream_ahead(stream, text, length)
 *       The length of the read at text + MEMCACHED_HEADER, if it certainly is one and ends in the
 *       first AHEAD_ROOM bytes there; 0 for what has to be read step by step.
 *   memcached_stream_agrees(stream, first)
 *       Whether the server's payload, by its first byte, is a reply to what was read.
 *   memcached_stream_replies(stream, word)
 *       How many replies may be in eight bytes that the server sent, at most.
 *   memcached_stream_refuses_line(stream, word), memcached_stream_says_stored(stream, word)
 *       What a payload is by its first eight bytes: the refusal of a line itself; the reply to a
 *       `set` that was done.
 *   memcached_stream_row(row)
 *       The next eight bytes of a row of refusals, behind those in `row`; the first ones for 0.
 *
 * A segment takes as many steps as it has commands, and up to three more for a value that is not
 * all in the room.
 */
#ifndef CAROM_MEMCACHED_STREAM_H
#define CAROM_MEMCACHED_STREAM_H

#include "memcached.h"
#include "memcached_binary.h"
#include "memcached_text.h"

enum memcached_dialect {
	DIALECT_UNKNOWN = 0,
	DIALECT_TEXT,
	DIALECT_BINARY,
	DIALECT_AGREED,  /* binary, and the server has replied in it */
};

/* Copy up to STREAM_LINE_MAX bytes, and more up to the next whole 8. */
static __always_inline void copy_line(u8 *to, const u8 *from, u32 length)
{
	for (u32 at = 0; at < STREAM_LINE_MAX; at += sizeof(u64)) {
		u64 word = *(const u64 *)(from + at);

		counted(at);  /* and makes no one bound of two */
		if (at >= length)
			break;
		asm volatile("" : "+r"(word));  /* or clang makes a call to memmove of this */
		*(u64 *)(to + at) = word;
	}
}

/* Bytes of a datagram before its commands. */
static __always_inline u32 memcached_stream_front(void)
{
	return MEMCACHED_HEADER;
}

/* If a datagram may be in binary, it is not known in which language the server reads it. */
static __always_inline bool memcached_stream_is_readable(const u8 *text)
{
	return text[MEMCACHED_HEADER] != MEMCACHED_BINARY;
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

/* Keep the beginning of a command until the rest of it comes. */
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
 * Within a value: skip its bytes unseen, but check that in text a line's end follows. If it is
 * missing, versions differ in where they go on. `*end` moves to where the text is read to.
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

/* A store command's data: taken if all of it is in the room and proper; otherwise to be skipped. */
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

/* Is it `quit`, which ends the connection? Over UDP there is none to end, and memcached differs. */
static __always_inline bool says_quit(const u8 *text)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM);

	return STARTS(word, 5, TEXT4('q', 'u', 'i', 't') | (u64)'\r' << 32) ||
	       STARTS(word, 5, TEXT4('q', 'u', 'i', 't') | (u64)'\n' << 32);
}

/*
 * With arguments flush_all may have no reply; with another character behind, it is another command.
 */
static __always_inline enum intent judge_flush(const u8 *text)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM);
	u32 intent = INTENT_WRITE_ALL | INTENT_QUIET | lasting_flush(text);
	u8 next = text[MEMCACHED_HEADER + 9];

	if (word == TEXT8('f', 'l', 'u', 's', 'h', '_', 'a', 'l') &&
	    (next == '\r' || next == '\n' || next == ' '))
		return intent;
	return intent | INTENT_UNSURE;
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
		return judge_query(text);
	case KIND_GET:
	case KIND_GETS:
		return INTENT_OTHER;
	case KIND_LINE:
		return keyed ? INTENT_WRITE | INTENT_QUIET | INTENT_ANSWERS | lasting_line(text)
			     : INTENT_WRITE_ALL | INTENT_QUIET | INTENT_UNSURE;
	case KIND_FLUSH:
		return judge_flush(text);
	case KIND_GAT:
	case KIND_MG:
	case KIND_META:
		/* Whatever else it is, it is one line. */
		return INTENT_WRITE_ALL | INTENT_QUIET | INTENT_UNSURE;
	case KIND_UNKNOWN:
		/* memcached ignores spaces before a command, so any command may follow. */
		if (text[MEMCACHED_HEADER] == ' ')
			return lose_stream(stream);
		return INTENT_WRITE_ALL | INTENT_UNSURE;
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
	if (*end && *end <= length) {
		intent = forget(cell, intent);
		kind = forget(cell, command.kind);
		data = command.data;
		key->length = MEMCACHED_SLOT_FROM + command.key_length;
		take_data(stream, text, length, data, end);
		if (kind == KIND_MS)
			stream->data = stream->lines;
		if (intent == INTENT_READ)
			return INTENT_OTHER;
		if (intent == INTENT_WRITE_ALL)
			return INTENT_WRITE_ALL | INTENT_QUIET;
		return endless_without(*(volatile u32 *)&stream->skip, intent);
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
	return endless_without(stream->skip, intent);
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

/*
 * The length of a line that ends in the first AHEAD_ROOM bytes, some of which may be behind the
 * text; or 0. `*capital` is not 0 if it has a capital letter, as have all flags that make `mg`
 * write. There are no branches, as the verifier would follow each.
 */
static __always_inline u32 line_ahead(const u8 *text, u64 *capital)
{
	u64 length = 1, live = ~0ull;

	*capital = 0;
#pragma unroll
	for (u32 at = 0; at < AHEAD_ROOM; at += sizeof(u64)) {
		u64 word = little_u64(*(const u64 *)(text + MEMCACHED_HEADER + at)), low = word & ~HIGHS;
		u64 ends = word ^ ('\n' * ONES), before;

		ends = (ends - ONES) & ~ends & HIGHS;
		before = ((ends & -ends) - 1) & live & HIGHS;
		*capital |= (low + (0x80 - 'A') * ONES) & ~(low + (0x7f - 'Z') * ONES) & ~word & before;
		length += ((before >> 7) * ONES) >> 56;
		live &= ((ends | -ends) >> 63) - 1;
		asm volatile("" : "+r"(live), "+r"(length));
	}
	return length & ~(u32)live;
}

/* The length of a get in binary that is whole and proper, or 0. */
static __always_inline u32 binary_get(const u8 *text, u32 length)
{
	const u8 *head = text + MEMCACHED_HEADER;
	u32 key = head[2] << 8 | head[3], end = BINARY_HEADER + key;
	u32 body = head[8] << 24 | head[9] << 16 | head[10] << 8 | head[11];

	return head[0] == MEMCACHED_BINARY && head[1] < 64 && OPCODE(head[1]) & OPCODES_GET && key &&
			       body == key && !head[4] && !head[5] && MEMCACHED_HEADER + end <= length
		       ? end
		       : 0;
}

static __always_inline u32 memcached_stream_ahead(const struct stream *stream, const u8 *text,
						  u32 length)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM);
	u64 capital;
	u32 line;

	if (stream->dialect != DIALECT_TEXT)
		return stream->dialect ? binary_get(text, length) : 0;
	line = line_ahead(text, &capital);
	if (line > length - MEMCACHED_HEADER)
		return 0;
	if (STARTS(word, 4, TEXT4('g', 'e', 't', ' ')) ||
	    STARTS(word, 5, TEXT8('g', 'e', 't', 's', ' ', 0, 0, 0)))
		return line;
	return STARTS(word, 3, TEXT4('m', 'g', ' ', 0)) && !capital ? line : 0;
}

/*
 * A server that is set to speak only text takes what looks binary for lines, and obeys them. In
 * text all replies begin with a letter or a digit; a reply that does not, as with TLS, is another
 * language.
 */
static __always_inline bool memcached_stream_agrees(struct stream *stream, u8 first)
{
	if (stream->dialect == DIALECT_BINARY && first == BINARY_REPLY)
		stream->dialect = DIALECT_AGREED;
	if (stream->dialect >= DIALECT_BINARY)
		return stream->dialect == DIALECT_AGREED;
	return stream->adrift || (u8)((first | 0x20) - 'a') <= 'z' - 'a' || (u8)(first - '0') <= 9;
}

/*
 * How many lines end there or, in binary, how many replies may begin there. For reads and values
 * these may be more than there are replies.
 */
static __always_inline u32 memcached_stream_replies(const struct stream *stream, u64 word)
{
	u8 mark = stream->dialect == DIALECT_AGREED ? BINARY_REPLY : '\n';
	u64 others = word ^ (mark * ONES), low = ~HIGHS;

	others = (((others & low) + low) | others) & HIGHS;  /* no byte carries into the next */
	return (((others ^ HIGHS) >> 7) * ONES) >> 56;
}

static __always_inline u64 memcached_stream_row(u64 row)
{
	return row ? row >> 8 | row << 48 : TEXT8('E', 'R', 'R', 'O', 'R', '\r', '\n', 'E');
}

/* A status that is neither 0 nor too large (3) nor no memory (0x82): these remove what was there. */
static __always_inline bool binary_refuses(u64 first)
{
	u32 status = (u8)(first >> 48) << 8 | (u8)(first >> 56);

	return status && status != 3 && status != 0x82;
}

/*
 * By its first eight bytes: one line of refusal, or a row of ERROR, or one reply in binary; or END,
 * which a read has that finds nothing. But END also says that the server has read on, past writes
 * that want no reply: of a stream that is lost it refuses nothing.
 */
static __always_inline bool memcached_stream_refuses(const struct stream *stream, u64 word,
						     u32 length, u32 replies, bool row)
{
	u64 first = little_u64(word);

	if (row)
		return length == 7 * replies;
	if (replies != 1)
		return false;
	if ((u8)first == BINARY_REPLY)
		return stream->dialect == DIALECT_AGREED && binary_refuses(first);
	return refuses(first) || (!stream->lost && stream->anew == stream->borne && length == 5 && is_end(first));
}

/* The last byte of a payload; `last` has its last eight bytes, or all of fewer. */
static __always_inline u8 last_byte(u64 last, u32 length)
{
	u32 left = length < sizeof(last) ? sizeof(last) - length : 0;

	return little_u64(last) >> (56 - 8 * left);
}

/* Is it one reply in binary, as long as its header says, to a command that has only one? */
static __always_inline bool is_whole_binary(u64 first, u64 second, u32 length)
{
	u64 head = little_u64(first), body = little_u64(second);
	u8 opcode = head >> 8;

	return (u8)head == BINARY_REPLY && opcode < 64 &&
	       OPCODE(opcode) & OPCODES_ANSWERED_ONCE &&
	       length == (u64)BINARY_HEADER + ((u32)(u8)body << 24 | (u8)(body >> 8) << 16 |
					       (u8)(body >> 16) << 8 | (u8)(body >> 24));
}

/*
 * May other lines of the same reply follow a line that begins so? Some begin with a small letter.
 */
static __always_inline bool has_more_lines(u64 word)
{
	u8 first = word;

	return STARTS(word, 6, TEXT8('V', 'A', 'L', 'U', 'E', ' ', 0, 0)) || is_of_stats(word) ||
	       STARTS(word, 3, TEXT4('V', 'A', ' ', 0)) ||
	       STARTS(word, 5, TEXT8('I', 'T', 'E', 'M', ' ', 0, 0, 0)) ||
	       STARTS(word, 7, TEXT8('P', 'R', 'E', 'F', 'I', 'X', ' ', 0)) ||
	       ((u8)(first - 'A') > 'Z' - 'A' && (u8)(first - '0') > 9);
}

/*
 * Is a payload certainly one whole reply? In text that is one line with nothing behind it. With
 * several lines it is not known: a value may have any lines, and come in any pieces.
 */
static __always_inline bool memcached_stream_is_whole(const struct stream *stream, u64 first,
						      u64 second, u64 last, u32 length, u32 replies)
{
	if (stream->dialect == DIALECT_AGREED)
		return is_whole_binary(first, second, length);
	return replies == 1 && last_byte(last, length) == '\n' &&
	       !has_more_lines(little_u64(first));
}

/*
 * In text a write that asks for no reply gets one if it fails, and a meta command if it did
 * nothing.
 */
static __always_inline bool memcached_stream_is_of_quiet(const struct stream *stream, u64 word)
{
	u64 first = little_u64(word);

	return stream->dialect < DIALECT_BINARY &&
	       (is_error(first) || STARTS(first, 8, TEXT8('S', 'E', 'R', 'V', 'E', 'R', '_', 'E')) ||
		STARTS(first, 2, TEXT4('N', 'F', 0, 0)) || STARTS(first, 2, TEXT4('N', 'S', 0, 0)) ||
		STARTS(first, 2, TEXT4('E', 'X', 0, 0)) || STARTS(first, 2, TEXT4('H', 'D', 0, 0)) ||
		STARTS(first, 3, TEXT4('V', 'A', ' ', 0)));
}

/* The end of a meta command's reply that has a value, by its line; 0 if the line is not there. */
static __always_inline u64 end_of_meta_value(const u8 *reply)
{
	u32 at = MEMCACHED_HEADER + 3, line;
	u64 bytes = 0;

	for (u32 n = 0; n < 8; n++, at++) {
		u8 digit = text_byte(reply, at, REPLY_ROOM);

		if (digit < '0' || digit > '9')
			break;
		bytes = 10 * bytes + digit - '0';
	}
	line = find_line(reply, TEXT_ROOM);
	return line > at ? line + bytes + 2 : 0;
}

/*
 * Is a payload, in text, the whole reply with one value? Its front is in `reply`, behind the room
 * of a datagram's header.
 */
static __always_inline bool memcached_stream_is_value(u8 *reply, u64 last, u32 length,
						      struct key *key)
{
	bool cas = false;

	if (STARTS(text_word(reply, MEMCACHED_HEADER, REPLY_ROOM), 3, TEXT4('V', 'A', ' ', 0)))
		return last_byte(last, length) == '\n' &&
		       end_of_meta_value(reply) == (u64)length + MEMCACHED_HEADER;
	return little_u64(last) >> 8 == VALUE_END &&
	       end_of_value(reply, key, &cas) == (u64)length + MEMCACHED_HEADER;
}

/* Does a segment begin as a known command, or as a request in binary? */
static __always_inline bool memcached_stream_may_begin(u64 word)
{
	u64 first = little_u64(word);
	u32 at = 0;

	/* The last three bytes are reserved, and 0. */
	return ((u8)first == MEMCACHED_BINARY && !(first >> 40)) ||
	       read_command(first, 0, &at) != KIND_UNKNOWN;
}

/* Has the server answered in binary what looked like binary? */
static __always_inline bool memcached_stream_in_binary(const struct stream *stream)
{
	return stream->dialect == DIALECT_AGREED;
}

/* Does a payload begin with the reply to a read? What follows it does not count. */
static __always_inline bool memcached_stream_reads(const struct stream *stream, u64 word)
{
	u64 first = little_u64(word);
	u8 opcode = first >> 8;

	if (stream->dialect == DIALECT_AGREED)
		return opcode >= 64 ||
		       OPCODE(opcode) & (OPCODES_GET | OPCODES_QUERY | OPCODES_STAT);
	return is_of_read(first) || is_of_stats(first) || is_of_meta(first) || is_of_query(first);
}

/* Does a payload begin as the refusal of a line itself? */
static __always_inline bool memcached_stream_refuses_line(const struct stream *stream, u64 word)
{
	return stream->dialect == DIALECT_TEXT && is_error(little_u64(word));
}

/* Does a payload begin as the reply to a `set` that was done? */
static __always_inline bool memcached_stream_says_stored(const struct stream *stream, u64 word)
{
	u64 first = little_u64(word);

	if (stream->dialect == DIALECT_AGREED)
		return (u8)first == BINARY_REPLY && (u8)(first >> 8) == BINARY_SET && !(first >> 48);
	return first == TEXT8('S', 'T', 'O', 'R', 'E', 'D', '\r', '\n');
}

/*
 * Does it begin with the acknowledgement of a write? In binary, a stream that does not agree is
 * lost.
 */
static __always_inline bool memcached_stream_writes(const struct stream *stream, u64 word)
{
	u64 first = little_u64(word);

	return stream->dialect < DIALECT_BINARY &&
	       (STARTS(first, 8, TEXT8('S', 'T', 'O', 'R', 'E', 'D', '\r', '\n')) ||
		STARTS(first, 8, TEXT8('D', 'E', 'L', 'E', 'T', 'E', 'D', '\r')) ||
		STARTS(first, 8, TEXT8('T', 'O', 'U', 'C', 'H', 'E', 'D', '\r')));
}

#endif
