/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Userspace's hand, too: learns the reply in a frame as the socket's edge does, where there is no
 * server. Before the reply, the frame has what the edge knows of its request, and the request.
 */
#include "abi.h"
#include "bounded.h"
#include "clock.h"
#include "protocols.h"
#include "store.h"
#include "token.h"

struct front {
	u64 token;   /* when the request came */
	u32 protocol;
	u32 length;  /* of the request */
	u32 ttl;     /* seconds that the reply lives at most */
	u32 service; /* whose it is, at the first of its server's addresses */
};

struct learning {
	struct draft draft;
	u8 text[TEXT_ROOM + 2 * sizeof(u64)];
};

BPF_PERCPU_ARRAY(learnings, struct learning, 1);

/* Load a part of the frame, with zeros behind. */
static __always_inline bool load_part(struct xdp_md *context, u32 offset, u8 *to, u32 length,
				      u32 room)
{
	if (!length || length > room)
		return false;
	length = bounded(length, room);
	*(u64 *)(to + (length & ~7u)) = 0;
	return !bpf_xdp_load_bytes(context, offset, to, length);
}

int learn_frame(struct xdp_md *context)
{
	u32 length = (u32)(context->data_end - context->data), only = 0, stored, slot, asked;
	struct learning *learning = learnings.lookup(&only);
	struct draft *draft = &learning->draft;
	struct placing placing = {};
	struct front front;
	enum intent intent;

	if (!learning || bpf_xdp_load_bytes(context, 0, &front, sizeof(front)))
		return XDP_ABORTED;
	__builtin_memset(&draft->key, 0, sizeof(draft->key));
	__builtin_memset(draft->bytes, 0, sizeof(u64));
	length -= sizeof(front) + front.length;
	if (!load_part(context, sizeof(front), learning->text, front.length, TEXT_ROOM) ||
	    !load_part(context, sizeof(front) + front.length, draft->bytes, length, REPLY_ROOM))
		return XDP_ABORTED;
	intent = understand(front.protocol, learning->text, front.length, &draft->key);
	if (intent != INTENT_READ)
		return XDP_DROP;
	asked = forgotten(asked_besides(front.protocol, intent, &draft->key), now());
	if (!is_nameless(front.protocol))
		__builtin_memset(&draft->key, 0, sizeof(draft->key));
	stored = length;
	if (!learn(front.protocol, draft->bytes, &length, &draft->key, &stored, &front.ttl, asked))
		return XDP_DROP;
	draft->key.service = key_service(front.service, 0);
	slot = slot_of(&draft->key, slot_from(front.protocol, &draft->key),
		       slot_end(front.protocol, &draft->key));
	draft_reply(draft, front.token, slot, length, stored, front.ttl);
	if (!begin_placing(draft, &placing) || !admitted(&placing))
		return XDP_ABORTED;
	return store(draft, &placing) == STORED ? XDP_PASS : XDP_ABORTED;
}
