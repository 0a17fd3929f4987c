/* SPDX-License-Identifier: GPL-2.0-only */
/* The load generator: sends requests as live frames; takes, verifies and times replies in XDP. */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/udp.h>

#include "bounded.h"
#include "checksum.h"
#include "parameter.h"

PARAMETER(0d, request_room)  /* bytes of the longest request: a power of two, from 32 on */
PARAMETER(0e, reply_room)    /* bytes of the longest reply that is verified: a power of two */
PARAMETER(0f, draw_count)    /* the length of the order of requests, which is repeated */
PARAMETER(10, port_count)    /* source ports: the most requests that can be outstanding */

#define ROOM_MAX 2048            /* of either: maps have values as long as is needed */
#define HEADERS (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr))
#define BODY_MIN (60 - HEADERS)  /* an Ethernet frame has 60 bytes or more, without its FCS */
#define IPV4_FRAGMENT 0x3fff     /* MF and the fragment offset */
#define IPV4_DF 0x4000
#define TTL 64
#define NOWHERE 0xffffffff       /* no request's index */
#define PROBES 16                /* source ports that a slot tries before it is skipped */

/* Round trips in nanoseconds: buckets of 1 ns below 128 ns, then 64 for each power of two. */
#define SUB_BITS 6
#define BUCKETS 2048             /* up to 2^37 ns, above the timeout; a power of two: a mask */

struct settings {
	u8 their_mac[ETH_ALEN];
	u8 our_mac[ETH_ALEN];
	__be32 their_address;
	__be32 our_address;
	__be16 their_port;
	u16 our_port;    /* the first source port, host order */
	u32 ifindex;
	u32 reads;       /* requests from this index on are writes, whose replies are not verified */
	u32 verify;      /* 1 when `replies` holds the expected replies */
	u32 zero;
	u64 timeout;     /* ns from which on a reply comes too late */
	u64 reuse;       /* ns after which an unanswered request is lost and its port used again */
};

/* Only the generator writes here, and it runs on one CPU at a time. */
struct generator {
	u64 draw;          /* next to be sent, below draw_count */
	u64 port;          /* next to be tried, below port_count */
	u64 reads;         /* sent */
	u64 writes;
	u64 reads_lost;
	u64 writes_lost;
	u64 skipped;       /* slots that found no port free */
	u64 faults;        /* frames that could not be made */
};

struct request {
	u16 length;
	u16 sum;           /* one's-complement sum of its bytes, in memory order */
	u32 zero;
	u8 bytes[ROOM_MAX];  /* zero after `length` */
};

struct reply {
	u16 length;
	u16 zero[3];
	u64 words[ROOM_MAX / 8];  /* zero after `length` */
};

/* The one request that a source port has outstanding. */
struct flight {
	u64 sent;          /* ns; 0 when there is none. Who swaps it for 0 decides the outcome */
	u32 request;
	u32 zero;
};

enum outcome {
	ANSWERED,          /* the right reply, in time */
	REORDERED,         /* the right reply, after the timeout */
	WRONG,             /* a wrong or a damaged reply */
	DUPLICATED,        /* nothing was outstanding on this port */
	WRITE_ANSWERED,
	OUTCOMES = 8,
};

struct tally {
	u64 outcomes[OUTCOMES];
	u64 sum;           /* of the round trips, ns, like the next two */
	u64 minimum;
	u64 maximum;
	u64 histogram[BUCKETS];
};

/* With one u64 more than the longest reply, so that a reply's last word can always be zeroed. */
struct scratch {
	u64 words[ROOM_MAX / 8 + 1];
};

BPF_ARRAY(settings, struct settings, 1);
BPF_F_TABLE("array", u32, struct generator, generator, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct request, requests, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct reply, replies, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, draws, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct flight, flights, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, clock, 1, BPF_F_MMAPABLE);  /* ns: the time, with test_clock */
BPF_PERCPU_ARRAY(tallies, struct tally, 1);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);

static __always_inline u64 now(void)
{
	u32 only = 0;
	u64 *time;

	if (!SAID(test_clock))
		return bpf_ktime_get_ns();
	time = clock.lookup(&only);
	return time ? *time : 0;
}

static __always_inline u64 addresses_sum(const struct iphdr *ip)
{
	return (u64)ip->saddr + ip->daddr;
}

/* End the request outstanding since `sent`; false when another CPU has just ended it. */
static __always_inline bool end_flight(struct flight *flight, u64 sent)
{
	return __sync_val_compare_and_swap(&flight->sent, sent, 0) == sent;
}

/* The next port with nothing outstanding; a request unanswered for too long is given up. */
static __always_inline struct flight *free_flight(const struct settings *settings,
						  struct generator *generator, u32 *port)
{
	for (int i = 0; i < PROBES; i++) {
		u32 index = generator->port;
		struct flight *flight = flights.lookup(&index);
		u64 sent;

		if (!flight)
			return NULL;
		generator->port = index + 1 < SAID(port_count) ? index + 1 : 0;
		*port = index;
		sent = *(volatile u64 *)&flight->sent;
		if (!sent)
			return flight;
		if (now() < sent + settings->reuse)
			continue;
		if (!end_flight(flight, sent))
			return flight;
		if (flight->request < settings->reads)
			generator->reads_lost += 1;
		else
			generator->writes_lost += 1;
		return flight;
	}
	return NULL;
}

/* Frames are recycled with the edits of their last trip, so every byte is written. */
static __always_inline bool build(struct xdp_md *ctx, const struct settings *settings,
				  const struct request *request, u16 port)
{
	u32 body = request->length < BODY_MIN ? BODY_MIN : request->length, room = SAID(request_room);
	int delta = (int)(HEADERS + body) - (int)(ctx->data_end - ctx->data);
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp;

	if (body > room || (delta && bpf_xdp_adjust_tail(ctx, delta)) ||
	    bpf_xdp_store_bytes(ctx, HEADERS, (void *)request->bytes, bounded(body, room)))
		return false;
	eth = (void *)(long)ctx->data;
	ip = (void *)(eth + 1);
	udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
		return false;

	__builtin_memcpy(eth->h_dest, settings->their_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, settings->our_mac, ETH_ALEN);
	eth->h_proto = htons(ETH_P_IP);

	*(u8 *)ip = 0x45;
	ip->tos = 0;
	ip->tot_len = htons(sizeof(*ip) + sizeof(*udp) + request->length);
	ip->id = 0;
	ip->frag_off = htons(IPV4_DF);
	ip->ttl = TTL;
	ip->protocol = IPPROTO_UDP;
	ip->check = 0;
	ip->saddr = settings->our_address;
	ip->daddr = settings->their_address;
	ip->check = ~fold(ipv4_sum(ip));

	udp->source = htons(port);
	udp->dest = settings->their_port;
	udp->len = htons(sizeof(*udp) + request->length);
	udp->check = udp_check(addresses_sum(ip), udp, request->sum);
	return true;
}

/* One slot: send the next request, or skip it when every port that may be tried is taken. */
static __always_inline int generate(struct xdp_md *ctx, const struct settings *settings)
{
	u32 only = 0, port = 0, draw, index;
	struct generator *state = generator.lookup(&only);
	struct request *request;
	struct flight *flight;
	u64 *drawn;

	if (!state)
		return XDP_ABORTED;
	flight = free_flight(settings, state, &port);
	if (!flight) {
		state->skipped += 1;
		return XDP_DROP;
	}
	draw = state->draw;
	drawn = draws.lookup(&draw);
	index = drawn ? *drawn : NOWHERE;
	request = requests.lookup(&index);
	if (!request || !build(ctx, settings, request, settings->our_port + port)) {
		state->faults += 1;
		return XDP_ABORTED;
	}
	state->draw = draw + 1 < SAID(draw_count) ? draw + 1 : 0;
	if (index < settings->reads)
		state->reads += 1;
	else
		state->writes += 1;
	flight->request = index;
	__sync_lock_test_and_set(&flight->sent, now());
	return bpf_redirect(settings->ifindex, 0);
}

static __always_inline u32 bucket(u64 ns)
{
	u64 rest = ns >> SUB_BITS;
	u32 shift = 0;

#pragma unroll
	for (int step = 16; step; step /= 2) {
		if (rest >> step) {
			rest >>= step;
			shift += step;
		}
	}
	return (shift << SUB_BITS) + (u32)(ns >> shift);
}

static __always_inline void record(struct tally *tally, u64 ns)
{
	tally->sum += ns;
	if (!tally->minimum || ns < tally->minimum)
		tally->minimum = ns;
	if (ns > tally->maximum)
		tally->maximum = ns;
	tally->histogram[bucket(ns) & (BUCKETS - 1)] += 1;
}

/* A reply to us, by its addresses and ports. The pointers are into the frame. */
struct datagram {
	struct iphdr *ip;
	struct udphdr *udp;
	void *end;
};

static __always_inline bool find_reply(struct xdp_md *ctx, const struct settings *settings,
				       struct datagram *datagram)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	datagram->end = (void *)(long)ctx->data_end;
	if ((void *)(udp + 1) > datagram->end || eth->h_proto != htons(ETH_P_IP) ||
	    *(u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP ||
	    ip->frag_off & htons(IPV4_FRAGMENT) || ip->saddr != settings->their_address ||
	    ip->daddr != settings->our_address || udp->source != settings->their_port)
		return false;
	datagram->ip = ip;
	datagram->udp = udp;
	return true;
}

/*
 * The UDP checksum is right, or absent, or the pseudo-header's alone: its sender left the rest to
 * the device, and a virtual device never computes it.
 */
static __always_inline bool right_check(const struct datagram *datagram, u64 payload)
{
	u64 addresses = addresses_sum(datagram->ip);

	return classify_sum(addresses, datagram->udp, payload, false, false) != SUM_WRONG;
}

/* Check lengths, checksums and every byte; without an expected reply, all but the bytes. */
static __always_inline bool right_reply(struct xdp_md *ctx, const struct datagram *datagram,
					const struct reply *reply, struct scratch *scratch)
{
	u32 length = ntohs(datagram->udp->len) - sizeof(struct udphdr), room = SAID(reply_room);
	u64 sum = 0, differ = 0;

	if (ntohs(datagram->udp->len) + sizeof(struct iphdr) != ntohs(datagram->ip->tot_len) ||
	    (void *)datagram->ip + ntohs(datagram->ip->tot_len) > datagram->end ||
	    fold(ipv4_sum(datagram->ip)) != 0xffff || length > room ||
	    (reply && reply->length != length))
		return false;
	if (length) {
		length = bounded(length, room);
		scratch->words[length / 8] = 0;
		if (bpf_xdp_load_bytes(ctx, HEADERS, scratch->words, length))
			return false;
	}
	for (u32 i = 0; i < room / 8; i++) {
		u64 word = scratch->words[i];

		if (i * 8 >= length)
			break;
		sum += (word & 0xffffffff) + (word >> 32);
		if (reply)
			differ |= word ^ reply->words[i];
	}
	return !differ && right_check(datagram, sum);
}

static __always_inline enum outcome judge(struct xdp_md *ctx, const struct settings *settings,
					  const struct datagram *datagram, struct flight *flight,
					  struct scratch *scratch, struct tally *tally)
{
	u64 time = now();
	u64 sent = *(volatile u64 *)&flight->sent;
	u32 index = *(volatile u32 *)&flight->request;
	struct reply *reply = NULL;
	bool right, write = index >= settings->reads;

	if (!sent)
		return DUPLICATED;
	if (!write && settings->verify) {
		reply = replies.lookup(&index);
		if (!reply)
			return WRONG;
	}
	right = write || right_reply(ctx, datagram, reply, scratch);
	if (!end_flight(flight, sent))
		return DUPLICATED;
	if (write)
		return WRITE_ANSWERED;
	if (!right)
		return WRONG;
	if (time - sent >= settings->timeout)
		return REORDERED;
	record(tally, time - sent);
	return ANSWERED;
}

/* Take our replies, and only those. */
static __always_inline int receive(struct xdp_md *ctx, const struct settings *settings)
{
	u32 only = 0, port;
	struct scratch *scratch = scratches.lookup(&only);
	struct tally *tally = tallies.lookup(&only);
	struct datagram datagram = {};
	struct flight *flight;
	enum outcome outcome;

	if (!scratch || !tally || !find_reply(ctx, settings, &datagram))
		return XDP_PASS;
	port = ntohs(datagram.udp->dest) - settings->our_port;
	flight = flights.lookup(&port);  /* none for a port above or (wrapped around) below ours */
	if (!flight)
		return XDP_PASS;
	outcome = judge(ctx, settings, &datagram, flight, scratch, tally);
	tally->outcomes[outcome & (OUTCOMES - 1)] += 1;
	return XDP_DROP;
}

/*
 * Attached, it takes replies; run on live frames, which seem to come in by lo, it makes them into
 * requests. One program does both, because the kernel waits for two RCU grace periods (24 ms were
 * seen) in each run of a program that is attached to no interface.
 */
int load(struct xdp_md *ctx)
{
	u32 only = 0;
	struct settings *setting = settings.lookup(&only);

	if (!setting)
		return XDP_PASS;
	if (ctx->ingress_ifindex == setting->ifindex)
		return receive(ctx, setting);
	return generate(ctx, setting);
}
