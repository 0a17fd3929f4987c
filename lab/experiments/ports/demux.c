/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XDP takes requests of seven decimal digits off the wire and puts each into its port's queue, which
 * a process polls. A request that finds its queue full is lost and counted.
 */
#include "four.h"

#ifndef QUEUE
#define QUEUE 10200  /* entries of each queue; the loader says */
#endif

#define DIGITS 7

/* worker.py reads these. */
struct job {
	u32 value;
	__be32 client;
	__be16 port;
	u16 unused;
};

enum count {
	TAKEN,
	OVERFULL,
	COUNTS,
};

BPF_QUEUE(jobs_0, struct job, QUEUE);
BPF_QUEUE(jobs_1, struct job, QUEUE);
BPF_QUEUE(jobs_2, struct job, QUEUE);
BPF_QUEUE(jobs_3, struct job, QUEUE);
BPF_ARRAY(counts, u64, COUNTS * PORTS);

static __always_inline bool read_digits(const u8 *bytes, u32 *value)
{
	*value = 0;
#pragma unroll
	for (int i = 0; i < DIGITS; i++) {
		u8 digit = bytes[i] - '0';

		if (digit > 9)
			return false;
		*value = 10 * *value + digit;
	}
	return true;
}

static __always_inline int put(u32 which, struct job *job)
{
	switch (which) {
	case 0:
		return jobs_0.push(job, 0);
	case 1:
		return jobs_1.push(job, 0);
	case 2:
		return jobs_2.push(job, 0);
	default:
		return jobs_3.push(job, 0);
	}
}

static __always_inline void count(u32 which, enum count counter)
{
	u32 index = counter * PORTS + which;
	u64 *cell = counts.lookup(&index);

	if (cell)
		__sync_fetch_and_add(cell, 1);
}

int demux(struct xdp_md *context)
{
	struct packet packet = { context, XDP };
	struct question question = {};
	struct request request = {};
	struct job job = {};

	if (!read_question(&packet, &request, &question, DIGITS) ||
	    !read_digits(question.payload.bytes, &job.value))
		return XDP_PASS;
	job.client = request.ip->saddr;
	job.port = request.udp->source;
	count(question.which, put(question.which, &job) ? OVERFULL : TAKEN);
	return XDP_DROP;
}
