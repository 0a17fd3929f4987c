/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contract: what a protocol tells the fast path and the socket's edge. Its SPEC, in
 * protocols/NAME/__init__.py, has its numbers: the longest payload that can be INTENT_READ, where
 * the id of a request is, from where on a key is hashed to its slot. NAME.h has the functions below
 * that the SPEC names; they use no map and nothing that some hook lacks. The others are those of
 * none.h.
 *
 *   enum intent NAME_request(const u8 *text, u32 length, struct key *key)
 *       What a request wants, and its key: `key->length` and `key->bytes`, which come in as zeros
 *       and are only used after INTENT_READ and INTENT_WRITE. A request that is not understood, but
 *       cannot write, is INTENT_OTHER. `length` is the whole payload's; if it exceeds TEXT_ROOM,
 *       `text` has the first TEXT_ROOM bytes.
 *   bool NAME_answer(u8 *reply, u32 length, u32 stored, const u8 *text, u32 text_length,
 *                    u32 age, u64 *sum)
 *       Make the stored reply the reply to this request, in place and without changing its length;
 *       add to `sum` the 16-bit words that this adds to it, in memory order. False: impossible.
 *       `age` is in seconds since the fill, rounded up.
 *
 * Where one request may ask for several keys, and its reply is theirs, joined (SPEC.joined):
 *
 *   u32 NAME_next_key(const u8 *text, u32 at, struct key *key)
 *       For a request that has INTENT_SEVERAL: read the key at `at` (0: the first) as NAME_request
 *       would. Where the next one begins, 0 behind the last, or NO_KEY.
 *
 * For a protocol whose replies are learned:
 *
 *   enum answer NAME_what_answer(const u8 *reply, u32 length)
 *       What a reply says of its request. `reply` has the first REPLY_MAX bytes of `length`.
 *   bool NAME_learn(u8 *reply, u32 *length, struct key *key, u32 *stored, u32 *ttl, u32 asked)
 *       The key that a reply names, if it names one and may be kept at all. `length` may shrink, by
 *       what is for one client only, or grow up to REPLY_MAX, by what is missing. Bytes that
 *       NAME_answer writes are set to zero. `stored` (at first `length`) grows by what is appended
 *       for NAME_answer's own use, up to REPLY_MAX, from the next whole 8 bytes on. `ttl` (at first
 *       the service's, in seconds) may only shrink. The room behind REPLY_MAX may be used freely.
 *       `asked` is what NAME_asked has returned for the request, or ASKED_UNKNOWN.
 *   bool NAME_may_be_learned(const u8 *text, enum intent intent)
 *       May a request get a reply that can be learned?
 *   bool NAME_answers_more(enum intent intent)
 *       May a request get more than one reply, so that none is counted?
 *   bool NAME_counts_off(const u8 *reply)
 *       Is a reply that is no read's the only one of a request that NAME_may_be_learned counts?
 *   bool NAME_says_stored(const u8 *reply)
 *       Does the first datagram of a reply say that something was stored as asked?
 *
 * Where the bytes that name what a write voids are not all of a key behind SPEC.slot_from:
 *
 *   u32 NAME_slot_start(const struct key *key), u32 NAME_slot_end(const struct key *key)
 *       Where they begin and end.
 *
 * Where replies name no key at all (SPEC.nameless), it is remembered from the request, and
 * NAME_learn leaves it unchanged. Where they do not tell all of the key:
 *
 *   u32 NAME_asked(enum intent intent, const struct key *key)
 *       The part of a read's key that its reply may not tell; ASKED_UNKNOWN for any other request.
 *
 * Where clients may spell one key in several ways; `reply` is one after NAME_learn:
 *
 *   bool NAME_spelled(const u8 *reply, u32 length, struct spelled *spelled)
 *       How its request was spelled. NAME_answer gives it to the same spelling only.
 *   void NAME_give_any(u8 *reply, u32 length)
 *       From now on NAME_answer gives it to all.
 *
 * Where a reply can say "ask over TCP":
 *
 *   u32 NAME_truncated(u8 *reply, const u8 *text, const struct key *key, u32 length)
 *       Make the stored reply one that says only that; its length, or 0.
 *
 * Where clients send cookies (SPEC.cookies), called by a hook after NAME_answer:
 *
 *   const u8 *NAME_cookie(const u8 *text, const struct key *key)
 *       The cookie in a read, for the functions below; or NULL.
 *   bool NAME_cookie_is_bare(const u8 *option), NAME_cookie_is_whole(const u8 *option)
 *       Has it no server's part? Has it one that can be judged?
 *   bool NAME_cookie_is_right(const u8 *option, const struct address *client,
 *                             const struct cookies *known, u32 seconds)
 *       Did the server make it, for this client, and not long ago?
 *   bool NAME_return_cookie(u8 *reply, u32 *length, const u8 *text, const struct key *key, u64 *sum)
 *       Put it, of COOKIE_WHOLE bytes, into the reply, and what this adds into `length` and `sum`.
 *       False: impossible.
 *   u32 NAME_cookie_from_end(const u8 *tail), bool NAME_may_have_cookie(const u8 *front),
 *   bool NAME_cookie_right(const u8 *cookie, const struct address *client,
 *                          const struct cookies *known)
 *       For a server's own reply. How far from its end a cookie begins, or 0, by its last
 *       COOKIE_TAIL bytes; whether that may be one, by its first MESSAGE_HEADER bytes; whether a
 *       known secret made it.
 *
 * Where messages come over TCP, each after two bytes of its length (Stream.MESSAGES):
 *
 *   enum answer NAME_message_answer(const u8 *header, u32 length)
 *       NAME_what_answer by a message's first MESSAGE_HEADER bytes.
 *
 * Where commands come over TCP, one after the other (Stream.COMMANDS), NAME_stream_*: protocols.h
 * says what each does. A datagram of several commands is read in the same way.
 *
 * `text` and `reply` are buffers of TEXT_ROOM and REPLY_ROOM bytes in a map, zero from `length` to
 * the next whole 8 bytes; an index below the room is always allowed. `key` lies in a map too.
 *
 * The slot of a key is that of its bytes from SPEC.slot_from on, or of those that NAME_slot_start
 * and NAME_slot_end bound: key_slot() of slot.h in C, Spec.slot_key_of() in Python. The bytes
 * before them tell entries apart that one write voids together; the key of an INTENT_WRITE has
 * zeros there, so it names a slot and no entry.
 */
#ifndef CAROM_PROTOCOL_H
#define CAROM_PROTOCOL_H

#include "abi.h"
#include "little.h"

/* A power of two. A hook that watches writes takes 2048, and so sees whole datagrams. */
#ifndef TEXT_ROOM
#define TEXT_ROOM 512
#endif
#define REPLY_ROOM 2048

/* Long names: linux/kernel.h has macros READ and WRITE. */
enum intent {
	INTENT_OTHER = 0,  /* goes up, and neither reads nor writes anything cached */
	INTENT_READ,       /* may be answered from the cache */
	INTENT_WRITE,      /* changes what is stored under the key */
	INTENT_WRITE_ALL,  /* may change anything */
	INTENT_QUIET = 4,  /* a bit beside either write: there need be no acknowledgement */
	INTENT_UNSURE = 8, /* beside INTENT_WRITE_ALL: if refused, it has written nothing */
	INTENT_ANSWERS = 16, /* beside a write: its acknowledgement may look like another reply */
	INTENT_LASTING = 32, /* beside a write: it gives no end to an item that had none */
	INTENT_ENDLESS = 64, /* beside INTENT_WRITE: once it is done, the item does not end by itself */
	INTENT_EITHER = 128, /* its reply is ANSWER_EITHER, and no write waits for it */
	INTENT_SEVERAL = 256, /* beside INTENT_OTHER: it reads several keys */
};

/* What a reply says of its request. */
enum answer {
	ANSWER_READ,     /* the reply to a read: it acknowledges nothing */
	ANSWER_WRITTEN,  /* an acknowledgement, or perhaps one of a write that is unknown here */
	ANSWER_REFUSED,  /* a write's reply: nothing was written */
	ANSWER_OTHER,    /* a reply to neither, unless a write waits for it */
	ANSWER_ERROR,    /* it acknowledges nothing, whatever it replies to */
	ANSWER_EITHER,   /* an acknowledgement or the reply to a query, by what waits for it */
	ANSWER_HEEDED,   /* the server may write something later, or nothing */
	ANSWER_PART,     /* a query's, or not the first of a read's: it acknowledges nothing */
};

/* How the request of a learned reply was spelled. */
struct spelled {
	u32 spelling;  /* a hash; 0 for the plainest */
	u8 last;       /* a part of it: if that differs, so does all that the reply may point to */
	u8 points;     /* the reply points into its request */
	u16 zero;
};

#define INTENT_MASK 3  /* what is left without the bits */
#define NO_KEY (~0u)  /* of NAME_next_key(): there is none */
#define JOINED_HEAD 8  /* bytes that joined replies have in common, and the first alone keeps */
#define ASKED_UNKNOWN 0x100  /* no value of NAME_asked(): nothing is known of the request */
#define AHEAD_ROOM 64  /* bytes of a stream in which a short read is looked for */
#define MESSAGE_HEADER 12  /* bytes of a message that tell what it is */
#define COOKIE_WHOLE 24  /* bytes of a cookie that can be judged */
#define COOKIE_TAIL 45   /* bytes at a reply's end that tell whether it has one */

#endif
