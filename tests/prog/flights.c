/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cgroup/flights.h, called from Python on what it puts into the one cell of `calls`; and a server,
 * whose requests and replies two CPUs see at full speed.
 */
#include <uapi/linux/bpf.h>

#include "abi.h"
#include "flights.h"
#include "tally.h"
#include "token.h"

struct call {
	u32 flight;
	u32 service;
	u32 cell;
	u32 word;   /* enum intent, enum answer, or whether several replies may come */
	u32 found;
	u32 asked;  /* besides */
	u64 token;
	u64 since;
};

BPF_ARRAY(calls, struct call, 1);

static __always_inline struct call *only_call(void)
{
	u32 only = 0;

	return calls.lookup(&only);
}

int read_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	leave_read(call->flight, call->word, call->asked);
	return XDP_PASS;
}

int hidden_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	leave_hidden(call->flight);
	return XDP_PASS;
}

int read_answered(struct xdp_md *ctx)
{
	struct call *call = only_call();
	struct flight taken = {};

	if (!call)
		return XDP_ABORTED;
	call->found = take_read(call->flight, &taken);
	call->token = taken.token;
	call->since = taken.since;
	call->asked = taken.asked;
	return XDP_PASS;
}

int write_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	void_write(call->flight, call->cell, call->word, 0);
	return XDP_PASS;
}

int unread_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	remember_unread(call->flight);
	return XDP_PASS;
}

int doubt_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	remember_doubt(call->flight);
	return XDP_PASS;
}

int uncounted_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	remember_uncounted(call->flight);
	return XDP_PASS;
}

int query_asked(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	remember_query(call->flight);
	return XDP_PASS;
}

int answered(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	call->found = acknowledge(call->flight, call->service, call->word, false, false) == BESIDE_UNREAD;
	return XDP_PASS;
}

int cut(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	hold_cut(call->cell);
	return XDP_PASS;
}

int is_held(struct xdp_md *ctx)
{
	struct call *call = only_call();

	if (!call)
		return XDP_ABORTED;
	call->found = held(call->cell, call->since);
	return XDP_PASS;
}

/* The race. Each CPU writes the key of its own, so that a state is what its last write left. */

#define SERVICE 0
#define FLIGHT 5
#define FIRST_CELL 100
#define WAITING 8      /* reads of a CPU that the server has not answered */
#define WRITE_EVERY 8  /* rounds */

/* Reads that the server has looked at, and what it will say. */
struct answers {
	u32 count;
	u32 keys[WAITING];
	u64 values[WAITING];
};

BPF_ARRAY(states, u64, 2);
BPF_ARRAY(acknowledged, u64, 2);
BPF_PERCPU_ARRAY(waiting_answers, struct answers, 1);

static __always_inline void ask(struct answers *answers, u32 flight)
{
	u32 at = answers->count & (WAITING - 1), key = bpf_get_prandom_u32() % 2;
	u64 *state = states.lookup(&key);

	if (!state)
		return;
	leave_read(flight, false, 0);
	answers->keys[at] = key;
	answers->values[at] = *(volatile u64 *)state;
	answers->count += 1;
}

/* One of them, not in their order, is answered, and would be a hit if its token were good. */
static __always_inline void answer(struct answers *answers, u32 flight)
{
	u32 last = (answers->count - 1) & (WAITING - 1);
	u32 at = bpf_get_prandom_u32() % (last + 1), key, cell;
	u64 value, *floor, before;
	struct flight taken = {};

	asm volatile("" : "+r"(at));
	at &= WAITING - 1;
	key = answers->keys[at] & 1;
	cell = FIRST_CELL + key;
	value = answers->values[at];
	floor = acknowledged.lookup(&key);
	if (!floor)
		return;
	answers->keys[at] = answers->keys[last];
	answers->values[at] = answers->values[last];
	answers->count -= 1;
	if (!take_read(flight, &taken)) {
		note(DENIED);
		return;
	}
	note(FILLS);
	before = *(volatile u64 *)floor;
	if (taken.token < version(cell) || taken.token < version(SLOTS + SERVICE)) {
		note(VOID);
		return;
	}
	note(HITS);
	if (value < before)
		note(STALE);
}

static __always_inline void write(u32 key, u32 flight)
{
	u64 *state = states.lookup(&key), *floor = acknowledged.lookup(&key);

	if (!state || !floor)
		return;
	void_write(flight, FIRST_CELL + key, INTENT_WRITE, 0);
	__sync_fetch_and_add(state, 1);
	acknowledge(flight, SERVICE, ANSWER_WRITTEN, false, false);
	*(volatile u64 *)floor = *(volatile u64 *)state;
	note(WRITES);
}

static __always_inline int play(u32 key)
{
	u32 only = 0;
	struct answers *answers = waiting_answers.lookup(&only);

	if (!answers)
		return XDP_ABORTED;
	if (bpf_get_prandom_u32() % WRITE_EVERY == 0)
		write(key, FLIGHT);
	if (answers->count < WAITING && bpf_get_prandom_u32() % 2)
		ask(answers, FLIGHT);
	else if (answers->count)
		answer(answers, FLIGHT);
	return XDP_PASS;
}

int play_first(struct xdp_md *ctx)
{
	return play(0);
}

int play_second(struct xdp_md *ctx)
{
	return play(1);
}

/* What both still wait for is answered; what is counted then was never asked, or answered twice. */
int drain(struct xdp_md *ctx)
{
	u32 only = 0;
	struct answers *answers = waiting_answers.lookup(&only);

	if (answers && answers->count)
		answer(answers, FLIGHT);
	return XDP_PASS;
}

int count_left(struct xdp_md *ctx)
{
	u32 flight = FLIGHT;
	struct reads *cell = reads.lookup(&flight);

	if (cell && cell->count)
		note(LEFT);
	return XDP_PASS;
}
