/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps that every program shares. */
#ifndef CAROM_MAPS_H
#define CAROM_MAPS_H

#include "abi.h"
#include "parse.h"
#include "protocol.h"
#include "typed.h"

#ifndef CACHE_TYPE
#define CACHE_TYPE "lru_hash"
#endif
#ifndef CAPACITY
#define CAPACITY 10000
#endif
/* Room for what userspace puts there; it asks for more if this host has more. */
#ifndef OWN_ROOM
#define OWN_ROOM ENDPOINTS_MAX
#endif
#ifndef COUNTED
#define COUNTED 1  /* services with counters of their own, from id 0 on */
#endif
#ifndef PREFIX_ROOM
#define PREFIX_ROOM ENDPOINTS_MAX
#endif

/*
 * A program's working memory, too large for its stack. Each CPU has one, for one program at a time.
 */
struct scratch {
	struct key key;
	union {
		struct short_entry short_entry;
		struct long_entry long_entry;
		struct meta meta;
	};
	struct request request;  /* for the next program; its pointers are invalid */
	struct service service;
	struct bpf_fib_lookup route;
	u64 reply_head;
	u8 reply[REPLY_ROOM + sizeof(u64)];
	u8 text[TEXT_ROOM + sizeof(u64)];
};

/* Lets one void at a time through. */
struct gate {
	struct bpf_spin_lock lock;
};

BPF_TABLE(CACHE_TYPE, struct short_key, struct short_entry, short_entries, CAPACITY);
BPF_TABLE(CACHE_TYPE, struct key, struct long_entry, long_entries, CAPACITY);
BPF_TABLE(CACHE_TYPE, u64, struct medium_reply, medium_replies, CAPACITY);
BPF_TABLE(CACHE_TYPE, u64, struct long_reply, long_replies, CAPACITY);
BPF_F_TABLE("array", u32, u64, versions, SLOTS + SERVICES_MAX, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, voids, 1, BPF_F_MMAPABLE);  /* how many there were */
LOCKED_ARRAY(gates, struct gate, 1);
BPF_F_TABLE("array", u32, u64, lease, 1, BPF_F_MMAPABLE);  /* jiffies until which to answer */
BPF_F_TABLE("hash", struct endpoint, struct service, services, ENDPOINT_ROOM, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct address, u8, own_addresses, OWN_ROOM, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", u32, u64, own_filter, OWN_BITS / 64, BPF_F_MMAPABLE);
/* For each port 16 bits: the index of its first place, or 0, and PORT_MORE. */
BPF_F_TABLE("array", u32, u64, ports, 65536 / 4, BPF_F_MMAPABLE);
BPF_ARRAY(places, struct place, PLACES_MAX);
BPF_F_TABLE("lpm_trie", struct prefix, u8, allowed, PREFIX_ROOM, BPF_F_NO_PREALLOC);
/* Room for twice what they hold: in a change the new ones come before the old ones go. */
BPF_F_TABLE("lpm_trie", struct way_prefix, struct way, ways, 2 * WAYS_MAX, BPF_F_NO_PREALLOC);
BPF_HASH(neighbours, struct neighbour, struct station, 2 * NEIGHBOURS_MAX);
BPF_ARRAY(budgets, struct budget, BUDGET_CELLS);           /* bytes, by the prefix' hash */
BPF_ARRAY(totals, struct budget, SERVICES_MAX);
BPF_ARRAY(responses, struct budget, BUDGET_CELLS);         /* replies, by the prefix' hash */
BPF_ARRAY(echoes, u32, BUDGET_CELLS);                      /* replies, by client and request */
/* First of packets that are no service's, then of each service: by hook, then by verdict. */
BPF_PERCPU_ARRAY(verdicts, u64, (1 + COUNTED) * HOOKS * VERDICTS);
BPF_PERCPU_ARRAY(strays, struct stray, 1);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
/* Jiffies until which nothing may be filled. */
BPF_F_TABLE("array", u32, u64, holds, SLOTS + SERVICES_MAX, BPF_F_MMAPABLE);
#ifdef SEEN
BPF_F_TABLE("array", u32, u64, seen, SEEN, BPF_F_MMAPABLE);  /* hashes of keys that were missed */
BPF_F_TABLE("array", u32, u64, room, 1, BPF_F_MMAPABLE);     /* places that are free */
#endif

#endif
