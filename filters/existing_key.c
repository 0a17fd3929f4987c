/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * existing-key: valid commands, GET and DELETE only where their key exists.
 *
 * The server says which keys it holds, but a PUT may still be on its way to it. So PUTs are counted
 * as they pass: if the server had seen fewer when it said that a key is gone, the key counts as
 * existing.
 */
#include "filter.h"

#ifndef KEYS_MAX
#define KEYS_MAX 262144  /* the loader may set it */
#endif

/* Whether a key exists, by the server, and how many PUTs of it the server had seen then. */
struct stored {
	u64 exists;
	u64 puts;
};

BPF_F_TABLE("hash", u32, u64, arrived_puts, KEYS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", u32, struct stored, stored_keys, KEYS_MAX, BPF_F_NO_PREALLOC);

/* Count a PUT. If the map is full, every key may exist from then on. */
static __always_inline void arrive(u32 key)
{
	u32 overflown = SETTING_OVERFLOWN;
	u64 none = 0, *puts, *cell;

	puts = arrived_puts.lookup_or_try_init(&key, &none);
	if (puts) {
		__sync_fetch_and_add(puts, 1);
		return;
	}
	cell = settings.lookup(&overflown);
	if (cell)
		*(volatile u64 *)cell = 1;
}

static __always_inline bool exists(u32 key)
{
	struct stored *stored = stored_keys.lookup(&key);
	u64 *puts = arrived_puts.lookup(&key);
	u64 arrived = puts ? *(volatile u64 *)puts : 0;

	if (!stored)
		return arrived;
	return stored->exists || arrived != stored->puts;
}

static __always_inline bool accepts_existing_key(const struct command *command)
{
	enum word word = word_of(command);
	u32 key = behind_word(command, word);
	bool learning;

	if (!is_valid(command))
		return false;
	if (word == WORD_PUT) {
		arrive(key);
		return true;
	}
	learning = now() < setting(SETTING_LEARN_UNTIL) || setting(SETTING_OVERFLOWN);
	return word == WORD_STOP || learning || exists(key);
}

int existing_key(CONTEXT *context)
{
	return filter(context, accepts_existing_key);
}
