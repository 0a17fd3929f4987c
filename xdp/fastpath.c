/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path at XDP. */
#include "fastpath.h"
#include "next.h"

static __always_inline int act(enum verdict verdict, u32 place)
{
	count(XDP, verdict, place);
	switch (verdict) {
	case BOUNCE:
	case HIT:
	case SLIP:
		return XDP_TX;
	case DROP_LOOP:
		return XDP_DROP;
	case FAULT:
		return XDP_ABORTED;
	default:
		return XDP_PASS;
	}
}

static __always_inline int answer_at_xdp(struct xdp_md *context, const enum shape shape)
{
	struct packet packet = { context, XDP };
	u32 place = 0;
	enum verdict verdict = answer(&packet, &place, shape);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_READ);
		verdict = PASS_OFF;  /* it is not there */
	}
	if (verdict == FOR_STORE) {
		xdp_next.call(context, XDP_STORE);
		verdict = MISS;
	}
	return act(verdict, place);
}

int xdp_fastpath(struct xdp_md *context)
{
	struct packet packet = { context, XDP };

	switch (shape_of(&packet)) {
	case SHAPE_IPV4:
		return answer_at_xdp(context, SHAPE_IPV4);
	case SHAPE_IPV6:
		xdp_next.call(context, XDP_IPV6);
		break;
	default:
		xdp_next.call(context, XDP_OTHER);
	}
	return act(answer_nowhere(&packet), 0);
}

int xdp_ipv6(struct xdp_md *context)
{
	return answer_at_xdp(context, SHAPE_IPV6);
}

int xdp_other(struct xdp_md *context)
{
	return answer_at_xdp(context, SHAPE_OTHER);
}

int xdp_read(struct xdp_md *context)
{
	struct packet packet = { context, XDP };
	u32 place = 0;
	enum verdict verdict = read_next(&packet, &place);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		xdp_next.call(context, XDP_JOIN);
		verdict = PASS_OFF;
	}
	return act(verdict, place);
}

int xdp_answer(struct xdp_md *context)
{
	struct packet packet = { context, XDP };
	u32 place = 0;
	enum verdict verdict = answer_read(&packet, &place);

	return act(verdict, place);
}

/* The next of several keys. */
int xdp_join(struct xdp_md *context)
{
	u32 place = 0;
	enum verdict verdict = join_next(&place);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		xdp_next.call(context, XDP_JOIN);
		verdict = PASS_REQUEST;  /* too many programs in a row */
	}
	return act(verdict, place);
}

/* A draft waits: store it, and begin anew. For userspace: store it, if there is one. */
int xdp_store(struct xdp_md *context)
{
	u32 place = 0, stored = store_waiting();
	struct scratch *scratch = left_in_scratch(&place);

	if (scratch && scratch->by_hand) {
		scratch->by_hand = 0;
		return stored ? XDP_PASS : XDP_DROP;
	}
	xdp_next.call(context, XDP_FASTPATH);
	return act(MISS, place);
}
