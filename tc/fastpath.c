/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path at TC ingress: whole, or for what XDP has no room for. */
#include "fastpath.h"

/* The programs that others go on with, in the order of daemon/fastpath.py. */
enum {
	TC_READ = 0,
	TC_ANSWER = 1,
	TC_IPV6 = 2,
	TC_OTHER = 3,
	TC_STORE = 4,
	TC_FASTPATH = 5,
	TC_JOIN = 6,
	TC_VERDICT = 7,
};

BPF_PROG_ARRAY(tc_next, 8);

static __always_inline int do_at_tc(struct __sk_buff *skb, enum verdict verdict)
{
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

static __always_inline int act_on(struct __sk_buff *skb, enum verdict verdict, u32 place)
{
	if (decide(TC, verdict, place))
		tc_next.call(skb, TC_VERDICT);
	return do_at_tc(skb, verdict);
}

static __always_inline int answer_at_tc(struct __sk_buff *skb, const enum shape shape)
{
	struct packet packet = { skb, TC };
	u32 place = 0;
	enum verdict verdict = answer(&packet, &place, shape);

	if (verdict == FOR_NEXT) {
		tc_next.call(skb, TC_READ);
		CALLED(TC_READ);
		verdict = PASS_OFF;  /* it is not there */
	}
	if (verdict == FOR_STORE) {
		tc_next.call(skb, TC_STORE);
		CALLED(TC_STORE);
		verdict = MISS;
	}
	return act_on(skb, verdict, place);
}

int tc_fastpath(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };

	pull_headers(skb);
	switch (shape_of(&packet)) {
	case SHAPE_IPV4:
		return answer_at_tc(skb, SHAPE_IPV4);
	case SHAPE_IPV6:
		tc_next.call(skb, TC_IPV6);
		CALLED(TC_IPV6);
		break;
	default:
		tc_next.call(skb, TC_OTHER);
		CALLED(TC_OTHER);
	}
	return act_on(skb, answer_nowhere(&packet), 0);
}

int tc_ipv6(struct __sk_buff *skb)
{
	return answer_at_tc(skb, SHAPE_IPV6);
}

int tc_other(struct __sk_buff *skb)
{
	return answer_at_tc(skb, SHAPE_OTHER);
}

int tc_read(struct __sk_buff *skb)
{
	u32 place = 0;
	enum verdict verdict = read_next(&place);

	if (verdict == FOR_NEXT) {
		tc_next.call(skb, TC_ANSWER);
		CALLED(TC_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		tc_next.call(skb, TC_JOIN);
		CALLED(TC_JOIN);
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

/* The next of several keys. */
int tc_join(struct __sk_buff *skb)
{
	u32 place = 0;
	enum verdict verdict = join_next(&place);

	if (verdict == FOR_NEXT) {
		tc_next.call(skb, TC_ANSWER);
		CALLED(TC_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		tc_next.call(skb, TC_JOIN);
		CALLED(TC_JOIN);
		verdict = PASS_REQUEST;  /* too many programs in a row */
	}
	return act_on(skb, verdict, place);
}

/* A draft waits: store it, and begin anew. */
int tc_store(struct __sk_buff *skb)
{
	u32 place = 0;
	struct scratch *scratch = left_in_scratch(&place);

	store_next(forgotten(scratch ? scratch->service.id : 0, now()));
	left_in_scratch(&place);
	tc_next.call(skb, TC_FASTPATH);
	CALLED(TC_FASTPATH);
	return act_on(skb, MISS, place);
}

/* Has XDP looked at it, and left it to us? */
static __always_inline bool is_handed_over(struct __sk_buff *skb)
{
	u32 *word = (void *)(long)skb->data_meta;

	return (void *)(word + 1) <= (void *)(long)skb->data && *word == HANDED_OVER;
}

/* Only what XDP has left to us; all else is on its way up, and costs a comparison. */
int tc_handover(struct __sk_buff *skb)
{
	if (is_handed_over(skb))
		tc_next.call(skb, TC_FASTPATH);
	return TC_ACT_UNSPEC;
}

/* What packets come to first while they are traced, where TC sees them first. */
int tc_traced(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };

	trace_packet(&packet);
	tc_next.call(skb, TC_FASTPATH);
	CALLED(TC_FASTPATH);
	return TC_ACT_UNSPEC;
}

/* The same where XDP does. */
int tc_traced_handover(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };

	if (is_handed_over(skb)) {
		trace_packet(&packet);
		tc_next.call(skb, TC_FASTPATH);
	}
	return TC_ACT_UNSPEC;
}

/* And last. */
int tc_verdict(struct __sk_buff *skb)
{
	struct packet packet = { skb, TC };

	return do_at_tc(skb, told_verdict(&packet));
}
