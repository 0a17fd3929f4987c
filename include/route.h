/* SPDX-License-Identifier: GPL-2.0-only */
/* The way back, by the kernel's routes and neighbours. */
#ifndef CAROM_ROUTE_H
#define CAROM_ROUTE_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#include "abi.h"
#include "maps.h"
#include "parse.h"

#define ROUTE_INET 2    /* AF_INET, AF_INET6 */
#define ROUTE_INET6 10

/*
 * Does the path's MTU, as far as the stack has learned it, take a packet of `length` bytes? The
 * helper answers only where the interface forwards: elsewhere nothing is known, and the answer is
 * no.
 */
static __always_inline bool route_takes(const struct packet *packet, const struct request *request,
					const struct service *service,
					struct bpf_fib_lookup *route, u32 length)
{
	__builtin_memset(route, 0, sizeof(*route));
	route->ifindex = service->link;
	route->l4_protocol = IPPROTO_UDP;
	route->sport = request->udp->dest;
	route->dport = request->udp->source;
	route->tot_len = length;
	if (request->ipv6) {
		route->family = ROUTE_INET6;
		__builtin_memcpy(route->ipv6_src, &request->ip6->daddr, sizeof(route->ipv6_src));
		__builtin_memcpy(route->ipv6_dst, &request->ip6->saddr, sizeof(route->ipv6_dst));
	} else {
		route->family = ROUTE_INET;
		route->ipv4_src = request->ip->daddr;
		route->ipv4_dst = request->ip->saddr;
	}
	return bpf_fib_lookup(packet->context, route, sizeof(*route), BPF_FIB_LOOKUP_OUTPUT) ==
	       BPF_FIB_LKUP_RET_SUCCESS;
}

/*
 * Does the frame come from the MAC to which this host would send a reply to its source? A source
 * address is easily forged, and the reply goes back to the MAC of whoever forged it.
 */
static __always_inline bool from_its_neighbour(const struct request *request,
					       const struct service *service)
{
	struct way_prefix source = { 32 + 128, service->link, source_of(request) };
	struct neighbour asked = { source.address, service->link };
	const u8 *mac = request->eth->h_source;
	struct way *way = ways.lookup(&source);
	struct station *station;

	if (!way)
		return false;
#pragma unroll
	for (u32 i = 0; i < GATEWAYS_MAX; i++) {
		if (i < way->count && same_mac(way->via[i].mac, mac))
			return true;
	}
	if (!way->direct)
		return false;
	station = neighbours.lookup(&asked);
	return station && same_mac(station->mac, mac);
}

#endif
