/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The functions of one protocol, PROTOCOL its number, each in a program of its own. They work on what Python
 * puts into the one cell of `states`; those of a stream on the one of `talks`.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#include "abi.h"
#include "connection.h"
#include "copy.h"
#include "protocols.h"
#include "slot.h"

struct state {
	u32 length;       /* of `text`, or of `reply` */
	u32 text_length;
	u32 stored;
	u32 age;
	u32 ttl;
	u32 returned;
	u32 slot;
	u32 asked;        /* besides */
	u64 sum;
	struct key key;
	u64 id;
	u8 text[TEXT_ROOM];
	u8 reply[REPLY_ROOM];
	struct address client;
	struct cookies cookies;
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
	state->returned = understand(PROTOCOL, state->text, state->length, &state->key);
	state->asked = asked_besides(PROTOCOL, state->returned, &state->key);
	state->id = id_in(PROTOCOL, state->text);
	return XDP_PASS;
}

int answer(struct xdp_md *ctx)
{
	struct state *state = only_state();
	u64 sum = 0;

	if (!state)
		return XDP_ABORTED;
	state->returned = adapt(PROTOCOL, state->reply, state->length, state->stored, state->text,
				state->text_length, state->age, &sum);
	state->sum = sum;
	return XDP_PASS;
}

int replied(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->returned = what_answer(PROTOCOL, state->reply, state->length);
	state->id = id_in(PROTOCOL, state->reply);
	return XDP_PASS;
}

int learned(struct xdp_md *ctx)
{
	struct state *state = only_state();
	u32 length, stored, ttl;

	if (!state)
		return XDP_ABORTED;
	length = state->length;
	stored = state->stored;
	ttl = state->ttl;
	state->returned = learn(PROTOCOL, state->reply, &length, &state->key, &stored, &ttl,
				state->asked);
	state->length = length;
	state->stored = stored;
	state->ttl = ttl;
	return XDP_PASS;
}

/* One of several keys: the one at `length`. */
int next(struct xdp_md *ctx)
{
	struct state *state = only_state();

	if (!state)
		return XDP_ABORTED;
	state->returned = next_key(PROTOCOL, state->text, state->length, &state->key);
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


/* The cookie in a read: 1 for one by a secret that is known, 2 for one that is to be returned. */
int cookie(struct xdp_md *ctx)
{
	struct state *state = only_state();
	const u8 *option;

	if (!state)
		return XDP_ABORTED;
	state->returned = 0;
	if (understand(PROTOCOL, state->text, state->length, &state->key) != INTENT_READ)
		return XDP_PASS;
	option = cookie_of(PROTOCOL, state->text, &state->key);
	if (!option)
		return XDP_PASS;
	state->returned = cookie_is_ours(PROTOCOL, option + 4, &state->client, &state->cookies) |
			  cookie_is_right(PROTOCOL, option, &state->client, &state->cookies,
					  state->age) << 1;
	return XDP_PASS;
}

/* Into the reply that `answer` has made, with the read's key in the state. */
int returning(struct xdp_md *ctx)
{
	struct state *state = only_state();
	u64 sum = 0;
	u32 length;

	if (!state)
		return XDP_ABORTED;
	length = state->length;
	if (length < MESSAGE_HEADER || length > REPLY_MAX)
		return XDP_ABORTED;
	state->returned = return_cookie(PROTOCOL, state->reply, &length, state->text, &state->key,
					&sum);
	state->length = length;
	state->sum = sum;
	return XDP_PASS;
}

/* One connection, fed by Python; a run makes some steps, as a call would. */
#define FRONT datagram_front(PROTOCOL)
#define STEPS 4
#define SEGMENT_MAX 4096

struct found {
	u32 intent;
	u32 slot;
	u32 displaced;
	u32 key_length;
};

struct talk {
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

BPF_ARRAY(talks, struct talk, 1);

static __always_inline u32 load(struct talk *talk)
{
	u32 left = talk->length - talk->offset, from = talk->offset & (SEGMENT_MAX - 1);
	u32 held = stream_held(PROTOCOL, &talk->stream, talk->text);
	u32 size = left < TEXT_ROOM - FRONT - held ? left
							      : TEXT_ROOM - FRONT - held;

	asm volatile("" : "+r"(size), "+r"(held));
	held &= 2 * STREAM_LINE_MAX - 1;
	size &= TEXT_ROOM - 1;
	asm volatile("" : "+r"(size));
	copy_kernel(talk->text + FRONT + held, size, talk->segment + from);
	*(u64 *)(talk->text + FRONT + held + size) = 0;
	return FRONT + held + left;
}

/* As the edge does. */
static __always_inline bool pass_read(struct talk *talk, u32 length)
{
	struct stream *stream = &talk->stream;
	u32 end = FRONT + AHEAD_ROOM, done;

	if (stream->held || stream->skip || stream->in_line || stream->lost)
		return false;
	done = stream_ahead(PROTOCOL, stream, talk->text, length < end ? length : end);
	talk->offset += done;
	talk->ahead += done != 0;
	return done;
}

static __always_inline void step(struct talk *talk, u32 n)
{
	struct found *found = &talk->found[n];
	u32 length = load(talk);
	enum intent intent;

	found->intent = INTENT_OTHER;
	if (pass_read(talk, length))
		return;
	__builtin_memset(&talk->key, 0, sizeof(talk->key));
	talk->offset += stream_read(PROTOCOL, &talk->stream, talk->text, length, &talk->key,
					       &intent);
	found->intent = intent;
	if ((intent & INTENT_MASK) != INTENT_WRITE)
		return;
	found->key_length = talk->key.length;
	found->slot = key_slot(talk->key.bytes + slot_from(PROTOCOL, &talk->key),
			       slot_end(PROTOCOL, &talk->key) - slot_from(PROTOCOL, &talk->key));
	found->displaced = stream_displaces(&talk->stream);
	stream_wrote(&talk->stream, found->slot, intent & INTENT_QUIET, 0);
}

int begin(struct xdp_md *ctx)
{
	u32 only = 0;
	struct talk *talk = talks.lookup(&only);

	if (!talk)
		return XDP_ABORTED;
	stream_begin(&talk->stream, 0);
	return XDP_PASS;
}

int proceed(struct xdp_md *ctx)
{
	u32 only = 0;
	struct talk *talk = talks.lookup(&only);

	if (!talk)
		return XDP_ABORTED;
	for (u32 n = 0; n < STEPS; n++) {
		if (talk->offset >= talk->length)
			break;
		step(talk, n);
		talk->steps = n + 1;
	}
	return XDP_PASS;
}

int answered(struct xdp_md *ctx)
{
	u32 only = 0;
	struct talk *talk = talks.lookup(&only);

	if (!talk)
		return XDP_ABORTED;
	for (u32 n = 0; n < STREAM_CELLS; n++)
		talk->again[n] = stream_cell(&talk->stream, n, 0);
	return XDP_PASS;
}
