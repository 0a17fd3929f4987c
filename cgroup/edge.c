/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The socket's edge: a fronted server's requests and replies. Here datagrams are whole, whatever
 * interface they came by, and the socket is known. Every packet passes.
 */
#include "abi.h"
#include "admission.h"
#include "bounded.h"
#include "edge.h"
#include "edge_cookies.h"
#include "flights.h"
#include "messages.h"
#include "nameless.h"
#include "reply_times.h"
#include "stream.h"
#include "store.h"
#include "token.h"

#define PASS 1

static __always_inline u32 find_flight(const struct datagram *datagram, u32 service, id_word id)
{
	return flight_of(&datagram->client, datagram->client_port, service, id);
}

/* Load the id of a payload that was not loaded yet into `id`, which is 0 where it has none. */
static __always_inline void load_id(const struct datagram *datagram, u32 protocol, id_word *id)
{
	u32 size = id_size(protocol), at = datagram->offset + id_at(protocol);
	u8 first = 0;

	if (id_size_varies(protocol)) {
		bpf_skb_load_bytes(datagram->skb, datagram->offset, &first, sizeof(first));
		size = shorter_id(first, size);
		if (!size)
			return;
		size = bounded(size, sizeof(*id));
	}
	bpf_skb_load_bytes(datagram->skb, at, id, size);
}

/* A request that is not understood: it may be a write, or have any number of replies. */
static __always_inline void overlook_request(const struct datagram *datagram, u32 service,
					     u32 protocol, u32 flight)
{
	leave_read(flight, true, ASKED_UNKNOWN);
	if (says_what_it_wrote(protocol))
		return;
	count_voider(datagram, service);
	note_ending(SLOTS + service, 0);
	hold_cell(SLOTS + service, now() + FLIGHT_SECONDS * TICKS);
	void_unread(service);
}

/* A datagram that may write anything, of a protocol whose commands stand alone. */
static __always_inline void see_unread(const struct datagram *datagram, u32 service, u32 flight)
{
	count_voider(datagram, service);
	count_event(WRITE_ALL_SEEN);
	note_ending(SLOTS + service, 0);
	void_unread(service);
	remember_unread(flight);
	leave_read(flight, true, ASKED_UNKNOWN);
}

/*
 * Unreadable TCP, in either direction: the client's bytes may write, the server's acknowledge that.
 */
static __always_inline void see_unknown(const struct datagram *datagram, u32 service, bool ingress)
{
	if (!datagram->length)
		return;
	count_event(STREAM_LOST);
	note_ending(SLOTS + service, 0);
	count_voider(datagram, service);
	if (ingress)
		void_unread(service);
	else
		void_cell(SLOTS + service, false);
}

/* May a request have come before, of whatever kind? Asked of all that have such a number. */
static __always_inline bool is_again(const struct datagram *datagram, u32 service, u32 protocol,
				     const struct edge_scratch *scratch)
{
	u16 number;

	if (!is_nameless(protocol))
		return false;
	number = *(const u16 *)(scratch->text + repeat_at(protocol));
	return came_before(&datagram->client, datagram->client_port, service, number);
}

/* What of a request its reply does not tell. */
static __always_inline u32 asks(u32 protocol, u32 flight, enum intent intent, bool again,
				const struct key *key)
{
	if (!is_nameless(protocol))
		return asked_besides(protocol, intent, key);
	return intent == INTENT_READ && !again ? remember_key(flight, key) : ASKED_UNKNOWN;
}

/*
 * Before the server sees a request: leave a token for its reply; void what it writes, and remember
 * that until it is acknowledged. True if it has to be read command by command.
 */
static __always_inline bool see_request(const struct datagram *datagram, u32 service,
					const struct watch *watch, u32 alone,
					struct edge_scratch *scratch)
{
	u32 protocol = watch->protocol, length = load_text(datagram, scratch), cell;
	u32 flight = find_flight(datagram, service, id_in(protocol, scratch->text));
	enum intent intent;
	bool again;
	u64 item;

	__builtin_memset(&scratch->draft.key, 0, sizeof(scratch->draft.key));
	intent = understand(protocol, scratch->text, length, &scratch->draft.key) & ~INTENT_SEVERAL;
	again = is_again(datagram, service, protocol, scratch);
	if (may_be_learned(protocol, scratch->text, intent))
		leave_token(flight, answers_more(protocol, intent), false, false,
			    asks(protocol, flight, intent, again, &scratch->draft.key),
			    begin_time(&scratch->turn));
	else if (intent == INTENT_OTHER)
		remember_uncounted(flight);
	if (intent & INTENT_EITHER)
		remember_query(flight);
	if ((intent & INTENT_MASK) < INTENT_WRITE || says_what_it_wrote(protocol))
		return false;
	if ((intent & INTENT_MASK) == INTENT_WRITE_ALL && has_no_stream(protocol)) {
		see_unread(datagram, service, flight);
		return false;
	}
	if ((intent & INTENT_MASK) == INTENT_WRITE_ALL) {
		count_voider(datagram, service);
		begin_datagram(datagram, service, protocol, flight, scratch);
		return true;
	}
	item = protocol_item(protocol, &scratch->draft.key);
	cell = item_slot(item);
	count_event(WRITE_SEEN);
	note_ending(cell, intent);
	void_write(flight, cell, intent, endless_item(item, service, intent, alone));
	return false;
}

/* Store the reply in the draft as expired, and have the daemon ask how long it holds. */
static __always_inline enum event ask_how_long(const struct edge_scratch *scratch, u64 item,
					       u32 cell)
{
	struct waiting *waiting = waitings.ringbuf_reserve(sizeof(*waiting));

	if (!waiting)
		return NOT_ASKED;
	waiting->key = scratch->draft.key;
	waiting->cell = cell;
	waiting->zero = 0;
	waiting->item = item;
	waitings.ringbuf_submit(waiting, 0);
	return LEARNED;
}

/*
 * Store a learned reply. If the server's items end by themselves, the reply waits for the daemon,
 * unless its item is known not to end. If the server cannot be asked, a reply whose item is known
 * to end is not stored; unreadable requests do not count there, or any stranger could end all
 * storing. The decision is in a map during the store: the verifier would follow that once for each
 * way to decide.
 */
static __always_inline enum event keep(struct edge_scratch *scratch, const struct watch *watch,
				       u32 service, struct placing *placing)
{
	struct meta *meta = &scratch->draft.meta;
	volatile u32 *waits = &scratch->waits;
	u64 item = scratch->learned.item;

	if (watch->ends == ENDS_UNASKED && (may_end(meta->slot) || may_end(unnamed(service))))
		return ENDING;
	*waits = watch->ends == ENDS_ASKED && !lasts(item, meta->slot, service);
	if (*waits)
		meta->expires = meta->filled;
	if (store(&scratch->draft, placing) != STORED)
		return FULL;
	return *waits ? ask_how_long(scratch, item, meta->slot) : LEARNED;
}

/*
 * Put a reply to a read, which the server's own socket sends, into the draft, if it can be kept.
 * `name` is its flight's.
 */
static __always_inline bool learn_reply(const struct mark *mark, const struct watch *watch,
					struct edge_scratch *scratch, u32 length, u32 name,
					const struct flight *flight)
{
	struct draft *draft = &scratch->draft;
	u32 stored = length, ttl = watch->ttl, slot;
	struct placing placing = {};
	u64 item, unknown = now();

	__builtin_memset(&draft->key, 0, sizeof(draft->key));
	if (!learn(forgotten(watch->protocol, unknown), draft->bytes, &length, &draft->key, &stored,
		   &ttl, flight->asked) ||
	    (is_nameless(watch->protocol) && !recall_key(name, flight->asked, &draft->key))) {
		count_event(UNLEARNABLE);
		return false;
	}
	/* All is hidden that differs: the verifier would follow the rest once for each protocol. */
	length = forgotten(length, unknown);
	stored = forgotten(stored, unknown);
	ttl = forgotten(ttl, unknown);
	draft->key.service = key_service(mark->service, mark->view);
	item = protocol_item(forgotten(watch->protocol, unknown), &draft->key);
	slot = item_slot(item);
	if (held(slot, flight->since) || held(SLOTS + mark->service, flight->since)) {
		count_event(HELD);
		return false;
	}
	scratch->learned.item = item_in(item, mark->service);
	scratch->learned.ttl = ttl;
	draft_reply(draft, flight->token, slot, length, stored, ttl);
	if (!begin_placing(draft, &placing) || !admitted(&placing)) {
		count_event(NOT_ADMITTED);
		return false;
	}
	scratch->learned.before = placing.before;
	return true;
}

/* Store what was learned. */
static __always_inline void store_learned(const struct found *found, struct edge_scratch *scratch)
{
	struct draft *draft = &scratch->draft;
	struct placing placing = { .before = scratch->learned.before };

	/* The protocol is hidden: the verifier would follow the store once for what is known of it. */
	if (!settle_spelling(forgotten(found->watch.protocol, now()), draft, &scratch->settling,
			     found->mark.service, scratch->learned.ttl))
		count_event(UNLEARNABLE);
	else if (!begin_placing(draft, &placing))
		count_event(FULL);
	else
		count_event(keep(scratch, &found->watch, found->mark.service, &placing));
}

/* A read's reply, before it leaves: is it in the draft, to be stored? */
static __always_inline bool see_read(const struct found *found, struct edge_scratch *scratch)
{
	u32 flight = scratch->heard.flight, service = found->mark.service;
	const struct datagram *datagram = &found->datagram;
	struct flight taken = { .asked = ASKED_UNKNOWN };
	bool waits = take_read(flight, &taken);

	end_time(taken.timed, service);
	if (datagram->skb->protocol == htons(ETH_P_IPV6))
		heed_hidden(&datagram->client, service, &taken);
	if (!waits || found->mark.kind != MARK_SERVER)
		count_event(UNASKED);
	else if (scratch->heard.length < datagram->length)
		count_event(UNLEARNABLE);
	else
		return learn_reply(&found->mark, &found->watch, scratch, scratch->heard.length,
				   flight, &taken);
	return false;
}

/* Any other reply, before it leaves: void once more what it may acknowledge. */
static __always_inline void see_answer(const struct found *found, struct edge_scratch *scratch)
{
	u32 stored = says_stored(found->watch.protocol, scratch->draft.bytes);
	u32 service = found->mark.service;
	bool cut = is_cut(service);
	enum beside beside = acknowledge(scratch->heard.flight, service, scratch->heard.answer,
					 forgotten(stored, now()) & 1, cut);

	if (beside == BESIDE_ALL)
		count_voider(&found->datagram, service);
	if (beside == BESIDE_UNREAD || cut)
		void_unread(service);
}

/* Load a reply into the draft, and find out what it is. */
static __always_inline enum answer hear_reply(const struct found *found,
					      struct edge_scratch *scratch)
{
	u32 length = load_reply(&found->datagram, scratch), protocol = found->watch.protocol;
	enum answer answer = what_answer(protocol, scratch->draft.bytes, found->datagram.length);

	scratch->heard.length = length;
	scratch->heard.flight = find_flight(&found->datagram, found->mark.service,
					    id_in(protocol, scratch->draft.bytes));
	scratch->heard.answer = answer;
	return answer;
}

/* Another program on this CPU is using the scratch memory: take the safe way. */
static __always_inline void overlook(const struct datagram *datagram, u32 service, u32 protocol,
				     bool ingress)
{
	id_word id = 0;

	count_event(BUSY);
	if (!ingress || datagram->stream) {
		note_ending(SLOTS + service, 0);
		void_cell(SLOTS + service, ingress);
		return;
	}
	load_id(datagram, protocol, &id);
	overlook_request(datagram, service, protocol, find_flight(datagram, service, id));
}

/*
 * A datagram with a wrong checksum: it gets no token of its own, and voids nothing. But a sender on
 * this host may have marked any sum as half-made, and then the server gets the datagram. So replies
 * that may be to it get no newer token.
 */
static __always_inline void hide_request(const struct datagram *datagram, u32 service, u32 protocol)
{
	id_word id = 0;

	load_id(datagram, protocol, &id);
	leave_hidden(find_flight(datagram, service, id));
}

/* A packet of a server's socket, or of one of its connections; false for any other. */
static __always_inline bool find_server(struct __sk_buff *skb, struct bpf_sock *sk,
					struct found *found)
{
	u32 service = 0;
	struct mark *mark = mark_of(skb, sk, &service);
	struct watch *watch;

	if (!mark)
		return false;
	service = mark->service;
	watch = watches.lookup(&service);
	if (!watch)
		return false;
	found->mark = *mark;
	found->mark.service &= SERVICES_MAX - 1;
	found->watch = *watch;
	found->datagram.skb = skb;
	found->datagram.stream = sk->type == SOCK_STREAM;
	/* What a listener gets belongs to no connection yet. */
	return !found->datagram.stream || sk->state != LISTENING;
}

/*
 * What cannot be read may be a write, and the reply to it an acknowledgement. Of several requests in
 * one packet none is counted, whoever's they are: so for a minute nothing is learned.
 */
static __always_inline void see_unreadable(const struct found *found, bool ingress)
{
	u32 service = found->mark.service;

	if (ingress && found->datagram.skb->gso_size && !found->datagram.stream)
		hold_cell(SLOTS + service, now() + FLIGHT_SECONDS * TICKS);
	if (ingress)
		hide_client(&found->datagram.client, service);
	if (ingress && says_what_it_wrote(found->watch.protocol))
		return;
	note_ending(SLOTS + service, 0);
	if (ingress)
		void_unread(service);
	else
		void_cell(SLOTS + service, false);
}

/* A call for each program, as clang would make one of them with an index that is no constant. */
static __always_inline void call(struct __sk_buff *skb, u32 program)
{
	if (program == EDGE_SUM) {
		edge_programs.call(skb, EDGE_SUM);
		CALLED(EDGE_SUM);
	} else if (program == EDGE_REQUEST) {
		edge_programs.call(skb, EDGE_REQUEST);
		CALLED(EDGE_REQUEST);
	} else {
		edge_programs.call(skb, EDGE_REPLY);
		CALLED(EDGE_REPLY);
	}
}

/*
 * Have another program go on with a datagram. What was found out lies in the scratch memory for it:
 * so the verifier follows it once, not for each way to find that. Returns only if it is not loaded.
 */
static __always_inline void hand_on(const struct found *found, u32 program, bool ingress)
{
	struct edge_scratch *scratch = enter(ingress);
	struct __sk_buff *skb = found->datagram.skb;
	u32 service = found->mark.service;

	if (!scratch) {
		overlook(&found->datagram, service, found->watch.protocol, ingress);
		return;
	}
	scratch->found = *found;
	scratch->found.datagram.skb = NULL;
	scratch->summed = (struct summed){};
	call(skb, program);
	leave(scratch);
	void_cell(SLOTS + service, ingress);
}

/* What the program before has found out. NULL where it was never here. */
static __always_inline struct edge_scratch *take_over(struct __sk_buff *skb, struct found *found,
						      bool ingress)
{
	struct edge_scratch *scratch = scratch_of(ingress);

	if (scratch) {
		*found = scratch->found;
		found->datagram.skb = skb;
	}
	return scratch;
}

/* Does the server answer from what this socket stores? */
static __always_inline bool is_alone(const struct found *found)
{
	return found->watch.alone && found->mark.kind >= MARK_DOOR;
}

/* A connection's segment to the server. */
static __always_inline void take_segment(const struct found *found, struct bpf_sock *sk)
{
	u32 service = found->mark.service, protocol = found->watch.protocol;
	const struct datagram *datagram = &found->datagram;
	struct edge_scratch *scratch;

	if (has_no_stream(protocol)) {
		see_unknown(datagram, service, true);
		return;
	}
	if (!writes_by_stream(protocol))
		return;
	scratch = enter(true);
	if (!scratch) {
		overlook(datagram, service, protocol, true);
		return;
	}
	if (see_segment(datagram, sk, service, protocol, is_alone(found), scratch))
		go_on(datagram->skb, scratch, true);
	leave(scratch);
}

int edge_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = internet_socket(skb);
	struct found found = {};

	if (!sk || !find_server(skb, sk, &found))
		return PASS;
	if (!find_payload(&found.datagram, true)) {
		see_unreadable(&found, true);
	} else if (found.datagram.stream) {
		take_segment(&found, sk);
	} else if (payload_length(&found.datagram) > SUM_SHORT) {
		hand_on(&found, EDGE_SUM, true);
	} else if (right_sum(&found.datagram, sum_steps(&found.datagram, 0, SUM_SHORT))) {
		hand_on(&found, EDGE_REQUEST, true);
	} else {
		hide_request(&found.datagram, found.mark.service, found.watch.protocol);
	}
	return PASS;
}

/*
 * A long datagram, once more until all of it is summed. Called by tail calls only, as the programs
 * below.
 */
int edge_sum(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, true);

	if (!scratch)
		return PASS;
	if (sum_on(&found.datagram, &scratch->summed)) {
		edge_programs.call(skb, EDGE_SUM);
		CALLED(EDGE_SUM);
	} else if (right_sum(&found.datagram, scratch->summed.sum)) {
		edge_programs.call(skb, EDGE_REQUEST);
		CALLED(EDGE_REQUEST);
	} else {
		hide_request(&found.datagram, found.mark.service, found.watch.protocol);
		leave(scratch);
		return PASS;
	}
	void_cell(SLOTS + found.mark.service, true);
	leave(scratch);
	return PASS;
}

int edge_request(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, true);

	if (!scratch)
		return PASS;
	if (see_request(&found.datagram, found.mark.service, &found.watch, is_alone(&found), scratch))
		go_on(skb, scratch, false);
	leave(scratch);
	return PASS;
}

/* Read the commands of a connection's segment. */
int edge_stream(struct __sk_buff *skb)
{
	struct edge_scratch *scratch = scratch_of(true);

	if (WANTED(WITH_STREAM) && scratch) {
		read_on(skb, scratch, true);
		leave(scratch);
	}
	return PASS;
}

/* Read a datagram's commands. */
int edge_commands(struct __sk_buff *skb)
{
	struct edge_scratch *scratch = scratch_of(true);

	if (WANTED(WITH_STREAM) && scratch) {
		read_on(skb, scratch, false);
		leave(scratch);
	}
	return PASS;
}

/* The server's own reply may have a cookie of its making. */
static __always_inline void look_for_cookie(const struct found *found)
{
	if (found->mark.kind == MARK_SERVER && gives_cookies(found->watch.protocol))
		edge_programs.call(found->datagram.skb, EDGE_COOKIE);
}

int edge_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = internet_socket(skb);
	struct found found = {};

	if (!sk || !find_server(skb, sk, &found))
		return PASS;
	if (!find_payload(&found.datagram, false)) {
		see_unreadable(&found, false);
	} else if (!found.datagram.stream) {
		hand_on(&found, EDGE_REPLY, false);
		look_for_cookie(&found);
	} else if (has_no_stream(found.watch.protocol)) {
		see_unknown(&found.datagram, found.mark.service, false);
	} else {
		if (writes_by_stream(found.watch.protocol)) {
			edge_programs.call(skb, EDGE_PAYLOAD);
			CALLED(EDGE_PAYLOAD);
		} else {
			edge_programs.call(skb, EDGE_MESSAGES);
			CALLED(EDGE_MESSAGES);
		}
		void_cell(SLOTS + found.mark.service, false);
	}
	return PASS;
}

int edge_reply(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, false);
	enum answer answer;

	if (!scratch)
		return PASS;
	answer = hear_reply(&found, scratch);
	if (answer != ANSWER_READ && counts_off(found.watch.protocol, scratch->draft.bytes))
		end_time(count_off(scratch->heard.flight), found.mark.service);
	if (answer != ANSWER_READ && says_what_it_wrote(found.watch.protocol)) {
		heed(answer, found.mark.service);
	} else {
		if (answer == ANSWER_READ) {
			edge_programs.call(skb, EDGE_LEARN);
			CALLED(EDGE_LEARN);
		} else {
			edge_programs.call(skb, EDGE_ANSWER);
			CALLED(EDGE_ANSWER);
		}
		void_cell(SLOTS + found.mark.service, false);
	}
	leave(scratch);
	look_for_cookie(&found);
	return PASS;
}

int edge_learn(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, false);

	if (!scratch)
		return PASS;
	if (see_read(&found, scratch))
		edge_programs.call(skb, EDGE_STORE);
	leave(scratch);
	look_for_cookie(&found);
	return PASS;
}

int edge_store(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, false);

	if (!scratch)
		return PASS;
	store_learned(&found, scratch);
	leave(scratch);
	look_for_cookie(&found);
	return PASS;
}

/* Where only replies tell what was written, there is nothing to acknowledge. */
int edge_answer(struct __sk_buff *skb)
{
	struct found found;
	struct edge_scratch *scratch = take_over(skb, &found, false);

	if (!WANTED(EVERY_LEARNED & ~WITH_MESSAGES) || !scratch)
		return PASS;
	see_answer(&found, scratch);
	leave(scratch);
	look_for_cookie(&found);
	return PASS;
}

/* The packet that edge_egress has seen, once more: a connection's (a constant), or a datagram. */
static __always_inline bool find_again(struct __sk_buff *skb, struct bpf_sock **sk,
				       struct found *found, const bool stream)
{
	*sk = internet_socket(skb);
	if (!*sk || !find_server(skb, *sk, found) || found->datagram.stream != stream)
		return false;
	found->datagram.stream = stream;
	return find_payload(&found->datagram, false);
}

/*
 * After edge_egress, for a connection's segment. These programs are apart for the verifier's sake.
 */
int edge_payload(struct __sk_buff *skb)
{
	struct found found = {};
	struct bpf_sock *sk;

	if (!WANTED(WITH_STREAM) || !find_again(skb, &sk, &found, true) ||
	    !see_payload(&found.datagram, sk, found.mark.service, found.watch.protocol))
		return PASS;
	edge_programs.call(skb, EDGE_HEARD);
	void_said(&found.datagram, found.mark.service);
	return PASS;
}

int edge_heard(struct __sk_buff *skb)
{
	struct found found = {};
	struct bpf_sock *sk;

	if (WANTED(WITH_STREAM) && find_again(skb, &sk, &found, true) &&
	    hear_payload(&found.datagram, sk, found.mark.service, found.watch.protocol))
		edge_programs.call(skb, EDGE_VALUE);
	return PASS;
}

int edge_value(struct __sk_buff *skb)
{
	struct found found = {};
	struct bpf_sock *sk;

	if (WANTED(WITH_STREAM) && find_again(skb, &sk, &found, true))
		see_value(&found.datagram, sk, found.watch.protocol);
	return PASS;
}

/* After edge_egress, for a datagram. */
int edge_cookie(struct __sk_buff *skb)
{
	struct found found = {};
	struct bpf_sock *sk;

	if (WANTED(WITH_COOKIES) && find_again(skb, &sk, &found, false))
		see_cookie(&found.datagram, found.mark.service, found.watch.protocol);
	return PASS;
}

/* The same for a segment of a connection where only replies tell what was written. */
int edge_messages(struct __sk_buff *skb)
{
	struct found found = {};
	struct bpf_sock *sk;

	if (!WANTED(WITH_MESSAGES) || !find_again(skb, &sk, &found, true) ||
	    !see_messages(&found.datagram, sk, found.mark.service, found.watch.protocol))
		return PASS;
	edge_programs.call(skb, EDGE_MESSAGES);
	/*
	 * More than 64 KB of messages (BIG TCP), or a tail call that failed: the rest is unknown.
	 */
	count_voider(&found.datagram, found.mark.service);
	void_cell(SLOTS + found.mark.service, false);
	return PASS;
}
