/* SPDX-License-Identifier: GPL-2.0-only */
/* Cursor parsers: from a frame to a request that is fully understood, or to the reason why not. */
#ifndef CAROM_PARSE_H
#define CAROM_PARSE_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>

#include "abi.h"
#include "checksum.h"

#define IPV4_FRAGMENT 0x3fff  /* MF and the fragment offset; DF may stand */
#define HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr))

struct cursor {
	void *pos;
	void *end;
};

/* One request. The pointers die when the packet's size changes. */
struct request {
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp;
	u16 length;  /* of the payload */
};

#define DEFINE_PARSER(name, type)                                              \
	static __always_inline type *name(struct cursor *cursor)               \
	{                                                                      \
		type *header = cursor->pos;                                    \
		if ((void *)(header + 1) > cursor->end)                        \
			return NULL;                                           \
		cursor->pos = header + 1;                                      \
		return header;                                                 \
	}

DEFINE_PARSER(parse_ethernet, struct ethhdr)
DEFINE_PARSER(parse_ipv4, struct iphdr)
DEFINE_PARSER(parse_udp, struct udphdr)

static __always_inline enum verdict check_ipv4(const struct iphdr *ip, const struct cursor *cursor)
{
	if (ip->version != 4 || ip->ihl < 5)
		return PASS_VERSION;
	if (ip->protocol != IPPROTO_UDP)
		return PASS_PROTOCOL;
	if (ip->ihl > 5)
		return PASS_OPTIONS;
	if (ip->frag_off & htons(IPV4_FRAGMENT))
		return PASS_FRAGMENT;
	if ((void *)ip + ntohs(ip->tot_len) > cursor->end)
		return PASS_LENGTH;
	return UNDECIDED;
}

/*
 * Fill `request` from an IPv4 UDP datagram whose lengths agree, or say why it is none. Frames of
 * other kinds leave after as few reads as can be: they are somebody else's traffic.
 */
static __always_inline enum verdict parse_request(struct cursor *cursor, struct request *request)
{
	enum verdict verdict;

	request->eth = parse_ethernet(cursor);
	if (!request->eth)
		return PASS_TRUNCATED;
	if (request->eth->h_proto != htons(ETH_P_IP))
		return PASS_ETHERTYPE;
	request->ip = parse_ipv4(cursor);
	if (!request->ip)
		return PASS_TRUNCATED;
	verdict = check_ipv4(request->ip, cursor);
	if (verdict)
		return verdict;
	request->udp = parse_udp(cursor);
	if (!request->udp)
		return PASS_TRUNCATED;
	if (ntohs(request->udp->len) < sizeof(struct udphdr) ||
	    ntohs(request->udp->len) + sizeof(struct iphdr) != ntohs(request->ip->tot_len))
		return PASS_LENGTH;
	request->length = ntohs(request->udp->len) - sizeof(struct udphdr);
	return UNDECIDED;
}

static __always_inline bool same_mac(const u8 *a, const u8 *b)
{
	return *(u32 *)a == *(u32 *)b && *(u16 *)(a + 4) == *(u16 *)(b + 4);
}

/*
 * A source that a reply must not go to: it would loop, or reach many, or a well-known service. Our
 * own addresses are the services map's to know.
 */
static __always_inline bool refused_source(const struct request *request)
{
	u32 source = ntohl(request->ip->saddr);

	return source >> 24 == 0 || source >> 24 == 127 || source >= 0xe0000000 ||
	       (request->eth->h_source[0] & 1) ||
	       ntohs(request->udp->source) < SOURCE_PORT_MIN ||
	       request->udp->source == request->udp->dest;
}

/* May this host answer this request at all? */
static __always_inline enum verdict check_request(const struct request *request,
						  const struct interface *interface)
{
	if (!same_mac(request->eth->h_dest, interface->mac))
		return PASS_MAC;
	if (refused_source(request))
		return PASS_SOURCE;
	if (request->ip->ttl < TTL_FLOOR)
		return PASS_TTL;
	if (fold(ipv4_sum(request->ip)) != 0xffff)
		return PASS_CHECKSUM;
	return UNDECIDED;
}

#endif
