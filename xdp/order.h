/* SPDX-License-Identifier: GPL-2.0-only */
/* What userspace has a program do that it runs by BPF_PROG_TEST_RUN, in the frame that it runs it with. */
#ifndef CAROM_XDP_ORDER_H
#define CAROM_XDP_ORDER_H

struct order {
	u64 sequence;  /* of the entry, when it was looked at; or what a draft's `ready` becomes, or 0 */
	u64 expires;   /* jiffies */
	u32 line;      /* its entry's */
	u32 cell;      /* of `versions`; or a service */
	u64 secret;    /* hash_secret0: tells an order from a packet, whoever sent it */
};

static __always_inline struct order *order_of(struct xdp_md *context)
{
	struct order *order = (void *)(long)context->data;

	return (void *)(order + 1) > (void *)(long)context->data_end ? NULL : order;
}

#endif
