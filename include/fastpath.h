/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fast path, the same at every hook: bounce a request, answer it from the cache, or say why
 * not. Until the first byte of a reply is written, the packet is unchanged.
 */
#ifndef CAROM_FASTPATH_H
#define CAROM_FASTPATH_H

#include "abi.h"
#include "bill.h"
#include "bounded.h"
#include "checksum.h"
#include "cookies.h"
#include "hook.h"
#include "join.h"
#include "lookup.h"
#include "loop.h"
#include "maps.h"
#include "moved.h"
#include "pace.h"
#include "parse.h"
#include "payload.h"
#include "place.h"
#include "policy.h"
#include "protocols.h"
#include "reply.h"
#include "shadow.h"
#include "token.h"
#include "trace.h"
#include "waiting_drafts.h"
#include "walk.h"

#define FOR_STORE VERDICTS  /* never counted: first a draft is stored that waits */
#define FOR_JOIN (VERDICTS + 1)  /* never counted: first the next of several keys is looked up */
#define SLIP_MAX 512  /* bytes of a truncated reply */

PARAMETER(0f, tc_first)  /* 1: TC sees requests that XDP has not seen */

/*
 * Count a verdict. `place` is the service's, by counted_as(); 0 for a packet that is no service's.
 */
static __always_inline void count(enum hook hook, enum verdict verdict, u32 place)
{
	u32 index = (place * HOOKS + hook) * VERDICTS + verdict;
	u64 *counter = verdicts.lookup(&index);

	if (counter)
		*counter += 1;
}

/* Count a verdict, or note it. True if the program that makes samples is to go on: it counts. */
static __always_inline bool decide(enum hook hook, enum verdict verdict, u32 place)
{
	u64 noted = SAID(noted);

	if (__builtin_expect(noted, 0)) {
		note_verdict(verdict, place);
		return noted == NOTED_TRACED;
	}
	count(hook, verdict, place);
	return false;
}

/* What is left of a packet that is traced: its verdict is counted, and there may be a sample. */
static __always_inline enum verdict told_verdict(const struct packet *packet)
{
	u32 only = 0;
	struct walked *walked = walks.lookup(&only);

	if (!walked || walked->verdict >= VERDICTS)
		return PASS_OFF;
	count(packet->hook, walked->verdict, walked->place);
	hand_sample(packet, walked->verdict, walked->place);
	return walked->verdict;
}

static __always_inline u32 counted_as(const struct service *service)
{
	return service->id < SAID(counted) ? service->id + 1 : 0;
}

/*
 * Note a packet to a service's port that is no service's; userspace tells the user where it came.
 */
static __always_inline void note_stray(const struct endpoint *endpoint)
{
	struct stray *stray;
	u32 only = 0;

	stray = strays.lookup(&only);
	if (SAID(dry) || !stray)
		return;
	stray->to = *endpoint;
	stray->seen += 1;
}

static __always_inline enum sum request_sum(const struct packet *packet,
					    const struct request *request,
					    const struct service *service, u64 payload_sum)
{
	return classify_sum(addresses_sum(request), request->udp, payload_sum, request->ipv6,
			    packet->hook == TC || service->skb_mode);
}

/* XDP leaves a hit that it has no room for to TC, with a word in the packet's metadata. */
static __always_inline enum verdict no_room(const struct packet *packet,
					    const struct service *service)
{
	struct xdp_md *context = packet->context;
	u32 *word;

	if (packet->hook != XDP || !service->hands_over ||
	    bpf_xdp_adjust_meta(context, -(int)sizeof(*word)))
		return at_stop(STOP_ROOM, PASS_ROOM);
	word = (void *)(long)context->data_meta;
	if ((void *)(word + 1) > (void *)(long)context->data)
		return at_stop(STOP_ROOM, PASS_ROOM);
	*word = HANDED_OVER;
	return PASS_TO_TC;
}

/*
 * Make the reply's frame in place; once its first byte is written the packet cannot pass any more.
 */
static __always_inline enum verdict serve(const struct packet *packet, struct request *request,
					  const struct service *service, enum sum sum,
					  struct scratch *scratch, u64 reply_sum)
{
	u32 headers = headers_length(request);
	u32 length = scratch->meta.length;
	u32 body = headers + length < FRAME_MIN ? FRAME_MIN - headers : length;

	if (body > REPLY_MAX || packet_resize(packet, headers + body))
		return no_room(packet, service);
	if (body > length)  /* padding, which is zeros and nothing of another reply */
		__builtin_memset(scratch->reply + (length & 31), 0, 24);
	if (!give_payload(packet, request, body, scratch->reply) && body &&
	    packet_store(packet, headers, scratch->reply, bounded(body, REPLY_ROOM)))
		return FAULT;
	if (!locate(packet, request))
		return FAULT;
	make_reply(request, sum, length, reply_sum,
		   packet->hook == TC || service->skb_mode, false);
	return HIT;
}

static __always_inline bool is_key_length(u32 length)
{
	return length >= 1 && length <= WHOLE_MAX;
}

/* Void what a write writes, where nothing at the socket's edge does it. */
static __always_inline enum verdict see_write(const struct service *service,
					      const struct key *key, enum intent intent)
{
	u32 cell = (intent & INTENT_MASK) == INTENT_WRITE
			   ? slot_of(key, slot_from(service->protocol, key),
				     slot_end(service->protocol, key))
			   : SLOTS + service->id;

	if (!service->learn && !SAID(dry))
		void_cell(cell, intent & INTENT_QUIET);
	return PASS_WRITE;
}

/* Leave a request and its text for the next program. */
static __always_inline enum verdict leave_request(const struct packet *packet, struct request *request,
					    struct scratch *scratch)
{
	u32 length = request->length;

	if (!length || length >= TEXT_ROOM)
		return PASS_SIZE;
	if (!pull_payload(packet, request, length) ||
	    !take_payload(packet, request, length, scratch->text, TEXT_ROOM, &scratch->text_sum))
		return PASS_TRUNCATED;
	scratch->request = *request;
	return FOR_NEXT;
}

static __always_inline enum verdict read_request(const struct service *service,
						 struct scratch *scratch)
{
	u32 length = scratch->request.length;
	enum intent intent;

	if (!length || length > request_max(service->protocol))
		return PASS_SIZE;
	length = bounded(forgotten(length, now()), TEXT_ROOM);  /* else once for each protocol's most */
	__builtin_memset(&scratch->key, 0, sizeof(scratch->key));
	intent = understand(service->protocol, scratch->text, length, &scratch->key);
	scratch->joined = (struct joined){};
	if (intent == INTENT_READ)
		return FOR_NEXT;
	if (intent & INTENT_SEVERAL)
		return FOR_JOIN;
	return (intent & INTENT_MASK) < INTENT_WRITE ? PASS_REQUEST
						     : see_write(service, &scratch->key, intent);
}

/* Make the stored reply the reply to this request; `sum` becomes that of its payload. */
static __always_inline bool adapt_reply(const struct request *request,
					const struct service *service, struct scratch *scratch,
					u64 *sum)
{
	u32 age = (u32)seconds_in(now() - scratch->meta.filled + TICKS - 1);
	u32 length = scratch->meta.length;

	*sum = scratch->meta.sum;
	if (!length || length > REPLY_MAX)
		return false;
	return adapt(service->protocol, scratch->reply, bounded(length, REPLY_ROOM),
		     scratch->meta.stored, scratch->text, bounded(request->length, TEXT_ROOM), age,
		     sum);
}

/*
 * Of the replies beyond the responses a second, every `slip`th is sent after all, empty and
 * truncated; the other requests go up. False where that is not possible: a client that sent a
 * cookie, for example, would not take a reply without one.
 */
static __always_inline bool slip(const struct request *request, const struct service *service,
				 struct scratch *scratch, u64 *sum)
{
	u32 length = truncated(service->protocol, scratch->reply, scratch->text, &scratch->key,
			       request->length);

	if (!length || length > SLIP_MAX)
		return false;
	scratch->meta.length = length;
	*sum = sum_bytes(scratch->reply, length, SLIP_MAX);
	return true;
}

static __always_inline bool too_large(const struct request *request, const struct service *service,
				      const struct scratch *scratch)
{
	return service->multiple && scratch->meta.length > service->multiple * request->length;
}

/* If the request has a cookie, put it into the reply, or give no reply. */
static __always_inline enum verdict heed_cookie(const struct request *request,
						const struct service *service,
						struct scratch *scratch, u64 *sum)
{
	u32 protocol = service->protocol;
	const u8 *option = cookie_of(protocol, scratch->text, &scratch->key);
	struct address client;
	u32 length;

	if (!option)
		return UNDECIDED;
	client = source_of(request);
	switch (judge_cookie(protocol, option, &client, service->id)) {
	case COOKIE_IGNORED:
		return UNDECIDED;
	case COOKIE_RETURNED:
		break;
	default:
		return PASS_COOKIE;
	}
	length = bounded(scratch->meta.length, REPLY_ROOM);
	if (!return_cookie(service->protocol, scratch->reply, &length, scratch->text,
			   &scratch->key, sum))
		return PASS_COOKIE;
	scratch->meta.length = length;
	return too_large(request, service, scratch) ? at_stop(STOP_COOKIE, PASS_AMPLIFY) : UNDECIDED;
}

/*
 * Reply to a request, if the cache has a reply. Its key is in scratch, or the `whole` payload (a
 * constant).
 */
static __always_inline enum verdict serve_known(const struct packet *packet,
						struct request *request,
						const struct service *service,
						struct scratch *scratch, const bool whole)
{
	u64 payload_sum, reply_sum = 0;
	enum verdict verdict, allotted = HIT;
	u32 echo = 0, bytes;
	struct bill bill;
	enum sum sum;

	if (whole) {
		verdict = look_up_whole(packet, request, service, scratch);
	} else if (scratch->joined.keys) {
		verdict = HIT;
	} else {
		scratch->key.service = key_service(service->id, service->view);
		verdict = look_up(service, scratch, 0);
	}
	if (verdict != HIT)
		return verdict;
	if (too_large(request, service, scratch))
		return PASS_AMPLIFY;
	verdict = check_source(request, service);
	if (verdict)
		return verdict;
	payload_sum = whole ? scratch->meta.key_sum : scratch->text_sum;
	sum = request_sum(packet, request, service, payload_sum);
	/* Both are hidden: the verifier would follow a protocol's work once for each length and sum. */
	if (!whole)
		sum = forgotten(sum, now());
	if (sum == SUM_WRONG)
		return PASS_CHECKSUM;
	if (whole) {
		reply_sum = scratch->meta.sum;
	} else {
		if (!adapt_reply(request, service, scratch, &reply_sum))
			return at_stop(STOP_ADAPT, PASS_REQUEST);
		verdict = heed_cookie(request, service, scratch, &reply_sum);
		if (verdict)
			return verdict;
	}
	bill = bill_of(request, service);
	if (!whole) {
		allotted = within_responses(service, &bill);
		if (allotted == PASS_RESPONSES ||
		    (allotted == SLIP && !slip(request, service, scratch, &reply_sum)))
			return PASS_RESPONSES;
	}
	verdict = check_length(packet, request, service, scratch, scratch->meta.length);
	if (verdict)
		return verdict;
	bytes = headers_length(request) + scratch->meta.length;
	if (!within_rates(service, &bill, bytes))
		return PASS_RATE;
	if (SAID(shadow) && !SAID(dry) && allotted == HIT && (whole || !scratch->joined.keys) &&
	    takes_turn(&scratch->until_shadow))
		return PASS_SHADOW;
	if (whole && scratch->meta.loops && service->echoes)
		echo = echo_cell(request, service, payload_sum);
	verdict = serve(packet, request, service, sum, scratch, reply_sum);
	if (verdict != HIT)
		return verdict;
	if (whole && scratch->meta.loops && service->echoes && ends_loop(service, echo))
		return DROP_LOOP;
	pay(service, &bill, bytes, allotted == HIT);
	keep_pace(scratch);
	return allotted;
}

static __always_inline enum verdict serve_whole(const struct packet *packet,
						struct request *request,
						const struct service *service,
						struct scratch *scratch)
{
	if (!is_key_length(request->length))
		return PASS_SIZE;
	if (!pull_payload(packet, request, request->length))
		return PASS_TRUNCATED;
	return serve_known(packet, request, service, scratch, true);
}

/* What the program before has left for this one; `place` becomes its service's, for count(). */
static __always_inline struct scratch *left_in_scratch(u32 *place)
{
	u32 only = 0;
	struct scratch *scratch = scratches.lookup(&only);

	if (scratch)
		*place = counted_as(&scratch->service);
	return scratch;
}

/*
 * Requests of the other protocols are found by one program, read by the next and answered by a
 * third. In a single program, the verifier would follow the reading once for each way to find a
 * request, and the answer once for each way through the reading. After FOR_NEXT the next program is
 * called.
 */
static __always_inline enum verdict read_next(u32 *place)
{
	struct scratch *scratch = left_in_scratch(place);

	if (!scratch)
		return PASS_OFF;
	return read_request(&scratch->service, scratch);
}

/* Of several keys, look the next one up. */
static __always_inline enum verdict join_next(u32 *place)
{
	struct scratch *scratch = left_in_scratch(place);
	enum verdict verdict;

	if (!scratch)
		return PASS_OFF;
	verdict = join(&scratch->service, scratch);
	if (verdict != HIT)
		return verdict;
	return scratch->joined.next ? FOR_JOIN : FOR_NEXT;
}

static __always_inline enum verdict answer_read(const struct packet *packet, u32 *place)
{
	struct scratch *scratch = left_in_scratch(place);
	struct request request;

	if (!scratch)
		return PASS_OFF;
	request = scratch->request;
	request.network = bounded(request.network, 32);
	request.ipv6 = told_apart(request.ipv6);
	if (!locate(packet, &request))
		return PASS_TRUNCATED;
	return serve_known(packet, &request, &scratch->service, scratch, false);
}

static __always_inline enum verdict bounce(const struct packet *packet, struct request *request,
					   const struct service *service, struct scratch *scratch)
{
	u32 length = request->length;
	enum verdict verdict;
	struct bill bill;
	u64 payload_sum;
	enum sum sum;

	if (length > REPLY_MAX)
		return PASS_SIZE;
	verdict = check_source(request, service);
	if (verdict)
		return verdict;
	verdict = check_length(packet, request, service, scratch, length);
	if (verdict)
		return verdict;
	if (!pull_payload(packet, request, length) ||
	    !sum_payload(packet, request, length, &payload_sum))
		return PASS_TRUNCATED;
	sum = request_sum(packet, request, service, payload_sum);
	if (sum == SUM_WRONG)
		return PASS_CHECKSUM;
	bill = bill_of(request, service);
	if (!within_rates(service, &bill, headers_length(request) + length))
		return PASS_RATE;
	if (service->echoes && ends_loop(service, echo_cell(request, service, payload_sum)))
		return DROP_LOOP;
	make_reply(request, sum, length, payload_sum, packet->hook == TC || service->skb_mode,
		   true);
	pay(service, &bill, headers_length(request) + length, true);
	keep_pace(scratch);
	return BOUNCE;
}

/* The verdict on a packet of a shape that no service has a place for. */
static __always_inline enum verdict answer_nowhere(const struct packet *packet)
{
	struct request request = {};
	struct endpoint endpoint = {};
	enum verdict verdict;

	verdict = parse_request(packet, &request, SHAPE_ANY);
	if (verdict)
		return verdict;
	if (is_served(request.udp->dest)) {
		locate_endpoint(packet, &request, &endpoint);
		note_stray(&endpoint);
	}
	return PASS_SERVICE;
}

/* The verdict on a packet of a shape; `place` becomes its service's, for count(). */
static __always_inline enum verdict answer(const struct packet *packet, u32 *place,
					   const enum shape shape)
{
	struct request request = {};
	struct endpoint endpoint = {};
	struct service *service;
	struct scratch *scratch;
	enum verdict verdict;
	u32 only = 0, where;

	verdict = parse_request(packet, &request, shape);
	if (verdict)
		return verdict;
	where = places_at(request.udp->dest);
	if (!where)
		return PASS_SERVICE;
	scratch = scratches.lookup(&only);
	if (!scratch)
		return PASS_OFF;
	locate_endpoint(packet, &request, &endpoint);
	service = find_service(&endpoint, where);
	if (!service || to_mapped_address(&request)) {
		note_stray(&endpoint);
		return PASS_SERVICE;
	}
	*place = counted_as(service);
	verdict = check_request(&request, service);
	if (verdict)
		return verdict;
	if (service->fast == FAST_OFF)
		return PASS_OFF;
	if (!leased())
		return PASS_LEASE;
	if (spent_pace(scratch))
		return PASS_CPU;
	if (service->fast == FAST_BOUNCE)
		return bounce(packet, &request, service, scratch);
	/* Where XDP is first, it has stored what waits of a request that it hands over. */
	if (!SAID(dry) && (packet->hook == XDP || SAID(tc_first)) && drafts_wait(service)) {
		scratch->service = *service;
		return FOR_STORE;
	}
	if (is_whole_key(service->protocol))
		return serve_whole(packet, &request, service, scratch);
	scratch->service = *service;
	return leave_request(packet, &request, scratch);
}

#endif
