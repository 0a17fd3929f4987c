/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cursor parsers: from a frame to a request that is fully understood, or to the reason against it.
 */
#ifndef CAROM_PARSE_H
#define CAROM_PARSE_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#include "abi.h"
#include "bounded.h"
#include "checksum.h"
#include "clock.h"
#include "hook.h"

#define IPV4_FRAGMENT 0x3fff  /* MF and the fragment offset; DF may be set */
#define VLAN_ID 0x0fff        /* of a tag's 16 bits */
#define PLAIN_HEADERS 28      /* IPv4 without options, UDP */
#define HEADERS_MAX 70        /* Ethernet, two VLAN tags, IPv6, UDP */

/* At TC: bring the headers to where pointers reach them, as an skb may keep its bytes elsewhere. */
static __always_inline void pull_headers(struct __sk_buff *skb)
{
	u32 length = skb->len < HEADERS_MAX ? skb->len : HEADERS_MAX;

	if ((void *)(long)skb->data + length > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, length);
}

struct cursor {
	void *pos;
	void *end;
};

/* What follows the MAC addresses of a tagged frame. */
struct vlan_tag {
	__be16 control;
	__be16 type;  /* of what follows */
};

/* A request. Its pointers end when the packet's size or bytes change; `locate` renews them. */
struct request {
	struct ethhdr *eth;
	struct iphdr *ip;     /* of these two, the one that `ipv6` says is set */
	struct ipv6hdr *ip6;
	struct udphdr *udp;
	u8 ipv6;              /* no bool: clang 19 tests one bit, and the verifier forgets it */
	u16 outer;            /* VLAN ids, 0 for no tag */
	u16 inner;
	u16 length;           /* of the payload */
	u32 network;          /* bytes before the IP header */
};

/*
 * What a frame looks like at first sight. Each shape has a program: where the shape is a constant,
 * all offsets are.
 */
enum shape {
	SHAPE_IPV4,   /* no tags, a header of 20 bytes, and one that UDP's has room for */
	SHAPE_IPV6,   /* no tags */
	SHAPE_OTHER,  /* tags, or no request at all */
	SHAPE_ANY,    /* for programs that take all of them */
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
DEFINE_PARSER(parse_vlan, struct vlan_tag)
DEFINE_PARSER(parse_ipv4, struct iphdr)
DEFINE_PARSER(parse_ipv6, struct ipv6hdr)
DEFINE_PARSER(parse_udp, struct udphdr)

static __always_inline bool is_vlan(__be16 type)
{
	return type == htons(ETH_P_8021Q) || type == htons(ETH_P_8021AD);
}

static __always_inline enum shape shape_of(const struct packet *packet)
{
	const struct ethhdr *eth = packet_start(packet);
	const u8 *first = (const u8 *)(eth + 1);

	if ((const void *)(first + PLAIN_HEADERS) > packet_end(packet) ||
	    (packet->hook == TC && ((struct __sk_buff *)packet->context)->vlan_present))
		return SHAPE_OTHER;
	if (eth->h_proto == htons(ETH_P_IP) && *first == (4 << 4 | 5))
		return SHAPE_IPV4;
	return eth->h_proto == htons(ETH_P_IPV6) ? SHAPE_IPV6 : SHAPE_OTHER;
}

/* Bytes before the payload. */
static __always_inline u32 headers_length(const struct request *request)
{
	return request->network + sizeof(struct udphdr) +
	       (request->ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

/*
 * Read up to two tags. At TC the kernel has taken the outermost off the frame and keeps it beside
 * the packet; the reply keeps it. Returns the EtherType behind the tags, 0 for a truncated tag.
 */
static __always_inline __be16 parse_tags(const struct packet *packet, struct cursor *cursor,
					 struct request *request, bool *tagged)
{
	struct __sk_buff *skb = packet->context;
	__be16 type = request->eth->h_proto;
	struct vlan_tag *tag;

	if (packet->hook == TC && skb->vlan_present) {
		request->outer = skb->vlan_tci & VLAN_ID;
	} else if (is_vlan(type)) {
		tag = parse_vlan(cursor);
		if (!tag)
			return 0;
		request->outer = ntohs(tag->control) & VLAN_ID;
		request->network += sizeof(*tag);
		type = tag->type;
	} else {
		return type;
	}
	*tagged = true;
	if (is_vlan(type)) {
		tag = parse_vlan(cursor);
		if (!tag)
			return 0;
		request->inner = ntohs(tag->control) & VLAN_ID;
		request->network += sizeof(*tag);
		type = tag->type;
	}
	return type;
}

static __always_inline enum verdict check_ipv4(const struct iphdr *ip)
{
	if (ip->version != 4 || ip->ihl < 5)
		return PASS_VERSION;
	if (ip->protocol != IPPROTO_UDP)
		return PASS_PROTOCOL;
	if (ip->ihl > 5)
		return PASS_OPTIONS;
	if (ip->frag_off & htons(IPV4_FRAGMENT))
		return PASS_FRAGMENT;
	return UNDECIDED;
}

static __always_inline enum verdict check_ipv6(const struct ipv6hdr *ip)
{
	if (ip->version != 6)
		return PASS_VERSION;
	switch (ip->nexthdr) {
	case IPPROTO_UDP:
		return UNDECIDED;
	case IPPROTO_FRAGMENT:
		return PASS_FRAGMENT;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
	case IPPROTO_MH:
		return PASS_OPTIONS;
	default:
		return PASS_PROTOCOL;
	}
}

/* Read the IP header; `ip_payload` is how long it says the UDP datagram is. */
static __always_inline enum verdict parse_ip(struct cursor *cursor, struct request *request,
					     __be16 type, u32 *ip_payload)
{
	enum verdict verdict;

	if (type == htons(ETH_P_IP)) {
		request->ip = parse_ipv4(cursor);
		if (!request->ip)
			return PASS_TRUNCATED;
		verdict = check_ipv4(request->ip);
		*ip_payload = ntohs(request->ip->tot_len) - sizeof(struct iphdr);
	} else if (type == htons(ETH_P_IPV6)) {
		request->ip6 = parse_ipv6(cursor);
		if (!request->ip6)
			return PASS_TRUNCATED;
		request->ipv6 = true;
		verdict = check_ipv6(request->ip6);
		*ip_payload = ntohs(request->ip6->payload_len);
	} else {
		verdict = PASS_ETHERTYPE;
	}
	return verdict;
}

/* The same value, as a constant in each branch. For a byte that was loaded, the verifier of older
 * kernels (6.1) forgets on the stack how a test of it went, and takes one IP header for the other.
 */
static __always_inline u8 told_apart(u8 ipv6)
{
	u64 known = 0;

	if (ipv6) {
		known = 1;
		asm volatile("" : "+r"(known));
	}
	return known;
}

/* Find the headers again in a packet whose size or bytes have changed, by what `request` says. */
static __always_inline bool locate(const struct packet *packet, struct request *request)
{
	void *start = packet_start(packet), *end = packet_end(packet);

	request->eth = start;
	if (request->ipv6) {
		request->ip6 = start + request->network;
		request->udp = (void *)(request->ip6 + 1);
	} else {
		request->ip = start + request->network;
		request->udp = (void *)(request->ip + 1);
	}
	return (void *)(request->eth + 1) <= end && (void *)(request->udp + 1) <= end;
}

/*
 * Hide from the verifier which tags a frame has: it would follow all behind once for each number of
 * them, on the frame and beside it. False if the headers are not found again.
 */
static __always_inline bool forget_tags(const struct packet *packet, struct request *request)
{
	u64 unknown = now();

	request->outer = forgotten(request->outer, unknown);
	request->inner = forgotten(request->inner, unknown);
	request->network = bounded(forgotten(request->network, unknown), 32);
	return locate(packet, request);
}

/* Read how long the payload is. `ip_payload` is what the IP header says of the datagram. */
static __always_inline enum verdict check_lengths(const struct packet *packet,
						  struct request *request, u32 ip_payload)
{
	u32 length = ntohs(request->udp->len);

	request->length = length - sizeof(struct udphdr);
	if (length < sizeof(struct udphdr) || length != ip_payload ||
	    headers_length(request) + length - sizeof(struct udphdr) > packet_length(packet))
		return PASS_LENGTH;
	/* Segments need not be counted yet, those of a guest for example: the size tells. */
	if (packet->hook == TC && ((struct __sk_buff *)packet->context)->gso_size)
		return PASS_LENGTH;
	return UNDECIDED;
}

/* The same as parse_request() for a frame of SHAPE_IPV4, of which much is known. */
static __always_inline enum verdict parse_plain(const struct packet *packet,
						struct request *request)
{
	const __be32 *fragment;

	request->network = sizeof(struct ethhdr);
	if (!locate(packet, request))
		return PASS_TRUNCATED;
	fragment = (const __be32 *)&request->ip->frag_off;  /* with TTL and protocol */
	if ((*fragment & htonl(IPV4_FRAGMENT << 16 | 0xff)) != htonl(IPPROTO_UDP))
		return request->ip->protocol == IPPROTO_UDP ? PASS_FRAGMENT : PASS_PROTOCOL;
	return check_lengths(packet, request, ntohs(request->ip->tot_len) - sizeof(struct iphdr));
}

/*
 * Fill `request` from a UDP datagram whose lengths agree, or say why it is none. Frames of other
 * kinds pass after as few reads as possible: they are somebody else's traffic. `shape` is what
 * shape_of() says, a constant.
 */
static __always_inline enum verdict parse_request(const struct packet *packet,
						  struct request *request,
						  const enum shape shape)
{
	struct cursor cursor = { packet_start(packet), packet_end(packet) };
	enum verdict verdict;
	u32 ip_payload = 0;
	bool tagged = false;
	__be16 type;

	if (shape == SHAPE_IPV4)
		return parse_plain(packet, request);
	request->eth = parse_ethernet(&cursor);
	if (!request->eth)
		return PASS_TRUNCATED;
	request->network = sizeof(struct ethhdr);
	type = shape == SHAPE_IPV6 ? htons(ETH_P_IPV6)
				   : parse_tags(packet, &cursor, request, &tagged);
	if (!type)
		return PASS_TRUNCATED;
	verdict = parse_ip(&cursor, request, type, &ip_payload);
	if (verdict)
		return verdict;
	request->udp = parse_udp(&cursor);
	if (!request->udp)
		return PASS_TRUNCATED;
	/* It has another shape then, which the verifier does not know. */
	if (shape == SHAPE_OTHER && !tagged)
		return PASS_OPTIONS;
	verdict = check_lengths(packet, request, ip_payload);
	if (verdict)
		return verdict;
	if (shape == SHAPE_OTHER && !forget_tags(packet, request))
		return PASS_TRUNCATED;
	return UNDECIDED;
}

static __always_inline bool same_mac(const u8 *a, const u8 *b)
{
	return *(u32 *)a == *(u32 *)b && *(u16 *)(a + 4) == *(u16 *)(b + 4);
}

static __always_inline struct address mapped_address(__be32 ipv4)
{
	struct address address = {};

	address.words[2] = htonl(0xffff);
	address.words[3] = ipv4;
	return address;
}

static __always_inline struct address ipv6_address(const struct in6_addr *ipv6)
{
	struct address address;

	__builtin_memcpy(&address, ipv6, sizeof(address));
	return address;
}

static __always_inline struct address source_of(const struct request *request)
{
	return request->ipv6 ? ipv6_address(&request->ip6->saddr)
			     : mapped_address(request->ip->saddr);
}

/* The IPv4 /24 or IPv6 /64 of an address, as a service counts it. */
static __always_inline struct payer prefix_of(struct address address, u16 service)
{
	struct payer payer = { { address.words[0], address.words[1] }, service, 0 };

	if (!(address.words[0] | address.words[1]) && address.words[2] == htonl(0xffff)) {
		payer.words[1] = address.words[3] & htonl(0xffffff00);
		payer.ipv4 = 1;
	}
	return payer;
}

static __always_inline struct address destination_of(const struct request *request)
{
	return request->ipv6 ? ipv6_address(&request->ip6->daddr)
			     : mapped_address(request->ip->daddr);
}

/*
 * Is this an IPv6 packet to an address that stands for an IPv4 one? No host has such an address,
 * but IPv4 services are stored under it.
 */
static __always_inline bool to_mapped_address(const struct request *request)
{
	const __be32 *word;

	if (!request->ipv6)
		return false;
	word = request->ip6->daddr.in6_u.u6_addr32;
	return !(word[0] | word[1]) && word[2] == htonl(0xffff);
}

/* Where a request came in: the key that services are stored under. */
static __always_inline void locate_endpoint(const struct packet *packet,
					    const struct request *request,
					    struct endpoint *endpoint)
{
	endpoint->address = destination_of(request);
	endpoint->ifindex = packet_ifindex(packet);
	endpoint->outer = request->outer;
	endpoint->inner = request->inner;
	endpoint->port = request->udp->dest;
}

/* The sum of both IP addresses. */
static __always_inline u64 addresses_sum(const struct request *request)
{
	return request->ipv6 ? ipv6_addresses_sum(request->ip6)
			     : (u64)request->ip->saddr + request->ip->daddr;
}

#endif
