/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached over UDP: a frame header of 8 bytes, then commands in text (memcached_text.h).
 *
 * A read is one `get` or `gets` whose line ends the datagram. A cache key is a byte that says which
 * of the two, then the key itself. Slots leave the first byte out, so a write of the key voids both.
 *
 * memcached does every command in a datagram, one after the other. So a command counts as a write
 * of one key only if it ends the datagram to the byte. Whatever else could write may write
 * anything. So may the binary protocol: without a connection nothing tells whether the server
 * speaks that, or takes it for text.
 */
#ifndef CAROM_MEMCACHED_H
#define CAROM_MEMCACHED_H

#include "memcached_binary.h"
#include "memcached_text.h"

/* Judge a datagram whose command was not understood to its end, by its first word and its lines. */
static __always_inline enum intent judge_lines(const u8 *text, u32 length,
					       enum memcached_kind kind, bool keyed)
{
	u32 behind = find_line(text, length);

	if (!behind && length <= TEXT_ROOM)
		return INTENT_OTHER;  /* memcached waits for the line's end, and then drops it */
	if (behind == length) {
		if (kind == KIND_QUERY)
			return judge_query(text);
		if (kind == KIND_GET || kind == KIND_GETS)
			return INTENT_OTHER | INTENT_SEVERAL;
		if (kind == KIND_LINE && keyed)
			return INTENT_WRITE | INTENT_QUIET | INTENT_ANSWERS | lasting_line(text);
	}
	return INTENT_WRITE_ALL | INTENT_QUIET;
}

/* 0 if a datagram ends as a line does. Data has to end so, or memcached stores nothing. */
static __always_inline u32 not_ended(const u8 *text, u32 length)
{
	return (length > TEXT_ROOM) | (text_byte(text, length - 2, TEXT_ROOM) ^ '\r') |
	       (text_byte(text, length - 1, TEXT_ROOM) ^ '\n');
}

static __always_inline enum intent judge_text(const u8 *text, u32 length, struct key *key)
{
	struct memcached_command command = {};
	enum intent intent = read_text(text, key, &command);
	enum memcached_kind kind = forget(&key->length, command.kind);

	if (intent == INTENT_WRITE_ALL || !command.end ||
	    (u64)command.end + command.data != length) {
		bool keyed = forget(&key->length, command.keyed);

		intent = judge_lines(text, length, kind, keyed);
	}
	intent = forget(&key->length, endless_without(not_ended(text, length), intent));
	if (intent == INTENT_READ)
		key->bytes[0] = kind == KIND_GETS ? MEMCACHED_GETS : MEMCACHED_GET;
	key->length = MEMCACHED_SLOT_FROM + command.key_length;
	return intent;
}

static __always_inline enum intent memcached_request(const u8 *text, u32 length, struct key *key)
{
	const __be16 *header = (const __be16 *)text;
	enum intent intent;

	if (length <= MEMCACHED_HEADER || header[2] != htons(1))
		return INTENT_OTHER;  /* memcached drops it, and every part of a longer message */
	intent = text[MEMCACHED_HEADER] == MEMCACHED_BINARY ? INTENT_WRITE_ALL | INTENT_QUIET
							     : judge_text(text, length, key);
	/* memcached looks at neither number; memcaslap fills the last one, which is reserved. */
	if (header[1] && (intent & INTENT_MASK) >= INTENT_WRITE)
		return INTENT_WRITE_ALL | INTENT_QUIET;
	return header[1] && intent & (INTENT_READ | INTENT_SEVERAL) ? INTENT_OTHER : intent;
}

/* Only in the plainest form, with one space before each key. */
static __always_inline u32 memcached_next_key(const u8 *text, u32 at, struct key *key)
{
	bool gets = text[MEMCACHED_HEADER + 3] == 's';
	u32 length;

	if (!at)
		at = MEMCACHED_HEADER + sizeof("get ") - 1 + gets;
	length = forget(&key->length, copy_key(text, at, TEXT_ROOM, key->bytes + MEMCACHED_SLOT_FROM));
	at = forget(&key->length, at + length);
	key->bytes[0] = gets ? MEMCACHED_GETS : MEMCACHED_GET;
	key->length = MEMCACHED_SLOT_FROM + length;
	if (length < 1 || length > MEMCACHED_KEY_MAX)
		return NO_KEY;
	if (text_byte(text, at, TEXT_ROOM) == ' ')
		return at + 1;
	return behind_line(text, at, TEXT_ROOM) ? 0 : NO_KEY;
}

static __always_inline bool memcached_answer(u8 *reply, u32 length, u32 stored, const u8 *text,
					     u32 text_length, u32 age, u64 *sum)
{
	u16 id = *(const u16 *)text;

	*(u16 *)reply = id;
	*sum += id;
	return true;
}

/* " FLAGS BYTES[ CAS]" behind a key. */
static __always_inline bool read_value(const u8 *reply, u32 *at, u16 *cell, u64 *bytes, bool *cas)
{
	u64 number;

	if (!read_argument(reply, at, REPLY_ROOM, 10, &number))
		return false;
	*at = forget(cell, *at);
	if (!read_argument(reply, at, REPLY_ROOM, 9, bytes))
		return false;
	*at = forget(cell, *at);
	*cas = text_byte(reply, *at, REPLY_ROOM) == ' ';
	if (!*cas)
		return true;
	*at += 1;
	for (u32 n = 0; n < 20; n++) {
		u8 digit = text_byte(reply, *at, REPLY_ROOM);

		if (digit < '0' || digit > '9')
			return n > 0;
		*at += 1;
	}
	return true;
}

/*
 * The end of a reply that has one value, with header and END; 0 for one that does not begin with a
 * value. `key` becomes the key that it names.
 */
static __always_inline u64 end_of_value(u8 *reply, struct key *key, bool *cas)
{
	u32 at = MEMCACHED_HEADER + 6, key_length;
	u64 bytes;

	if (!STARTS(text_word(reply, MEMCACHED_HEADER, REPLY_ROOM), 6,
		    TEXT8('V', 'A', 'L', 'U', 'E', ' ', 0, 0)))
		return 0;
	key_length = forget(&key->length, copy_key(reply, at, REPLY_ROOM, key->bytes + 1));
	if (key_length < 1 || key_length > MEMCACHED_KEY_MAX)
		return 0;
	at = forget(&key->length, at + key_length);
	if (!read_value(reply, &at, &key->length, &bytes, cas))
		return 0;
	at = forget(&key->length, at);
	key->length = MEMCACHED_SLOT_FROM + key_length;
	if (text_byte(reply, at, REPLY_ROOM) != '\r' ||
	    text_byte(reply, at + 1, REPLY_ROOM) != '\n')
		return 0;
	return at + 2 + bytes + 7;
}

/* The end of such a reply, in the seven low bytes of a word. */
#define VALUE_END TEXT8('\r', '\n', 'E', 'N', 'D', '\r', '\n', 0)

/* A whole reply to a get or gets of one key that found it: VALUE, data, END, in one datagram. */
static __always_inline bool memcached_learn(u8 *reply, u32 *whole, struct key *key, u32 *stored,
					    u32 *ttl, u32 asked)
{
	const __be16 *header = (const __be16 *)reply;
	u32 length = *whole;
	bool cas = false;

	if (length > REPLY_MAX || header[1] || header[2] != htons(1) || header[3] ||
	    end_of_value(reply, key, &cas) != length ||
	    (text_word(reply, length - 7, REPLY_ROOM) & ~0ull >> 8) != VALUE_END)
		return false;
	*(u16 *)reply = 0;
	key->bytes[0] = cas ? MEMCACHED_GETS : MEMCACHED_GET;
	return true;
}

/* Is a reply one line? */
static __always_inline bool is_one_line(const u8 *reply, u32 length)
{
	return length <= REPLY_MAX && find_line_in(reply, length, REPLY_MAX) == length;
}

/*
 * Is this the first word of a reply that may be a write's or a query's? OK answers flush_all and
 * verbosity, HD both `ms` and `mg`. ME is a query's only, and counts one down that was counted so.
 */
static __always_inline bool is_of_either(u64 word)
{
	return is_of_meta(word) || STARTS(word, 2, TEXT4('H', 'D', 0, 0)) ||
	       STARTS(word, 4, TEXT4('O', 'K', '\r', '\n'));
}

/*
 * Was a request in binary done that is no read? The header has magic, opcode, and in byte 6 a
 * status.
 */
static __always_inline bool binary_wrote(const u8 *reply)
{
	u8 opcode = reply[MEMCACHED_HEADER + 1];

	return !reply[MEMCACHED_HEADER + 6] && !reply[MEMCACHED_HEADER + 7] &&
	       !(opcode < 64 && OPCODE(opcode) & (OPCODES_GET | OPCODES_QUERY | OPCODES_STAT));
}

static __always_inline bool memcached_says_stored(const u8 *reply)
{
	return text_word(reply, MEMCACHED_HEADER, REPLY_ROOM) ==
	       TEXT8('S', 'T', 'O', 'R', 'E', 'D', '\r', '\n');
}

/*
 * Judge a reply by its first word. Of several datagrams only the first begins with one. An unknown
 * word may acknowledge an unknown command.
 */
static __always_inline enum answer memcached_what_answer(const u8 *reply, u32 length)
{
	const __be16 *header = (const __be16 *)reply;
	u64 word = text_word(reply, MEMCACHED_HEADER, REPLY_ROOM);

	if (length <= MEMCACHED_HEADER)
		return ANSWER_OTHER;
	if (header[1] || is_of_stats(word))
		return ANSWER_PART;
	if (is_of_read(word))
		return ANSWER_READ;
	if ((refuses(word) || is_of_query(word)) && header[2] == htons(1) &&
	    is_one_line(reply, length))
		return is_of_query(word) ? ANSWER_PART
					 : is_error(word) ? ANSWER_ERROR : ANSWER_REFUSED;
	if ((u8)word == BINARY_REPLY)
		return binary_wrote(reply) ? ANSWER_WRITTEN : ANSWER_OTHER;
	if (is_of_either(word))
		return ANSWER_EITHER;
	return is_of_query(word) || STARTS(word, 8, TEXT8('S', 'E', 'R', 'V', 'E', 'R', '_', 'E'))
		       ? ANSWER_OTHER
		       : ANSWER_WRITTEN;
}

/*
 * Only the various gets are answered VALUE; a query that finds nothing may be answered END. A
 * datagram of several commands is judged by each of them.
 */
static __always_inline bool memcached_may_be_learned(const u8 *text, enum intent intent)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM) & ~0ull >> 40;

	return (intent & INTENT_MASK) < INTENT_WRITE_ALL &&
	       (word == TEXT4('g', 'e', 't', 0) || word == TEXT4('g', 'a', 't', 0) ||
		word == TEXT4('s', 't', 'a', 0));
}

#endif
