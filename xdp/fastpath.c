/* SPDX-License-Identifier: GPL-2.0-only */
/* The fast path at XDP. */
#include "fastpath.h"
#include "order.h"

/* The programs that others go on with, in the order of daemon/fastpath.py. */
enum {
	XDP_READ = 0,
	XDP_ANSWER = 1,
	XDP_IPV6 = 2,
	XDP_OTHER = 3,
	XDP_STORE = 4,
	XDP_FASTPATH = 5,
	XDP_JOIN = 6,
	XDP_VERDICT = 7,
};

BPF_PROG_ARRAY(xdp_next, 8);

static __always_inline int do_at_xdp(enum verdict verdict)
{
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

static __always_inline int act(struct xdp_md *context, enum verdict verdict, u32 place)
{
	if (decide(XDP, verdict, place))
		xdp_next.call(context, XDP_VERDICT);
	return do_at_xdp(verdict);
}

static __always_inline int answer_at_xdp(struct xdp_md *context, const enum shape shape)
{
	struct packet packet = { context, XDP };
	u32 place = 0;
	enum verdict verdict = answer(&packet, &place, shape);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_READ);
		CALLED(XDP_READ);
		verdict = PASS_OFF;  /* it is not there */
	}
	if (verdict == FOR_STORE) {
		xdp_next.call(context, XDP_STORE);
		CALLED(XDP_STORE);
		verdict = MISS;
	}
	return act(context, verdict, place);
}

int xdp_fastpath(struct xdp_md *context)
{
	struct packet packet = { context, XDP };

	switch (shape_of(&packet)) {
	case SHAPE_IPV4:
		return answer_at_xdp(context, SHAPE_IPV4);
	case SHAPE_IPV6:
		xdp_next.call(context, XDP_IPV6);
		CALLED(XDP_IPV6);
		break;
	default:
		xdp_next.call(context, XDP_OTHER);
		CALLED(XDP_OTHER);
	}
	return act(context, answer_nowhere(&packet), 0);
}

/* What packets come to first while they are traced. */
int xdp_traced(struct xdp_md *context)
{
	struct packet packet = { context, XDP };

	trace_packet(&packet);
	xdp_next.call(context, XDP_FASTPATH);
	return XDP_PASS;
}

/* And last. */
int xdp_verdict(struct xdp_md *context)
{
	struct packet packet = { context, XDP };

	return do_at_xdp(told_verdict(&packet));
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
	u32 place = 0;
	enum verdict verdict = read_next(&place);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_ANSWER);
		CALLED(XDP_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		xdp_next.call(context, XDP_JOIN);
		CALLED(XDP_JOIN);
		verdict = PASS_OFF;
	}
	return act(context, verdict, place);
}

int xdp_answer(struct xdp_md *context)
{
	struct packet packet = { context, XDP };
	u32 place = 0;
	enum verdict verdict = answer_read(&packet, &place);

	return act(context, verdict, place);
}

/* The next of several keys. */
int xdp_join(struct xdp_md *context)
{
	u32 place = 0;
	enum verdict verdict = join_next(&place);

	if (verdict == FOR_NEXT) {
		xdp_next.call(context, XDP_ANSWER);
		CALLED(XDP_ANSWER);
		verdict = PASS_OFF;
	}
	if (verdict == FOR_JOIN) {
		xdp_next.call(context, XDP_JOIN);
		CALLED(XDP_JOIN);
		verdict = PASS_REQUEST;  /* too many programs in a row */
	}
	return act(context, verdict, place);
}

/* An order of userspace's hand; NULL for a packet. */
static __always_inline struct order *order_by_hand(struct xdp_md *context)
{
	struct order *order = order_of(context);

	return order && order->secret == SAID(hash_secret0) ? order : NULL;
}

/*
 * A draft waits: store it, and begin anew. For userspace: first finish one, if that is asked, then store the
 * next one of a service. Its order is the packet: nothing in memory says so, for a packet may come in
 * between on the same CPU.
 */
int xdp_store(struct xdp_md *context)
{
	struct order *order = order_by_hand(context);
	u32 place = 0, service = 0, stored;
	struct scratch *scratch;

	if (order) {
		service = order->cell;
		if (order->sequence)
			finish_draft(service, order->sequence);
	} else {
		scratch = left_in_scratch(&place);
		service = scratch ? scratch->service.id : 0;
	}
	stored = forgotten(store_next(forgotten(service, now())), now());
	if (order_by_hand(context))
		return stored ? XDP_PASS : XDP_DROP;
	left_in_scratch(&place);
	xdp_next.call(context, XDP_FASTPATH);
	CALLED(XDP_FASTPATH);
	return act(context, MISS, place);
}
