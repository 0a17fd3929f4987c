/* SPDX-License-Identifier: GPL-2.0-only */
/* The contract between kernel and userspace: limits, verdicts, keys, entries. abi.py mirrors it. */
#ifndef CAROM_ABI_H
#define CAROM_ABI_H

/*
 * By BCC, inlined functions get no debug information: it would take a fifth of the time, and the
 * verifier's log cannot name their lines in any case.
 */
#ifndef CAROM_CLANG_H
#undef __always_inline
#define __always_inline inline __attribute__((always_inline, nodebug))
#endif

#define KEY_MAX 260         /* bytes of a key */
#define WHOLE_MAX 256       /* bytes of a request whose whole payload is the key */
#define REPLY_MAX 1472      /* bytes of a reply: what an MTU of 1500 takes after IPv4 and UDP */
#define REPLY_SAFE 1232     /* bytes of a reply that every IPv6 path carries: 1280 less 40 and 8 */
#define LINE 64             /* bytes of the arena that are given out at once */
#define PAGE_BYTES 65536    /* bytes of an arena's page, all of whose entries have one size */
#define PAGE_LINES 1024     /* lines of a page; the first has the page's facts */
#define PAGE_LAST 980       /* the last line that an entry may begin at: none crosses a page */
#define CHUNK_PAGES 4       /* pages that are added to the arena at once */
#define SIZES 9             /* sizes of entries */
#define WAYS 16             /* places of a bucket in the directory */
#define LINE_BITS 28        /* of a line of the arena, in a word of the directory */
#define SLOTS_LINE 8        /* cells of `versions` in a line of memory */
#define TAG_SHIFT 41        /* behind a line and SLOTS / SLOTS_LINE: the bits of a key's hash */
#define WEIGHTS 136         /* secret numbers that a key's hash is made by; more than any key needs */
#define USED_MAX 3          /* hits of an entry that are counted between two looks for room */
#define RING 8              /* drafts of a service that may wait: three tail calls each, of 33 */
#define DRAFT_ROOM 2056     /* bytes of a draft: REPLY_ROOM, and a word */
#define SLOTS 65536         /* cells of `versions` that keys hash to */
#define SERVICES_MAX 256    /* services; each has one more cell of `versions`, its generation */
#define VIEWS_MAX 256       /* addresses that a service's server is bound to: each answers for itself */
#define ENDPOINTS_MAX 4096  /* addresses and ports of services, unless the loader asks for more */
#define PLACES_MAX 1024     /* places in an array, which is quicker to look through than a hash map */
#define CHAIN_MAX 8         /* places of one port there; the others are in the hash map alone */
#define PORT_MORE 0x8000    /* a port's bit: the hash map has more places of it */
#define OWN_BITS 65536      /* of a filter before the host's own addresses */
#define OWN_FACTOR0 0x9e3779b1 /* an address' bit is its words' sum by these factors, upper half */
#define OWN_FACTOR1 0x85ebca77
#define OWN_FACTOR2 0xc2b2ae3d
#define OWN_FACTOR3 0x27d4eb2f
#define TTL_FLOOR 32        /* a request with a smaller TTL passes, so that every loop ends */
#define SOURCE_PORT_MIN 1024 /* requests from a port below this are never answered */
#define FRAME_MIN 60        /* the shortest Ethernet frame without its FCS */
#define FLIGHTS 16384       /* cells of requests on their way through servers */
#define FLIGHT_SECONDS 60   /* after half of this, no reply to a request comes any more */
#define FLIGHT_WRITES 8     /* cells of `versions` that the writes of one flight void, one by one */
#define FLIGHT_WAITERS 4    /* flights with writes or queries on their way that a cell can tell apart */
#define CUT_SECONDS 3600    /* how long anybody may complete a store whose data did not come */
#define UNREAD_SECONDS 10   /* what nobody can read voids a service at most once in this time */
#define VOIDERS_MAX 1024    /* prefixes whose packets may void a service, and are counted */
#define DOUBTS_MAX 10       /* payloads of a prefix in UNREAD_SECONDS that void a service at once,
			     * though nobody knows where their messages begin */
#define SAMPLED 32          /* of so many requests to a server, one is timed */
#define TIMES 32            /* kinds of times, by how many bits their microseconds have */
#define DOORS_MAX 4096      /* addresses and ports that servers are bound to */
#define SOCKETS_MAX 65536   /* sockets that userspace has found to be a server's */
#define HOLD_MS 500         /* after a write that asks for no acknowledgement, nothing is filled */
#define STREAM_CELLS 16     /* writes of a TCP connection that may be without acknowledgement */
#define STREAM_LINE_MAX 256 /* bytes of an unfinished line that are kept for its rest */
#define BUDGET_CELLS 65536  /* cells of prefixes' budgets, and of clients' echoes */
#define WAYS_MAX 4096       /* routes, each by one interface, to sources that are allowed */
#define NEIGHBOURS_MAX 16384 /* such sources that are neighbours */
#define GATEWAYS_MAX 4      /* gateways of one route */
#define COOKIE_SECRETS 4    /* secrets of a server that are in use at once */
#define HANDED_OVER 0x6d6f7263 /* packet metadata: XDP leaves this hit to TC ingress */
#define SNAP_MAX 2048       /* bytes of a packet, and as many of its reply, that `carom trace` shows */

/* What was decided on a packet, and why. Each has a per-CPU counter by hook and service. */
enum verdict {
	UNDECIDED = 0,       /* never counted: nothing speaks against it so far */
	FOR_NEXT = 0,        /* never counted: the next program goes on with the request */
	BOUNCE = 1,          /* answered with the request's own payload */
	HIT = 2,             /* answered from the cache */
	MISS = 3,            /* could have been answered, but was not there */
	MISS_EXPIRED = 4,    /* there, but older than its TTL */
	MISS_VOID = 5,       /* there, but written or flushed since its token was taken */
	MISS_TORN = 6,       /* there, but replaced while it was read */
	PASS_TRUNCATED = 7,  /* a header is cut off by the end of the frame */
	PASS_ETHERTYPE = 8,  /* neither IPv4 nor IPv6, or behind more than two VLAN tags */
	PASS_VERSION = 9,    /* not the EtherType's IP version, or an IPv4 header under 20 bytes */
	PASS_OPTIONS = 10,   /* IPv4 options or IPv6 extension headers */
	PASS_FRAGMENT = 11,  /* a fragment, the first or a later one */
	PASS_PROTOCOL = 12,  /* not UDP */
	PASS_LENGTH = 13,    /* the lengths of frame, IP and UDP disagree, or many datagrams in one */
	PASS_SERVICE = 14,   /* no service at that address and port */
	PASS_MAC = 15,       /* a frame for another host, or for many */
	PASS_SOURCE_NOBODY = 16, /* from 0.0.0.0/8, from ::, or from IPv6 that stands for IPv4 */
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
	PASS_MTU = 30,       /* a hit whose reply is longer than the way back is known to take */
	PASS_NEIGHBOUR = 31, /* allowed, but not from the MAC that a reply to it would be sent to */
	PASS_RESPONSES = 32, /* a hit beyond the responses a second that its source's prefix may have */
	SLIP = 33,           /* the same, answered with an empty truncated reply: ask over TCP */
	DROP_LOOP = 34,      /* one of many replies that only echo each other: here a loop ends */
	PASS_COOKIE = 35,    /* a hit, but its request has a cookie that is the server's to judge */
	PASS_SOURCE_LOOPBACK = 36, /* from 127.0.0.0/8 or ::1 */
	PASS_SOURCE_GROUP = 37, /* from a multicast, broadcast or reserved address */
	PASS_SOURCE_MAC = 38, /* from a multicast or broadcast MAC */
	PASS_SOURCE_LOW = 39, /* from a port below SOURCE_PORT_MIN: a well-known service's */
	PASS_SOURCE_SERVED = 40, /* from the port of a service here: replies could go in a loop */
	PASS_SOURCE_OWN = 41, /* from an address of this host, or the broadcast of its networks */
	PASS_CPU = 42,       /* its CPU has given as many replies a second as one may */
	PASS_SHADOW = 43,    /* a hit that goes to the server all the same: both replies are compared */
	VERDICTS = 44,
};

/* Where a packet may go on up, in the order of the walk (docs/packet-walk.md). */
enum stop {
	STOP_PARSE = 0,
	STOP_SERVICE = 1,
	STOP_MAC = 2,
	STOP_SOURCE = 3,     /* as far as the packet tells */
	STOP_HEADER = 4,     /* TTL and IPv4's checksum */
	STOP_OFF = 5,
	STOP_LEASE = 6,
	STOP_CPU = 7,        /* the replies that one may give a second */
	STOP_KEY = 8,
	STOP_LOOK_UP = 9,
	STOP_AMPLIFY = 10,
	STOP_MAPS = 11,      /* the source, by the maps */
	STOP_CHECKSUM = 12,  /* UDP's */
	STOP_ADAPT = 13,
	STOP_COOKIE = 14,
	STOP_RESPONSES = 15,
	STOP_LENGTH = 16,
	STOP_RATE = 17,
	STOP_ROOM = 18,
	STOP_LOOP = 19,
	STOP_ANSWER = 20,
};

/* Where a verdict is given: each has its own counters. */
enum hook {
	XDP = 0,
	TC = 1,
	HOOKS = 2,
};

/* What becomes of a verdict besides. */
enum noted {
	NOTED_NOT = 0,
	NOTED_DRY = 1,     /* it is noted instead of being counted (walk.h) */
	NOTED_TRACED = 2,  /* userspace may get a sample of its packet (trace.h) */
};

/* What a service's requests are answered with. */
enum fast {
	FAST_OFF = 0,
	FAST_CACHE = 1,
	FAST_BOUNCE = 2,
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

/*
 * The last packet to a service's port at an address that is no service's, and how many there were.
 */
struct stray {
	struct endpoint to;
	u32 zero;
	u64 seen;
};

/* The service there, and the facts of the interface that an answer needs. */
struct service {
	u16 id;          /* below SERVICES_MAX; part of every key; generation: versions[SLOTS + id] */
	u16 view;        /* below VIEWS_MAX; part of every key too */
	u8 fast;         /* enum fast */
	u8 protocol;     /* its SPEC's number */
	u8 skb_mode;     /* 1 where XDP is generic: half-made checksums stay half-made */
	u8 hands_over;   /* 1 where XDP hands over to TC ingress what it has no room for */
	u8 mac[6];
	u16 mtu;         /* bytes of an IP packet */
	u32 multiple;    /* the longest reply, in payloads of its request; 0: any */
	u16 allow_list;  /* 1: only sources in `allowed` are answered */
	u16 rated;       /* 1: there is a rate of some kind below */
	u32 learn;       /* 1: writes are watched at the socket's edge, and replies learned there */
	u32 link;        /* ifindex of what has the address: the interface, or a VLAN's on top of it */
	u64 prefix_rate; /* bytes of replies a second to one source prefix; 0: any */
	u64 total_rate;  /* the same to all sources */
	u16 max_reply;   /* bytes of the longest reply */
	u16 unasked;     /* bytes of the longest reply for which the route is not asked for its MTU */
	u32 echoes;      /* one of this many replies that may loop is dropped; 0: none */
	u32 responses;   /* replies a second to one source prefix; 0: any */
	u32 slip;        /* n: every nth reply beyond that is sent, but truncated; 0: none */
};

/* The same in a port's chain: `next` is the index of the next one in the array, or 0. */
struct place {
	struct endpoint endpoint;
	u32 next;
	struct service service;
};

/* A service as the socket's edge has it, by its id. */
struct watch {
	u32 protocol;  /* its SPEC's number */
	u32 ttl;       /* seconds that a learned reply lives at most */
	u32 uid;       /* a user: his new sockets at its doors are guessed to be the server's */
	u16 ends;      /* enum ends */
	u16 alone;     /* 1: one process has all items, so what is written there is what is read */
	u32 away;      /* odd while the server is away; guesses hold by this number, one less or more */
	u32 losses;    /* of its own sockets that userspace has looked after */
	u32 changed;   /* how often userspace has changed the marks of sockets that had one */
};

/* What is done where a server's items may end by themselves. */
enum ends {
	ENDS_IGNORED = 0,  /* nothing: its protocol says when, or a reply may outlive its item */
	ENDS_ASKED = 1,    /* a reply waits until the daemon knows how long it holds (struct waiting) */
	ENDS_UNASKED = 2,  /* what a write may have given an end is not kept */
};

/* What a socket is to a service. */
enum mark_kind {
	MARK_STRANGER = 0,  /* nothing: userspace has looked at it */
	MARK_NEW = 1,       /* bound where the server is, and not looked at yet: its writes void */
	MARK_DOOR = 2,      /* the server's: its writes void, its replies are not learned */
	MARK_SERVER = 3,    /* the server's, at the service's port: its replies are learned */
};

struct mark {
	u16 service;
	u16 view;
	u32 kind;     /* enum mark_kind */
	u32 changed;  /* where a server's socket has it: what its watch said when it was taken */
};

/* An address and port that a server is bound to; the address is zero for all addresses. */
struct door {
	struct address address;
	u64 netns;    /* cookie of its network namespace */
	u16 port;
	u16 stream;   /* 1 for TCP */
	u32 zero;
};

/*
 * A TCP connection to a service: how far its commands were read, and which cells its last writes
 * void. Only the lower 32 bits of counts are kept.
 */
struct stream {
	u32 inside;    /* programs that read a segment of it now: with more than one it is lost */
	u32 next;      /* sequence number of the first byte that was not read */
	u32 skip;      /* bytes of a value still to come, with the line's end */
	u16 held;      /* bytes in `line` */
	u8 lost;       /* not understood: it may write anything from here on */
	u8 in_line;    /* within a line that writes nothing, however it ends */
	u32 asked;     /* writes that the server has to acknowledge */
	u32 answered;  /* how many of the first of `writes` wait for no answer any more */
	u32 writes;    /* all writes; the cells of the last ones are in `cells` */
	u32 acked;     /* payloads that begin with an acknowledgement; no more than `asked` */
	u32 lines;     /* commands, without writes that ask for no answer */
	u32 settled;   /* how many of the first of `lines` have their whole reply */
	u32 doubts;    /* lines that are writes, unless the server refuses them */
	u32 doubt;     /* jiffies of the last of them */
	u32 doubted;   /* its number among `lines` */
	u32 hushed;    /* `lines` + 1 when the last write came that asks for no answer; or 0 */
	u64 endless;   /* the item that a command stores without an end */
	u32 stores;    /* that command's number among `lines`; or 0 */
	u32 since;     /* jiffies when it came */
	u32 data;      /* number among `lines` of the last store that not every server knows */
	u32 data_at;   /* jiffies when the end of its data came */
	u32 early;     /* where the first segment that was left to TCP begins, if `any_early` */
	u32 early_end; /* and where the last of them ends */
	u32 torn_to;   /* the end of the bytes that TCP may leave out, if `torn` */
	u32 any_early;
	u32 heard;     /* sequence number behind all of the server's payloads that were looked at */
	u32 said;      /* what the last of them is (stream.h) */
	u32 again;     /* 1 where it was sent before */
	u32 cells[STREAM_CELLS];
	u32 times[STREAM_CELLS];  /* jiffies when they were written */
	u8 dialect;    /* its protocol's own number; 0 until something was read */
	u8 begun;      /* `next` is known */
	u8 adrift;     /* the server may be within a reply: no reply ends a doubt any more */
	u8 torn;       /* TCP may leave out bytes of it */
	u32 anew;      /* jiffies when it began anew after it was lost */
	u32 borne;     /* the same, once the server's answers have confirmed it */
	u32 all;       /* jiffies of a write of everything that is no longer in `cells`; or 0 */
	u8 line[STREAM_LINE_MAX];
};

/* What happened at the socket's edge. Each has one per-CPU counter. */
enum event {
	LEARNED = 0,        /* a reply filled the cache */
	UNASKED = 1,        /* a reply that could be kept, but there is no token for it */
	UNLEARNABLE = 2,    /* a reply that its protocol does not keep */
	FULL = 3,           /* a reply that the cache had no room for */
	WRITE_SEEN = 4,     /* a write: its key is void */
	WRITE_ALL_SEEN = 5, /* a write that may have changed anything: the service's generation rose */
	WRITE_DONE = 6,     /* the acknowledgement of a write: void once more */
	STREAM_LOST = 7,    /* unreadable bytes on a TCP connection: as WRITE_ALL_SEEN */
	BUSY = 8,           /* a program found its scratch memory in use, and took the safe way */
	NOT_ADMITTED = 9,   /* a reply to a key that was not missed before, where the cache is full */
	HELD = 10,          /* a reply that is not kept because of an unacknowledged write */
	UNEXPLAINED = 11,   /* an acknowledgement that no write waits for: the service is void */
	FELL_OUT = 12,      /* a waiting write's key whose place another took: void and held */
	REFUSED = 13,       /* a reply that says that nothing was written */
	CUT = 14,           /* a store over UDP whose data did not come with it */
	UNREAD = 15,        /* what could not be read came again within UNREAD_SECONDS */
	WRONG_SUM = 16,     /* a datagram with a wrong checksum: no token, and nothing void */
	STRANGER = 17,      /* a packet of a socket that is not the server's, at its port */
	BOUND = 18,         /* a socket was bound where the server is, or by one of its processes */
	RELEASED = 19,      /* a socket of the server's is gone: the service is void */
	NOT_ASKED = 20,     /* a reply that had to wait, and the daemon has not taken up those before */
	ENDING = 21,        /* a reply that is not kept: its item may end, and none can say when */
	EVENTS = 22,
};

/* Times from a service's requests to their replies. */
struct reply_times {
	u64 counts[TIMES];  /* the n-th: from 2^(n-1) to less than 2^n microseconds; the first: less than 1 */
	u64 sum;            /* microseconds */
};

/*
 * The secrets that a server makes its cookies by, and whether it gives any. The daemon writes it.
 */
struct cookies {
	u64 epoch;   /* counts the server's starts, from 1 */
	u64 none;    /* the epoch in which it was asked with a cookie and gave none */
	u32 count;   /* of secrets; the places behind them are random, so that nobody knows them */
	u32 version; /* counts the changes of secrets, from 1 */
	u64 secrets[2 * COOKIE_SECRETS];  /* as their bytes stand in memory */
};

/* What was seen of the cookies in a server's replies. */
struct cookie_sight {
	u64 epoch;  /* the last in which a reply carried one */
	u64 given;  /* replies that carried one */
	u64 right;  /* those whose cookie was made by one of the secrets */
	u64 wrong;  /* the version of the secrets if none of them made the last one, or 0 */
};

/*
 * Clients of a service that are counted together: those of an IPv4 /24 or IPv6 /64; or all of them.
 */
struct payer {
	__be32 words[2];  /* of the source: IPv6's first half, or 0 and three bytes of IPv4 */
	u16 service;
	u16 ipv4;         /* 1 for IPv4, 2 for all sources */
};

/* What was spent in one second, such as bytes of replies. */
struct budget {
	u64 second;
	u64 spent;
};

struct prefix {
	u32 length;  /* bits */
	struct address address;
};

struct station {
	u8 mac[6];
	u8 zero[2];
};

/* Sources by where their replies would leave. */
struct way_prefix {
	u32 length;  /* bits, with those of `link` */
	u32 link;    /* ifindex */
	struct address address;
};

/* How a reply would go there: directly to its destination as a neighbour, or through a gateway. */
struct way {
	u32 direct;  /* 1: the neighbour's MAC is in `neighbours` */
	u32 count;   /* gateways in `via` */
	struct station via[GATEWAYS_MAX];
};

struct neighbour {
	struct address address;
	u32 link;  /* ifindex */
};

/* The zero bytes after `length` are part of the key: a key is always cleared first. */
struct key {
	u16 service;  /* view << 8 | id */
	u16 length;
	u32 zero;
	u8 bytes[KEY_MAX];
	u8 zeros[4];  /* a key is whole words */
};

/* A reply that is stored as expired, for the daemon to ask how long it holds. */
struct waiting {
	struct key key;
	u32 cell;      /* of `versions`, which voids it */
	u32 zero;
	u64 item;      /* its key in `lasting` */
};

/* What is known of a stored reply. */
struct meta {
	u64 token;       /* the number of voids at the miss */
	u64 expires;     /* jiffies */
	u64 filled;      /* jiffies */
	u32 slot;        /* the cell of `versions` that the key hashes to */
	u16 length;      /* of the reply */
	u16 stored;      /* the same, with what the protocol keeps behind it */
	u16 sum;         /* one's-complement sum of the reply, folded, in memory order */
	u8 loops;        /* 1: the reply is itself a request that is known here */
	u8 used;         /* hits since the last look for room, no more than USED_MAX */
	u16 key_sum;     /* the same sum of the key: of the payload, where that is the key */
	u8 zero[2];
};

/*
 * A stored reply with its key, in lines of the arena. Only programs write it, and only who has made
 * `sequence` odd; a reader that finds the same even number before and after has read one entry and
 * not parts of two (docs/consistency.md). But anybody writes `meta.used`, which is no part of a
 * reply, and `next` has to do with free lines alone.
 */
struct entry {
	u64 sequence;
	u64 hash;        /* of its key */
	u16 service;     /* of its key */
	u16 key_length;  /* 0: nothing is stored here */
	u32 next;        /* the next free line of this size, where nothing is stored */
	struct meta meta;
	u8 data[];       /* the key, and the reply; each with zeros up to whole words */
};

/* The first line of a page. */
struct page_head {
	u32 size_plus_one;  /* the size of its entries, 0 to SIZES - 1, and one; 0: not known yet */
	u32 next;           /* page of the same size; they are a ring */
};

struct arena_page {
	u8 bytes[PAGE_BYTES];
};

/* A reply in the store that is live, and another that takes its place: without what is behind them. */
struct pair {
	struct meta meta;  /* of the one in the store */
	struct key key;
	u32 served_length;
	u32 zero;
	u8 cached[DRAFT_ROOM];
	u8 served[DRAFT_ROOM];
};

/*
 * A bucket of the directory: 0, or the upper bits of a key's hash, the line of memory that its cell of
 * `versions` is in, and the line of its entry. It is a hint, never trusted: the entry has the whole key,
 * and its cell.
 */
struct bucket {
	u64 ways[WAYS];
};

/* What userspace says of the store. */
struct limits {
	u64 buckets;   /* less one: a power of two */
	u64 capacity;  /* entries */
	u64 pages;     /* of the arena, so far */
	u64 grows;     /* 1: userspace will add more of them */
	u64 evicts;    /* 0: a full store takes no new key */
	u64 seen;      /* cells of what was missed */
	u64 always;    /* 1: a full store takes every key */
	u64 recents;   /* places of new entries: a power of two */
	u64 weights[WEIGHTS];
};

/* The entries of one size. */
struct shelf {
	u64 free;     /* the first line that was given back, and how often one was taken, << 32 */
	u64 fresh;    /* the next that was never used: its number in its page, and the page << 32;
		       * 0 before the first page */
	u64 hand;     /* the next to look at for room, in the same form */
	u64 entries;
	u64 first;    /* page, of those in its ring; or 0 and no `pages` */
	u64 pages;
	u64 zero[2];
};

/* How far the arena is in use. */
struct usage {
	u64 entries;
	u64 pages;
	u64 newest;  /* new entries there were */
	u64 oldest;  /* how many of the first of them were looked at for room */
	u64 zero[4];
};

/* Of which packets `carom trace` gets samples. */
struct tracing {
	u64 verdicts;         /* a bit for each that is asked for */
	struct address from;  /* the source, where `mask` has a one */
	struct address mask;
	u32 by_source;        /* 0: any source */
	u32 one_in;           /* of so many packets of one CPU that are asked for, one; at least 1 */
	u32 a_moment;         /* the most of one CPU in a tenth of a second */
	u32 snap;             /* bytes of each packet, at most SNAP_MAX */
	u16 port;             /* where it is sent to, by UDP; 0: anywhere */
	u16 zeros[3];
};

/* A packet and its verdict. */
struct sample {
	u64 time;         /* nanoseconds of CLOCK_MONOTONIC */
	u32 ifindex;
	u32 tag;          /* the VLAN tag that the kernel keeps beside the packet: EtherType and tag, or 0 */
	u32 came_length;  /* bytes of the packet, without that tag */
	u32 sent_length;  /* bytes of its reply, or 0 */
	u16 came;         /* bytes of both that are here */
	u16 sent;
	u8 hook;          /* enum hook */
	u8 verdict;       /* enum verdict */
	u16 place;        /* as counted_as() has it */
	struct key key;   /* its length is 0 where none was read */
	u8 bytes[2 * SNAP_MAX];
};

/* A reply on its way into the store. */
struct draft {
	u64 ready;  /* its number and one, once the daemon has written it; 0 once it is stored */
	struct meta meta;
	struct key key;
	u8 bytes[DRAFT_ROOM];  /* the reply, with zeros up to a whole word */
};

#endif
