/* SPDX-License-Identifier: GPL-2.0-only */
/* The one clock of all programs: jiffies, or what a test says. */
#ifndef CAROM_CLOCK_H
#define CAROM_CLOCK_H

#include "parameter.h"

BPF_F_TABLE("array", u32, u64, clock, 1, BPF_F_MMAPABLE);  /* jiffies, when userspace last asked */

static __always_inline u64 now(void)
{
	u64 time = 0;

	if (SAID(test_clock)) {
		u32 only = 0;
		u64 *cell = clock.lookup(&only);

		if (cell)
			time = *cell;
	} else {
		time = bpf_jiffies64();
	}
	asm volatile("" : "+r"(time));  /* or clang makes a copy of what follows for each of them */
	return time;
}

/*
 * Whole seconds in a time, by a product: TICKS is no constant to clang, and a division takes long. Times
 * of up to 2^32 / TICKS jiffies, which is hours, are exact; of longer ones the last second may be too much.
 */
static __always_inline u64 seconds_in(u64 jiffies)
{
	return jiffies * SAID(second) >> 32;
}

#endif
