/* SPDX-License-Identifier: GPL-2.0-only */
/* For bench: a frame with a protocol's number and a reply is learned as at the socket's edge. */
#include "abi.h"
#include "bounded.h"
#include "protocols.h"
#include "store.h"
#include "token.h"

BPF_PERCPU_ARRAY(drafts, struct draft, 1);

int learn_frame(struct xdp_md *context)
{
	u32 length = (u32)(context->data_end - context->data), only = 0, ttl = 3600, protocol, stored;
	struct draft *draft = drafts.lookup(&only);
	u32 slot;

	length -= sizeof(protocol);
	if (!draft || !length || length > REPLY_MAX ||
	    bpf_xdp_load_bytes(context, 0, &protocol, sizeof(protocol)))
		return XDP_ABORTED;
	length = bounded(length, REPLY_ROOM);
	__builtin_memset(&draft->key, 0, sizeof(draft->key));
	__builtin_memset(draft->bytes, 0, REPLY_SHORT);
	*(u64 *)(draft->bytes + (length & ~7u)) = 0;
	if (bpf_xdp_load_bytes(context, sizeof(protocol), draft->bytes, length))
		return XDP_ABORTED;
	stored = length;
	if (!learn(protocol, draft->bytes, &length, &draft->key, &stored, &ttl))
		return XDP_DROP;
	draft->key.service = protocol;
	slot = slot_of(&draft->key, slot_from(protocol));
	return store(draft, take_token(), slot, length, stored, ttl) ? XDP_PASS : XDP_ABORTED;
}
