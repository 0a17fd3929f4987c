/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long servers take: from a request's coming to the server's socket to its reply's leaving it. One
 * request in SAMPLED is timed, for the clock is a helper's.
 */
#ifndef CAROM_REPLY_TIMES_H
#define CAROM_REPLY_TIMES_H

#include "abi.h"
#include "bounded.h"
#include "clock.h"
#include "maps.h"

BPF_PERCPU_ARRAY(reply_times, struct reply_times, SERVICES_MAX);

/* They come round again after more than an hour. */
static __always_inline u32 microseconds(void)
{
	return bpf_ktime_get_ns() / 1000;
}

/* When a request came, if it is its turn to be timed; or 0. `turn` counts requests. */
static __always_inline u32 begin_time(u32 *turn)
{
	u32 this = *turn, since = 0;

	*turn = this + 1;
	if (this % SAMPLED == 0) {
		since = microseconds();
		since += !since;
	}
	return forgotten(since, now());  /* or the verifier would follow what is behind twice */
}

/* The number of bits that a number takes; without a branch, for the verifier. */
static __always_inline u32 bits_of(u32 number)
{
	u32 bits = 0;

#pragma unroll
	for (u32 step = 16; step; step /= 2) {
		u32 more = (u32)((u64)((1ull << step) - 1 - (u64)number) >> 63) * step;

		asm volatile("" : "+r"(more));
		bits += more;
		number >>= more;
	}
	return bits + number;
}

/* The reply leaves to a request that is timed since then, or is not (0). */
static __always_inline void end_time(u32 since, u32 service)
{
	struct reply_times *times;
	u32 took;

	if (!since)
		return;
	times = reply_times.lookup(&service);
	if (!times)
		return;
	took = (microseconds() - since) & (~0u >> 1);
	times->counts[bits_of(took) & (TIMES - 1)] += 1;
	times->sum += took;
}

#endif
