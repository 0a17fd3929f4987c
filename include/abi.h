/* SPDX-License-Identifier: GPL-2.0-only */
/* The one contract between kernel and userspace: limits, verdicts, keys, entries. abi.py mirrors it. */
#ifndef CAROM_ABI_H
#define CAROM_ABI_H

#define KEY_MAX 256         /* bytes of a key: the longest request that can be cached */
#define REPLY_MAX 1472      /* bytes of a reply: what an MTU of 1500 takes after IPv4 and UDP */
#define SLOTS 65536         /* cells of `versions` that keys hash to */
#define SERVICES_MAX 256    /* services; each has one more cell of `versions`, its generation */
#define TTL_FLOOR 32        /* a request with a smaller TTL passes, so that every loop ends */
#define SOURCE_PORT_MIN 1024 /* requests from a port below this are never answered */
#define FRAME_MIN 60        /* the shortest Ethernet frame without its FCS */

/* What was decided on a packet, and why. Each has one per-CPU counter. */
enum verdict {
	UNDECIDED = 0,       /* never counted: the packet is still on its way */
	BOUNCE = 1,          /* answered with the request's own payload */
	HIT = 2,             /* answered from the cache */
	MISS = 3,            /* could have been answered, but was not there */
	MISS_EXPIRED = 4,    /* there, but older than its TTL */
	MISS_VOID = 5,       /* there, but written or flushed since its token was taken */
	MISS_TORN = 6,       /* there, but replaced while it was read */
	PASS_TRUNCATED = 7,  /* a header is cut off by the end of the frame */
	PASS_ETHERTYPE = 8,  /* not IPv4 */
	PASS_VERSION = 9,    /* an IPv4 EtherType, but another version or a header under 20 bytes */
	PASS_OPTIONS = 10,   /* IPv4 options */
	PASS_FRAGMENT = 11,  /* a fragment, the first or a later one */
	PASS_PROTOCOL = 12,  /* not UDP */
	PASS_LENGTH = 13,    /* the lengths of frame, IPv4 and UDP disagree */
	PASS_SERVICE = 14,   /* no service at that address and port */
	PASS_MAC = 15,       /* a frame for another host, or for many */
	PASS_SOURCE = 16,    /* a source that is never answered: ours, multicast, a low or served port */
	PASS_TTL = 17,       /* TTL below TTL_FLOOR */
	PASS_OFF = 18,       /* the service's fast path is off */
	PASS_LEASE = 19,     /* the daemon's lease has run out */
	PASS_SIZE = 20,      /* a payload that cannot be a key, or is too long to bounce */
	PASS_CHECKSUM = 21,  /* the request's IPv4 or UDP checksum is wrong or ambiguous */
	PASS_ROOM = 22,      /* a hit, but the driver leaves no room for its reply, or the MTU none */
	FAULT = 23,          /* a helper failed where it cannot: dropped, never sent half-made */
	VERDICTS = 24,
};

/* What a service's requests are answered with. */
enum fast {
	FAST_OFF = 0,
	FAST_CACHE = 1,
	FAST_BOUNCE = 2,
};

struct endpoint {
	__be32 address;
	__be16 port;
	u16 zero;
};

struct service {
	u32 id;    /* below SERVICES_MAX; part of every key; its generation is versions[SLOTS + id] */
	u32 fast;  /* enum fast */
};

/* Facts of the interface that the program is attached to. */
struct interface {
	u8 mac[6];
	u16 mtu;       /* bytes of an IP packet */
	u32 skb_mode;  /* 1 where a hook sees skbs (generic XDP): half-made checksums stay half-made */
};

/* The zero bytes after `length` are part of the key: always cleared first. */
struct key {
	u16 service;
	u16 length;
	u8 bytes[KEY_MAX];
};

/*
 * A map update copies an entry from its first byte to its last. A reader that finds the same stamp
 * in `tail` (read first) and `head` (read last) has therefore read one entry and not parts of two.
 */
struct entry {
	u64 head;        /* unique to this fill */
	u64 expires;     /* jiffies */
	u64 token;       /* versions[slot] when the miss was taken */
	u64 generation;  /* versions[SLOTS + service] when the miss was taken */
	u32 slot;        /* the cell of `versions` that the key hashes to */
	u16 length;      /* of the reply */
	u16 sum;         /* one's-complement sum of the reply, folded, in memory order */
	struct key key;
	u32 zero;
	u8 reply[REPLY_MAX];  /* zero after `length` */
	u64 tail;        /* the same as head */
};

#endif
