/* SPDX-License-Identifier: GPL-2.0-only */
/* siphash.h, hash.h and slot.h on what Python puts into the one cell of `states`. */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "hash.h"
#include "slot.h"

#define DATA_ROOM 512

struct state {
	u64 secret[2];
	u64 hash;
	u32 length;  /* of `data` */
	u32 from;    /* where in the key the bytes begin that its slot is computed from */
	struct key key;
	u8 behind[8];
	u8 data[DATA_ROOM];
};

BPF_ARRAY(states, struct state, 1);

static __always_inline struct state *only_state(void)
{
	u32 only = 0;

	return states.lookup(&only);
}

static __always_inline int hash_data(const u32 word_rounds, const u32 last_rounds)
{
	struct state *state = only_state();
	struct siphash siphash;

	if (!state)
		return XDP_ABORTED;
	siphash_begin(&siphash, state->secret[0], state->secret[1]);
	state->hash = siphash_bytes(&siphash, 0, state->data, state->length, DATA_ROOM, word_rounds,
				    last_rounds);
	return XDP_PASS;
}

int siphash_1_3(struct xdp_md *ctx)
{
	return hash_data(1, 3);
}

int siphash_2_4(struct xdp_md *ctx)
{
	return hash_data(2, 4);
}

int name(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->hash = hash_key(&state->key);
	return XDP_PASS;
}

int slot(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->hash = key_slot(state->key.bytes + !!state->from, state->key.length - !!state->from);
	return XDP_PASS;
}
