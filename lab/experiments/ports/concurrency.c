/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One XDP program in place of four processes: it switches on the port, works on the request's number
 * for as many loops as that port's process does, and replies with the result.
 */
#include "four.h"
#include "reply.h"
#include "work.h"

#ifndef LOOPS_0
#define LOOPS_0 1400  /* the loader says */
#define LOOPS_1 1000
#define LOOPS_2 10
#define LOOPS_3 500
#endif

BPF_ARRAY(answered, u64, PORTS);

static __always_inline u32 worked_at(u32 which, u32 value)
{
	switch (which) {
	case 0:
		return worked(value, LOOPS_0);
	case 1:
		return worked(value, LOOPS_1);
	case 2:
		return worked(value, LOOPS_2);
	default:
		return worked(value, LOOPS_3);
	}
}

int concurrency(struct xdp_md *context)
{
	struct packet packet = { context, XDP };
	struct question question = {};
	struct request request = {};
	__be32 result;
	u64 *count;

	if (!read_question(&packet, &request, &question, sizeof(result)))
		return XDP_PASS;
	count = answered.lookup(&question.which);
	if (!count)
		return XDP_PASS;
	result = htonl(worked_at(question.which, ntohl(question.payload.words[0])));
	if (packet_store(&packet, headers_length(&request), &result, sizeof(result)) ||
	    !locate(&packet, &request))
		return XDP_ABORTED;
	make_reply(&request, question.sum, sizeof(result), result, question.skb_mode, false);
	__sync_fetch_and_add(count, 1);
	return XDP_TX;
}
