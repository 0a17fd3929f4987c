/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Drafts that the daemon has left in mapped memory, which takes no system call. Whichever program runs
 * next for their service stores them before it looks for a reply: so whoever asks after a fill is answered
 * as if it had been stored at once, unless another CPU is storing it: nobody waits for that, and such a
 * request is a miss. Each service has a ring of them.
 */
#ifndef CAROM_WAITING_DRAFTS_H
#define CAROM_WAITING_DRAFTS_H

#include "abi.h"
#include "arena.h"
#include "maps.h"
#include "store.h"

/* A service's next draft, whose number is `number`; NULL unless the daemon has finished it. */
static __always_inline struct draft *next_draft(u32 service, u64 number)
{
	u32 index = service * RING + number % RING;
	struct draft *draft = drafts.lookup(&index);

	return draft && *(volatile u64 *)&draft->ready == number + 1 ? draft : NULL;
}

/* Say for the daemon that it has finished a draft: whoever sees it sees the whole draft. */
static __always_inline void finish_draft(u32 service, u64 ready)
{
	u32 index = service * RING + (ready - 1) % RING;
	struct draft *draft = drafts.lookup(&index);

	fence();
	if (draft)
		*(volatile u64 *)&draft->ready = ready;
}

/* Does a draft wait? */
static __always_inline bool drafts_wait(const struct service *service)
{
	u32 id = service->id;
	u64 *number = service->learn ? NULL : drained.lookup(&id);

	return number && next_draft(id, *(volatile u64 *)number);
}

/* Count what became of a draft. */
static __always_inline void count_stored(u32 service, enum stored stored)
{
	u32 index = service * STORED_KINDS + stored;
	u64 *count = outcomes.lookup(&index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Store a service's next draft; false if none waits. Of several CPUs each takes another one. */
static __always_inline bool store_next(u32 service)
{
	u64 *number = drained.lookup(&service);
	struct placing placing = {};
	enum stored stored;
	struct draft *draft;
	u64 mine;

	if (!number)
		return false;
	mine = *(volatile u64 *)number;
	draft = next_draft(service, mine);
	if (!draft || __sync_val_compare_and_swap(number, mine, mine + 1) != mine)
		return false;
	fence();
	sum_draft(draft);
	if (!begin_placing(draft, &placing))
		stored = STORED_FULL;
	else
		stored = admitted(&placing) ? store(draft, &placing) : STORED_NOT_ADMITTED;
	count_stored(service, stored);
	fence();
	*(volatile u64 *)&draft->ready = 0;  /* the daemon may write it again */
	return true;
}

#endif
