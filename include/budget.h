/* SPDX-License-Identifier: GPL-2.0-only */
/* A limited amount a second. */
#ifndef CAROM_BUDGET_H
#define CAROM_BUDGET_H

#include "abi.h"
#include "clock.h"

/* Spend this second's; false beyond the rate. As a second begins, two CPUs may both reset it. */
static __always_inline bool within(struct budget *budget, u64 rate, u64 amount)
{
	u64 second = seconds_in(now());

	if (budget->second != second) {
		budget->second = second;
		budget->spent = 0;
	}
	__sync_fetch_and_add(&budget->spent, amount);
	return *(volatile u64 *)&budget->spent <= rate;
}

#endif
