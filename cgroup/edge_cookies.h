/* SPDX-License-Identifier: GPL-2.0-only */
/* The cookies that a name server's own replies carry: does it give any, and by which secret? */
#ifndef CAROM_EDGE_COOKIES_H
#define CAROM_EDGE_COOKIES_H

#include "cookies.h"
#include "edge.h"

#ifdef WITH_DNS
#define COOKIE_OPT (DNS_OPT + 4)  /* an OPT record up to the data of its first option */
#define COOKIE_EDE 6              /* an extended error without words (RFC 8914), as NSD refuses by */
#define COOKIE_TAIL (COOKIE_OPT + DNS_COOKIE_WHOLE + COOKIE_EDE)

/*
 * Does an OPT record with a COOKIE of `size` bytes first, and `more` bytes behind that, end what
 * ends here?
 */
static __always_inline bool ends_with_cookie(const u8 *tail, const u32 size, const u32 more)
{
	const u8 *opt = tail + COOKIE_TAIL - COOKIE_OPT - size - more;

	return !opt[0] && !opt[1] && opt[2] == DNS_TYPE_OPT && !opt[9] &&
	       opt[10] == 4 + size + more && !opt[11] && opt[12] == DNS_OPTION_COOKIE &&
	       !opt[13] && opt[14] == size;
}

/*
 * Take note of the cookie in a reply, whether it can be learned or not. Servers put the OPT record
 * last, so that the end of a reply tells. A reply with other options may be overlooked: it had to be
 * asked for with them, and whoever asks for less is told too.
 */
static __always_inline void see_cookie(const struct datagram *datagram, u32 service)
{
	u32 length = datagram->length, end = datagram->offset + length;
	struct cookie_sight *sight;
	struct cookies *known;
	u64 cookie[DNS_COOKIE_WHOLE / sizeof(u64)];
	u8 tail[COOKIE_TAIL];
	__be16 additional;
	bool ede;

	if (length < COOKIE_TAIL ||
	    bpf_skb_load_bytes(datagram->skb, end - COOKIE_TAIL, tail, COOKIE_TAIL))
		return;
	ede = ends_with_cookie(tail, DNS_COOKIE_WHOLE, COOKIE_EDE);
	if (!ede && !ends_with_cookie(tail, DNS_COOKIE_WHOLE, 0) &&
	    !ends_with_cookie(tail, DNS_COOKIE_MIN, 0))
		return;
	if (bpf_skb_load_bytes(datagram->skb, datagram->offset + 10, &additional,
			       sizeof(additional)) ||
	    !additional)  /* the end of a TXT record, say, that somebody made to look so */
		return;
	known = cookies.lookup(&service);
	sight = cookie_sights.lookup(&service);
	if (!known || !sight)
		return;
	*(volatile u64 *)&sight->epoch = *(volatile u64 *)&known->epoch;
	__sync_fetch_and_add(&sight->given, 1);
	/* What of a shorter one comes before it makes no right one. */
	end -= sizeof(cookie) + (ede ? COOKIE_EDE : 0);
	if (!bpf_skb_load_bytes(datagram->skb, end, cookie, sizeof(cookie)) &&
	    dns_cookie_right((u8 *)cookie, &datagram->client, known)) {
		__sync_fetch_and_add(&sight->right, 1);
		*(volatile u64 *)&sight->wrong = 0;
	} else {
		*(volatile u64 *)&sight->wrong = *(volatile u32 *)&known->version;
	}
}
#else
static __always_inline void see_cookie(const struct datagram *datagram, u32 service)
{
}
#endif

static __always_inline bool gives_cookies(u32 protocol)
{
#ifdef WITH_DNS
	return protocol == DNS;
#else
	return false;
#endif
}

#endif
