/* SPDX-License-Identifier: GPL-2.0-only */
/* What the experiments with four ports share: a request to one of them, of a known length. */
#ifndef CAROM_FOUR_H
#define CAROM_FOUR_H

#include <uapi/linux/bpf.h>

#include "hook.h"
#include "parse.h"
#include "source.h"

#ifndef FIRST_PORT
#define FIRST_PORT 51141  /* the loader says */
#endif

#define PORTS 4

/* A request's payload, followed by zeros, as bytes or as words. */
union payload {
	u8 bytes[8];
	__be32 words[2];
};

/* What a request asks. It is apart from `struct packet`, whose hook must stay a constant. */
struct question {
	union payload payload;
	enum sum sum;
	u32 which;      /* port, from 0 on */
	u32 skb_mode;   /* 1 for generic XDP; the loader says so after attaching */
};

BPF_ARRAY(generic, u32, 1);

static __always_inline bool may_answer(const struct request *request)
{
	if (refused_source(request))
		return false;
	return !request->ipv6 && request->ip->ttl >= TTL_FLOOR &&
	       fold(ipv4_sum(request->ip)) == 0xffff;
}

/* Read a request of `length` bytes (a constant, at most 8) over IPv4; false for anything else. */
static __always_inline bool read_question(const struct packet *packet, struct request *request,
					  struct question *question, const u32 length)
{
	u32 only = 0, *skb_mode;
	u64 sum;

	if (parse_request(packet, request, SHAPE_ANY) || request->length != length)
		return false;
	question->which = ntohs(request->udp->dest) - FIRST_PORT;
	skb_mode = generic.lookup(&only);
	if (question->which >= PORTS || !skb_mode || !may_answer(request) ||
	    packet_load(packet, headers_length(request), question->payload.bytes, length))
		return false;
	question->skb_mode = *skb_mode;
	sum = (u64)question->payload.words[0] + question->payload.words[1];
	question->sum = classify_sum(addresses_sum(request), request->udp, sum, false, *skb_mode);
	return question->sum != SUM_WRONG;
}

#endif
