/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One protocol's functions, each a program, on what Python puts into the one cell of `states`.
 * Compiled with PROTOCOL, the name before the functions' own, and PROTOCOL_UPPER.
 */
#include <uapi/linux/bpf.h>

#define JOINED(a, b) a##b
#define OF(protocol, name) JOINED(protocol, name)

#include "abi.h"
#include "protocol.h"
#include "slot.h"
#include "memcached.h"

struct state {
	u32 length;       /* of `text`, or of `reply` */
	u32 text_length;
	u32 stored;
	u32 age;
	u32 ttl;
	u32 returned;
	u32 slot;
	u32 slot_from;
	u64 sum;
	struct key key;
	u64 zero;
	u8 text[TEXT_ROOM];
	u8 reply[REPLY_ROOM];
};

BPF_ARRAY(states, struct state, 1);

static __always_inline struct state *only_state(void)
{
	u32 only = 0;

	return states.lookup(&only);
}

int request(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->slot_from = OF(PROTOCOL_UPPER, _SLOT_FROM);
	state->returned = OF(PROTOCOL, _request)(state->text, state->length, &state->key);
	return XDP_PASS;
}

int answer(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->returned = OF(PROTOCOL, _answer)(state->reply, state->length, state->stored,
						state->text, state->text_length, state->age,
						&state->sum);
	return XDP_PASS;
}

int what_answer(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->returned = OF(PROTOCOL, _what_answer)(state->reply, state->length);
	return XDP_PASS;
}

int learn(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->returned = OF(PROTOCOL, _learn)(state->reply, &state->length, &state->key,
					       &state->stored, &state->ttl);
	return XDP_PASS;
}

int slot(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->slot = key_slot(state->key.bytes, state->key.length);
	return XDP_PASS;
}
