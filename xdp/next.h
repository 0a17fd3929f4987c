/* SPDX-License-Identifier: GPL-2.0-only */
/* The programs that others at XDP go on with, in the order of daemon/fastpath.py. */
#ifndef CAROM_XDP_NEXT_H
#define CAROM_XDP_NEXT_H

enum {
	XDP_READ = 0,
	XDP_ANSWER = 1,
	XDP_IPV6 = 2,
	XDP_OTHER = 3,
	XDP_STORE = 4,
	XDP_FASTPATH = 5,
	XDP_JOIN = 6,
};

BPF_PROG_ARRAY(xdp_next, 7);

#endif
