/* SPDX-License-Identifier: GPL-2.0-only */
/* Make a reply's headers from its request's. */
#ifndef CAROM_REPLY_H
#define CAROM_REPLY_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#include "checksum.h"
#include "parse.h"

static __always_inline void swap_ethernet(struct ethhdr *eth)
{
	u16 *words = (u16 *)eth;  /* as struct ethhdr is packed, clang would go byte by byte */

#pragma unroll
	for (u32 n = 0; n < ETH_ALEN / sizeof(*words); n++) {
		u16 server = words[n];

		words[n] = words[n + ETH_ALEN / sizeof(*words)];
		words[n + ETH_ALEN / sizeof(*words)] = server;
	}
}

#define IPV4_ALWAYS_WHOLE 68  /* bytes that every link carries in one piece (RFC 791 3.2) */

/*
 * The request's DF must not stay. Nobody here follows a path's MTU for these replies, so a router
 * has to be free to fragment them. A datagram that may be fragmented needs an id of its own (RFC
 * 6864 4.3), which outsiders cannot guess. A request without DF has such an id already.
 */
static __always_inline void allow_fragments(struct iphdr *ip)
{
	if (ntohs(ip->tot_len) <= IPV4_ALWAYS_WHOLE || (!ip->frag_off && ip->id))
		return;
	ip->frag_off = 0;
	ip->id = bpf_get_prandom_u32();
}

/* The TOS byte is cleared: the request's congestion mark is not one of the way back. */
static __always_inline void swap_ipv4(struct iphdr *ip, u16 payload_length)
{
	__be32 client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	ip->tos = 0;
	ip->ttl -= 1;
	ip->tot_len = htons(sizeof(*ip) + sizeof(struct udphdr) + payload_length);
	allow_fragments(ip);
	ip->check = 0;
	ip->check = ~fold(ipv4_sum(ip));
}

/* Traffic class and flow label are cleared: the class as above; the label is the client's. */
static __always_inline void swap_ipv6(struct ipv6hdr *ip, u16 payload_length)
{
	struct in6_addr client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	*(__be32 *)ip = htonl(0x60000000);
	ip->hop_limit -= 1;
	ip->payload_len = htons(sizeof(struct udphdr) + payload_length);
}

static __always_inline void swap_udp(struct udphdr *udp, u16 payload_length)
{
	__be16 client = udp->source;

	udp->source = udp->dest;
	udp->dest = client;
	udp->len = htons(sizeof(*udp) + payload_length);
}

/* `payload_sum` is the sum of the reply's payload, `sum` what the request's checksum was. */
static __always_inline void make_reply(struct request *request, enum sum sum, u16 payload_length,
				       u64 payload_sum, bool skb_mode)
{
	u64 addresses = addresses_sum(request);

	swap_ethernet(request->eth);
	if (request->ipv6)
		swap_ipv6(request->ip6, payload_length);
	else
		swap_ipv4(request->ip, payload_length);
	swap_udp(request->udp, payload_length);
	request->udp->check = reply_check(addresses, request->udp, payload_sum, sum, skb_mode);
}

#endif
