/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kv: the key-value store of Kierkegaard and Willen (2025): PUT key value, GET key, DELETE key and
 * STOP, where a key is 32 bits, a value 64, both little-endian. The command is the leading run of
 * ASCII letters, so a key that begins with one cannot be asked for. Only GET is answered.
 */
#ifndef CAROM_KV_H
#define CAROM_KV_H

#include "protocol.h"

#define KV_GET_SIZE 7
#define KV_PUT_SIZE 15
#define KV_DELETE_SIZE 10
#define KV_STOP_SIZE 4
#define KV_KEY_SIZE 4

static __always_inline bool kv_is_letter(u8 byte)
{
	return (u8)((byte | 0x20) - 'a') < 26;
}

static __always_inline void kv_copy_key(const u8 *from, struct key *key)
{
	__builtin_memcpy(key->bytes, from, KV_KEY_SIZE);
	key->length = KV_KEY_SIZE;
}

static __always_inline enum intent kv_request(const u8 *text, u32 length, struct key *key)
{
	if (length == KV_GET_SIZE && text[0] == 'G' && text[1] == 'E' && text[2] == 'T' &&
	    !kv_is_letter(text[3])) {
		kv_copy_key(text + 3, key);
		return INTENT_READ;
	}
	if (length == KV_PUT_SIZE && text[0] == 'P' && text[1] == 'U' && text[2] == 'T' &&
	    !kv_is_letter(text[3])) {
		kv_copy_key(text + 3, key);
		return INTENT_WRITE | INTENT_QUIET;
	}
	if (length == KV_DELETE_SIZE && text[0] == 'D' && text[1] == 'E' && text[2] == 'L' &&
	    text[3] == 'E' && text[4] == 'T' && text[5] == 'E' && !kv_is_letter(text[6])) {
		kv_copy_key(text + 6, key);
		return INTENT_WRITE | INTENT_QUIET;
	}
	return INTENT_OTHER;
}

#endif
