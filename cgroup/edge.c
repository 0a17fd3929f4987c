/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The socket's edge: what a fronted server is asked to write, and what it answers. Here datagrams
 * are whole, whichever interface they came by, and the socket is known. Every packet passes.
 */
#include "abi.h"
#include "admission.h"
#include "bounded.h"
#include "edge.h"
#include "stream.h"
#include "store.h"
#include "token.h"

#define PASS 1

/* Void what a request writes, and remember it until its acknowledgement leaves. */
static __always_inline void see_request(struct datagram *datagram, const struct watch *watch,
					struct edge_scratch *scratch)
{
	u32 length = load_text(datagram, scratch);
	enum intent intent;
	u32 cell;

	__builtin_memset(&scratch->draft.key, 0, sizeof(scratch->draft.key));
	intent = understand(watch->protocol, scratch->text, length, &scratch->draft.key);
	if ((intent & INTENT_MASK) < INTENT_WRITE)
		return;
	if ((intent & INTENT_MASK) == INTENT_WRITE) {
		cell = slot_of(&scratch->draft.key, slot_from(watch->protocol));
		count_event(WRITE_SEEN);
	} else {
		cell = SLOTS + watch->service;
		count_event(WRITE_ALL_SEEN);
	}
	void_cell(cell, intent & INTENT_QUIET);
	scratch->asked.key_hash = 0;
	scratch->asked.id = *(u16 *)scratch->text;
	remember_write(&scratch->asked, cell);
}

/* An acknowledgement voids what was written again; a reply that a token waits for fills. */
static __always_inline void see_reply(struct datagram *datagram, const struct watch *watch,
				      struct edge_scratch *scratch)
{
	u32 length = load_reply(datagram, scratch), stored = length, ttl = watch->ttl;
	struct draft *draft = &scratch->draft;
	struct pending pending;

	if (!length)
		return;
	scratch->asked.id = *(u16 *)draft->bytes;
	scratch->asked.key_hash = 0;
	if (take_pending(&scratch->asked, &pending)) {
		void_cell(pending.slot, false);
		count_event(WRITE_DONE);
	}
	if (!in_namespace(datagram->skb, watch)) {
		count_event(UNASKED);
		return;
	}
	__builtin_memset(&draft->key, 0, sizeof(draft->key));
	if (!learn(watch->protocol, draft->bytes, &length, &draft->key, &stored, &ttl)) {
		count_event(UNLEARNABLE);
		return;
	}
	draft->key.service = watch->service;
	scratch->asked.key_hash = hash_key(&draft->key);
	if (!take_pending(&scratch->asked, &pending) ||
	    pending.slot != slot_of(&draft->key, slot_from(watch->protocol)))
		count_event(UNASKED);
	else if (!admit(&draft->key, scratch->asked.key_hash))
		count_event(NOT_ADMITTED);
	else
		count_event(store(draft, &pending, length, stored, ttl) ? LEARNED : FULL);
}

/* Unseen, it may be a write, or the acknowledgement of one. */
static __always_inline void overlook(const struct watch *watch, bool ingress)
{
	count_event(EDGE_BUSY);
	void_cell(SLOTS + watch->service, ingress);
}

static __always_inline int look(struct __sk_buff *skb, const bool ingress)
{
	struct datagram datagram = { .skb = skb };
	struct edge_scratch *scratch;
	struct watch *watch = watched_socket(skb, &datagram);

	if (!watch)
		return PASS;
	if (!find_payload(&datagram, ingress)) {
		overlook(watch, ingress);
		return PASS;
	}
	if (datagram.stream && !ingress) {
		see_payload(&datagram, watch);
		return PASS;
	}
	if (datagram.stream && !datagram.length && !datagram.begins)
		return PASS;
	scratch = enter(ingress);
	if (!scratch) {
		overlook(watch, ingress);
		return PASS;
	}
	identify(&datagram, watch, &scratch->asked);
	if (datagram.stream) {
		if (see_segment(&datagram, watch, scratch))
			go_on(skb, scratch);
	} else if (ingress)
		see_request(&datagram, watch, scratch);
	else
		see_reply(&datagram, watch, scratch);
	leave(scratch);
	return PASS;
}

int edge_ingress(struct __sk_buff *skb)
{
	return look(skb, true);
}

/* By tail calls only. */
int edge_stream(struct __sk_buff *skb)
{
	u32 index = 1;
	struct edge_scratch *scratch = edge_scratches.lookup(&index);

	if (scratch) {
		read_segment(skb, scratch);
		leave(scratch);
	}
	return PASS;
}

int edge_egress(struct __sk_buff *skb)
{
	return look(skb, false);
}
