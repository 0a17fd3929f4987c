/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One reply made of those to several keys, if the cache has them all. It is made in the scratch; a
 * run of a program looks one key up, and the packet stays as it came.
 */
#ifndef CAROM_JOIN_H
#define CAROM_JOIN_H

#include "abi.h"
#include "bounded.h"
#include "checksum.h"
#include "lookup.h"
#include "maps.h"
#include "protocols.h"

#define JOINED_KEYS 24  /* keys of a request: each takes one of the 33 programs in a row */

/*
 * Look up the key in scratch, and put its reply behind those that are there. Its head, which only the
 * first keeps, comes to lie where the last bytes of the one before are, so they are put back.
 */
static __always_inline enum verdict append_reply(const struct service *service,
						 struct scratch *scratch)
{
	u32 length = scratch->joined.length, at = length ? length - JOINED_HEAD : 0;
	enum verdict verdict;
	u64 *word, before;

	asm volatile("" : "+r"(at));
	at &= REPLY_ROOM - 1;
	word = (u64 *)(scratch->reply + at);
	before = *word;
	verdict = look_up(service, scratch, at);
	if (verdict != HIT)
		return verdict;
	if (length)
		*word = before;
	scratch->joined.length = at + scratch->meta.length - joined_tail(service->protocol);
	return HIT;
}

/* The joined reply is one as if it had been stored so. */
static __always_inline void finish_joining(struct scratch *scratch, u32 length)
{
	u32 end = length;

	asm volatile("" : "+r"(end));  /* or clang leaves the mask out, by what it knows of the length */
	*(u64 *)(scratch->reply + (end & (REPLY_ROOM - 1))) = 0;
	scratch->meta.length = length;
	scratch->meta.stored = length;
	scratch->meta.sum = fold(sum_bytes(scratch->reply, length, REPLY_MAX));
}

/* Read the next key of a request, and append its reply; HIT: that was done. */
static __always_inline enum verdict join(const struct service *service, struct scratch *scratch)
{
	struct joined *joined = &scratch->joined;
	u32 protocol = service->protocol, next, length;
	enum verdict verdict;

	if (joined->keys >= JOINED_KEYS)
		return PASS_REQUEST;
	joined->keys += 1;
	__builtin_memset(&scratch->key, 0, sizeof(scratch->key));
	next = next_key(protocol, scratch->text, joined->next, &scratch->key);
	if (next == NO_KEY)
		return PASS_REQUEST;
	joined->next = next;
	scratch->key.service = key_service(service->id, service->view);
	verdict = append_reply(service, scratch);
	if (verdict != HIT)
		return verdict;
	length = joined->length + joined_tail(protocol);
	if (length > joined_max(protocol))
		return PASS_REQUEST;
	if (!next)
		finish_joining(scratch, length);
	return HIT;
}

#endif
