/* SPDX-License-Identifier: GPL-2.0-only */
/* The cookies in a server's own replies: does it give any, and by which secret? */
#ifndef CAROM_EDGE_COOKIES_H
#define CAROM_EDGE_COOKIES_H

#include "cookies.h"
#include "edge.h"

/* Take note of the cookie in a reply, whether it can be learned or not. */
static __always_inline void see_cookie(const struct datagram *datagram, u32 service, u32 protocol)
{
	u32 length = datagram->length, end = datagram->offset + length, from_end;
	u64 cookie[COOKIE_WHOLE / sizeof(u64)];
	struct cookie_sight *sight;
	struct cookies *known;
	u64 front[2];
	u8 tail[COOKIE_TAIL];

	if (length < COOKIE_TAIL ||
	    bpf_skb_load_bytes(datagram->skb, end - COOKIE_TAIL, tail, COOKIE_TAIL))
		return;
	from_end = cookie_from_end(protocol, tail);
	if (!from_end ||
	    bpf_skb_load_bytes(datagram->skb, datagram->offset, front, MESSAGE_HEADER) ||
	    !may_have_cookie(protocol, (const u8 *)front))
		return;
	known = cookies.lookup(&service);
	sight = cookie_sights.lookup(&service);
	if (!known || !sight)
		return;
	*(volatile u64 *)&sight->epoch = *(volatile u64 *)&known->epoch;
	__sync_fetch_and_add(&sight->given, 1);
	/* For a shorter cookie this reads bytes before it too, and so it is never right. */
	if (!bpf_skb_load_bytes(datagram->skb, end - from_end, cookie, sizeof(cookie)) &&
	    cookie_is_ours(protocol, (u8 *)cookie, &datagram->client, known)) {
		__sync_fetch_and_add(&sight->right, 1);
		*(volatile u64 *)&sight->wrong = 0;
	} else {
		*(volatile u64 *)&sight->wrong = *(volatile u32 *)&known->version;
	}
}

#endif
