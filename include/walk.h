/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What `carom why` is told of a packet that it only asks about. Its programs are the attached ones once more,
 * loaded with `dry`: they run on the live maps and change nothing but the packet and this note. In the
 * attached ones the verifier has removed all that `dry` guards.
 */
#ifndef CAROM_WALK_H
#define CAROM_WALK_H

#include "abi.h"
#include "parameter.h"

PARAMETER(0d, dry)    /* 1: counters, entries, voids, budgets and drafts stay as they are */
PARAMETER(0e, noted)  /* what becomes of a verdict besides: enum noted */

struct walked {
	u32 verdict;
	u32 place;  /* as counted_as() has it */
	u32 stop;   /* enum stop: where the verdict was given, if that is said; or 0 */
	u32 zero;
};

BPF_PERCPU_ARRAY(walks, struct walked, 1);

/* Say at which of its stops a verdict is given, where there are several; the verdict. */
static __always_inline enum verdict at_stop(enum stop stop, enum verdict verdict)
{
	u32 only = 0;
	struct walked *walked;

	if (!SAID(dry))
		return verdict;
	walked = walks.lookup(&only);
	if (walked)
		walked->stop = stop;
	return verdict;
}

/* It has its verdict. (It has one too while packets are traced: trace.h.) */
static __always_inline void note_verdict(u32 verdict, u32 place)
{
	u32 only = 0;
	struct walked *walked = walks.lookup(&only);

	if (!walked)
		return;
	walked->verdict = verdict;
	walked->place = place;
}

#endif
