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

/* As struct ethhdr is packed, clang would go byte by byte. */
static __always_inline void swap_ethernet(struct ethhdr *eth)
{
	u16 *end = (u16 *)(eth->h_dest + 4), *other_end = (u16 *)(eth->h_source + 4);
	u32 *start = (u32 *)eth->h_dest, *other_start = (u32 *)eth->h_source;
	u32 server = *start;
	u16 server_end = *end;

	*start = *other_start;
	*end = *other_end;
	*other_start = server;
	*other_end = server_end;
}

#define IPV4_ALWAYS_WHOLE 68  /* bytes that every link carries in one piece (RFC 791 3.2) */

/*
 * The request's DF must not stay. Nobody here follows a path's MTU for these replies, so a router
 * has to be free to fragment them. A datagram that may be fragmented needs an id of its own (RFC
 * 6864 4.3), which outsiders cannot guess. A request without DF has such an id already. Returns the sum
 * of what there is then.
 */
static __always_inline u32 allow_fragments(struct iphdr *ip, u32 length)
{
	u16 offset = ip->frag_off, id = ip->id;

	if (length <= IPV4_ALWAYS_WHOLE || (!offset && id))
		return offset + id;
	id = bpf_get_prandom_u32();
	ip->frag_off = 0;
	ip->id = id;
	return id;
}

/*
 * The TOS byte is cleared: the request's congestion mark is not one of the way back. The sum is of what
 * is written, and nothing is read again: that would have to wait for it. `addresses` is theirs.
 */
static __always_inline void swap_ipv4(struct iphdr *ip, u16 payload_length, u64 addresses)
{
	u32 length = sizeof(*ip) + sizeof(struct udphdr) + payload_length;
	u32 first = htonl((4 << 4 | 5) << 24 | length), *words = (u32 *)ip;
	u32 ttl = htonl((ntohl(words[2]) & 0xffff0000) - (1 << 24));
	__be32 client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	words[0] = first;
	words[2] = ttl;
	ip->check = ~fold(addresses + first + ttl + allow_fragments(ip, length));
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

/*
 * `payload_sum` is the sum of the reply's payload, `sum` what the request's checksum was. Where the reply's
 * payload is the `same` as the request's (a constant), so is a whole checksum that was made.
 */
static __always_inline void make_reply(struct request *request, enum sum sum, u16 payload_length,
				       u64 payload_sum, bool skb_mode, const bool same)
{
	u32 *ports = (u32 *)request->udp, both = *ports;
	__be16 length = htons(sizeof(struct udphdr) + payload_length);
	u64 addresses = addresses_sum(request);

	swap_ethernet(request->eth);
	if (request->ipv6)
		swap_ipv6(request->ip6, payload_length);
	else
		swap_ipv4(request->ip, payload_length, addresses);
	*ports = both << 16 | both >> 16;
	if (same && sum == SUM_WHOLE && request->udp->check)
		return;
	request->udp->len = length;
	request->udp->check = reply_check(addresses, both, length, payload_sum, sum, skb_mode);
}

#endif
