/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loops with a host that sends back what it gets: a reply comes in as a request, with a fresh TTL,
 * and so does the reply to that. Only a reply that is itself a request with a known reply can go
 * round. In a loop of several, one was filled last, when the next was known already
 * (daemon/loops.py). A loop is a single packet, and ends when that is dropped once. So one of many
 * such replies is dropped, and the server does not get the request either: it would begin the loop
 * anew.
 */
#ifndef CAROM_LOOP_H
#define CAROM_LOOP_H

#include "abi.h"
#include "cell.h"
#include "maps.h"
#include "walk.h"

/* The cell of a client and its request; of the request, sum and length are known already. */
static __always_inline u32 echo_cell(const struct request *request, const struct service *service,
				     u64 payload_sum)
{
	struct address source = source_of(request);
	u64 first = (u64)source.words[0] << 32 | source.words[1];
	u64 last = (u64)source.words[2] << 32 | source.words[3];
	u64 what = fold(payload_sum) | (u64)request->length << 16 |
		   (u64)request->udp->source << 32 | (u64)service->id << 48;

	return cell_of(first ^ (last << 17 | last >> 47), what);
}

static __always_inline bool ends_loop(const struct service *service, u32 cell)
{
	u32 *count = echoes.lookup(&cell);

	if (!count)
		return true;
	if (SAID(dry))
		return *(volatile u32 *)count + 1 >= service->echoes;
	__sync_fetch_and_add(count, 1);
	if (*(volatile u32 *)count < service->echoes)
		return false;
	*(volatile u32 *)count = 0;
	return true;
}

#endif
