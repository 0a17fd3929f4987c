/* SPDX-License-Identifier: GPL-2.0-only */
/* For route_bench, behind lead.c: its switch, and nothing counted. */
int only_switch(struct __sk_buff *skb)
{
	struct policy *policy = policy_now();

	return policy && why_not(skb, policy) == WHYS;
}
