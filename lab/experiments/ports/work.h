/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The work of one request, the same code for XDP and for a process. Each step needs the result of
 * the one before and changes it, so that no compiler can leave a step out.
 */
#ifndef CAROM_WORK_H
#define CAROM_WORK_H

static inline __attribute__((always_inline)) u32 worked(u32 value, u32 loops)
{
	for (u32 i = 0; i < loops; i++)
		value = (value ^ value >> 15) * 0x2c1b3c6d + i;
	return value;
}

#endif
