/* SPDX-License-Identifier: GPL-2.0-only */
/* May this host answer? By MAC, source, TTL and lease; and how long may the reply be? */
#ifndef CAROM_POLICY_H
#define CAROM_POLICY_H

#include "abi.h"
#include "hook.h"
#include "maps.h"
#include "own.h"
#include "parse.h"
#include "place.h"
#include "route.h"
#include "source.h"
#include "walk.h"

static __always_inline bool leased(void)
{
	u32 only = 0;
	u64 *until = lease.lookup(&only);

	return until && now() < *(volatile u64 *)until;
}

/* May this host answer this request at all? */
static __always_inline enum verdict check_request(const struct request *request,
						  const struct service *service)
{
	enum verdict refused;

	if (!same_mac(request->eth->h_dest, service->mac))
		return PASS_MAC;
	refused = refused_source(request);
	if (refused)
		return refused;
	if ((request->ipv6 ? request->ip6->hop_limit : request->ip->ttl) < TTL_FLOOR)
		return PASS_TTL;
	if (!request->ipv6 && fold(ipv4_sum(request->ip)) != 0xffff)
		return at_stop(STOP_HEADER, PASS_CHECKSUM);
	return UNDECIDED;
}

/* Is the source our own, or not allowed? Asked last before an answer, as it costs look-ups. */
static __always_inline enum verdict check_source(const struct request *request,
						 const struct service *service)
{
	struct prefix source = { 128, source_of(request) };
	u8 *prefix;

	if (is_served(request->udp->source))
		return at_stop(STOP_MAPS, PASS_SOURCE_SERVED);
	if (is_own(&source.address))
		return PASS_SOURCE_OWN;
	if (!service->allow_list)
		return UNDECIDED;
	prefix = allowed.lookup(&source);
	if (!prefix || !*prefix)
		return PASS_ALLOW;
	return from_its_neighbour(request, service) ? UNDECIDED : PASS_NEIGHBOUR;
}

/* Does a reply of `length` bytes get to the client in one piece, as far as this host can know? */
static __always_inline enum verdict check_length(const struct packet *packet,
						 const struct request *request,
						 const struct service *service,
						 struct scratch *scratch, u32 length)
{
	u32 bytes = headers_length(request) - request->network + length;

	if (bytes > service->mtu)
		return PASS_ROOM;
	if (length > service->max_reply)
		return PASS_MTU;
	if (length > service->unasked &&
	    !route_takes(packet, request, service, &scratch->route, bytes))
		return PASS_MTU;
	return UNDECIDED;
}

#endif
