/* SPDX-License-Identifier: GPL-2.0-only */
/* robust-valid-command: the word, and the exact length of its command.
 *
 * As it was published: a request whose key begins with a letter, `PUTT...`, is accepted, though the
 * server finds another word there. strict-valid-command closes that. */
#include "filter.h"

static __always_inline bool accepts_robust_valid_command(const struct command *command)
{
	return has_exact_length(command, word_of(command));
}

int robust_valid_command(CONTEXT *context)
{
	return filter(context, accepts_robust_valid_command);
}
