/* SPDX-License-Identifier: GPL-2.0-only */
/* memcached_stream.h on one connection, fed by Python; a run makes some steps, as a call would. */
#include <uapi/linux/bpf.h>

#define TICKS 1
#include "abi.h"
#include "connection.h"
#include "copy.h"
#include "memcached_stream.h"
#include "slot.h"

#define STEPS 4
#define SEGMENT_MAX 4096

struct found {
	u32 intent;
	u32 slot;
	u32 displaced;
	u32 key_length;
};

struct state {
	u32 ahead;     /* reads that were passed over */
	u32 length;    /* of the segment */
	u32 offset;    /* what of it was dealt with */
	u32 steps;
	struct found found[STEPS];
	u32 again[STREAM_CELLS];
	struct stream stream;
	struct key key;
	u64 zero;
	u8 text[TEXT_ROOM + 1024];
	u8 segment[SEGMENT_MAX + TEXT_ROOM];
};

BPF_ARRAY(states, struct state, 1);

static __always_inline u32 load(struct state *state)
{
	u32 left = state->length - state->offset, from = state->offset & (SEGMENT_MAX - 1);
	u32 held = memcached_stream_held(&state->stream, state->text);
	u32 size = left < TEXT_ROOM - MEMCACHED_HEADER - held ? left
							      : TEXT_ROOM - MEMCACHED_HEADER - held;

	asm volatile("" : "+r"(size), "+r"(held));
	held &= 2 * STREAM_LINE_MAX - 1;
	size &= TEXT_ROOM - 1;
	asm volatile("" : "+r"(size));
	copy_kernel(state->text + MEMCACHED_HEADER + held, size, state->segment + from);
	*(u64 *)(state->text + MEMCACHED_HEADER + held + size) = 0;
	return MEMCACHED_HEADER + held + left;
}

/* As the edge does. */
static __always_inline bool pass_read(struct state *state, u32 length)
{
	struct stream *stream = &state->stream;
	u32 end = MEMCACHED_HEADER + AHEAD_ROOM, done;

	if (stream->held || stream->skip || stream->in_line || stream->lost)
		return false;
	done = memcached_stream_ahead(stream, state->text, length < end ? length : end);
	state->offset += done;
	state->ahead += done != 0;
	return done;
}

static __always_inline void step(struct state *state, u32 n)
{
	struct found *found = &state->found[n];
	u32 length = load(state);
	enum intent intent;

	found->intent = INTENT_OTHER;
	if (pass_read(state, length))
		return;
	__builtin_memset(&state->key, 0, sizeof(state->key));
	state->offset += memcached_stream_read(&state->stream, state->text, length, &state->key,
					       &intent);
	found->intent = intent;
	if ((intent & INTENT_MASK) != INTENT_WRITE)
		return;
	found->key_length = state->key.length;
	found->slot = key_slot(state->key.bytes + MEMCACHED_SLOT_FROM,
			       state->key.length - MEMCACHED_SLOT_FROM);
	found->displaced = stream_displaces(&state->stream);
	stream_wrote(&state->stream, found->slot, intent & INTENT_QUIET, 0);
}

int begin(struct xdp_md *ctx)
{
	u32 only = 0;
	struct state *state = states.lookup(&only);

	if (!state)
		return XDP_ABORTED;
	stream_begin(&state->stream, 0);
	return XDP_PASS;
}

int proceed(struct xdp_md *ctx)
{
	u32 only = 0;
	struct state *state = states.lookup(&only);

	if (!state)
		return XDP_ABORTED;
	for (u32 n = 0; n < STEPS; n++) {
		if (state->offset >= state->length)
			break;
		step(state, n);
		state->steps = n + 1;
	}
	return XDP_PASS;
}

int answered(struct xdp_md *ctx)
{
	u32 only = 0;
	struct state *state = states.lookup(&only);

	if (!state)
		return XDP_ABORTED;
	for (u32 n = 0; n < STREAM_CELLS; n++)
		state->again[n] = stream_cell(&state->stream, n, 0);
	return XDP_PASS;
}
