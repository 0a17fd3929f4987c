/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps that every program shares. */
#ifndef CAROM_MAPS_H
#define CAROM_MAPS_H

#include "abi.h"
#include "parse.h"
#include "protocol.h"
#include "typed.h"

/* Replies to several keys, that are made one in the scratch. */
struct joined {
	u32 keys;    /* that were read; 0 if there is but one */
	u32 next;    /* where the next is in the text */
	u32 length;  /* of their replies, without the tail of the last */
};

/* Replies that a CPU may still give (pace.h). */
struct pace {
	u64 time;   /* jiffies, when it was last asked */
	u64 saved;  /* replies, times TICKS */
};

/*
 * A program's working memory, too large for its stack. Each CPU has one, for one program at a time.
 */
struct scratch {
	struct key key;
	struct joined joined;
	struct meta meta;
	struct request request;  /* for the next program; its pointers are invalid */
	u64 text_sum;            /* of the request's payload, which is in `text` */
	struct service service;
	struct bpf_fib_lookup route;
	struct pace pace;  /* it stays, from packet to packet; and so does the next */
	u32 until_shadow;  /* hits of this CPU until the next that goes up (shadow.h) */
	u32 voided;        /* 1: something was voided since the token of the last entry */
	u8 reply[2 * REPLY_ROOM + sizeof(u64)];
	u8 text[TEXT_ROOM + sizeof(u64)];
};

/* Lets one void at a time through. */
struct gate {
	struct bpf_spin_lock lock;
};

/* Sizes of 1 are the loader's to choose (daemon/store.py), and some others (daemon/fastpath.py). */
BPF_F_TABLE("array", u32, struct limits, store_limits, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct usage, store_usage, 1, BPF_F_MMAPABLE);
BPF_ARRAY(shelves, struct shelf, SIZES);
BPF_F_TABLE("array", u32, struct bucket, buckets, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct arena_page, chunk, CHUNK_PAGES, BPF_F_MMAPABLE);
BPF_ARRAY_OF_MAPS(chunks, "chunk", 1);                     /* the arena */
BPF_F_TABLE("array", u32, struct draft, drafts, 1, BPF_F_MMAPABLE);   /* RING for each service */
BPF_F_TABLE("array", u32, u64, drained, 1, BPF_F_MMAPABLE); /* drafts taken, by service */
BPF_F_TABLE("array", u32, u64, outcomes, 1, BPF_F_MMAPABLE); /* drafts, by service and enum stored */
BPF_F_TABLE("array", u32, u32, seen, 1, BPF_F_MMAPABLE);   /* hashes of keys that were missed */
BPF_ARRAY(recents, u64, 1);                                 /* new entries, in a ring */
BPF_RINGBUF_OUTPUT(wanted, 1);                             /* pages, where few are left */
BPF_F_TABLE("array", u32, u64, versions, SLOTS + SERVICES_MAX, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, voids, 1, BPF_F_MMAPABLE);  /* how many there were */
LOCKED_ARRAY(gates, struct gate, 1);
BPF_F_TABLE("array", u32, u64, lease, 1, BPF_F_MMAPABLE);  /* jiffies until which to answer */
BPF_F_TABLE("hash", struct endpoint, struct service, services, ENDPOINTS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct address, u8, own_addresses, ENDPOINTS_MAX, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", u32, u64, own_filter, OWN_BITS / 64, BPF_F_MMAPABLE);
/* For each port 16 bits: the index of its first place, or 0, and PORT_MORE. */
BPF_F_TABLE("array", u32, u64, ports, 65536 / 4, BPF_F_MMAPABLE);
BPF_ARRAY(places, struct place, PLACES_MAX);  /* and one for each CPU (place.h) */
BPF_F_TABLE("lpm_trie", struct prefix, u8, allowed, ENDPOINTS_MAX, BPF_F_NO_PREALLOC);
/* Room for twice what they hold: in a change the new ones come before the old ones go. */
BPF_F_TABLE("lpm_trie", struct way_prefix, struct way, ways, 2 * WAYS_MAX, BPF_F_NO_PREALLOC);
BPF_HASH(neighbours, struct neighbour, struct station, 2 * NEIGHBOURS_MAX);
BPF_ARRAY(budgets, struct budget, BUDGET_CELLS);           /* bytes, by the prefix' hash */
BPF_ARRAY(totals, struct budget, SERVICES_MAX);
BPF_ARRAY(responses, struct budget, BUDGET_CELLS);         /* replies, by the prefix' hash */
BPF_ARRAY(echoes, u32, BUDGET_CELLS);                      /* replies, by client and request */
/* First of packets that are no service's, then of each service: by hook, then by verdict. */
BPF_PERCPU_ARRAY(verdicts, u64, 2 * HOOKS * VERDICTS);
BPF_PERCPU_ARRAY(strays, struct stray, 1);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
/* Jiffies until which nothing may be filled. */
BPF_F_TABLE("array", u32, u64, holds, SLOTS + SERVICES_MAX, BPF_F_MMAPABLE);
#endif
