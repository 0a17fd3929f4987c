/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path at TC ingress: whole, or for what XDP has no room for. */
#include "fastpath.h"

BPF_PROG_ARRAY(tc_next, 3);  /* tc_read, tc_answer, tc_fastpath */

static __always_inline int act_on(struct __sk_buff *skb, enum verdict verdict, u32 place)
{
	count(TC, verdict, place);
	switch (verdict) {
	case BOUNCE:
	case HIT:
	case SLIP:
		return bpf_redirect(skb->ifindex, 0);
	case FAULT:
	case DROP_LOOP:
		return TC_ACT_SHOT;
	default:
		return TC_ACT_UNSPEC;
	}
}

int tc_fastpath(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };
	enum verdict verdict;
	u32 place = 0;

	pull_headers(skb);
	verdict = answer(&packet, &place);
	if (verdict == FOR_NEXT) {
		tc_next.call(skb, 0);
		verdict = PASS_OFF;  /* it is not there */
	}
	return act_on(skb, verdict, place);
}

int tc_read(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };
	u32 place = 0;
	enum verdict verdict = read_next(&packet, &place);

	if (verdict == FOR_NEXT) {
		tc_next.call(skb, 1);
		verdict = PASS_OFF;
	}
	return act_on(skb, verdict, place);
}

int tc_answer(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };

	u32 place = 0;
	enum verdict verdict = answer_read(&packet, &place);

	return act_on(skb, verdict, place);
}

/* Only what XDP has looked at and left to us; all else is on its way up, and costs a comparison. */
int tc_handover(struct __sk_buff *skb)
{
	u32 *word = (void *)(long)skb->data_meta;

	if ((void *)(word + 1) > (void *)(long)skb->data || *word != HANDED_OVER)
		return TC_ACT_UNSPEC;
	tc_next.call(skb, 2);
	return TC_ACT_UNSPEC;
}
