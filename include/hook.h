/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet, at XDP or at TC: what the two hooks call by different names. The hook is a constant
 * wherever this is inlined, so the branches for the other hook are not even compiled.
 */
#ifndef CAROM_HOOK_H
#define CAROM_HOOK_H

#include <uapi/linux/bpf.h>

#include "abi.h"

#define TC_ACT_UNSPEC (-1)  /* linux/pkt_cls.h: on to the next program */
#define TC_ACT_SHOT 2

/*
 * Behind each call of another program: clang would make one of two calls. Its index would be no constant
 * then, and the JIT compiler makes a jump only of a call whose index is one.
 */
#define CALLED(index) asm volatile("" : : "i"(index))

struct packet {
	void *context;  /* struct xdp_md or struct __sk_buff */
	enum hook hook;
};

/*
 * The same context, of which clang keeps no address of a field: 19 would go on with `&skb->data` in a
 * register, and the verifier refuses a context that was added to.
 */
static __always_inline void *opaque(void *context)
{
	asm volatile("" : "+r"(context));
	return context;
}

static __always_inline void *packet_start(const struct packet *packet)
{
	void *context = opaque(packet->context);

	return packet->hook == XDP ? (void *)(long)((struct xdp_md *)context)->data
				   : (void *)(long)((struct __sk_buff *)context)->data;
}

static __always_inline void *packet_end(const struct packet *packet)
{
	void *context = opaque(packet->context);

	return packet->hook == XDP ? (void *)(long)((struct xdp_md *)context)->data_end
				   : (void *)(long)((struct __sk_buff *)context)->data_end;
}

/* Bytes of the frame, with those that no pointer reaches (TC). */
static __always_inline u32 packet_length(const struct packet *packet)
{
	if (packet->hook == TC)
		return ((struct __sk_buff *)packet->context)->len;
	return (u32)(packet_end(packet) - packet_start(packet));
}

static __always_inline u32 packet_ifindex(const struct packet *packet)
{
	return packet->hook == XDP ? ((struct xdp_md *)packet->context)->ingress_ifindex
				   : ((struct __sk_buff *)packet->context)->ifindex;
}

static __always_inline long packet_load(const struct packet *packet, u32 offset, void *to,
					u32 length)
{
	return packet->hook == XDP ? bpf_xdp_load_bytes(packet->context, offset, to, length)
				   : bpf_skb_load_bytes(packet->context, offset, to, length);
}

/* Pointers into the packet are invalid after this, and after packet_resize. */
static __always_inline long packet_store(const struct packet *packet, u32 offset, void *from,
					 u32 length)
{
	return packet->hook == XDP ? bpf_xdp_store_bytes(packet->context, offset, from, length)
				   : bpf_skb_store_bytes(packet->context, offset, from, length, 0);
}

static __always_inline long packet_resize(const struct packet *packet, u32 length)
{
	u32 now = packet_length(packet);

	if (length == now)
		return 0;
	return packet->hook == XDP ? bpf_xdp_adjust_tail(packet->context, (int)(length - now))
				   : bpf_skb_change_tail(packet->context, length, 0);
}

#endif
