/* SPDX-License-Identifier: GPL-2.0-only */
/* The contract between kernel and userspace: limits, verdicts, keys, entries. abi.py mirrors it. */
#ifndef CAROM_ABI_H
#define CAROM_ABI_H

#define KEY_MAX 260         /* bytes of a key */
#define KEY_SHORT 60        /* bytes of a key in the class that is cheap to hash */
#define RAW_MAX 256         /* bytes of a request whose whole payload is the key */
#define REPLY_MAX 1472      /* bytes of a reply: what an MTU of 1500 takes after IPv4 and UDP */
#define REPLY_MEDIUM 512    /* bytes of a reply in the class below that */
#define REPLY_SHORT 64      /* bytes of a reply that lies in its entry */
#define SLOTS 65536         /* cells of `versions` that keys hash to */
#define SERVICES_MAX 256    /* services; each has one more cell of `versions`, its generation */
#define ENDPOINTS_MAX 4096  /* addresses and ports of services, over all interfaces */
#define TTL_FLOOR 32        /* a request with a smaller TTL passes, so that every loop ends */
#define SOURCE_PORT_MIN 1024 /* requests from a port below this are never answered */
#define FRAME_MIN 60        /* the shortest Ethernet frame without its FCS */
#define PENDING_MAX 65536   /* requests on their way through servers */
#define PENDING_SECONDS 10  /* a reply comes that soon, or its token is not used again */
#define HOLD_MS 500         /* after a write that asks for no acknowledgement nothing is filled */
#define STREAM_CELLS 16     /* writes of a TCP connection that may be without acknowledgement */
#define STREAM_LINE_MAX 256 /* bytes of an unfinished line that are kept for its rest */
#define STREAMS_MAX 16384   /* TCP connections that are followed at once */
#define HANDED_OVER 0x6d6f7263 /* packet metadata: XDP leaves this hit to TC ingress */

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
	PASS_ETHERTYPE = 8,  /* neither IPv4 nor IPv6, or behind more than two VLAN tags */
	PASS_VERSION = 9,    /* a version that its EtherType belies, or an IPv4 header under 20 bytes */
	PASS_OPTIONS = 10,   /* IPv4 options or IPv6 extension headers */
	PASS_FRAGMENT = 11,  /* a fragment, the first or a later one */
	PASS_PROTOCOL = 12,  /* not UDP */
	PASS_LENGTH = 13,    /* the lengths of frame, IP and UDP disagree, or many datagrams in one */
	PASS_SERVICE = 14,   /* no service at that address and port */
	PASS_MAC = 15,       /* a frame for another host, or for many */
	PASS_SOURCE = 16,    /* a source that is never answered: ours, multicast, a low or served port */
	PASS_TTL = 17,       /* TTL or hop limit below TTL_FLOOR */
	PASS_OFF = 18,       /* the service's fast path is off */
	PASS_LEASE = 19,     /* the daemon's lease has run out */
	PASS_SIZE = 20,      /* a payload that cannot be a key, or is too long to bounce */
	PASS_CHECKSUM = 21,  /* the request's IPv4 or UDP checksum is wrong, ambiguous or missing */
	PASS_ROOM = 22,      /* a hit, but the driver leaves no room for its reply, or the MTU none */
	FAULT = 23,          /* a helper failed where it cannot: dropped, never sent half-made */
	PASS_TO_TC = 24,     /* a hit that XDP has no room for, left to TC ingress */
	PASS_AMPLIFY = 25,   /* a hit whose reply is too large a multiple of its request */
	PASS_REQUEST = 26,   /* a request that its protocol does not answer from a cache */
	PASS_WRITE = 27,     /* a write: what it changes is void */
	PASS_ALLOW = 28,     /* a source that the allow-list does not name */
	PASS_RATE = 29,      /* a hit beyond the bytes a second that its source or its service may have */
	VERDICTS = 30,
};

/* Where a verdict is given: each has its own counters. */
enum hook {
	XDP = 0,
	TC = 1,
	HOOKS = 2,
};

/* What a service's requests are answered with. */
enum fast {
	FAST_OFF = 0,
	FAST_CACHE = 1,
	FAST_BOUNCE = 2,
};

enum protocol {
	RAW = 0,
	KV = 1,
	MEMCACHED = 2,
	DNS = 3,
};

/* IPv4 addresses stand as IPv6 has them: ::ffff:a.b.c.d. */
struct address {
	__be32 words[4];
};

/* Where a service is answered. VLAN ids are 0 for no tag; `ifindex` is the interface's own. */
struct endpoint {
	struct address address;
	u32 ifindex;
	u16 outer;
	u16 inner;
	__be16 port;
	u16 zero;
};

/* The service there, and the facts of the interface that an answer needs. */
struct service {
	u32 id;          /* below SERVICES_MAX; part of every key; generation: versions[SLOTS + id] */
	u8 fast;         /* enum fast */
	u8 protocol;     /* enum protocol */
	u8 skb_mode;     /* 1 where XDP is generic: half-made checksums stay half-made */
	u8 second_tier;  /* 1 where TC ingress serves what XDP has no room for */
	u8 mac[6];
	u16 mtu;         /* bytes of an IP packet */
	u32 multiple;    /* the longest reply, in payloads of its request; 0: any */
	u32 allow_list;  /* 1: only sources in `allowed` are answered */
	u32 learn;       /* 1: misses leave a token, with which the server's reply fills */
	u64 prefix_rate; /* bytes of replies a second to one source prefix; 0: any */
	u64 total_rate;  /* the same to all sources */
};

/* A service as it is known at the socket's edge, by its port: addresses may be translated there. */
struct watch {
	u32 service;   /* its id */
	u32 protocol;  /* enum protocol */
	u32 ttl;       /* seconds that a learned reply lives at most */
	u32 zero;
	u64 netns;     /* only this network namespace's replies are learned, by its cookie; 0: any */
};

/* One request on its way through a server: of this client, this service, with its own id. */
struct asked {
	struct address client;
	u64 key_hash;  /* of the key that it reads; 0 for a write */
	u32 id;
	__be16 port;
	u16 service;
};

/* What such a request left behind, until the server's reply comes down. */
struct pending {
	u64 token;        /* versions[slot] when the first was taken */
	u64 generation;
	u64 since;        /* jiffies */
	u32 slot;         /* SLOTS + service for a write that may have changed anything */
	u32 outstanding;  /* requests without a reply: they share the oldest token */
};

/*
 * A TCP connection to a service, from its first byte on: how far its commands were read, and which
 * cells its last writes void. Of the counts only the last 32 bits are kept.
 */
struct stream {
	u32 inside;    /* programs that read a segment of it: one, or it is lost */
	u32 next;      /* sequence number of the client's next byte */
	u32 skip;      /* bytes of a value still to come, its line's end with them */
	u16 held;      /* bytes in `line` */
	u8 lost;       /* not understood: it may write anything from here on */
	u8 in_line;    /* within a line that writes nothing, however it ends */
	u32 asked;     /* writes that are to be acknowledged */
	u32 answered;  /* how many of them are, by what the server sent */
	u32 writes;    /* of all kinds; the cells of the last are in `cells` */
	u32 cells[STREAM_CELLS];
	u8 dialect;    /* of its protocol's own, 0 until something was read */
	u8 zero[3];
	u8 line[STREAM_LINE_MAX];
};

/* What happened at the socket's edge. Each has one per-CPU counter. */
enum event {
	LEARNED = 0,        /* a reply filled the cache */
	UNASKED = 1,        /* a reply that could be kept, but no token waits for it */
	UNLEARNABLE = 2,    /* a reply that its protocol does not keep */
	FULL = 3,           /* a reply that the cache had no room for */
	WRITE_SEEN = 4,     /* a write: its key is void */
	WRITE_ALL_SEEN = 5, /* a write that may have changed anything: the service's generation rose */
	WRITE_DONE = 6,     /* the acknowledgement of a write: void once more */
	STREAM_LOST = 7,    /* bytes of a TCP connection that may write anything: the same as above */
	EDGE_BUSY = 8,      /* a program came upon another one's scratch memory, and took the safe way */
	NOT_ADMITTED = 9,   /* a reply to a key that was not missed before, where the cache is full */
	EVENTS = 10,
};

/* Whose replies are counted together: a service's to an IPv4 /24 or an IPv6 /64; or all of them. */
struct payer {
	__be32 words[2];  /* of the source: IPv6's first half, or 0 and three bytes of IPv4 */
	u16 service;
	u16 ipv4;         /* 1 for IPv4, 2 for all sources */
};

/* What was spent in one second: bytes of replies, say. */
struct budget {
	u64 second;
	u64 spent;
};

struct prefix {
	u32 length;  /* bits */
	struct address address;
};

/* The zero bytes after `length` are part of the key: always cleared first. */
struct key {
	u16 service;
	u16 length;
	u8 bytes[KEY_MAX];
};

struct short_key {
	u16 service;
	u16 length;
	u8 bytes[KEY_SHORT];
};

/* What is known of a stored reply. */
struct meta {
	u64 head;        /* unique to this fill */
	u64 expires;     /* jiffies */
	u64 filled;      /* jiffies */
	u64 token;       /* versions[slot] when the miss was taken */
	u64 generation;  /* versions[SLOTS + service] when the miss was taken */
	u64 body;        /* the reply's key in its class's map, if it is longer than REPLY_SHORT */
	u32 slot;        /* the cell of `versions` that the key hashes to */
	u16 length;      /* of the reply */
	u16 stored;      /* the same, and what the protocol keeps behind it */
	u16 sum;         /* one's-complement sum of the reply, folded, in memory order */
	u16 zero[3];
};

/*
 * Entries come in two classes by the length of their key, so that a miss is one look-up of a short
 * key; longer replies lie in maps of their own, by the length class of the reply. All are zero
 * behind what they hold.
 *
 * A map update copies a value from one end to the other. A reader that finds the same stamp at both
 * ends, before it copies and after, has therefore read one value and not parts of two; an entry and
 * its reply belong together when they have one stamp (docs/consistency.md).
 */
struct short_entry {
	struct meta meta;
	struct short_key key;
	u8 reply[REPLY_SHORT];
	u64 tail;
};

struct long_entry {
	struct meta meta;
	struct key key;
	u8 reply[REPLY_SHORT];
	u64 tail;
};

struct medium_reply {
	u64 head;
	u8 bytes[REPLY_MEDIUM];
	u64 tail;
};

struct long_reply {
	u64 head;
	u8 bytes[REPLY_MAX];
	u64 tail;
};

#endif
