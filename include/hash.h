/* SPDX-License-Identifier: GPL-2.0-only */
/* A number that tells keys apart, by a secret: nobody outside can make two keys share a number. */
#ifndef CAROM_HASH_H
#define CAROM_HASH_H

#include "abi.h"
#include "parameter.h"
#include "siphash.h"

/* SipHash-1-3 of service, length and bytes. 0 is left for what has no key. */
static __always_inline u64 hash_key(const struct key *key)
{
	struct siphash state;
	u64 hash;

	siphash_begin(&state, SAID(hash_secret0), SAID(hash_secret1));
	hash = siphash_bytes(&state, 0, (const u8 *)key, offsetof(struct key, bytes) + key->length,
			     sizeof(struct key), 1, 3);
	return hash ? hash : 1;
}

#endif
