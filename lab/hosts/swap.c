/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The least that can answer a UDP datagram over IPv4: swap both ends in every header, which keeps
 * the checksums right, and send it back. Hits a second are compared with this.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>

#include "reply.h"

int swap_ends(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__be32 client;
	__be16 port;

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end || eth->h_proto != htons(ETH_P_IP) ||
	    ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	client = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
	swap_ethernet(eth);
	return XDP_TX;
}
