/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The keys of reads whose replies do not name them. A flight remembers what its request asked and
 * its reply does not tell (flights.h): here that is a number from a hash of the key. The key itself
 * is in the flight's cell, and is used if it is of that flight and has that number. Flights that
 * share a cell push each other's key out: then a reply is not cached, and no more is lost.
 *
 * A server may answer a request that is sent again as it did before, whatever was written
 * meanwhile. That reply is only good for its own client. So requests are recognised by a number
 * that they keep, which is hashed to a cell. A request that finds its cell used in the last
 * REPEAT_SECONDS may have come before, and its reply is not learned.
 */
#ifndef CAROM_NAMELESS_H
#define CAROM_NAMELESS_H

#include "abi.h"
#include "flights.h"
#include "hash.h"
#include "protocols.h"
#include "typed.h"

#define KEY_REMEMBERED (1u << 31)  /* beside the lower bits of a hash: no ASKED_UNKNOWN */

#define REPEAT_SECONDS 256  /* RFC 7252 4.8.2: 247 */
#define REPEATS (1 << 20)

BPF_ARRAY(repeats, u32, REPEATS);  /* the second when a request came, plus 1 */

/* May this request have come before? It is noted that it has now. */
static __always_inline bool came_before(const struct address *client, __be16 port, u32 service,
					u16 number)
{
	u32 index = flight_of(client, port, service, number) % REPEATS, seconds, last;
	u32 *cell = repeats.lookup(&index);

	if (!cell)
		return true;
	seconds = seconds_in(now()) + 1;
	last = *(volatile u32 *)cell;
	*(volatile u32 *)cell = seconds;
	return last && seconds - last < REPEAT_SECONDS;
}

struct remembered {
	struct bpf_spin_lock lock;
	u32 flight;
	u32 asked;
	u32 zero;
	struct key key;
};

LOCKED_ARRAY(remembered_keys, struct remembered, FLIGHTS);

static __always_inline u32 number_of(const struct key *key)
{
	return (u32)hash_key(key) | KEY_REMEMBERED;
}

/* One of the two keys is in the cell, whose lock is held. */
static __always_inline void copy_whole_key(struct key *to, const struct key *from)
{
	u64 *words = (u64 *)to;

#pragma unroll
	for (u32 n = 0; n < sizeof(*to) / sizeof(u64); n++)
		words[n] = ((const u64 *)from)[n];
}

/* Before the server sees the request. */
static __always_inline u32 remember_key(u32 flight, const struct key *key)
{
	u32 index = flight % FLIGHTS, asked = number_of(key);
	struct remembered *cell = remembered_keys.lookup(&index);

	if (!cell)
		return ASKED_UNKNOWN;
	lock_value(&cell->lock);
	cell->flight = flight;
	cell->asked = asked;
	copy_whole_key(&cell->key, key);
	unlock_value(&cell->lock);
	return asked;
}

/* The key of a reply's request. False where it is not known. */
static __always_inline bool recall_key(u32 flight, u32 asked, struct key *key)
{
	u32 index = flight % FLIGHTS;
	struct remembered *cell = remembered_keys.lookup(&index);
	bool same;

	if (!cell || !(asked & KEY_REMEMBERED))
		return false;
	lock_value(&cell->lock);
	same = cell->flight == flight && cell->asked == asked;
	copy_whole_key(key, &cell->key);
	unlock_value(&cell->lock);
	return same && key->length <= KEY_MAX && number_of(key) == asked;
}

#endif
