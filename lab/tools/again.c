/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For bench: one packet, again and again. Before each run it is made the request once more, whatever
 * the run before has made of it; then the program that is measured goes on with it. Its length is set in two
 * steps, also where it is right: else programs that change it would pay for what no real packet needs.
 */
#include <uapi/linux/bpf.h>

#include "bounded.h"
#include "reply.h"

#define FRAME_ROOM 2048  /* a power of two */
#define KEY_AT 42        /* offset of the payload: Ethernet, IPv4, UDP */
#define KEY_WORDS 8

struct frame {
	u32 length;
	u32 keys;     /* 0, or how many keys it asks for, drawn at random */
	u32 program;  /* what is measured, by its index */
	u32 zero;
	u8 bytes[FRAME_ROOM];
};

BPF_ARRAY(frames, struct frame, 1);
BPF_PROG_ARRAY(measured, 256);

/* A key is its number, big-endian, eight times. The frame has no UDP checksum then. */
static __always_inline bool draw_key(struct xdp_md *context, u32 keys)
{
	u32 *word = (void *)(long)context->data + KEY_AT, number;

	if ((void *)(word + KEY_WORDS) > (void *)(long)context->data_end)
		return false;
	number = htonl(bpf_get_prandom_u32() % keys);
#pragma unroll
	for (u32 i = 0; i < KEY_WORDS; i++)
		word[i] = number;
	return true;
}

int again(struct xdp_md *context)
{
	u32 only = 0, there = context->data_end - context->data, length;
	struct frame *frame = frames.lookup(&only);

	if (!frame)
		return XDP_ABORTED;
	length = frame->length;
	if (bpf_xdp_adjust_tail(context, (int)(length - 1 - there)) ||
	    bpf_xdp_adjust_tail(context, 1) ||
	    bpf_xdp_store_bytes(context, 0, frame->bytes, bounded(length, FRAME_ROOM)) ||
	    (frame->keys && !draw_key(context, frame->keys)))
		return XDP_ABORTED;
	measured.call(context, frame->program);
	return XDP_ABORTED;
}

/* What the loop itself costs. */
int nothing(struct xdp_md *context)
{
	return XDP_PASS;
}

/* The least that XDP can do to answer. Bench compares with this. */
int swap_macs(struct xdp_md *context)
{
	struct ethhdr *eth = (void *)(long)context->data;

	if ((void *)(eth + 1) > (void *)(long)context->data_end)
		return XDP_ABORTED;
	swap_ethernet(eth);
	return XDP_TX;
}
