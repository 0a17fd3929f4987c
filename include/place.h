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
 * Copy the service at an endpoint, where there is one; `where` is what places_at() says. It is a copy
 * as the verifier would follow all behind once for an element of either map.
 */
static __always_inline bool find_service(const struct endpoint *endpoint, u32 where,
					 struct service *service)
{
	u32 at = where & (PORT_MORE - 1);
	struct service *found;

	for (u32 n = 0; n < CHAIN_MAX; n++) {
		struct place *place = places.lookup(&at);

		counted(n);
		if (!at || !place)
			break;
		if (same_endpoint(&place->endpoint, endpoint)) {
			*service = place->service;
			return true;
		}
		at = place->next;
	}
	found = where & PORT_MORE ? services.lookup((struct endpoint *)endpoint) : NULL;
	if (found)
		*service = *found;
	return found;
}

#endif
