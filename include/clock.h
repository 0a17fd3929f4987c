/* SPDX-License-Identifier: GPL-2.0-only */
/* The one clock of all programs: jiffies, or what a test says. */
#ifndef CAROM_CLOCK_H
#define CAROM_CLOCK_H

#ifndef TICKS
#define TICKS 250  /* jiffies a second; the loader says how many */
#endif
BPF_F_TABLE("array", u32, u64, clock, 1, BPF_F_MMAPABLE);  /* jiffies, when userspace last asked */

static __always_inline u64 now(void)
{
#ifdef TEST_CLOCK
	u32 only = 0;
	u64 *jiffies = clock.lookup(&only);

	return jiffies ? *jiffies : 0;
#else
	return bpf_jiffies64();
#endif
}

#endif
