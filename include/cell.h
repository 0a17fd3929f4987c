/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Cells that clients or their prefixes hash to: no look-up can miss, and no flood can push an entry
 * out. Who shares a cell shares its count, but nobody outside knows the hash's secret.
 */
#ifndef CAROM_CELL_H
#define CAROM_CELL_H

#include "abi.h"
#include "clock.h"
#include "hash.h"
#include "parse.h"

static __always_inline u32 cell_of(u64 who, u64 what)
{
	struct siphash hash;

	siphash_begin(&hash, SAID(hash_secret0), SAID(hash_secret1));
	siphash_word(&hash, who, 1);
	siphash_word(&hash, what, 1);
	return siphash_end(&hash, 0, 0, 1, 3) % BUDGET_CELLS;
}

/*
 * The first bits of a source: 24 of IPv4, with a mark that no IPv6 address has, or `ipv6` of IPv6.
 */
static __always_inline u64 source_prefix(const struct request *request, const u32 ipv6)
{
	const __be32 *word;
	u64 first;

	if (!request->ipv6)
		return ntohl(request->ip->saddr) >> 8 | 0xffull << 56;
	word = request->ip6->saddr.in6_u.u6_addr32;
	first = (u64)ntohl(word[0]) << 32 | ntohl(word[1]);
	return first >> (64 - ipv6) << (64 - ipv6);
}

/* Does what is left of `rate` in this second cover `amount`? */
static __always_inline bool covers(const struct budget *budget, u64 rate, u64 amount)
{
	u64 spent = budget->second == seconds_in(now()) ? budget->spent : 0;

	return spent + amount <= rate;
}

/* As a second begins, two CPUs may both reset the budget. */
static __always_inline void charge(struct budget *budget, u64 amount)
{
	u64 second = seconds_in(now());

	if (budget->second != second) {
		budget->second = second;
		budget->spent = 0;
	}
	__sync_fetch_and_add(&budget->spent, amount);
}

#endif
