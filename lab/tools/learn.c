/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For bench: learns the reply in a frame as the socket's edge does. Before the reply, the frame has
 * the protocol's number and what the request asked beside its key (`asked`, protocols.h).
 */
#include "abi.h"
#include "bounded.h"
#include "protocols.h"
#include "store.h"
#include "token.h"

BPF_PERCPU_ARRAY(drafts, struct draft, 1);

int learn_frame(struct xdp_md *context)
{
	u32 length = (u32)(context->data_end - context->data), only = 0, ttl = 3600, stored, slot;
	struct draft *draft = drafts.lookup(&only);
	struct {
		u32 protocol;
		u32 asked;
	} front;

	length -= sizeof(front);
	if (!draft || !length || length > REPLY_MAX ||
	    bpf_xdp_load_bytes(context, 0, &front, sizeof(front)))
		return XDP_ABORTED;
	length = bounded(length, REPLY_ROOM);
	__builtin_memset(&draft->key, 0, sizeof(draft->key));
	__builtin_memset(draft->bytes, 0, REPLY_SHORT);
	*(u64 *)(draft->bytes + (length & ~7u)) = 0;
	if (bpf_xdp_load_bytes(context, sizeof(front), draft->bytes, length))
		return XDP_ABORTED;
	stored = length;
	if (!learn(front.protocol, draft->bytes, &length, &draft->key, &stored, &ttl, front.asked))
		return XDP_DROP;
	draft->key.service = front.protocol;
	slot = slot_of(&draft->key, slot_from(front.protocol, &draft->key),
		       slot_end(front.protocol, &draft->key));
	return store(draft, take_token(), slot, length, stored, ttl) ? XDP_PASS : XDP_ABORTED;
}
