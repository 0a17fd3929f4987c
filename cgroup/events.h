/* SPDX-License-Identifier: GPL-2.0-only */
/* What happened at the socket's edge, counted. */
#ifndef CAROM_EVENTS_H
#define CAROM_EVENTS_H

#include "abi.h"

BPF_PERCPU_ARRAY(events, u64, EVENTS);

static __always_inline void count_event(enum event event)
{
	u32 index = event;
	u64 *counter = events.lookup(&index);

	if (counter)
		*counter += 1;
}

#endif
