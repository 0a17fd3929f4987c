/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tokens and what voids them (docs/consistency.md). A miss reads its slot's version before the
 * server sees the request; a write adds to it; a hit compares. Nothing else decides.
 */
#ifndef CAROM_TOKEN_H
#define CAROM_TOKEN_H

#include "abi.h"
#include "clock.h"
#include "maps.h"
#include "slot.h"

#ifndef SEED
#define SEED 0x9e3779b97f4a7c15ull  /* the loader draws one */
#endif

static __always_inline u64 version(u32 cell)
{
	u64 *counter = versions.lookup(&cell);

	return counter ? *(volatile u64 *)counter : 0;
}

static __always_inline bool held(u32 cell, u64 jiffies)
{
	u64 *until = holds.lookup(&cell);

	return !until || jiffies < *(volatile u64 *)until;
}

/*
 * Void what was stored under a cell, and every fill whose token was taken before. After a quiet
 * write, which no acknowledgement follows, no token is given for a while: the hold is seen by
 * whoever sees the new version.
 */
static __always_inline void void_cell(u32 cell, bool quiet)
{
	u64 *until = holds.lookup(&cell);
	u64 *counter = versions.lookup(&cell);

	if (until && quiet)
		*(volatile u64 *)until = now() + HOLD_MS * TICKS / 1000 + 1;
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* The slot that a protocol's key voids, where its first `from` bytes do not count. */
static __always_inline u32 slot_of(const struct key *key, u32 from)
{
	return key_slot(key->bytes + from, key->length - from);
}

/* A number that tells keys apart; nobody outside knows its seed. 0 is left for writes. */
static __always_inline u64 hash_key(const struct key *key)
{
	const u64 *word = (const u64 *)key;
	u64 hash = SEED;

	for (u32 i = 0; i < sizeof(struct key) / sizeof(u64); i++) {
		hash = (hash ^ word[i]) * 0xff51afd7ed558ccdull;
		hash ^= hash >> 32;
		if ((i + 1) * sizeof(u64) >= offsetof(struct key, bytes) + key->length)
			break;
	}
	return hash ? hash : 1;
}

/*
 * Leave a token for the reply to this request. Requests that cannot be told apart share the oldest:
 * a reply to the first may come after the last was asked. `slot` is a cell.
 */
static __always_inline void leave_token(const struct asked *asked, u32 slot)
{
	u64 jiffies = now();
	u32 generation = SLOTS + asked->service;
	struct pending *found = pendings.lookup((struct asked *)asked);
	struct pending fresh = {};

	if (found && jiffies - found->since < PENDING_SECONDS * TICKS) {
		__sync_fetch_and_add(&found->outstanding, 1);
		return;
	}
	/* The version first: a write that comes between shows in the hold. */
	fresh.token = version(slot);
	fresh.generation = version(generation);
	if (asked->key_hash && (held(slot, jiffies) || held(generation, jiffies)))
		return;
	fresh.since = jiffies;
	fresh.slot = slot;
	fresh.outstanding = 1;
	pendings.update((struct asked *)asked, &fresh);
}

/* Remember what a write voids until its acknowledgement leaves: several at once may be anything. */
static __always_inline void remember_write(const struct asked *asked, u32 cell)
{
	struct pending *found = pendings.lookup((struct asked *)asked);

	if (found && found->slot != cell)
		found->slot = SLOTS + asked->service;
	leave_token(asked, cell);
}

/* Take what a request left, once for each reply. False when there is nothing. */
static __always_inline bool take_pending(const struct asked *asked, struct pending *taken)
{
	struct pending *found = pendings.lookup((struct asked *)asked);

	if (!found)
		return false;
	*taken = *found;
	__sync_fetch_and_add(&found->outstanding, -1);
	if ((s32)*(volatile u32 *)&found->outstanding <= 0)
		pendings.delete((struct asked *)asked);
	return now() - taken->since < PENDING_SECONDS * TICKS;
}

#endif
