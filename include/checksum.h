/* SPDX-License-Identifier: GPL-2.0-only */
/* Internet checksums (RFC 1071): one's-complement sums of 16-bit words in memory order. */
#ifndef CAROM_CHECKSUM_H
#define CAROM_CHECKSUM_H

#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#include "abi.h"

/* What a request's UDP checksum is. */
enum sum {
	SUM_WRONG,
	SUM_WHOLE,    /* right, or zero: none was made */
	SUM_PARTIAL,  /* only the pseudo-header's: its sender left the rest to a device */
};

/*
 * The sum of a sum's words of 16 bits, for sums below 2^47. The product adds the upper half of 32 bits to the
 * lower one twice, and so the carry of the first time to the second.
 */
static __always_inline u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum * 0x100010001ull >> 32;
}

/* The sum of a header of 20 bytes; folded, it is 0xffff when its checksum is right. */
static __always_inline u64 ipv4_sum(const struct iphdr *ip)
{
	const u32 *word = (const u32 *)ip;
	u64 sum = 0;

#pragma unroll
	for (u32 n = 0; n < sizeof(*ip) / sizeof(*word); n++)
		sum += word[n];
	return sum;
}

static __always_inline u64 ipv6_addresses_sum(const struct ipv6hdr *ip)
{
	const u32 *word = (const u32 *)&ip->saddr;
	u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += word[i];
	return sum;
}

/*
 * Below, `addresses` is the sum of both IP addresses, the same for a request and its reply, and
 * `payload` the sum of the payload; all is the same for IPv4 and IPv6 (RFC 768, RFC 8200 8.1).
 */
static __always_inline u64 pseudo_sum(u64 addresses, const struct udphdr *udp)
{
	return addresses + htons(IPPROTO_UDP) + udp->len;
}

/* What says that all is of this sum. Zero is sent as 0xffff, for 0 says "none". */
static __always_inline u16 check_of(u64 sum)
{
	u16 check = ~fold(sum);

	return check ? check : 0xffff;
}

static __always_inline u16 udp_check(u64 addresses, const struct udphdr *udp, u64 payload)
{
	return check_of(pseudo_sum(addresses, udp) + udp->source + udp->dest + udp->len + payload);
}

/*
 * Is the request's UDP checksum right, or half-made? One request in 65,536 with a right checksum
 * looks half-made too. A native hook makes every reply's whole sum, so it makes no difference
 * there. A hook that sees skbs cannot tell what its device will do: it takes the sum for wrong, and
 * the request passes. IPv6 has no datagrams without a checksum.
 */
static __always_inline enum sum classify_sum(u64 addresses, const struct udphdr *udp, u64 payload,
					     bool ipv6, bool skb_mode)
{
	u64 pseudo = pseudo_sum(addresses, udp);
	bool whole;

	if (!udp->check)
		return ipv6 ? SUM_WRONG : SUM_WHOLE;
	whole = fold(pseudo + udp->source + udp->dest + udp->len + udp->check + payload) == 0xffff;
	if (whole && !skb_mode)
		return SUM_WHOLE;
	if (udp->check != fold(pseudo))
		return whole ? SUM_WHOLE : SUM_WRONG;
	return whole ? SUM_WRONG : SUM_PARTIAL;
}

/* The reply's checksum, by both its ports and its length. */
static __always_inline u16 reply_check(u64 addresses, u32 ports, __be16 length, u64 payload,
				       enum sum request, bool skb_mode)
{
	u64 pseudo = addresses + htons(IPPROTO_UDP) + length;

	return skb_mode && request == SUM_PARTIAL ? fold(pseudo)
						  : check_of(pseudo + ports + length + payload);
}

#endif
