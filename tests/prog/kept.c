/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that say what they were compiled with. */
#include <uapi/linux/bpf.h>

#include "parameter.h"

BPF_ARRAY(cells, u64, 4);

int says(struct xdp_md *context)
{
	return SAYS;
}

int hashes(struct xdp_md *context)
{
	u64 words[] = { SAID(slot_v0), SAID(slot_v1), SAID(slot_v2), SAID(slot_v3),
			SAID(hash_secret0), SAID(hash_secret1) };
	u32 index = 0;
	u64 *cell = cells.lookup(&index);

	if (cell)
		*cell = words[0] + 3 * words[1] + 5 * words[2] + 7 * words[3] + 9 * words[4]
			+ 11 * words[5];
	return XDP_PASS;
}

int reads_too_far(struct xdp_md *context)
{
	return *(int *)(long)context->data;
}
