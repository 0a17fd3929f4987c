/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a server sends on a TCP connection whose messages each follow two bytes of their length (RFC
 * 1035 4.2.2). A payload may hold several of them, or a part of one, cut anywhere.
 *
 * The state is kept on the accepted socket, which sends on one CPU at a time. If the connection is
 * older than carom, it is not known where messages begin: each payload is read as if it held whole
 * messages, and one that ends with a message settles it.
 */
#ifndef CAROM_MESSAGES_H
#define CAROM_MESSAGES_H

#include "edge.h"
#include "stream.h"

/* Messages that one run of edge_messages reads; it runs 33 times, and 64 KB hold 4,681 at most. */
#define MESSAGES_AT_ONCE 150
#define MESSAGE_LENGTH 2
#define MESSAGE_FRONT (MESSAGE_LENGTH + MESSAGE_HEADER)

struct outflow {
	u32 next;   /* sequence number of the first byte that was not read */
	u32 left;   /* bytes of a message still to come, behind its front */
	u32 have;   /* bytes in `front` */
	u32 begun;  /* `next` is known, or is a guess */
	u32 sure;   /* it is known */
	u32 said;   /* a bit for each answer (protocol.h) among a payload's messages */
	u32 offset; /* of the payload that is read, in its packet */
	u32 length;
	u32 first;  /* sequence number of its first byte */
	u8 front[2 * 16];
};

SOCKET_STORAGE(outflows, struct outflow, 0);
BPF_TABLE("lru_hash", struct payer, u64, doubters, VOIDERS_MAX);

/* Void by what a message says was done. */
static __always_inline void heed(enum answer answer, u32 service)
{
	if (answer == ANSWER_REFUSED)
		count_event(REFUSED);
	if (answer == ANSWER_HEEDED)
		void_unread(service);
	if (answer != ANSWER_WRITTEN)
		return;
	void_cell(SLOTS + service, true);  /* held: its answers may change a moment later */
	count_event(WRITE_DONE);
}

static __always_inline void heed_all(u32 said, u32 service)
{
	if (said & 1u << ANSWER_REFUSED)
		heed(ANSWER_REFUSED, service);
	if (said & 1u << ANSWER_HEEDED)
		heed(ANSWER_HEEDED, service);
	if (said & 1u << ANSWER_WRITTEN)
		heed(ANSWER_WRITTEN, service);
}

/* The first payload of a connection certainly begins with a message; any other may. */
static __always_inline void begin_messages(struct outflow *outflow, const struct datagram *datagram,
					   struct bpf_sock *sk)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	outflow->begun = 1;
	outflow->sure = tcp && !tcp->bytes_acked && tcp->snd_una == datagram->sequence;
	outflow->next = datagram->sequence;
	outflow->left = 0;
	outflow->have = 0;
	outflow->said = 0;
}

/*
 * Read what is there of a front, `left` bytes at most. True if it is whole then. What the loop goes on
 * with is in the map, or hidden: otherwise the verifier would follow the loop for each way through here.
 */
static __always_inline bool read_front(struct __sk_buff *skb, struct outflow *outflow, u32 offset,
				       u32 left, u32 protocol)
{
	u32 have = *(volatile u32 *)&outflow->have & 15, wanted = MESSAGE_FRONT - have, message;
	u32 size = bounded(forgotten(left < wanted ? left : wanted, now()), 16);
	enum answer answer;

	if (bpf_skb_load_bytes(skb, offset, outflow->front + have, size)) {
		*(volatile u32 *)&outflow->begun = 0;
		return false;
	}
	*(volatile u32 *)&outflow->have = have + size;
	*(volatile u32 *)&outflow->next += size;
	if (*(volatile u32 *)&outflow->have < MESSAGE_FRONT)
		return false;
	message = (u32)outflow->front[0] << 8 | outflow->front[1];
	if (message < MESSAGE_HEADER) {
		*(volatile u32 *)&outflow->begun = 0;
		return false;
	}
	*(volatile u32 *)&outflow->have = 0;
	*(volatile u32 *)&outflow->left = message - MESSAGE_HEADER;
	answer = message_answer(protocol, outflow->front + MESSAGE_LENGTH, message);
	*(volatile u32 *)&outflow->said |= 1u << (forgotten(answer, now()) & 31);
	return true;
}

/*
 * Read as many messages as one run may: in each step the rest of one, and the front of the next.
 * True if some are left.
 */
static __always_inline bool read_messages(struct __sk_buff *skb, struct outflow *outflow,
					  u32 protocol)
{
	for (u32 n = 0; n < MESSAGES_AT_ONCE; n++) {
		u32 at = *(volatile u32 *)&outflow->next - *(volatile u32 *)&outflow->first;
		u32 length = *(volatile u32 *)&outflow->length;
		u32 left = *(volatile u32 *)&outflow->left;

		counted(n);
		asm volatile("" : "+r"(protocol));  /* or clang makes a loop of its own for each */
		if ((u64)at + left >= length) {
			if (at < length) {
				*(volatile u32 *)&outflow->left = left - (length - at);
				*(volatile u32 *)&outflow->next += length - at;
			}
			return false;
		}
		*(volatile u32 *)&outflow->left = 0;
		*(volatile u32 *)&outflow->next += left;
		at += left;
		if (!read_front(skb, outflow, *(volatile u32 *)&outflow->offset + at, length - at,
				protocol))
			return false;
	}
	return true;
}

/* A payload was read, to its end or as far as possible. False if it is not known what it says. */
static __always_inline bool end_payload(struct outflow *outflow, u32 service)
{
	u32 said = outflow->said;

	outflow->said = 0;
	if (!outflow->sure && (outflow->left || outflow->have))
		outflow->begun = 0;
	if (outflow->begun)
		outflow->sure = 1;
	if (outflow->sure)
		heed_all(said, service);
	return outflow->begun;
}

/*
 * May a prefix void a service at once by a reply that may acknowledge something, or not? It may do
 * so DOUBTS_MAX times in UNREAD_SECONDS; the count is kept with the number of that period.
 */
static __always_inline bool may_void(const struct datagram *datagram, u32 service)
{
	struct payer source = prefix_of(datagram->client, service);
	u64 *spent = doubters.lookup(&source), round = seconds_in(now()) / UNREAD_SECONDS << 32;
	u64 first = round | 1;

	if (!spent || (*spent ^ round) >> 32) {
		doubters.update(&source, &first);
		return true;
	}
	if ((u32)*spent >= DOUBTS_MAX)
		return false;
	*spent += 1;
	return true;
}

/* It is not known where a payload's messages begin: one may be an acknowledgement. */
static __always_inline void void_doubtful(const struct datagram *datagram, u32 service)
{
	count_voider(datagram, service);
	if (may_void(datagram, service))
		void_cell(SLOTS + service, false);
	else
		void_unread(service);
}

/* A payload of the server's, new or sent again. True if a part of it is left for another run. */
static __always_inline bool see_messages(const struct datagram *datagram, struct bpf_sock *sk,
					 u32 service, u32 protocol)
{
	struct outflow *outflow = outflows.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!datagram->length)
		return false;
	if (outflow) {
		if (!outflow->begun || is_behind(datagram->sequence, outflow->next))
			begin_messages(outflow, datagram, sk);
		*(volatile u32 *)&outflow->offset = datagram->offset;
		*(volatile u32 *)&outflow->length = datagram->length;
		*(volatile u32 *)&outflow->first = datagram->sequence;
		if (read_messages(datagram->skb, outflow, protocol))
			return true;
	}
	if (!outflow || !end_payload(outflow, service)) {
		count_event(STREAM_LOST);
		void_doubtful(datagram, service);
	}
	return false;
}

#endif
