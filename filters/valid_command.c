/* SPDX-License-Identifier: GPL-2.0-only */
/* valid-command: accepts what begins with a command's word. */
#include "filter.h"

static __always_inline bool accepts_valid_command(const struct command *command)
{
	return word_of(command) != NO_WORD;
}

int valid_command(CONTEXT *context)
{
	return filter(context, accepts_valid_command);
}
