/* SPDX-License-Identifier: GPL-2.0-only */
/* What programs that race have done and found, counted. */
#ifndef CAROM_TALLY_H
#define CAROM_TALLY_H

/* What was done and found; race.py has the same names. */
enum tally {
	WRITES,
	FLUSHES,
	FILLS,
	DENIED,   /* by the map, or in the build that decides at the fill */
	HITS,
	ABSENT,    /* MISS */
	VOID,      /* MISS_VOID */
	REPLACED,  /* MISS_TORN: a torn copy, and found to be */
	OTHER,     /* any other verdict: there is none */
	STALE,     /* hits with a value older than the last acknowledged write */
	TORN,      /* hits with bytes of more than one fill, or of another key */
	LEFT,      /* requests counted when each has its reply */
	TALLIES,
};

BPF_PERCPU_ARRAY(tallies, u64, TALLIES);

static __always_inline void note(u32 tally)
{
	u64 *counter = tallies.lookup(&tally);

	if (counter)
		*counter += 1;
}

#endif
