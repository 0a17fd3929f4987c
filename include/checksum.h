/* SPDX-License-Identifier: GPL-2.0-only */
/* Internet checksum arithmetic (RFC 1071): one's-complement sums of 16-bit words in memory order. */
#ifndef CAROM_CHECKSUM_H
#define CAROM_CHECKSUM_H

#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>

#include "abi.h"

/* How a request's UDP checksum was found to be. */
enum sum {
	SUM_WRONG,
	SUM_WHOLE,    /* right, or zero: none was made */
	SUM_PARTIAL,  /* the pseudo-header's only: its sender left the rest to a device */
};

/* Twice: the first fold can carry. */
static __always_inline u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A header of 20 bytes; 0xffff when its checksum is right. */
static __always_inline u64 ipv4_sum(const struct iphdr *ip)
{
	const u16 *word = (const u16 *)ip;
	u64 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
		sum += word[i];
	return sum;
}

static __always_inline u64 pseudo_sum(const struct iphdr *ip, const struct udphdr *udp)
{
	return (u64)ip->saddr + ip->daddr + htons(IPPROTO_UDP) + udp->len;
}

/* `payload` is the sum of the payload. A sum of zero is sent as 0xffff, for 0 says "none". */
static __always_inline u16 udp_check(const struct iphdr *ip, const struct udphdr *udp, u64 payload)
{
	u16 check = ~fold(pseudo_sum(ip, udp) + udp->source + udp->dest + udp->len + payload);

	return check ? check : 0xffff;
}

/*
 * Is the request's UDP checksum right, or left half-made? One request in 65,536 with a right
 * checksum looks half-made too. A native hook makes every reply's whole sum and need not care; a
 * hook that sees skbs cannot tell what its device will do, and takes it for wrong: it passes.
 */
static __always_inline enum sum classify_sum(const struct iphdr *ip, const struct udphdr *udp,
					     u64 payload, bool skb_mode)
{
	bool none = udp->check == 0;
	bool partial = !none && udp->check == fold(pseudo_sum(ip, udp));
	bool whole = none || fold(pseudo_sum(ip, udp) + udp->source + udp->dest + udp->len +
				  udp->check + payload) == 0xffff;

	if (partial && whole && skb_mode)
		return SUM_WRONG;
	if (whole)
		return SUM_WHOLE;
	return partial ? SUM_PARTIAL : SUM_WRONG;
}

/* The reply's checksum, once its addresses, ports and lengths are set. */
static __always_inline u16 reply_check(const struct iphdr *ip, const struct udphdr *udp, u64 payload,
				       enum sum request, bool skb_mode)
{
	if (skb_mode && request == SUM_PARTIAL)
		return fold(pseudo_sum(ip, udp));
	return udp_check(ip, udp, payload);
}

#endif
