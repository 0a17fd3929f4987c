/* SPDX-License-Identifier: GPL-2.0-only */
/* cgroup/spellings.h, called from Python on what it puts into the one cell of `calls`. */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "spellings.h"

struct call {
	u64 key;
	u64 token;
	u64 digest;
	u32 ttl;
	u32 service;
	u32 spelling;
	u32 last;
	u32 points;
	u32 as;     /* enum spelled_as */
};

BPF_ARRAY(calls, struct call, 1);

int judge(struct xdp_md *ctx)
{
	u32 only = 0;
	struct call *call = calls.lookup(&only);
	struct spelled spelled = {};

	if (!call)
		return XDP_ABORTED;
	spelled.spelling = call->spelling;
	spelled.last = call->last;
	spelled.points = call->points;
	call->as = judge_spelling(call->key, call->service, call->token, call->ttl, call->digest,
				  &spelled);
	return XDP_PASS;
}
