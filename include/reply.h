/* SPDX-License-Identifier: GPL-2.0-only */
/* From a request's headers to its reply's. */
#ifndef CAROM_REPLY_H
#define CAROM_REPLY_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>

#include "checksum.h"

static __always_inline void swap_ethernet(struct ethhdr *eth)
{
	u8 client[ETH_ALEN];

	__builtin_memcpy(client, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, client, ETH_ALEN);
}

/* The TOS byte is cleared: the request's congestion mark was not made on the way back. */
static __always_inline void swap_ipv4(struct iphdr *ip, u16 payload_length)
{
	__be32 client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	ip->tos = 0;
	ip->ttl -= 1;
	ip->tot_len = htons(sizeof(*ip) + sizeof(struct udphdr) + payload_length);
	ip->check = 0;
	ip->check = ~fold(ipv4_sum(ip));
}

static __always_inline void swap_udp(struct udphdr *udp, u16 payload_length)
{
	__be16 client = udp->source;

	udp->source = udp->dest;
	udp->dest = client;
	udp->len = htons(sizeof(*udp) + payload_length);
}

#endif
