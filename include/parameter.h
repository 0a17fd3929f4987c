/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the loader says when it loads a program, so that one compilation is good for all: no constant to
 * clang, but one to the verifier, which removes what cannot be reached. They are cells of a map that is
 * frozen (`.rodata`). clang sees a number that stands for a cell's address (kernel/compiled.py).
 */
#ifndef CAROM_PARAMETER_H
#define CAROM_PARAMETER_H

#define PARAMETER(index, name)                                                                   \
	static __always_inline u64 said_##name(void)                                             \
	{                                                                                        \
		u64 value;                                                                       \
												 \
		asm volatile("%0 = 0xca201a75000000" #index " ll\n\t%0 = *(u64 *)(%0 + 0)" : "=r"(value)); \
		return value;                                                                    \
	}
#define SAID(name) said_##name()

/* kernel/compiler.py reads such lists. */
PARAMETER(00, ticks)        /* jiffies a second */
PARAMETER(01, second)       /* 2^32 / ticks, rounded up */
PARAMETER(02, test_clock)   /* 1: time is what a test says */
PARAMETER(03, languages)    /* protocols that the programs are to know, a bit for each number */
PARAMETER(04, counted)      /* services with counters of their own, from id 0 on */
PARAMETER(05, slot_v0)      /* secrets, drawn at each start (kernel/hashes.py) */
PARAMETER(06, slot_v1)
PARAMETER(07, slot_v2)
PARAMETER(08, slot_v3)
PARAMETER(09, hash_secret0)
PARAMETER(0a, hash_secret1)
PARAMETER(0b, shadow)       /* one hit in so many goes to the server, to be compared; 0: none */
PARAMETER(0c, in_order)     /* 1: this machine's CPUs do loads in order, and stores, as x86's do */

#define TICKS SAID(ticks)

#endif
