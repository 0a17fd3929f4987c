/* SPDX-License-Identifier: GPL-2.0-only */
/* Sources that a reply must not go to, as far as a packet alone tells. */
#ifndef CAROM_SOURCE_H
#define CAROM_SOURCE_H

#include "abi.h"
#include "parse.h"

/* Is it unspecified, loopback, multicast, or an IPv6 address that stands for an IPv4 one? */
static __always_inline enum verdict refused_address(const struct request *request)
{
	u32 source;

	if (request->ipv6) {
		const __be32 *word = request->ip6->saddr.in6_u.u6_addr32;

		if (word[0] | word[1])
			return (word[0] & htonl(0xff000000)) == htonl(0xff000000)
				       ? PASS_SOURCE_GROUP
				       : UNDECIDED;
		return !word[2] && word[3] == htonl(1) ? PASS_SOURCE_LOOPBACK
						       : PASS_SOURCE_NOBODY;
	}
	source = ntohl(request->ip->saddr);
	if (source >= 0xe0000000)
		return PASS_SOURCE_GROUP;
	if (source >> 24 == 127)
		return PASS_SOURCE_LOOPBACK;
	return source >> 24 ? UNDECIDED : PASS_SOURCE_NOBODY;
}

/*
 * Is this a source that a reply must not go to? It would loop, or reach many or a well-known
 * service. Our own addresses and other services' ports are in maps, and not judged here.
 */
static __always_inline enum verdict refused_source(const struct request *request)
{
	enum verdict refused = refused_address(request);

	if (refused)
		return refused;
	if (request->eth->h_source[0] & 1)
		return PASS_SOURCE_MAC;
	if (ntohs(request->udp->source) < SOURCE_PORT_MIN)
		return PASS_SOURCE_LOW;
	return request->udp->source == request->udp->dest ? PASS_SOURCE_SERVED : UNDECIDED;
}

#endif
