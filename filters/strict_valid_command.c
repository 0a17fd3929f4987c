/* SPDX-License-Identifier: GPL-2.0-only */
/* strict-valid-command: what the server would understand, and nothing else. */
#include "filter.h"

static __always_inline bool accepts_strict_valid_command(const struct command *command)
{
	return is_valid(command);
}

int strict_valid_command(CONTEXT *context)
{
	return filter(context, accepts_strict_valid_command);
}
