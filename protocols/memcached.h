/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached over UDP: a frame header of 8 bytes, then commands in text (memcached_text.h).
 *
 * What is read is one `get` or `gets` of one key, whose line ends the datagram. Its cache key is a
 * byte that says which of the two, then the key itself; slots leave the first byte out, so that a
 * write of the key voids both.
 *
 * memcached acts on every command in a datagram, one behind the other. A command is therefore known
 * for a write of one key only where it is the datagram's last to the byte. Whatever else could
 * write may write anything; so may the binary protocol, for no connection tells whether the server
 * speaks that, or takes it for text.
 */
#ifndef CAROM_MEMCACHED_H
#define CAROM_MEMCACHED_H

#include "memcached_text.h"

/* A datagram whose command was not understood to its end: by its first word, and its lines. */
static __always_inline enum intent judge_lines(const u8 *text, u32 length,
					       enum memcached_kind kind, bool keyed)
{
	u32 behind = find_line(text, length);

	if (!behind && length <= TEXT_ROOM)
		return INTENT_OTHER;  /* memcached waits for the line's end, and then drops it */
	if (behind == length) {
		if (kind == KIND_QUERY || kind == KIND_GET || kind == KIND_GETS)
			return INTENT_OTHER;
		if (kind == KIND_LINE && keyed)
			return INTENT_WRITE | INTENT_QUIET;
	}
	return INTENT_WRITE_ALL | INTENT_QUIET;
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
	if (header[1] && intent != INTENT_OTHER)
		return intent == INTENT_READ ? INTENT_OTHER : INTENT_WRITE_ALL | INTENT_QUIET;
	return intent;
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

/* A whole reply to a get or gets of one key that found it: VALUE, data, END, in one datagram. */
static __always_inline bool memcached_learn(u8 *reply, u32 *whole, struct key *key, u32 *stored,
					    u32 *ttl)
{
	const __be16 *header = (const __be16 *)reply;
	u32 length = *whole;
	u32 at = MEMCACHED_HEADER + 6, key_length;
	bool cas;
	u64 bytes;

	if (length > REPLY_MAX || header[1] || header[2] != htons(1) || header[3] ||
	    !STARTS(text_word(reply, MEMCACHED_HEADER, REPLY_ROOM), 6,
		    TEXT8('V', 'A', 'L', 'U', 'E', ' ', 0, 0)))
		return false;
	key_length = forget(&key->length, copy_key(reply, at, REPLY_ROOM, key->bytes + 1));
	if (key_length < 1 || key_length > MEMCACHED_KEY_MAX)
		return false;
	at = forget(&key->length, at + key_length);
	if (!read_value(reply, &at, &key->length, &bytes, &cas))
		return false;
	at = forget(&key->length, at);
	if (text_byte(reply, at, REPLY_ROOM) != '\r' ||
	    text_byte(reply, at + 1, REPLY_ROOM) != '\n' || at + 2 + bytes + 7 != length ||
	    (text_word(reply, length - 7, REPLY_ROOM) & ~0ull >> 8) !=
		    TEXT8('\r', '\n', 'E', 'N', 'D', '\r', '\n', 0))
		return false;
	*(u16 *)reply = 0;
	key->bytes[0] = cas ? MEMCACHED_GETS : MEMCACHED_GET;
	key->length = MEMCACHED_SLOT_FROM + key_length;
	return true;
}

#endif
