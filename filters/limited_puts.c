/* SPDX-License-Identifier: GPL-2.0-only */
/* limited-puts: valid commands, with a limit of PUTs a second, for one client and in all. */
#include "filter.h"

BPF_TABLE("lru_hash", struct address, struct budget, client_puts, 65536);
BPF_ARRAY(total_puts, struct budget, 1);

/* The client's own rate comes first: a PUT beyond it does not count for the others. */
static __always_inline bool within_client_rate(const struct address *client)
{
	u64 rate = setting(SETTING_CLIENT_RATE);
	struct budget *budget, fresh = {};

	if (!rate)
		return true;
	budget = client_puts.lookup((struct address *)client);
	if (budget)
		return within(budget, rate, 1);
	fresh.second = seconds_in(now());
	fresh.spent = 1;
	client_puts.update((struct address *)client, &fresh);
	return true;
}

static __always_inline bool within_total_rate(void)
{
	u64 rate = setting(SETTING_RATE);
	struct budget *budget;
	u32 only = 0;

	budget = total_puts.lookup(&only);
	return !rate || !budget || within(budget, rate, 1);
}

static __always_inline bool accepts_limited_puts(const struct command *command)
{
	if (!is_valid(command))
		return false;
	if (word_of(command) != WORD_PUT)
		return true;
	return within_client_rate(&command->source) && within_total_rate();
}

int limited_puts(CONTEXT *context)
{
	return filter(context, accepts_limited_puts);
}
