/* SPDX-License-Identifier: GPL-2.0-only */
/* reject: accepts none. */
#include "filter.h"

static __always_inline bool accepts_reject(const struct command *command)
{
	return false;
}

int reject(CONTEXT *context)
{
	return filter(context, accepts_reject);
}
