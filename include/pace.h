/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many replies a second one CPU gives, of all services together: what is beyond passes early, so that it
 * takes no more of the CPU. It is counted by ticks, as a second's share at its start would have all of it at
 * once. The count is in the CPU's own scratch memory: no look-up, nothing shared.
 */
#ifndef CAROM_PACE_H
#define CAROM_PACE_H

#include "bounded.h"
#include "clock.h"
#include "maps.h"
#include "walk.h"

PARAMETER(10, max_hits)  /* replies a second of one CPU; 0: any */

/* What may be saved: a tick's share, and less than one reply, so that a rate below one a tick is kept too. */
static __always_inline u64 saved_at(const struct pace *pace, u64 time)
{
	u64 most = SAID(max_hits) + TICKS - 1;
	u64 saved = pace->saved + (time - pace->time) * SAID(max_hits);

	return forgotten(saved < most ? saved : most, time);
}

/* Has this CPU given as many replies as it may? */
static __always_inline bool spent_pace(struct scratch *scratch)
{
	struct pace *pace = &scratch->pace;
	u64 time, saved;

	if (!SAID(max_hits))
		return false;
	time = now();
	saved = saved_at(pace, time);
	if (!SAID(dry)) {
		pace->time = time;
		pace->saved = saved;
	}
	return saved < TICKS;
}

/* A reply leaves; spent_pace() was asked before. */
static __always_inline void keep_pace(struct scratch *scratch)
{
	if (SAID(max_hits) && !SAID(dry))
		scratch->pace.saved -= TICKS;
}

#endif
