/* SPDX-License-Identifier: GPL-2.0-only */
/* raw: the whole payload is the key, and nothing on the wire writes. */
#ifndef CAROM_RAW_H
#define CAROM_RAW_H

#include "abi.h"

static __always_inline bool raw_has_key(u32 payload_length)
{
	return payload_length >= 1 && payload_length <= RAW_MAX;
}

#endif
