/* SPDX-License-Identifier: GPL-2.0-only */
/* Jiffies for userspace: run by BPF_PROG_TEST_RUN and never attached. */
#include "clock.h"

int read_clock(struct xdp_md *context)
{
	u32 only = 0;
	u64 *jiffies = clock.lookup(&only);

	if (!jiffies)
		return XDP_ABORTED;
	*jiffies = bpf_jiffies64();
	return XDP_PASS;
}
