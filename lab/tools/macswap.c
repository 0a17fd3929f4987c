/* SPDX-License-Identifier: GPL-2.0-only */
/* The least that XDP can do to answer: swap the MACs and send. Bench compares with this. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>

#include "reply.h"

int macswap(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	swap_ethernet(eth);
	return XDP_TX;
}
