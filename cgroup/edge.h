/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets as a socket's edge has them: from the IP header on, with the socket they belong to. */
#ifndef CAROM_EDGE_H
#define CAROM_EDGE_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "bounded.h"
#include "maps.h"
#include "parse.h"
#include "protocols.h"
#include "store.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

/* One packet of a watched socket; `length` bytes of payload from `offset` on. */
struct datagram {
	struct __sk_buff *skb;
	bool stream;
	u32 offset;
	u32 length;
	u32 sequence;  /* of a stream: the number of its first byte */
	bool begins;   /* its connection does */
	bool urgent;   /* a byte of it is not for the stream, or so it says */
	struct address client;
	__be16 client_port;
};

/* What of a segment is not read yet: for the programs that go on with it. */
struct unread {
	u32 offset;
	u32 left;
	u32 service;
	u32 protocol;
};

/*
 * One a CPU and direction. A program in a process can be preempted by another on its CPU: `busy`
 * counts those inside, and whoever is not alone leaves. (BCC's clang has no atomics that return.)
 */
struct edge_scratch {
	u64 busy;
	struct asked asked;
	struct draft draft;
	struct unread unread;
	struct stream fresh;  /* zeros but for `next` and `lost` */
	u8 text[TEXT_ROOM + 2 * STREAM_LINE_MAX + sizeof(u64)];
};

BPF_HASH(watched, u32, struct watch, SERVICES_MAX);  /* by port */
BPF_TABLE("lru_hash", struct asked, struct stream, streams, STREAMS_MAX);
BPF_PERCPU_ARRAY(events, u64, EVENTS);
BPF_PERCPU_ARRAY(edge_scratches, struct edge_scratch, 2);

static __always_inline void count_event(enum event event)
{
	u32 index = event;
	u64 *counter = events.lookup(&index);

	if (counter)
		*counter += 1;
}

static __always_inline struct edge_scratch *enter(bool ingress)
{
	u32 index = ingress;
	struct edge_scratch *scratch = edge_scratches.lookup(&index);

	if (!scratch)
		return NULL;
	__sync_fetch_and_add(&scratch->busy, 1);
	if (*(volatile u64 *)&scratch->busy == 1)
		return scratch;
	__sync_fetch_and_add(&scratch->busy, -1);
	return NULL;
}

static __always_inline void leave(struct edge_scratch *scratch)
{
	__sync_fetch_and_add(&scratch->busy, -1);
}

/*
 * The service whose port this packet's socket holds. Raw sockets hold none, whatever they send, and
 * a client's socket holds another.
 */
static __always_inline struct watch *watched_socket(struct __sk_buff *skb,
						    struct datagram *datagram)
{
	struct bpf_sock *sk = skb->sk;
	u32 port;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->family != FAMILY_IPV4 && sk->family != FAMILY_IPV6))
		return NULL;
	if (sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP)
		datagram->stream = true;
	else if (sk->type != SOCK_DGRAM || sk->protocol != IPPROTO_UDP)
		return NULL;
	port = sk->src_port;
	return watched.lookup(&port);
}

/*
 * Does the socket's network namespace hold the service? Another may have a server on the same port,
 * and the same addresses. Kernels that cannot tell learn from all.
 */
static __always_inline bool in_namespace(struct __sk_buff *skb, const struct watch *watch)
{
#ifdef NETNS_COOKIE
	return !watch->netns || bpf_get_netns_cookie(skb) == watch->netns;
#else
	return true;
#endif
}

static __always_inline bool read_addresses(struct datagram *datagram, bool ingress, u8 *protocol)
{
	struct __sk_buff *skb = datagram->skb;
	struct ipv6hdr ipv6;
	struct iphdr ip;
	u8 options[2];

	if (skb->protocol == htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.ihl < 5)
			return false;
		datagram->offset = ip.ihl * 4;
		datagram->client = mapped_address(ingress ? ip.saddr : ip.daddr);
		*protocol = ip.protocol;
		return true;
	}
	if (skb->protocol != htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, 0, &ipv6, sizeof(ipv6)))
		return false;
	datagram->offset = sizeof(ipv6);
	datagram->client = ipv6_address(ingress ? &ipv6.saddr : &ipv6.daddr);
	*protocol = ipv6.nexthdr;
	if (*protocol != IPPROTO_HOPOPTS)
		return true;  /* behind another extension header nothing is looked for */
	if (bpf_skb_load_bytes(skb, datagram->offset, options, sizeof(options)))
		return false;
	*protocol = options[0];
	datagram->offset += 8 + options[1] * 8;  /* as a segment beyond 64 kB has them, for one */
	return true;
}

/* Where the payload is. False for what cannot be read: it may be a write. */
static __always_inline bool find_payload(struct datagram *datagram, bool ingress)
{
	struct tcphdr tcp;
	struct udphdr udp;
	u8 protocol;

	if (!read_addresses(datagram, ingress, &protocol))
		return false;
	if (datagram->stream) {
		if (protocol != IPPROTO_TCP ||
		    bpf_skb_load_bytes(datagram->skb, datagram->offset, &tcp, sizeof(tcp)))
			return false;
		datagram->client_port = ingress ? tcp.source : tcp.dest;
		datagram->sequence = ntohl(tcp.seq);
		datagram->begins = tcp.syn;
		datagram->urgent = tcp.urg;
		datagram->offset += tcp.doff * 4;
	} else {
		if (protocol != IPPROTO_UDP ||
		    bpf_skb_load_bytes(datagram->skb, datagram->offset, &udp, sizeof(udp)))
			return false;
		datagram->client_port = ingress ? udp.source : udp.dest;
		datagram->offset += sizeof(udp);
	}
	if (datagram->skb->len < datagram->offset)
		return false;
	datagram->length = datagram->skb->len - datagram->offset;
	return true;
}

static __always_inline void identify(const struct datagram *datagram, const struct watch *watch,
				     struct asked *asked)
{
	asked->client = datagram->client;
	asked->port = datagram->client_port;
	asked->service = watch->service;
}

/* The payload's front, as much as the text has room for, and zeros behind; its whole length. */
static __always_inline u32 load_text(const struct datagram *datagram, struct edge_scratch *scratch)
{
	u32 length = datagram->length < TEXT_ROOM ? datagram->length : TEXT_ROOM;

	__builtin_memset(scratch->text, 0, sizeof(u64));
	if (!length)
		return 0;
	length = bounded(length, TEXT_ROOM);
	*(u64 *)(scratch->text + (length & ~7u)) = 0;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->text, length))
		return 0;
	return datagram->length;
}

/* The payload as a draft's reply, with zeros behind; its length, 0 where it is too long to keep. */
static __always_inline u32 load_reply(const struct datagram *datagram,
				      struct edge_scratch *scratch)
{
	u32 length = datagram->length;

	if (length < sizeof(u16) || length > REPLY_MAX)
		return 0;
	length = bounded(length, REPLY_ROOM);
	__builtin_memset(scratch->draft.bytes, 0, REPLY_SHORT);
	*(u64 *)(scratch->draft.bytes + (length & ~7u)) = 0;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->draft.bytes, length))
		return 0;
	return length;
}

#endif
