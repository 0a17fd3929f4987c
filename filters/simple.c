/* SPDX-License-Identifier: GPL-2.0-only */
/* simple: accepts every request. */
#include "filter.h"

static __always_inline bool accepts_simple(const struct command *command)
{
	return true;
}

int simple(CONTEXT *context)
{
	return filter(context, accepts_simple);
}
