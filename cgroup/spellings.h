/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which learned replies may be given to any spelling of their request. That is proved once the
 * server has given the same reply, except for the request in it, to two clients that spelled
 * differently. Nothing else proves it: a BIND points to the question only where that is spelled as
 * in its zone, and as a resolver where it is spelled as by the first client, for as long as it
 * knows the answer.
 *
 * Until then a reply is given to its own spelling. Another spelling does not push it out, or
 * strangers could; but the plainest spelling, which nearly all clients use, takes the place of any.
 */
#ifndef CAROM_SPELLINGS_H
#define CAROM_SPELLINGS_H

#include "abi.h"
#include "bounded.h"
#include "protocols.h"
#include "store.h"
#include "token.h"
#include "typed.h"

#define SPELLINGS 16384

/*
 * What is known of the replies to a key. Keys may share a cell: then each costs the other its
 * proof.
 */
struct spelling {
	struct bpf_spin_lock lock;
	u32 spelling; /* of the reply that is stored */
	u64 expires;  /* jiffies when that reply expires */
	u64 key;      /* its hash */
	u64 token;    /* of the last reply that could be learned, stored or not */
	u64 until;    /* jiffies until which that one holds */
	u64 digest;   /* of it */
	u8 last;      /* and how its last label was spelled */
	u8 any;       /* the server says the same to any spelling */
	u8 zero[6];
};

/*
 * These values are read anew from map memory each time: otherwise the verifier would follow the
 * code behind a loop once for each number that the loop can leave there.
 */
struct settling {
	u32 length;  /* of the reply */
	u32 zero;
	u64 digest;
};

LOCKED_ARRAY(spellings, struct spelling, SPELLINGS);

#define ANEW(field) (*(volatile typeof(field) *)&(field))

/*
 * A number from the reply's words, whatever their order: many servers rotate records, and those
 * with addresses are made of whole words.
 */
static __always_inline u64 draft_digest(const struct draft *draft, struct settling *settling)
{
	ANEW(settling->digest) = ANEW(settling->length);
	for (u32 at = 0; at < REPLY_MAX; at += sizeof(u32)) {
		u64 word;

		counted(at);
		if (at >= ANEW(settling->length) || at > REPLY_MAX - sizeof(u32))
			break;
		word = *(const u32 *)(draft->bytes + at);
		ANEW(settling->digest) += (word + 1) * (word + 3);
	}
	return ANEW(settling->digest);
}

/* Has the server said the same to another spelling, and pointed into both? Under the cell's lock. */
static __always_inline bool said_the_same(const struct spelling *cell, const struct spelled *spelled,
					  u64 digest, u64 jiffies)
{
	return cell->any || (spelled->points && cell->last != spelled->last &&
			     cell->digest == digest && jiffies < cell->until);
}

/* What happens to a reply, by its request's spelling. */
enum spelled_as {
	AS_ITSELF,  /* it is for those who spell like this */
	AS_ANY,
	AS_OTHER,   /* not stored: there is one for a spelling that takes precedence */
};

static __always_inline enum spelled_as judge_spelling(u64 key, u32 service, u64 token, u32 ttl, u64 digest,
						      const struct spelled *spelled)
{
	u32 index = key % SPELLINGS;
	struct spelling *cell = spellings.lookup(&index);
	u64 jiffies = now(), until = jiffies + (u64)ttl * TICKS, fresh = version(SLOTS + service);
	enum spelled_as as = AS_ITSELF;
	bool known;

	if (!cell)
		return AS_ITSELF;
	lock_value(&cell->lock);
	known = cell->key == key && cell->token >= fresh;
	if (known && said_the_same(cell, spelled, digest, jiffies))
		as = AS_ANY;
	else if (known && jiffies < cell->expires && spelled->spelling &&
		 cell->spelling != spelled->spelling)
		as = AS_OTHER;
	if (as != AS_OTHER) {
		cell->spelling = spelled->spelling;
		cell->expires = until;
	}
	cell->key = key;
	cell->token = token;
	cell->until = until;
	cell->digest = digest;
	cell->last = spelled->last;
	cell->any = as == AS_ANY;
	unlock_value(&cell->lock);
	return as;
}

/* May a learned reply be stored? The spellings that it is given to are noted in it. */
static __always_inline bool settle_spelling(u32 protocol, struct draft *draft,
					    struct settling *settling, u32 service, u32 ttl)
{
	struct spelled spelled = {};
	enum spelled_as as;

	if (!WANTED(SPELLED))
		return true;
	ANEW(settling->length) = draft->meta.length;
	if (!spelled_how(protocol, draft->bytes, ANEW(settling->length), &spelled))
		return true;
	as = judge_spelling(hash_key(&draft->key), service, draft->meta.token, ttl,
			    draft_digest(draft, settling), &spelled);
	if (as == AS_ANY)
		give_any(protocol, draft->bytes, ANEW(settling->length));
	return as != AS_OTHER;
}

#endif
