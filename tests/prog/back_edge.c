/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two loops that end, of which kernels before 6.8 refuse one (see old_kernels.py): `past_its_head` is
 * entered there, and so the walk comes to the head last, which goes on into what it began with.
 */
#include <linux/bpf.h>

int past_its_head(struct xdp_md *ctx)
{
	u32 n = 0, sum = ctx->rx_queue_index;

	if (ctx->ingress_ifindex != 1) {
		sum += 7;
		goto middle;
	}
	for (n = 0; n < 64; n++) {
		sum ^= bpf_ktime_get_ns();
middle:
		sum += bpf_get_smp_processor_id();
	}
	return sum & 1 ? XDP_PASS : XDP_DROP;
}

int by_its_head(struct xdp_md *ctx)
{
	u32 sum = ctx->rx_queue_index;

	for (u32 n = 0; n < 64; n++) {
		sum ^= bpf_ktime_get_ns();
		sum += bpf_get_smp_processor_id();
	}
	return sum & 1 ? XDP_PASS : XDP_DROP;
}
