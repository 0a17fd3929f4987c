/* SPDX-License-Identifier: GPL-2.0-only */
/* admit() of admission.h on the key that Python puts into the one cell of `asked_keys`. */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "admission.h"
#include "maps.h"
#include "token.h"

BPF_ARRAY(asked_keys, struct key, 1);

int may_store(struct xdp_md *ctx)
{
	u32 only = 0;
	struct key *key = asked_keys.lookup(&only);

	if (!key)
		return XDP_ABORTED;
	return admit(key, hash_key(key)) ? XDP_PASS : XDP_DROP;
}
