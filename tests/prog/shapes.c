/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path in one program for frames of any shape: what its programs for each are held against. */
#include "../xdp/fastpath.c"
#include "../tc/fastpath.c"

int xdp_any(struct xdp_md *context)
{
	return answer_at_xdp(context, SHAPE_ANY);
}

int tc_any(struct __sk_buff *skb)
{
	pull_headers(skb);
	return answer_at_tc(skb, SHAPE_ANY);
}
