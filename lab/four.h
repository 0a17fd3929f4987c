/* SPDX-License-Identifier: GPL-2.0-only */
/* What the experiments with four ports share: a request to one of them, of a known length. */
#ifndef CAROM_FOUR_H
#define CAROM_FOUR_H

#include <uapi/linux/bpf.h>

#include "hook.h"
#include "parse.h"

#ifndef FIRST_PORT
#define FIRST_PORT 51141  /* the loader says */
#endif

#define PORTS 4

/* Its bytes, with zeros behind, as what is to be done with them. */
union payload {
	u8 bytes[8];
	__be32 words[2];
};

struct four {
	struct packet packet;
	struct request request;
	union payload payload;
	enum sum sum;
	u32 which;      /* port, from 0 on */
	u32 skb_mode;   /* 1 for generic XDP: told once it is attached */
};

BPF_ARRAY(generic, u32, 1);

static __always_inline bool may_answer(const struct request *request)
{
	if (refused_source(request))
		return false;
	return !request->ipv6 && request->ip->ttl >= TTL_FLOOR &&
	       fold(ipv4_sum(request->ip)) == 0xffff;
}

/* Is it a request of `length` bytes (a constant, at most 8) over IPv4 that is understood? */
static __always_inline bool read_four(struct xdp_md *context, struct four *four, const u32 length)
{
	struct request *request = &four->request;
	u32 only = 0, *skb_mode;
	u64 sum;

	four->packet.context = context;
	four->packet.hook = XDP;
	if (parse_request(&four->packet, request) || request->length != length)
		return false;
	four->which = ntohs(request->udp->dest) - FIRST_PORT;
	skb_mode = generic.lookup(&only);
	if (four->which >= PORTS || !skb_mode || !may_answer(request) ||
	    packet_load(&four->packet, headers_length(request), four->payload.bytes, length))
		return false;
	four->skb_mode = *skb_mode;
	sum = (u64)four->payload.words[0] + four->payload.words[1];
	four->sum = classify_sum(addresses_sum(request), request->udp, sum, false, four->skb_mode);
	return four->sum != SUM_WRONG;
}

#endif
