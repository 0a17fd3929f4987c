/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all filters share: reading a request's first bytes at XDP, at TC and at the server's socket,
 * the counters, the captures, and accepting or rejecting a request. A filter is one C file: a
 * predicate on `struct command`, and a program that calls filter() with it. PLACE says where it
 * runs.
 *
 * At XDP and TC, whatever is not a whole UDP datagram to one of `filtered` passes unseen: the
 * server checks every request again.
 */
#ifndef CAROM_FILTER_H
#define CAROM_FILTER_H

#include "abi.h"
#include "bounded.h"
#include "budget.h"
#include "clock.h"
#include "hook.h"
#include "kv.h"
#include "parse.h"

#define COMMAND_ROOM 16   /* the longest command has 15 bytes */
#define CAPTURE_MAX 500   /* bytes of a packet that are captured */
#define CAPTURE_ROOM 512

/* The values of PLACE. Beside those of enum hook, as the preprocessor needs numbers. */
#define AT_XDP 0
#define AT_TC 1
#define AT_SOCKET 2
#ifndef PLACE
#define PLACE AT_XDP
#endif

/* What can be changed while a filter runs: cells of `settings`. */
enum setting {
	SETTING_ACCEPT = 0,       /* parameterized: 1 accepts, 0 rejects */
	SETTING_RATE = 1,         /* limited-puts: PUTs a second; 0: any */
	SETTING_CLIENT_RATE = 2,  /* the same to one address */
	SETTING_TTL_FLOOR = 3,    /* at the socket: requests with a smaller TTL are dropped */
	SETTING_LEARN_UNTIL = 4,  /* existing-key: jiffies until which nothing is rejected */
	SETTING_OVERFLOWN = 5,    /* existing-key: 1: too many keys, it accepts everything */
	SETTING_CAPTURE_UNTIL = 6, /* jiffies until which packets are captured */
	SETTING_CAPTURE_RATE = 7, /* captures a second */
	SETTINGS = 8,
};

/* Counters; a request is valid when the key-value server would understand it. */
enum tally {
	INVALID_REJECTED = 0,
	INVALID_ACCEPTED = 1,
	VALID_REJECTED = 2,
	VALID_ACCEPTED = 3,
	CAPTURE_LOST = 4,  /* beyond the rate, or the ring buffer is full */
	TALLIES = 5,
};

/* The beginning of a request, with zeros behind it. */
struct command {
	struct address source;
	u32 length;  /* bytes of the whole request */
	u8 text[COMMAND_ROOM];
};

/* A packet as it came, from its Ethernet header on; at the socket, from its IP header on. */
struct capture {
	u64 nanoseconds;  /* CLOCK_MONOTONIC */
	u32 length;       /* of the packet */
	u16 captured;
	u8 hook;
	u8 tally;
	u8 bytes[CAPTURE_ROOM];
};

struct filtered {
	u8 mac[8];
};

typedef bool predicate(const struct command *command);

/* How userspace shows a member of a map of these types; `struct address` is an address of either IP. */
typedef __be32 ipv4_addr;
typedef u8 ipv6_addr[16];
typedef u8 mac_addr[6];

/* A ring buffer of so many pages, a power of two, for records of one type: userspace finds it by
 * the struct's name. */
#define EVENTS(name, type, pages)                                                                \
	BPF_RINGBUF_OUTPUT(name, pages);                                                         \
	struct ____btf_map_##name {                                                              \
		u32 key;                                                                         \
		type value;                                                                      \
	};                                                                                       \
	struct ____btf_map_##name __attribute__((section(".maps." #name), used))                 \
		____btf_map_##name = {}

BPF_F_TABLE("hash", struct endpoint, struct filtered, filtered, ENDPOINTS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", u32, u64, settings, SETTINGS, BPF_F_MMAPABLE);
BPF_PERCPU_ARRAY(tallies, u64, TALLIES);
BPF_ARRAY(capture_budget, struct budget, 1);
BPF_RINGBUF_OUTPUT(captures, 64);
#if PLACE != AT_SOCKET
BPF_PROG_ARRAY(accepted, 1);  /* where an accepted request goes on: the fast path */
#endif

static __always_inline u64 setting(u32 which)
{
	u64 *cell = settings.lookup(&which);

	return cell ? *(volatile u64 *)cell : 0;
}

static __always_inline void tally(u32 which)
{
	u64 *counter = tallies.lookup(&which);

	if (counter)
		*counter += 1;
}

/* Add to a map's number, which may not be there. */
static __always_inline void add(u64 *number, u64 amount)
{
	if (number)
		__sync_fetch_and_add(number, amount);
}

enum word {
	NO_WORD,
	WORD_PUT,
	WORD_GET,
	WORD_DELETE,
	WORD_STOP,
};

/* The command that a request begins with. */
static __always_inline enum word word_of(const struct command *command)
{
	const u8 *text = command->text;

	if (text[0] == 'P' && text[1] == 'U' && text[2] == 'T')
		return WORD_PUT;
	if (text[0] == 'G' && text[1] == 'E' && text[2] == 'T')
		return WORD_GET;
	if (text[0] == 'D' && text[1] == 'E' && text[2] == 'L' && text[3] == 'E' &&
	    text[4] == 'T' && text[5] == 'E')
		return WORD_DELETE;
	if (text[0] == 'S' && text[1] == 'T' && text[2] == 'O' && text[3] == 'P')
		return WORD_STOP;
	return NO_WORD;
}

static __always_inline bool has_exact_length(const struct command *command, enum word word)
{
	switch (word) {
	case WORD_PUT:
		return command->length == KV_PUT_SIZE;
	case WORD_GET:
		return command->length == KV_GET_SIZE;
	case WORD_DELETE:
		return command->length == KV_DELETE_SIZE;
	case WORD_STOP:
		return command->length == KV_STOP_SIZE;
	default:
		return false;
	}
}

/* Eight bytes as a little-endian number, so that clang computes with it and does not index. */
static __always_inline u64 number_at(const u8 *bytes)
{
	u64 number = 0;

#pragma unroll
	for (int i = 7; i >= 0; i--)
		number = number << 8 | bytes[i];
	return number;
}

/* What stands behind the word. */
static __always_inline u64 behind_word(const struct command *command, enum word word)
{
	u64 head = number_at(command->text), tail = number_at(command->text + 8);

	if (word == WORD_DELETE)
		return head >> 48 | tail << 16;
	if (word == WORD_STOP)
		return head >> 32 | tail << 32;
	return head >> 24 | tail << 40;
}

/* The word ends where its letters do: `PUTT` is none, whatever the request's length. */
static __always_inline bool is_valid(const struct command *command)
{
	enum word word = word_of(command);

	return has_exact_length(command, word) && !kv_is_letter(behind_word(command, word));
}

/* The request of a packet to one of `filtered`; false for any other packet. */
static __always_inline bool read_packet(const struct packet *packet, struct command *command)
{
	struct request request = {};
	struct endpoint endpoint = {};
	struct filtered *service;

	if (parse_request(packet, &request, SHAPE_ANY))
		return false;
	locate_endpoint(packet, &request, &endpoint);
	service = filtered.lookup(&endpoint);
	if (!service || to_mapped_address(&request) ||
	    !same_mac(request.eth->h_dest, service->mac))
		return false;
	command->source = source_of(&request);
	command->length = request.length;
	if (!request.length)
		return true;
	return !packet_load(packet, headers_length(&request), command->text,
			    bounded(request.length < COMMAND_ROOM ? request.length : COMMAND_ROOM,
				    COMMAND_ROOM));
}

/* The headers, which a UDP socket's filter has to find itself: its packets begin with UDP's. */
struct datagram {
	u32 ttl;
	u32 network;  /* bytes of the IP header; of IPv6 without extension headers */
};

static __always_inline bool read_datagram(struct __sk_buff *skb, struct command *command,
					  struct datagram *datagram)
{
	u8 header[24] = {};
	__be32 source;

	if (bpf_skb_load_bytes_relative(skb, 0, header, sizeof(struct iphdr), BPF_HDR_START_NET))
		return false;
	if (header[0] >> 4 == 4) {
		datagram->ttl = header[8];
		datagram->network = (header[0] & 15) * 4;
		__builtin_memcpy(&source, header + 12, sizeof(source));
		command->source = mapped_address(source);
	} else {
		if (bpf_skb_load_bytes_relative(skb, 0, header, sizeof(header), BPF_HDR_START_NET))
			return false;
		datagram->ttl = header[7];
		datagram->network = sizeof(struct ipv6hdr);
		__builtin_memcpy(&command->source, header + 8, sizeof(command->source));
	}
	if (skb->len < sizeof(struct udphdr))
		return false;
	command->length = skb->len - sizeof(struct udphdr);
	if (!command->length)
		return true;
	return !bpf_skb_load_bytes(skb, sizeof(struct udphdr), command->text,
				   bounded(command->length < COMMAND_ROOM ? command->length
									  : COMMAND_ROOM,
					   COMMAND_ROOM));
}

static __always_inline bool wants_capture(void)
{
	u64 until = setting(SETTING_CAPTURE_UNTIL);

	return until && now() < until;
}

/* Room for a capture; NULL if there is none, which is counted. The packet never waits. */
static __always_inline struct capture *new_capture(u32 hook, u32 kind, u32 length)
{
	struct capture *capture = NULL;
	struct budget *budget;
	u32 only = 0;

	budget = capture_budget.lookup(&only);
	if (budget && within(budget, setting(SETTING_CAPTURE_RATE), 1))
		capture = captures.ringbuf_reserve(sizeof(struct capture));
	if (!capture) {
		tally(CAPTURE_LOST);
		return NULL;
	}
	capture->nanoseconds = bpf_ktime_get_ns();
	capture->length = length;
	capture->captured = length < CAPTURE_MAX ? length : CAPTURE_MAX;
	capture->hook = hook;
	capture->tally = kind;
	return capture;
}

static __always_inline void capture_packet(const struct packet *packet, u32 kind)
{
	u32 length = packet_length(packet);
	struct capture *capture = new_capture(packet->hook, kind, length);

	if (!capture)
		return;
	if (packet_load(packet, 0, capture->bytes,
			bounded(length < CAPTURE_MAX ? length : CAPTURE_MAX, CAPTURE_ROOM)))
		captures.ringbuf_discard(capture, 0);
	else
		captures.ringbuf_submit(capture, 0);
}

static __always_inline void capture_datagram(struct __sk_buff *skb, u32 kind, u32 network)
{
	u32 length = network + skb->len;
	struct capture *capture = new_capture(AT_SOCKET, kind, length);

	if (!capture)
		return;
	if (bpf_skb_load_bytes_relative(skb, 0, capture->bytes,
					bounded(length < CAPTURE_MAX ? length : CAPTURE_MAX,
						CAPTURE_ROOM),
					BPF_HDR_START_NET))
		captures.ringbuf_discard(capture, 0);
	else
		captures.ringbuf_submit(capture, 0);
}

static __always_inline u32 judge(const struct command *command, predicate *accepts)
{
	u32 kind = is_valid(command) ? VALID_REJECTED : INVALID_REJECTED;

	if (accepts(command))
		kind += 1;
	tally(kind);
	return kind;
}

static __always_inline bool is_accepted(u32 kind)
{
	return kind & 1;
}

static __always_inline bool passes(const struct packet *packet, predicate *accepts)
{
	struct command command = {};
	u32 kind;

	if (!read_packet(packet, &command))
		return true;
	kind = judge(&command, accepts);
	if (wants_capture())
		capture_packet(packet, kind);
	return is_accepted(kind);
}

#if PLACE == AT_XDP

#define CONTEXT struct xdp_md

static __always_inline int filter(CONTEXT *context, predicate *accepts)
{
	struct packet packet = { context, XDP };

	if (!passes(&packet, accepts))
		return XDP_DROP;
	accepted.call(context, 0);
	return XDP_PASS;
}

#elif PLACE == AT_TC

#define CONTEXT struct __sk_buff

static __always_inline int filter(CONTEXT *skb, predicate *accepts)
{
	struct packet packet = { skb, TC };

	pull_headers(skb);
	if (!passes(&packet, accepts))
		return TC_ACT_SHOT;
	accepted.call(skb, 0);
	return TC_ACT_UNSPEC;
}

#else

#define CONTEXT struct __sk_buff

/* How much of the packet the socket gets: all, or nothing. */
static __always_inline int filter(CONTEXT *skb, predicate *accepts)
{
	struct command command = {};
	struct datagram datagram = {};
	u32 kind;

	if (!read_datagram(skb, &command, &datagram) ||
	    datagram.ttl < setting(SETTING_TTL_FLOOR))
		return 0;
	kind = judge(&command, accepts);
	if (wants_capture())
		capture_datagram(skb, kind, datagram.network);
	return is_accepted(kind) ? skb->len : 0;
}

#endif

#endif
