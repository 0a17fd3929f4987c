/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the fast path and the socket's edge know of a server's cookies (RFC 7873): the secrets that
 * the daemon was given, and whether the server gives cookies at all.
 */
#ifndef CAROM_COOKIES_H
#define CAROM_COOKIES_H

#include "abi.h"
#include "clock.h"
#include "protocols.h"

/* What happens to a hit whose request has a cookie. */
enum cookie {
	COOKIE_PASSES,    /* the request goes up: the server judges it */
	COOKIE_RETURNED,  /* it is right: the reply returns it */
	COOKIE_IGNORED,   /* the server gives none, and the client has had none */
};

BPF_ARRAY(cookies, struct cookies, SERVICES_MAX);
BPF_ARRAY(cookie_sights, struct cookie_sight, SERVICES_MAX);
BPF_ARRAY(wall, u64, 1);  /* ticks since 1970 less jiffies; 0: unknown, and no cookie is fresh */

static __always_inline u32 wall_seconds(void)
{
	u32 only = 0;
	u64 *ahead = wall.lookup(&only);

	return ahead ? (now() + *(volatile u64 *)ahead) / TICKS : 0;
}

/*
 * Is it known that the server gives no cookies since it was last started? It was asked with one and
 * gave none, and none of its replies has carried one since.
 */
static __always_inline bool gives_no_cookies(u32 service, const struct cookies *known)
{
	u64 epoch = *(const volatile u64 *)&known->epoch;
	struct cookie_sight *sight = cookie_sights.lookup(&service);

	return sight && *(const volatile u64 *)&known->none == epoch &&
	       *(const volatile u64 *)&sight->epoch != epoch;
}

/* Was the last cookie that the server gave made by another secret? Then ours are out of use. */
static __always_inline bool has_other_secret(u32 service, const struct cookies *known)
{
	struct cookie_sight *sight = cookie_sights.lookup(&service);

	return !sight || *(const volatile u64 *)&sight->wrong ==
				 *(const volatile u32 *)&known->version;
}

/*
 * `option` is what cookie_of() has found in a request. If the server's part of a cookie is not
 * right, somebody else gave it to the client: only the server knows how to answer.
 */
static __always_inline enum cookie judge_cookie(u32 protocol, const u8 *option,
						const struct address *client, u32 service)
{
	struct cookies *known;

	if (!WANTED(WITH_COOKIES))
		return COOKIE_PASSES;
	known = cookies.lookup(&service);
	if (!known)
		return COOKIE_PASSES;
	if (cookie_is_bare(protocol, option))
		return gives_no_cookies(service, known) ? COOKIE_IGNORED : COOKIE_PASSES;
	if (cookie_is_whole(protocol, option) &&
	    cookie_is_right(protocol, option, client, known, wall_seconds()) &&
	    !has_other_secret(service, known))
		return COOKIE_RETURNED;
	return COOKIE_PASSES;
}

#endif
