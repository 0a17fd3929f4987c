/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs of a route share with userspace; programs.py has the same. */
#ifndef CAROM_LEAD_H
#define CAROM_LEAD_H

#define ADDRESSES_MAX 16    /* of the interface, of each family, that are in the policy itself */
#define FURTHER_MAX 4096    /* others of its addresses */
#define PROCESSES_MAX 4096  /* that are counted each for itself */
#define LANS_MAX 4096       /* prefixes of this host's own networks */
#define PROGRAM_NAME 16     /* bytes of a program's name, with the zero behind it (TASK_COMM_LEN) */

/* Why something was refused. */
enum why {
	WHY_NETNS = 0,   /* a socket in another network namespace */
	WHY_MPTCP = 1,   /* a socket of MPTCP, whose subflows the kernel makes */
	WHY_STRAY = 2,   /* a packet that would leave by another interface */
	WHY_SOURCE = 3,  /* a packet whose source is no address of the interface */
	WHY_IPV6 = 4,    /* IPv6, where it is not led */
	WHY_DNS = 5,     /* a question that cannot be led to the route's resolver */
	WHYS = 6,
};

enum {
	ROUTE_NO_IPV6 = 1,      /* IPv6 is refused at once */
	ROUTE_OTHER_NETNS = 2,  /* sockets in other network namespaces are nobody's matter */
	ROUTE_LAN = 4,          /* what is for this host's own networks goes there as any other's */
	ROUTE_FURTHER = 8,      /* the interface has further addresses */
};

/* An address, an IPv4 one as ::ffff:0:0/96 has it. */
struct source {
	u32 words[4];
};

/* A network: an IPv4 one is ::ffff:0:0/96 and its own bits. */
struct lan {
	u32 bits;
	u32 words[4];
};

/* What is true of a route now. */
struct policy {
	u64 netns;     /* cookie of the network namespace that it leads in */
	u32 mark;      /* of its sockets; 0: not known yet, and all is refused */
	u32 ifindex;   /* of its interface; 0: it is gone */
	u32 flags;
	u32 dns4;      /* where questions go; 0: no such resolver */
	u32 dns6[4];
	u32 from4[ADDRESSES_MAX];  /* the interface's addresses, then zeros */
	u32 from6[ADDRESSES_MAX][4];
};

/* A socket of a route; it goes with the socket. */
struct led {
	u64 cookie;     /* of the socket that it was made for: an accepted one has its listener's */
	u32 maker;      /* the process that made the socket */
	u32 asked4;     /* the resolver that was meant */
	u32 asked6[4];
};

/* A process, by its id: what its sockets do, whoever holds them now. */
struct process {
	char name[PROGRAM_NAME];
	u32 uid;
	u32 ifindex;    /* where its last packet left */
	u32 strayed;    /* where its last refused packet would have left */
	u32 zero;
	u64 opened;
	u64 closed;
	u64 out_packets;
	u64 out_bytes;
	u64 in_packets;
	u64 in_bytes;
	u64 refused[WHYS];
};

#endif
