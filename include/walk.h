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

PARAMETER(0b, dry)  /* 1: counters, entries, voids, budgets and drafts stay as they are */

struct walked {
	u32 stop;     /* enum stop: the last one that was come to */
	u32 verdict;
	u32 place;    /* as counted_as() has it */
	u32 stops;    /* a bit for each that was come to */
};

BPF_ARRAY(walks, struct walked, 1);

/* A packet comes to a stop. */
static __always_inline void come_to(enum stop stop)
{
	u32 only = 0;
	struct walked *walked;

	if (!SAID(dry))
		return;
	walked = walks.lookup(&only);
	if (!walked)
		return;
	walked->stop = stop;
	walked->stops |= 1u << stop;
}

/* It has its verdict. */
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
