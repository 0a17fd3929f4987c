/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The shadow check: of so many hits one goes up to the server instead, which answers it. The reply that is
 * filled then takes a live one's place, and both go to userspace, which compares them.
 */
#ifndef CAROM_SHADOW_H
#define CAROM_SHADOW_H

#include "abi.h"
#include "arena.h"
#include "bounded.h"
#include "copy.h"
#include "directory.h"
#include "maps.h"
#include "token.h"

BPF_RINGBUF_OUTPUT(pairs, 1);  /* the loader makes it larger where there is a check */

/* Is it the turn of this CPU's hit? */
static __always_inline bool takes_turn(u32 *left)
{
	if (*left) {
		*left -= 1;
		return false;
	}
	*left = SAID(shadow) - 1;
	return true;
}

/* Is no void later than the token? */
static __always_inline bool still_holds(const struct meta *meta, u32 service)
{
	return meta->token >= version(meta->slot) && meta->token >= version(SLOTS + service);
}

/*
 * Hand over what is stored, as it was at this sequence number, and what comes in its place. What is void or
 * expired is no other answer to the same question: it is left out, and so is what another CPU writes
 * meanwhile, and what there is no room for.
 */
static __always_inline void hand_pair(const struct entry *entry, u64 sequence,
				      const struct draft *draft)
{
	u32 cached, served = draft->meta.length, service = draft->key.service % SERVICES_MAX;
	struct pair *pair;

	if (sequence & 1 || !still_holds(&draft->meta, service))
		return;
	pair = pairs.ringbuf_reserve(sizeof(*pair));
	if (!pair)
		return;
	pair->meta = entry->meta;
	cached = pair->meta.length;
	pair->key = draft->key;
	pair->served_length = served;
	pair->zero = 0;
	if (cached && cached <= REPLY_MAX)
		copy_kernel(pair->cached, bounded(cached, REPLY_ROOM),
			    entry->data + key_room(draft->key.length));
	if (served && served <= REPLY_MAX)
		copy_kernel(pair->served, bounded(served, REPLY_ROOM), draft->bytes);
	fence();
	if (sequence_of(entry) != sequence || now() >= pair->meta.expires ||
	    !still_holds(&pair->meta, service))
		pairs.ringbuf_discard(pair, 0);
	else
		pairs.ringbuf_submit(pair, BPF_RB_NO_WAKEUP);  /* userspace looks by itself */
}

#endif
