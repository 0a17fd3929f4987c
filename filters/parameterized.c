/* SPDX-License-Identifier: GPL-2.0-only */
/* parameterized: accepts or rejects everything, by a setting that can change while it runs. */
#include "filter.h"

static __always_inline bool accepts_parameterized(const struct command *command)
{
	return setting(SETTING_ACCEPT) != 0;
}

int parameterized(CONTEXT *context)
{
	return filter(context, accepts_parameterized);
}
