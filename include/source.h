/* SPDX-License-Identifier: GPL-2.0-only */
/* Sources that a reply must not go to, as far as a packet alone tells. */
#ifndef CAROM_SOURCE_H
#define CAROM_SOURCE_H

#include "abi.h"
#include "parse.h"

/* Unspecified, loopback, multicast or broadcast; an IPv6 address that stands for an IPv4 one. */
static __always_inline bool is_special(const struct request *request)
{
	u32 source;

	if (request->ipv6) {
		const __be32 *word = request->ip6->saddr.in6_u.u6_addr32;

		return !(word[0] | word[1]) || (word[0] & htonl(0xff000000)) == htonl(0xff000000);
	}
	source = ntohl(request->ip->saddr);
	return source >> 24 == 0 || source >> 24 == 127 || source >= 0xe0000000;
}

/*
 * A source that a reply must not go to: it would loop, or reach many, or a well-known service. Our
 * own addresses and ports are the maps' to know.
 */
static __always_inline bool refused_source(const struct request *request)
{
	return is_special(request) || (request->eth->h_source[0] & 1) ||
	       ntohs(request->udp->source) < SOURCE_PORT_MIN ||
	       request->udp->source == request->udp->dest;
}

#endif
