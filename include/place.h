/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which service a packet is for. Its port is asked first: most packets are somebody else's, and pass
 * after one look. The first places of a port are a chain in an array; a hash map has all places.
 */
#ifndef CAROM_PLACE_H
#define CAROM_PLACE_H

#include "abi.h"
#include "maps.h"

/* Where the places of a port are: 0 for a port of no service's. */
static __always_inline u32 places_at(__be16 port)
{
	u32 number = ntohs(port), cell = number / 4;
	u64 *words = ports.lookup(&cell);

	return words ? (u16)(*(volatile u64 *)words >> number % 4 * 16) : 0;
}

static __always_inline bool is_served(__be16 port)
{
	return places_at(port);
}

/* Without a branch for each word: the verifier would follow them all, in each place of a chain. */
static __always_inline bool same_endpoint(const struct endpoint *one, const struct endpoint *other)
{
	const u32 *a = (const u32 *)one, *b = (const u32 *)other;
	u32 differ = 0;

#pragma unroll
	for (u32 n = 0; n < sizeof(*one) / sizeof(*a); n++) {
		differ |= a[n] ^ b[n];
		asm volatile("" : "+r"(differ));
	}
	return !differ;
}

/*
 * A service that only the hash map has, in this CPU's own element of the array: the verifier would follow all
 * behind once for an element of either map.
 */
static __always_inline struct service *brought_over(const struct service *service)
{
	u32 own = PLACES_MAX + bpf_get_smp_processor_id();
	struct place *place = places.lookup(&own);

	if (!place)
		return NULL;
	place->service = *service;
	return &place->service;
}

/* The service at an endpoint, or NULL; `where` is what places_at() says. */
static __always_inline struct service *find_service(const struct endpoint *endpoint, u32 where)
{
	u32 at = where & (PORT_MORE - 1);
	struct service *found;

	for (u32 n = 0; n < CHAIN_MAX; n++) {
		struct place *place = places.lookup(&at);

		counted(n);
		if (!at || !place)
			break;
		if (same_endpoint(&place->endpoint, endpoint))
			return &place->service;
		at = place->next;
	}
	found = where & PORT_MORE ? services.lookup((struct endpoint *)endpoint) : NULL;
	return found ? brought_over(found) : NULL;
}

#endif
