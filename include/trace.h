/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `carom trace`: packets with their verdicts, handed to userspace. Its programs are the attached ones once
 * more, loaded with `noted` as NOTED_TRACED and put in their place while somebody looks on. One more program
 * before them keeps the packet as it came, and one behind them makes the sample. In the others the verifier has
 * removed all of this.
 */
#ifndef CAROM_TRACE_H
#define CAROM_TRACE_H

#include "abi.h"
#include "bounded.h"
#include "checksum.h"
#include "clock.h"
#include "hook.h"
#include "maps.h"
#include "walk.h"

#define HEAD_ROOM 128  /* bytes that are looked at: Ethernet, two tags, IPv4 with all options, ports */
#define ANSWERED (1ull << BOUNCE | 1ull << HIT | 1ull << SLIP)

/* Of each CPU: whose turn it is, what was left out, and the sample that is being made. */
struct sampler {
	u64 limited;  /* samples left out, as there were as many in this moment as there may be */
	u64 lost;     /* the same, as userspace has not read those before */
	u64 moment;   /* a tenth of a second, in which there may be so many more as `left` says */
	u32 left;
	u32 until;    /* packets that are asked for until the next of which there is a sample */
	u32 wanted;   /* 1: this packet is asked for, by what is in its headers */
	u32 zero;
	u8 head[HEAD_ROOM + 8];
	struct sample sample;
};

BPF_ARRAY(tracings, struct tracing, 1);
BPF_PERCPU_ARRAY(samplers, struct sampler, 1);
BPF_RINGBUF_OUTPUT(samples, 1);  /* the loader makes it larger where somebody looks on */

/* Keep the packet's first bytes; how many there are. */
static __always_inline u32 keep_bytes(const struct packet *packet, u8 *to, u32 most)
{
	u32 length = packet_length(packet);

	if (length > most)
		length = most;
	if (!length || length > SNAP_MAX)
		return 0;
	return packet_load(packet, 0, to, bounded(length, SNAP_MAX)) ? 0 : length;
}

/* Are address and port, at these places of the headers, those that are asked for? */
static __always_inline bool is_from_to(const struct tracing *tracing, const u8 *address,
				       const u8 *port, const bool ipv6)
{
	struct address from = { { 0, 0, htonl(0xffff), 0 } };

	if (ipv6)
		__builtin_memcpy(&from, address, sizeof(from));
	else
		__builtin_memcpy(&from.words[3], address, sizeof(from.words[3]));
#pragma unroll
	for (int n = 0; n < 4; n++)
		if ((from.words[n] ^ tracing->from.words[n]) & tracing->mask.words[n])
			return false;
	return !tracing->port || (port[0] << 8 | port[1]) == tracing->port;
}

/* The same for the packet. One without a port that can be read is not asked for by its port. */
static __always_inline bool is_asked_for(const struct packet *packet,
					 const struct tracing *tracing, u8 *head)
{
	u32 length = packet_length(packet), at = 12, inside = 0;
	bool ipv6 = false;
	const u8 *port;

	if (!tracing->port && !tracing->by_source)
		return true;
	__builtin_memset(head, 0, HEAD_ROOM);
	if (length > HEAD_ROOM)
		length = HEAD_ROOM;
	if (!length || packet_load(packet, 0, head, bounded(length, HEAD_ROOM)))
		return false;
#pragma unroll
	for (int n = 0; n < 2; n++)
		if ((head[at] == 0x81 && !head[at + 1]) || (head[at] == 0x88 && head[at + 1] == 0xa8))
			at += 4;
	at = bounded(at, 32);
	if (head[at] == 0x86 && head[at + 1] == 0xdd)
		ipv6 = true;
	else if (head[at] != 0x08 || head[at + 1])
		return false;
	if (ipv6 && head[at + 8] == IPPROTO_UDP)
		inside = at + 42;
	if (!ipv6 && head[at + 11] == IPPROTO_UDP && !(head[at + 8] & 0x1f) && !head[at + 9])
		inside = at + 2 + (head[at + 2] & 15) * 4;
	if (!inside && tracing->port)
		return false;
	port = head + bounded(inside, HEAD_ROOM) + 2;
	return ipv6 ? is_from_to(tracing, head + at + 10, port, true)
		    : is_from_to(tracing, head + at + 14, port, false);
}

/* A packet comes: if there is to be a sample of it, keep it as it is, for a reply is written over it. */
static __always_inline void trace_packet(const struct packet *packet)
{
	u32 only = 0;
	struct sampler *sampler = samplers.lookup(&only);
	struct tracing *tracing = tracings.lookup(&only);
	struct scratch *scratch = scratches.lookup(&only);
	u64 moment = seconds_in(now() * 10);

	if (!sampler || !tracing || !scratch)
		return;
	scratch->key.length = 0;
	sampler->sample.came = 0;
	sampler->wanted = is_asked_for(packet, tracing, sampler->head);
	if (sampler->moment != moment) {
		sampler->moment = moment;
		sampler->left = tracing->a_moment;
	}
	if (sampler->wanted && sampler->left && sampler->until <= 1 && tracing->verdicts & ANSWERED)
		sampler->sample.came = keep_bytes(packet, sampler->sample.bytes, tracing->snap);
	sampler->sample.came_length = packet_length(packet);
}

/* Hand out a sample, if it is this packet's turn. */
static __always_inline void hand_sample(const struct packet *packet, enum verdict verdict,
					u32 place)
{
	u32 only = 0, came, sent = 0, size;
	struct sampler *sampler = samplers.lookup(&only);
	struct tracing *tracing = tracings.lookup(&only);
	struct scratch *scratch = scratches.lookup(&only);
	struct sample *sample;

	if (!sampler || !tracing || !scratch || !sampler->wanted ||
	    !(tracing->verdicts >> verdict & 1))
		return;
	if (sampler->until > 1) {
		sampler->until -= 1;
		return;
	}
	sampler->until = tracing->one_in;
	if (!sampler->left) {
		sampler->limited += 1;
		return;
	}
	sampler->left -= 1;
	sample = &sampler->sample;
	came = sample->came;
	if (!came)
		came = keep_bytes(packet, sample->bytes, tracing->snap);
	if (!came || came > SNAP_MAX)
		return;
	came = bounded(came, SNAP_MAX);
	if (1ull << verdict & ANSWERED)
		sent = keep_bytes(packet, sample->bytes + came, tracing->snap);
	sample->time = bpf_ktime_get_ns();
	sample->ifindex = packet_ifindex(packet);
	sample->tag = 0;
	if (packet->hook == TC) {
		struct __sk_buff *skb = packet->context;

		if (skb->vlan_present)
			sample->tag = ntohs(skb->vlan_proto) << 16 | (skb->vlan_tci & 0xffff);
	}
	sample->came = came;
	sample->sent = sent;
	sample->sent_length = sent ? packet_length(packet) : 0;
	sample->hook = packet->hook;
	sample->verdict = verdict;
	sample->place = place;
	sample->key = scratch->key;
	size = offsetof(struct sample, bytes) + bounded(came + sent, 2 * SNAP_MAX);
	if (samples.ringbuf_output(sample, size, BPF_RB_NO_WAKEUP))  /* userspace looks by itself */
		sampler->lost += 1;
}

#endif
