/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets as the socket's edge sees them: from the IP header on, with the socket they belong to. */
#ifndef CAROM_EDGE_H
#define CAROM_EDGE_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "bounded.h"
#include "checksum.h"
#include "events.h"
#include "lasting.h"
#include "maps.h"
#include "marks.h"
#include "parse.h"
#include "protocols.h"
#include "spellings.h"
#include "store.h"

#define SUM_STEP 64       /* bytes that are summed at once */
#define SUM_SHORT 2048    /* bytes of a payload that edge_ingress sums; edge_sum takes longer ones */
#define SUM_AT_ONCE 16384 /* and so many of them in a run */
#define EXTENSIONS_MAX 8  /* of IPv6, before a payload */
#define WAITING_PAGES 128 /* some 1,900 replies that wait for the daemon */

/*
 * The item that a key names: all its keys are void together. Where its bytes begin and end is hidden
 * from the verifier: it would follow the hashing once for each protocol. No item begins behind byte 255.
 */
static __always_inline u64 protocol_item(u32 protocol, const struct key *key)
{
	u64 unknown = now();
	u32 from = forgotten(slot_from(protocol, key), unknown);
	u32 end = forgotten(slot_end(protocol, key), unknown);

	return item_of(key, from & 0xff, end);
}

/* A packet of a server's socket; its payload has `length` bytes from `offset` on. */
struct datagram {
	struct __sk_buff *skb;
	bool stream;
	u32 offset;
	u32 length;
	u32 sequence;  /* of a stream: the number of its first byte */
	u32 received;  /* and that of the first byte that its sender has not received */
	bool ends;     /* its connection ends, in this direction */
	bool urgent;   /* it says that a byte of it is not for the stream */
	u64 addresses; /* their sum */
	struct address client;
	__be16 client_port;
};

/* What the first program found out of a packet, for the one that goes on with it. */
struct found {
	struct datagram datagram;
	struct mark mark;
	struct watch watch;
};

/* What a reply in the draft is. */
struct heard {
	u32 length;  /* bytes in the draft */
	u32 flight;
	enum answer answer;
};

/* The part of a long payload that is summed. */
struct summed {
	u64 sum;
	u32 length;
};

/* A reply in the draft that is to be stored: what is not in its meta. */
struct learned {
	u64 item;    /* item_in() */
	u32 ttl;     /* seconds */
	u32 before;  /* 1: its key was missed before */
};

/* The part of a packet that is not read yet, for the programs that go on with it. */
struct unread {
	u32 offset;
	u32 left;
	u32 done;     /* bytes of a short read, passed over at once */
	u32 service;
	u32 protocol;
	u32 flight;   /* of a datagram */
	u32 reads;    /* 1 where a command of a datagram may have been a read */
	u32 cell;     /* cell of `versions` that a datagram's last write wrote */
	u32 alone;    /* 1 where the server answers from what this stream stores */
};

/*
 * One for each CPU and direction. A program in a process can be preempted by another on its CPU:
 * `busy` counts those inside, and who is not alone leaves.
 */
struct edge_scratch {
	u64 busy;
	u32 turn;      /* of requests (reply_times.h) */
	struct found found;
	struct summed summed;
	struct heard heard;
	struct learned learned;
	struct draft draft;
	struct unread unread;
	u32 waits;     /* 1: the daemon has to find out how long the reply holds */
	struct settling settling;
	struct stream datagram;  /* for a single datagram: its commands are read like a stream's */
	u8 text[TEXT_ROOM + 2 * STREAM_LINE_MAX + sizeof(u64)];
};

/* The programs that the edge's first ones call to go on. */
enum {
	EDGE_STREAM = 0,
	EDGE_SUM = 1,
	EDGE_REQUEST = 2,
	EDGE_COOKIE = 3,
	EDGE_MESSAGES = 4,
	EDGE_PAYLOAD = 5,
	EDGE_HEARD = 6,
	EDGE_VALUE = 7,
	EDGE_REPLY = 8,
	EDGE_COMMANDS = 9,
	EDGE_LEARN = 10,
	EDGE_ANSWER = 11,
	EDGE_STORE = 12,
};

BPF_PROG_ARRAY(edge_programs, 13);
BPF_RINGBUF_OUTPUT(waitings, WAITING_PAGES);
BPF_PERCPU_ARRAY(edge_scratches, struct edge_scratch, 2);
BPF_TABLE("lru_hash", struct payer, u64, voiders, VOIDERS_MAX);
BPF_F_TABLE("array", u32, u64, unreads, 2 * SERVICES_MAX, BPF_F_MMAPABLE);
BPF_ARRAY(cuts, u64, SERVICES_MAX);  /* jiffies until which a cut store may be completed */

/* The scratch memory that a program before this one has entered. */
static __always_inline struct edge_scratch *scratch_of(bool ingress)
{
	u32 index = ingress;

	return edge_scratches.lookup(&index);
}

static __always_inline struct edge_scratch *enter(bool ingress)
{
	struct edge_scratch *scratch = scratch_of(ingress);

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

/* The socket of a packet, where it is one of those that a server may have. */
static __always_inline struct bpf_sock *internet_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk || (sk->family != FAMILY_IPV4 && sk->family != FAMILY_IPV6) ||
	    !is_internet(sk->type, sk->protocol))
		return NULL;
	return sk;
}

/* Count who sends what may void a whole service. */
static __always_inline void count_voider(const struct datagram *datagram, u32 service)
{
	struct payer source = prefix_of(datagram->client, service);
	u64 *count = voiders.lookup(&source), first = 1;

	if (count)
		__sync_fetch_and_add(count, 1);
	else
		voiders.update(&source, &first);
}

/*
 * What nobody can read may write anything. It voids its service at once, but only once in
 * UNREAD_SECONDS, as any stranger can send such things. Within that time it leaves a note for
 * userspace, which voids when the time is over. (An acknowledgement always voids as it leaves.)
 */
static __always_inline void void_unread(u32 service)
{
	u32 index = 2 * service, waiting = index + 1;
	u64 *until = unreads.lookup(&index), *word = unreads.lookup(&waiting);
	u64 jiffies = now();

	if (!until || !word)
		return;
	if (jiffies < *(volatile u64 *)until) {
		*(volatile u64 *)word = 1;
		count_event(UNREAD);
		return;
	}
	*(volatile u64 *)until = jiffies + UNREAD_SECONDS * TICKS;
	void_cell(SLOTS + service, true);
}

static __always_inline void note_cut(u32 service)
{
	u64 *until = cuts.lookup(&service);

	if (until)
		*(volatile u64 *)until = now() + CUT_SECONDS * TICKS;
}

/* May a reply of the service be to something in the middle of a datagram (a cut store's data)? */
static __always_inline bool is_cut(u32 service)
{
	u64 *until = cuts.lookup(&service);

	return until && now() < *(volatile u64 *)until;
}

#define EXTENSIONS (1ull << IPPROTO_HOPOPTS | 1ull << IPPROTO_ROUTING | 1ull << IPPROTO_FRAGMENT | \
		    1ull << IPPROTO_AH | 1ull << IPPROTO_DSTOPTS)

/* By a bit mask: the verifier would follow the code behind once for each of them. */
static __always_inline bool is_extension(u8 protocol)
{
	return protocol < 64 && EXTENSIONS >> protocol & 1;
}

/* The length of an extension header by its first two bytes. A lone fragment keeps its header. */
static __always_inline u32 extension_length(u8 protocol, const u8 *header)
{
	if (protocol == IPPROTO_FRAGMENT)
		return 8;
	return protocol == IPPROTO_AH ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
}

/*
 * All headers are read into one place: where each has its own, the stack differs behind, and the
 * verifier follows the rest once for each.
 */
union header {
	struct iphdr ipv4;
	struct ipv6hdr ipv6;
	u8 extension[2];
};

/* Skip IPv6's extension headers: a sender may put any of them before its payload. */
static __always_inline bool skip_extensions(struct datagram *datagram, u8 *protocol,
					    union header *header)
{
	for (u32 n = 0; n < EXTENSIONS_MAX; n++) {
		if (!is_extension(*protocol))
			return true;
		if (bpf_skb_load_bytes(datagram->skb, datagram->offset, header->extension,
				       sizeof(header->extension)))
			return false;
		datagram->offset = forgotten(datagram->offset +
						     extension_length(*protocol, header->extension),
					     now());
		*protocol = header->extension[0];
	}
	return !is_extension(*protocol);
}

/* The same address, hidden from the verifier: it would follow IPv4 and IPv6 apart. */
static __always_inline struct address forgotten_address(struct address address)
{
	u64 unknown = now();

#pragma unroll
	for (u32 i = 0; i < 4; i++)
		address.words[i] = forgotten(address.words[i], unknown);
	return address;
}

static __always_inline bool read_addresses(struct datagram *datagram, bool ingress, u8 *protocol)
{
	struct __sk_buff *skb = datagram->skb;
	union header ip = {};

	if (skb->protocol == htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip.ipv4)) || ip.ipv4.ihl < 5)
			return false;
		datagram->offset = ip.ipv4.ihl * 4;
		datagram->client = forgotten_address(
			mapped_address(ingress ? ip.ipv4.saddr : ip.ipv4.daddr));
		datagram->addresses = (u64)ip.ipv4.saddr + ip.ipv4.daddr;
		*protocol = ip.ipv4.protocol;
		return true;
	}
	if (skb->protocol != htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip.ipv6)))
		return false;
	datagram->offset = sizeof(ip.ipv6);
	datagram->client = ipv6_address(ingress ? &ip.ipv6.saddr : &ip.ipv6.daddr);
	datagram->addresses = ipv6_addresses_sum(&ip.ipv6);
	*protocol = ip.ipv6.nexthdr;
	return skip_extensions(datagram, protocol, &ip);
}

/* The length of a payload, whose value is hidden from the verifier. */
static __always_inline u32 payload_length(const struct datagram *datagram)
{
	return *(volatile u32 *)&datagram->skb->len - datagram->offset;
}

static __always_inline u64 sum_words(const u32 *words)
{
	u64 sum = 0;

#pragma unroll
	for (u32 i = 0; i < SUM_STEP / sizeof(u32); i++)
		sum += words[i];
	return sum;
}

/*
 * The one's-complement sum of a payload's whole steps, of `room` (a constant) bytes from `from` on. It
 * begins with a number that the verifier does not know: otherwise it would know the largest sum after
 * each step. Even so it follows the code behind once for each step.
 */
static __always_inline u64 sum_steps(const struct datagram *datagram, u32 from, const u32 room)
{
	u32 steps = (payload_length(datagram) - from) / SUM_STEP, offset = datagram->offset + from;
	u64 unknown = now(), sum = unknown;
	u32 words[SUM_STEP / sizeof(u32)];

	asm volatile("" : "+r"(sum));
	for (u32 n = 0; n < room / SUM_STEP; n++) {
		counted(n);
		if (n >= steps ||
		    bpf_skb_load_bytes(datagram->skb, offset + n * SUM_STEP, words, sizeof(words)))
			break;
		sum += sum_words(words);
	}
	return sum - unknown;
}

/* The sum of the bytes behind the whole steps. */
static __always_inline u64 sum_rest(const struct datagram *datagram)
{
	u32 length = payload_length(datagram), rest = length % SUM_STEP;
	u32 words[SUM_STEP / sizeof(u32)] = {};

	if (!rest || bpf_skb_load_bytes(datagram->skb, datagram->offset + length - rest, words,
					bounded(rest, SUM_STEP)))
		return 0;
	return sum_words(words);
}

/* Sum a long payload's next steps. True if some are left. */
static __always_inline bool sum_on(const struct datagram *datagram, struct summed *summed)
{
	summed->sum += sum_steps(datagram, summed->length, SUM_AT_ONCE);
	summed->length += SUM_AT_ONCE;
	return *(volatile u32 *)&summed->length < payload_length(datagram);
}

/*
 * The kernel only sums a datagram of more than 76 bytes after this hook, when the server takes it.
 * A half-made checksum counts as right: whether it came like that from the wire cannot be told. The
 * payload's whole steps have this sum.
 */
static __always_inline bool right_sum(const struct datagram *datagram, u64 steps)
{
	struct udphdr udp;

	if (!bpf_skb_load_bytes(datagram->skb, datagram->offset - sizeof(udp), &udp, sizeof(udp)) &&
	    classify_sum(datagram->addresses, &udp, steps + sum_rest(datagram),
			 datagram->skb->protocol == htons(ETH_P_IPV6), false) != SUM_WRONG)
		return true;
	count_event(WRONG_SUM);
	return false;
}

/*
 * Find the payload. False for what cannot be read: it may be a write. So may any of several datagrams
 * in one packet: the kernel cuts it apart later, or leaves that to the server (UDP GSO and GRO).
 */
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
		datagram->received = ntohl(tcp.ack_seq);
		datagram->ends = tcp.fin;
		datagram->urgent = tcp.urg;
		datagram->offset += tcp.doff * 4;
	} else {
		if (protocol != IPPROTO_UDP || datagram->skb->gso_size ||
		    bpf_skb_load_bytes(datagram->skb, datagram->offset, &udp, sizeof(udp)))
			return false;
		datagram->client_port = ingress ? udp.source : udp.dest;
		datagram->offset += sizeof(udp);
	}
	datagram->offset = forgotten(datagram->offset, now());
	if (datagram->skb->len < datagram->offset)
		return false;
	datagram->length = datagram->skb->len - datagram->offset;
	return true;
}

/*
 * Load the payload's front, as much as the text has room for, and zeros behind; its whole length.
 */
static __always_inline u32 load_text(const struct datagram *datagram, struct edge_scratch *scratch)
{
	u32 length = forgotten(datagram->length, now());  /* or the comparison would be known behind */

	if (length > TEXT_ROOM)
		length = TEXT_ROOM;
	__builtin_memset(scratch->text, 0, sizeof(u64));
	if (!length)
		return 0;
	length = bounded(length, TEXT_ROOM);
	*(u64 *)(scratch->text + (length & ~7u)) = 0;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->text, length))
		return 0;
	return datagram->length;
}

#define FRONT 64  /* bytes of a draft that are looked at, however short its reply is */

/* Load the payload's front as a draft's reply, with zeros behind; the number of bytes. */
static __always_inline u32 load_reply(const struct datagram *datagram,
				      struct edge_scratch *scratch)
{
	u32 length = forgotten(datagram->length, now());

	if (length > REPLY_MAX)
		length = REPLY_MAX;
	__builtin_memset(scratch->draft.bytes, 0, FRONT);
	if (!length)
		return 0;
	length = bounded(length, REPLY_ROOM);
	*(u64 *)(scratch->draft.bytes + (length & ~7u)) = 0;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->draft.bytes, length))
		return 0;
	return length;
}

#endif
