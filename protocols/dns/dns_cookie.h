/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Did the server itself make a DNS cookie, for this client, and not long ago? (RFC 9018:
 * interoperable server cookies, version 1.) A cookie has 24 bytes: the client's 8; version, three
 * reserved bytes and the second of the wall clock when it was made; and SipHash-2-4, by the
 * server's secret, of those 16 bytes and the client's address.
 */
#ifndef CAROM_DNS_COOKIE_H
#define CAROM_DNS_COOKIE_H

#include "abi.h"
#include "siphash.h"

#define DNS_COOKIE_CLIENT 8    /* bytes of a client's cookie without a server's part */
#define DNS_COOKIE_WHOLE 24
#define DNS_COOKIE_VERSION 8   /* offsets in a cookie */
#define DNS_COOKIE_TIME 12
#define DNS_COOKIE_HASH 16
#define DNS_COOKIE_AHEAD 300   /* seconds that another server's clock may be ahead (4.3) */
#define DNS_COOKIE_FRESH 1800  /* at this age the server makes a new one (4.3) */

/* Two words of an address as one: on a stack they are only aligned to four bytes. */
static __always_inline u64 dns_cookie_word(const __be32 *words)
{
	u64 word;

	__builtin_memcpy(&word, words, sizeof(word));
	return word;
}

/* Was it made at most half an hour ago, by a clock that is at most five minutes ahead? */
static __always_inline bool dns_cookie_fresh(const u8 *cookie, u32 seconds)
{
	u32 made = (u32)cookie[DNS_COOKIE_TIME] << 24 | cookie[DNS_COOKIE_TIME + 1] << 16 |
		   cookie[DNS_COOKIE_TIME + 2] << 8 | cookie[DNS_COOKIE_TIME + 3];

	/* Seconds wrap around in 2106 (RFC 1982). */
	return seconds - made + DNS_COOKIE_AHEAD <= DNS_COOKIE_AHEAD + DNS_COOKIE_FRESH;
}

static __always_inline u64 dns_cookie_hash(const u8 *cookie, const struct address *client,
					   const u64 *secret)
{
	struct siphash state;
	u32 ipv4 = client->words[3];

	siphash_begin(&state, little_u64(secret[0]), little_u64(secret[1]));
	siphash_word(&state, *(const u64 *)cookie, 2);
	siphash_word(&state, *(const u64 *)(cookie + DNS_COOKIE_VERSION), 2);
	if (!(client->words[0] | client->words[1]) && client->words[2] == htonl(0xffff))
		return siphash_end(&state, little_u32(ipv4), DNS_COOKIE_HASH + sizeof(ipv4), 2, 4);
	siphash_word(&state, dns_cookie_word(&client->words[0]), 2);
	siphash_word(&state, dns_cookie_word(&client->words[2]), 2);
	return siphash_end(&state, 0, DNS_COOKIE_HASH + sizeof(*client), 2, 4);
}

/* `cookie` has DNS_COOKIE_WHOLE bytes, at an address that words may be read from. */
static __always_inline bool dns_cookie_right(const u8 *cookie, const struct address *client,
					     const struct cookies *known)
{
	u64 made = little_u64(*(const u64 *)(cookie + DNS_COOKIE_HASH));

	if (cookie[DNS_COOKIE_VERSION] != 1)
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < COOKIE_SECRETS; i++) {
		if (i >= *(const volatile u32 *)&known->count)
			break;
		if (dns_cookie_hash(cookie, client, known->secrets + 2 * i) == made)
			return true;
	}
	return false;
}

#endif
