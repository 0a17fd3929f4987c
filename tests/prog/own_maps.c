/* SPDX-License-Identifier: GPL-2.0-only */
/* A filter with a map of each type and members of each kind, which accepts what begins with `P`. */
#include "filter.h"

enum colour {
	RED = 1,
	GREEN = 7,
};

enum flavour {
	SOUR = -1,
	SWEET = 0,
};

struct every {
	u64 big;
	s64 below;
	u32 middle;
	s16 small_below;
	u8 small;
	bool flag;
	__be16 port;
	__be16 other_port;
	__be32 order;
	enum colour colour;
	enum flavour flavour;
	ipv4_addr near;
	ipv6_addr far;
	struct address either;
	mac_addr station;
	u8 bytes[2];
	struct {
		u16 one;
		struct {
			u16 two;
		} deeper;
	} inner;
	u16 list[2];
	u32 low : 3, high : 29;
	char word[8];
	void *pointer;
	struct {
		u8 unnamed;
		u8 pad[7];
	};
	u64 _gap;
};

struct name {
	char text[256];
};

struct numbers {
	u64 requests;
	u32 bytes;
	u32 pad;
};

struct happened {
	struct address client;
	enum colour colour;
	u32 length;
	char text[COMMAND_ROOM];
};

BPF_TABLE("hash", struct every, struct numbers, counter_every, 64);
BPF_TABLE("lru_hash", struct name, u64, counter_names, 4096);
BPF_TABLE("percpu_hash", u32, u64, counter_each, 64);
BPF_TABLE("lru_percpu_hash", u32, struct numbers, counter_each_lru, 512);
BPF_PERCPU_ARRAY(counter_cells, u64, 4);
BPF_ARRAY(counter_long, u64, 1000);
BPF_TABLE("hash", enum flavour, s32, gauge_level, 8);
BPF_ARRAY(gauge_last, u64, 1);
BPF_TABLE("hash", u32, struct every, print_every, 64);
BPF_TABLE("percpu_array", u32, u64, print_cpus, 2);
BPF_TABLE("hash", u32, u64, own_state, 64);  /* of a kind that is not shown */
EVENTS(print_happened, struct happened, 1);

static __always_inline bool accepts(const struct command *command)
{
	struct happened happened = { command->source, GREEN, command->length };
	u64 none = 0;
	u32 first = command->text[0], cell = first & 3, only = 0;
	u64 *last = gauge_last.lookup(&only);
	struct numbers nothing = {}, *numbers;

	add(counter_each.lookup_or_try_init(&first, &none), 1);
	numbers = counter_each_lru.lookup_or_try_init(&first, &nothing);
	if (numbers) {
		add(&numbers->requests, 1);
		numbers->bytes += command->length;
	}
	add(counter_cells.lookup(&cell), 1);
	add(counter_long.lookup(&first), 1);
	add(own_state.lookup_or_try_init(&first, &none), 1);
	if (last)
		*last = command->length;
	add(print_cpus.lookup(&only), 1);
	__builtin_memcpy(happened.text, command->text, sizeof(happened.text));
	print_happened.ringbuf_output(&happened, sizeof(happened), 0);
	return first == 'P';
}

int own_maps(CONTEXT *context)
{
	return filter(context, accepts);
}
