/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memcached's commands in text, one at a time, over UDP and TCP (doc/protocol.txt of memcached;
 * what that leaves open was taken from how 1.6.18 behaves).
 *
 * A command only counts as a write of one key in a form that every version reads alike: after a
 * store command that it refuses, memcached takes the data for more commands.
 */
#ifndef CAROM_MEMCACHED_TEXT_H
#define CAROM_MEMCACHED_TEXT_H

#include <uapi/linux/swab.h>

#include "bounded.h"
#include "clock.h"
#include "protocol.h"

#define MEMCACHED_HEADER 8      /* request id, sequence number, datagrams, reserved: 16 bits each */
#define MEMCACHED_KEY_MAX 250
#define MEMCACHED_GET 'g'       /* first byte of a cache key */
#define MEMCACHED_GETS 's'
#define MEMCACHED_BINARY 0x80   /* first byte of a request in binary, and of no command */
#define MEMCACHED_FLAGS_MAX 64  /* bytes of a meta command's flags that are looked at */
#define MEMCACHED_FLAGS_COUNT 16

#define ONES 0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

enum memcached_kind {
	KIND_UNKNOWN = 0,
	KIND_QUERY,  /* me, mn, stats, verbosity, version: no write, whatever follows in the line */
	KIND_GET,    /* get KEY... */
	KIND_GETS,
	KIND_LINE,   /* delete, incr, decr, touch: KEY [...] */
	KIND_GAT,    /* gat, gats: EXPTIME KEY... */
	KIND_STORE,  /* set, add, replace, append, prepend: KEY FLAGS EXPTIME BYTES [noreply] */
	KIND_CAS,    /* the same with CAS before noreply */
	KIND_META,   /* md, ma: KEY FLAG... */
	KIND_MG,
	KIND_MS,     /* KEY BYTES FLAG... */
	KIND_FLUSH,  /* flush_all */
};

/* What was found out about a command. */
struct memcached_command {
	enum memcached_kind kind;
	bool keyed;      /* it has a proper key */
	u32 key_length;
	u32 end;         /* behind its line; 0 if the line was not read to its end */
	u32 data;        /* bytes that belong to it behind its line, with their own line's end */
};

/* Eight characters as they stand in memory, read as a little-endian number. */
#define TEXT4(a, b, c, d) ((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24)
#define TEXT8(a, b, c, d, e, f, g, h) (TEXT4(a, b, c, d) | TEXT4(e, f, g, h) << 32)
#define STARTS(word, bytes, text) (((word) & (~0ull >> (64 - 8 * (bytes)))) == (text))

static __always_inline u8 text_byte(const u8 *text, u32 at, u32 room)
{
	asm volatile("" : "+r"(at));
	return text[at & (room - 1)];
}

/* Eight bytes of text; zeros, which end whatever is read, if they are not all in the room. */
static __always_inline u64 text_word(const u8 *text, u32 at, u32 room)
{
	asm volatile("" : "+r"(at));
	if (at > room - sizeof(u64))
		return 0;
	return little_u64(*(const u64 *)(text + at));
}

/*
 * The same number, of which the verifier only knows that it has 16 bits. It goes through `cell`, in
 * a map, where the verifier does not track values: paths that differ only in the number become one.
 */
static __always_inline u32 forget(u16 *cell, u32 value)
{
	*(volatile u16 *)cell = value;
	return *(volatile u16 *)cell;
}

/*
 * The high bits of the bytes that end a key: 0 to 0x0f, and space. It is right up to the lowest
 * one. A key should have no other control character either, but memcaslap's have: memcached takes
 * them.
 */
static __always_inline u64 outside_key(u64 word)
{
	u64 space = word ^ (' ' * ONES);

	return (((word - 0x10 * ONES) & ~word) | ((space - ONES) & ~space)) & HIGHS;
}

/*
 * Copy a key, eight bytes at a time, to `to`, which has room for MEMCACHED_KEY_MAX and six more.
 * Returns its length: 0 if there is no key, more than MEMCACHED_KEY_MAX if it is too long.
 */
static __always_inline u32 copy_key(const u8 *text, u32 at, u32 room, u8 *to)
{
	for (u32 done = 0; done < MEMCACHED_KEY_MAX; done += sizeof(u64)) {
		u64 word = text_word(text, at + done, room);
		u64 hits = outside_key(word);

		if (hits) {
			u64 before = ((hits & -hits) - 1) >> 7;  /* ones in the bytes before it */

			*(u64 *)(to + done) = little_u64(word & before);
			return done + (((before & ONES) * ONES) >> 56);
		}
		*(u64 *)(to + done) = little_u64(word);
	}
	return MEMCACHED_KEY_MAX + 1;
}

/* The position behind the line's end at `at`; 0 if there is none. */
static __always_inline u32 behind_line(const u8 *text, u32 at, u32 room)
{
	if (text_byte(text, at, room) == '\r')
		at++;
	return text_byte(text, at, room) == '\n' ? at + 1 : 0;
}

/*
 * Read up to `digits` (at most 19) decimal digits at `*at`, which moves behind them. False if there
 * are none, or more.
 */
static __always_inline bool read_number(const u8 *text, u32 *at, u32 room, u32 digits, u64 *number)
{
	u64 value = 0;
	u32 n;

	for (n = 0; n <= digits; n++) {
		u32 digit = (u32)text_byte(text, *at + n, room) - '0';

		if (digit > 9)
			break;
		value = value * 10 + digit;
	}
	*at += n;
	*number = value;
	return n >= 1 && n <= digits;
}

/* The same after one space. */
static __always_inline bool read_argument(const u8 *text, u32 *at, u32 room, u32 digits,
					  u64 *number)
{
	if (text_byte(text, *at, room) != ' ')
		return false;
	*at += 1;
	return read_number(text, at, room, digits, number);
}

/* Read an exptime as memcached takes it: seconds or a date, maybe negative; 0 is never. */
static __always_inline bool read_exptime(const u8 *text, u32 *at, u32 room, u64 *exptime)
{
	if (text_byte(text, *at, room) == '-')
		*at += 1;
	return read_number(text, at, room, 10, exptime) && *exptime <= 0x7fffffff;
}

static __always_inline u32 lasting_without(u64 number)
{
	return bits_without(number, INTENT_LASTING);
}

/* The intent of a store; if `number` is not 0, it may not be done as it says. */
static __always_inline u32 endless_without(u64 number, u32 intent)
{
	return intent & (~(u32)INTENT_ENDLESS | bits_without(number, INTENT_ENDLESS));
}

/* Of the commands of KIND_LINE only `touch` gives an end. */
static __always_inline u32 lasting_line(const u8 *text)
{
	return lasting_without(text[MEMCACHED_HEADER] == 't');
}

/* Only a flush_all that acts at once gives no end: what is stored later is not flushed. */
static __always_inline u32 lasting_flush(const u8 *text)
{
	u64 rest = text_word(text, MEMCACHED_HEADER + 8, TEXT_ROOM) & ~0ull >> 40;

	return lasting_without(rest ^ TEXT4('l', '\r', '\n', 0));
}

/*
 * The kind of a command by its first word, of which `word` has eight bytes and `next` those behind
 * them. `*at` moves to where its arguments begin.
 */
static __always_inline enum memcached_kind read_command(u64 word, u64 next, u32 *at)
{
	u8 behind;

#define COMMAND(bytes, text, kind)                                             \
	if (STARTS(word, bytes, text)) {                                       \
		*at += bytes;                                                  \
		return kind;                                                   \
	}
	COMMAND(4, TEXT4('g', 'e', 't', ' '), KIND_GET)
	COMMAND(5, TEXT8('g', 'e', 't', 's', ' ', 0, 0, 0), KIND_GETS)
	COMMAND(4, TEXT4('s', 'e', 't', ' '), KIND_STORE)
	COMMAND(4, TEXT4('a', 'd', 'd', ' '), KIND_STORE)
	COMMAND(4, TEXT4('c', 'a', 's', ' '), KIND_CAS)
	COMMAND(4, TEXT4('g', 'a', 't', ' '), KIND_GAT)
	COMMAND(5, TEXT8('g', 'a', 't', 's', ' ', 0, 0, 0), KIND_GAT)
	COMMAND(5, TEXT8('i', 'n', 'c', 'r', ' ', 0, 0, 0), KIND_LINE)
	COMMAND(5, TEXT8('d', 'e', 'c', 'r', ' ', 0, 0, 0), KIND_LINE)
	COMMAND(6, TEXT8('t', 'o', 'u', 'c', 'h', ' ', 0, 0), KIND_LINE)
	COMMAND(7, TEXT8('d', 'e', 'l', 'e', 't', 'e', ' ', 0), KIND_LINE)
	COMMAND(7, TEXT8('a', 'p', 'p', 'e', 'n', 'd', ' ', 0), KIND_STORE)
	COMMAND(8, TEXT8('p', 'r', 'e', 'p', 'e', 'n', 'd', ' '), KIND_STORE)
	COMMAND(8, TEXT8('r', 'e', 'p', 'l', 'a', 'c', 'e', ' '), KIND_STORE)
	COMMAND(3, TEXT4('m', 'g', ' ', 0), KIND_MG)
	COMMAND(3, TEXT4('m', 's', ' ', 0), KIND_MS)
	COMMAND(3, TEXT4('m', 'd', ' ', 0), KIND_META)
	COMMAND(3, TEXT4('m', 'a', ' ', 0), KIND_META)
	COMMAND(3, TEXT4('m', 'e', ' ', 0), KIND_QUERY)
#undef COMMAND
	if (STARTS(word, 5, TEXT8('s', 't', 'a', 't', 's', 0, 0, 0)))
		behind = word >> 40;
	else if (STARTS(word, 7, TEXT8('v', 'e', 'r', 's', 'i', 'o', 'n', 0)))
		behind = word >> 56;
	else if (STARTS(word, 2, TEXT4('m', 'n', 0, 0)))
		behind = word >> 16;
	else if (STARTS(word, 8, TEXT8('v', 'e', 'r', 'b', 'o', 's', 'i', 't')) && (u8)next == 'y')
		behind = next >> 8;
	else
		return STARTS(word, 8, TEXT8('f', 'l', 'u', 's', 'h', '_', 'a', 'l')) &&
		       (u8)next == 'l' ? KIND_FLUSH : KIND_UNKNOWN;
	return behind == ' ' || behind == '\r' || behind == '\n' ? KIND_QUERY : KIND_UNKNOWN;
}

/*
 * The position behind the first line of a text of `length` bytes; 0 if the line does not end there.
 */
static __always_inline u32 find_line_in(const u8 *text, u32 length, const u32 room)
{
	for (u32 at = MEMCACHED_HEADER; at < room; at += sizeof(u64)) {
		u64 ends;

		counted(at);
		ends = *(const u64 *)(text + at);
		if (at >= length)
			return 0;
		ends = little_u64(ends) ^ ('\n' * ONES);
		ends = (ends - ONES) & ~ends & HIGHS;
		if (ends) {
			u64 before = ((ends & -ends) - 1) >> 7;

			return at + (((before & ONES) * ONES) >> 56) + 1;
		}
	}
	return 0;
}

/* The same for a request, as far as the room goes. */
static __always_inline u32 find_line(const u8 *text, u32 length)
{
	return find_line_in(text, length, TEXT_ROOM);
}

/* Does a reply, by its first word, say that the server did not understand? */
static __always_inline bool is_error(u64 word)
{
	u8 behind = word >> 40;

	return (STARTS(word, 5, TEXT8('E', 'R', 'R', 'O', 'R', 0, 0, 0)) &&
		(behind == '\r' || behind == ' ' || behind == ':')) ||
	       STARTS(word, 8, TEXT8('C', 'L', 'I', 'E', 'N', 'T', '_', 'E'));
}

/* Does it say that nothing was written? */
static __always_inline bool refuses(u64 word)
{
	return is_error(word) ||
	       STARTS(word, 8, TEXT8('N', 'O', 'T', '_', 'F', 'O', 'U', 'N')) ||
	       STARTS(word, 8, TEXT8('N', 'O', 'T', '_', 'S', 'T', 'O', 'R')) ||
	       STARTS(word, 6, TEXT8('E', 'X', 'I', 'S', 'T', 'S', 0, 0)) ||
	       STARTS(word, 2, TEXT4('N', 'F', 0, 0)) || STARTS(word, 2, TEXT4('N', 'S', 0, 0)) ||
	       STARTS(word, 2, TEXT4('E', 'X', 0, 0));
}

/* Does it say that a read found nothing? */
static __always_inline bool is_end(u64 word)
{
	return STARTS(word, 5, TEXT8('E', 'N', 'D', '\r', '\n', 0, 0, 0));
}

/* Is it a read's? */
static __always_inline bool is_of_read(u64 word)
{
	return STARTS(word, 6, TEXT8('V', 'A', 'L', 'U', 'E', ' ', 0, 0)) || is_end(word);
}

/* Is it the first line of many? */
static __always_inline bool is_of_stats(u64 word)
{
	return STARTS(word, 5, TEXT8('S', 'T', 'A', 'T', ' ', 0, 0, 0));
}

/* Is it a reply to `mg` or `me`? But `mg` may have written, and `ma` is answered VA as well. */
static __always_inline bool is_of_meta(u64 word)
{
	return STARTS(word, 3, TEXT4('V', 'A', ' ', 0)) ||
	       STARTS(word, 3, TEXT4('M', 'E', ' ', 0)) ||
	       STARTS(word, 4, TEXT4('E', 'N', '\r', '\n'));
}

/* Is it a reply that acknowledges nothing? A line of another reply may follow it. */
static __always_inline bool is_of_query(u64 word)
{
	return STARTS(word, 8, TEXT8('V', 'E', 'R', 'S', 'I', 'O', 'N', ' ')) ||
	       STARTS(word, 3, TEXT4('M', 'N', '\r', 0)) ||
	       STARTS(word, 5, TEXT8('I', 'T', 'E', 'M', ' ', 0, 0, 0)) ||
	       STARTS(word, 7, TEXT8('P', 'R', 'E', 'F', 'I', 'X', ' ', 0)) ||
	       STARTS(word, 7, TEXT8('R', 'E', 'S', 'E', 'T', '\r', '\n', 0));
}

/* A query. Its reply may look like a write's: OK to verbosity and stats detail, EN to me. */
static __always_inline enum intent judge_query(const u8 *text)
{
	u64 word = text_word(text, MEMCACHED_HEADER, TEXT_ROOM);
	bool either = STARTS(word, 3, TEXT4('m', 'e', ' ', 0)) ||
		      STARTS(word, 8, TEXT8('v', 'e', 'r', 'b', 'o', 's', 'i', 't')) ||
		      STARTS(word, 8, TEXT8('s', 't', 'a', 't', 's', ' ', 'd', 'e'));

	return either ? INTENT_OTHER | INTENT_EITHER : INTENT_OTHER;
}

/* The first characters of a meta command's flags as bits, `@` being bit 0. */
#define FLAG(letter) (1ull << ((letter) - '@'))
#define FLAGS_READING (FLAG('c') | FLAG('f') | FLAG('h') | FLAG('k') | FLAG('l') | FLAG('O') |  \
		       FLAG('q') | FLAG('s') | FLAG('t') | FLAG('u') | FLAG('v'))

/* With no other flags, ms, md and ma give no end to an item that had none: T, N and I may. */
#define FLAGS_LASTING ((FLAGS_READING | FLAG('C') | FLAG('D') | FLAG('E') | FLAG('F') |          \
			FLAG('J') | FLAG('M') | FLAG('S')))

/* 1 if one number of up to 63 bits is below another, else 0; without a branch, for the verifier. */
static __always_inline u64 is_below(u64 number, u64 bound)
{
	u64 difference = number - bound;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

#define LINE_ENDS (1ull << '\r' | 1ull << '\n')

/*
 * Read the flags from `*at`, which moves to the line's end, or to what may be one. False if they
 * are too many or too long, or one is there twice. What is wrong is only asked at the end: the verifier
 * would follow each letter in all ways.
 */
static __always_inline bool read_flags(const u8 *text, u32 *at, u64 *flags)
{
	u64 seen = 0, wrong = 0, behind_space = 0;
	u8 first = text_byte(text, *at, TEXT_ROOM);
	u32 n;

	if (first != ' ' && first != '\r' && first != '\n')
		return false;
	for (n = 0; n < MEMCACHED_FLAGS_MAX; n++) {
		u64 letter = text_byte(text, *at + n, TEXT_ROOM), place = (letter - '@') & 63;
		u64 other, begins;

		counted(n);
		if (LINE_ENDS >> (letter & 63) & is_below(letter, 64))
			break;
		other = is_below(0, letter ^ ' ');
		begins = behind_space & other;
		wrong |= is_below(letter, ' ') | is_below('~', letter) |
			 (begins & (is_below(letter, '@') | seen >> place));
		seen |= begins << place;
		behind_space = other ^ 1;
	}
	*at += n;
	*flags = seen;
	return !wrong && n < MEMCACHED_FLAGS_MAX &&
	       __builtin_popcountll(seen) <= MEMCACHED_FLAGS_COUNT;
}

/* INTENT_QUIET if there is what asks for no reply; `*at` moves behind it. */
static __always_inline u32 read_noreply(const u8 *text, u32 *at)
{
	u64 word = text_word(text, *at, TEXT_ROOM);
	u64 other = word ^ TEXT8(' ', 'n', 'o', 'r', 'e', 'p', 'l', 'y');

	*at += bits_without(other, sizeof(word));
	return bits_without(other, INTENT_QUIET);
}

/* FLAGS EXPTIME BYTES [CAS] [noreply] */
static __always_inline enum intent read_store(const u8 *text, u16 *cell, u32 at, bool cas,
					      struct memcached_command *command)
{
	u32 intent = INTENT_WRITE;
	u64 number, exptime, bytes;

	if (!read_argument(text, &at, TEXT_ROOM, 10, &number) || number > 0xffffffff)
		return INTENT_WRITE_ALL;
	at = forget(cell, at);
	if (text_byte(text, at++, TEXT_ROOM) != ' ' ||
	    !read_exptime(text, &at, TEXT_ROOM, &exptime))
		return INTENT_WRITE_ALL;
	at = forget(cell, at);
	intent |= lasting_without(exptime);
	intent |= bits_without(exptime | (text[MEMCACHED_HEADER] ^ 's'), INTENT_ENDLESS);
	if (!read_argument(text, &at, TEXT_ROOM, 9, &bytes))
		return INTENT_WRITE_ALL;
	at = forget(cell, at);
	if (cas) {
		if (!read_argument(text, &at, TEXT_ROOM, 19, &number))
			return INTENT_WRITE_ALL;
		at = forget(cell, at);
	}
	intent |= read_noreply(text, &at);
	command->end = behind_line(text, at, TEXT_ROOM);
	command->data = bytes + 2;
	return intent;
}

/* [BYTES] FLAG... A key in base64 names another key than it shows. */
static __always_inline enum intent read_meta(const u8 *text, u16 *cell, u32 at,
					     struct memcached_command *command)
{
	u32 intent = INTENT_WRITE, kind, data = 0;
	u64 bytes, flags;

	if (forget(cell, command->kind) == KIND_MS) {
		if (!read_argument(text, &at, TEXT_ROOM, 9, &bytes))
			return INTENT_WRITE_ALL;
		data = bytes + 2;
	}
	at = forget(cell, at);
	command->data = forgotten(data, now());
	kind = forget(cell, command->kind);
	if (!read_flags(text, &at, &flags))
		return INTENT_WRITE_ALL;
	command->end = behind_line(text, forget(cell, at), TEXT_ROOM);
	if (kind == KIND_MG && !(flags & ~(FLAGS_READING | FLAG('b'))))
		return INTENT_OTHER | INTENT_EITHER;
	if (flags & FLAG('b'))
		return INTENT_WRITE_ALL;
	if (flags & FLAG('q'))
		intent |= INTENT_QUIET;
	if (kind == KIND_MG)  /* q only hides EN */
		return intent | (flags & FLAG('q') ? INTENT_EITHER | INTENT_ANSWERS : 0);
	return intent | lasting_without(flags & ~FLAGS_LASTING);
}

/* [NUMBER] [noreply] */
static __always_inline enum intent read_line(const u8 *text, u16 *cell, u32 at,
					     struct memcached_command *command)
{
	u64 number;
	u32 quiet;

	if (text_byte(text, at, TEXT_ROOM) == ' ' && text_byte(text, at + 1, TEXT_ROOM) != 'n') {
		if (text_byte(text, ++at, TEXT_ROOM) == '-')
			at++;
		if (!read_number(text, &at, TEXT_ROOM, 19, &number))
			return INTENT_WRITE_ALL;
	}
	at = forget(cell, at);
	quiet = forget(cell, read_noreply(text, &at));
	command->end = behind_line(text, forget(cell, at), TEXT_ROOM);
	return INTENT_WRITE | quiet | lasting_line(text);
}

/*
 * What a command wants of its key, which ends at `at`, if its line and its data end where `command`
 * says afterwards. INTENT_WRITE_ALL if that is not sure.
 */
static __always_inline enum intent read_arguments(const u8 *text, u16 *cell, u32 at,
						  struct memcached_command *command)
{
	switch (forget(cell, command->kind)) {
	case KIND_GET:
	case KIND_GETS:
		command->end = behind_line(text, at, TEXT_ROOM);
		return INTENT_READ;
	case KIND_GAT:
		command->end = behind_line(text, at, TEXT_ROOM);
		return INTENT_WRITE | INTENT_ANSWERS;
	case KIND_LINE:
		return read_line(text, cell, at, command);
	case KIND_STORE:
		return read_store(text, cell, at, false, command);
	case KIND_CAS:
		return read_store(text, cell, at, true, command);
	case KIND_META:
	case KIND_MG:
	case KIND_MS:
		return read_meta(text, cell, at, command);
	default:
		return INTENT_WRITE_ALL;
	}
}

/* Read the command at the beginning of the text. INTENT_WRITE_ALL if it is not sure. */
static __always_inline enum intent read_text(const u8 *text, struct key *key,
					     struct memcached_command *command)
{
	u16 *cell = &key->length;
	u32 at = MEMCACHED_HEADER, key_length;
	enum memcached_kind kind = read_command(text_word(text, at, TEXT_ROOM),
						text_word(text, at + 8, TEXT_ROOM), &at);
	u64 exptime;

	if (kind == KIND_GAT && (!read_exptime(text, &at, TEXT_ROOM, &exptime) ||
				 text_byte(text, at++, TEXT_ROOM) != ' '))
		kind = KIND_FLUSH;  /* several spaces count as one: it may touch anything */
	kind = forget(cell, kind);
	at = forget(cell, at);
	command->kind = kind;
	if (kind <= KIND_QUERY || kind == KIND_FLUSH)
		return INTENT_WRITE_ALL;
	key_length = forget(cell, copy_key(text, at, TEXT_ROOM, key->bytes + MEMCACHED_SLOT_FROM));
	at = forget(cell, at + key_length);
	command->key_length = key_length;
	command->keyed = key_length >= 1 && key_length <= MEMCACHED_KEY_MAX &&
			 (text_byte(text, at, TEXT_ROOM) == ' ' ||
			  behind_line(text, at, TEXT_ROOM));
	return command->keyed ? read_arguments(text, cell, at, command) : INTENT_WRITE_ALL;
}

#endif
