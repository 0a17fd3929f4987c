/* SPDX-License-Identifier: GPL-2.0-only */
/* clients: accepts valid commands, and tells who asks for what, how long, and what was refused. */
#include "filter.h"

struct asked {
	struct address network;  /* IPv4's /24, IPv6's /64 */
	char first[4];           /* the request's first byte; the rest is zero */
};

struct amount {
	u64 requests;
	u64 bytes;
};

struct refusal {
	struct address client;
	u32 length;
	char text[COMMAND_ROOM];
};

BPF_TABLE("lru_hash", struct asked, struct amount, counter_asked, 10000);
BPF_PERCPU_ARRAY(counter_sizes, u64, 12);  /* by the length's bits: 3 is 4 to 7 bytes */
BPF_ARRAY(gauge_longest, u32, 1);
EVENTS(print_refused, struct refusal, 16);

static __always_inline struct address network_of(struct address address)
{
	if (!(address.words[0] | address.words[1]) && address.words[2] == htonl(0xffff))
		address.words[3] &= htonl(0xffffff00);
	else
		address.words[2] = address.words[3] = 0;
	return address;
}

static __always_inline u32 bits_of(u32 length)
{
	u32 bits = 0;

#pragma unroll
	for (int step = 0; step < 11; step++)
		bits += length >> step != 0;
	return bits;
}

static __always_inline void count(const struct command *command)
{
	struct asked asked = { network_of(command->source) };
	struct amount none = {}, *amount;
	u32 bits = bits_of(command->length), only = 0, *longest;

	asked.first[0] = command->text[0];
	amount = counter_asked.lookup_or_try_init(&asked, &none);
	if (amount) {
		add(&amount->requests, 1);
		add(&amount->bytes, command->length);
	}
	add(counter_sizes.lookup(&bits), 1);
	longest = gauge_longest.lookup(&only);
	if (longest && *longest < command->length)
		*longest = command->length;
}

static __always_inline bool accepts(const struct command *command)
{
	struct refusal refusal = { command->source, command->length };

	count(command);
	if (is_valid(command))
		return true;
	__builtin_memcpy(refusal.text, command->text, sizeof(refusal.text));
	print_refused.ringbuf_output(&refusal, sizeof(refusal), 0);
	return false;
}

int clients(CONTEXT *context)
{
	return filter(context, accepts);
}
