/* SPDX-License-Identifier: GPL-2.0-only */
/* Is an address this host's own? Most are not, and a filter of bits tells. */
#ifndef CAROM_OWN_H
#define CAROM_OWN_H

#include "abi.h"
#include "maps.h"

static __always_inline bool is_own(const struct address *address)
{
	const __be32 *word = address->words;
	u32 bit = (u32)(word[0] * OWN_FACTOR0 + word[1] * OWN_FACTOR1 + word[2] * OWN_FACTOR2 +
			word[3] * OWN_FACTOR3) >>
		  16;
	u32 cell = bit / 64;
	u64 *bits = own_filter.lookup(&cell);

	return bits && *(volatile u64 *)bits >> bit % 64 & 1 &&
	       own_addresses.lookup((struct address *)address);
}

#endif
