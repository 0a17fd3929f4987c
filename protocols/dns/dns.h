/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dns: one question over UDP (RFC 1035, EDNS(0) by RFC 6891), its reply learned from the server.
 *
 * Only servers that answer every client alike are supported. One whose answer depends on who asks
 * (views, address-based answers, order rotated for each query) is not.
 *
 * A request is a read when it is a QUERY with one question of class IN and a data type, without
 * compression, no other record but at most one OPT, no EDNS option but a COOKIE, and no byte behind
 * that. Everything else goes up: transfers, ANY and the other meta types (128 to 255), ECS and all
 * other options, TSIG, unknown flags. UPDATE writes the zone; NOTIFY announces that it will change.
 * Changes by other ways (a transfer, a reload) show when the reply expires.
 *
 * The key is the name in lower case (RFC 4343) as on the wire, the type, and a byte with all else
 * that a request says: EDNS, DO, RD, CD and AD. Each may change the answer: a resolver may answer
 * differently without RD (RFC 1035 4.1.1), not validate with CD (RFC 4035 3.2.2), and validate only
 * if AD or DO ask for it (PowerDNS). So a reply is only given to requests like the one that it was
 * learned from, with the flags that the server gave it.
 *
 * Servers differ in how much of that byte they return: NSD, Knot and PowerDNS clear CD, a server
 * without DNSSEC clears DO, one without EDNS leaves OPT out, and AD means something else in a reply
 * (RFC 6840 5.7, 5.8). So the byte is taken from the request, which the socket's edge remembers
 * (cgroup/flights.h). A reply that says more than was asked is another request's.
 *
 * Every client gets its own spelling of the question (0x20) and, by compression (RFC 1035 4.1.4),
 * of all names that point there. Most servers point there however the question was spelled. BIND
 * does so only if its own spelling is the same, and otherwise writes its own. So a reply is first
 * given to clients that spell like the one that it was learned from. Others get it only once the
 * server has said the same, byte by byte, to a client that spelled differently
 * (cgroup/spellings.h).
 *
 * The size that a client takes may change the answer too. It is judged at the hit: a longer reply
 * is not given, and a truncated one is never learned. A reply to a client that takes little may
 * lack additional records, but no others, or it would be truncated (RFC 2181 9). A client that
 * takes more can do without them.
 *
 * A COOKIE (RFC 7873) is not part of the key. It is cut off the reply that is learned: no client
 * gets another's cookie. A client that has had one from this server insists on it (RFC 7873 5.3),
 * so a hit returns the request's own, once the hook has found it right (dns_cookie.h).
 */
#ifndef CAROM_DNS_H
#define CAROM_DNS_H

#include "bounded.h"
#include "clock.h"
#include "dns_cookie.h"
#include "protocol.h"

#define DNS_HEADER 12
#define DNS_NAME_MAX 255     /* bytes of a name on the wire, its root label included */
#define DNS_LABELS_MAX 128   /* the root label, and 127 of one byte with its length */
#define DNS_OWNER_LABELS_MAX 40 /* of a record that is learned: names in ip6.arpa have 35 */
#define DNS_LABEL_MAX 63     /* a larger length is a pointer, or unknown */
#define DNS_POINTER 0xc0
#define DNS_QUESTION_END 4   /* QTYPE and QCLASS */
#define DNS_OPT 11           /* an OPT record without options */
#define DNS_COOKIE_MIN 16    /* bytes of a COOKIE with a server's part; without it, 8 */
#define DNS_COOKIE_MAX 40
#define DNS_TRUNCATED_ROOM 288 /* header, question and OPT, and zeros */
#define DNS_UDP_MIN 512      /* what every client takes */
#define DNS_SOA_MIN 22       /* RDATA of an SOA: two names and five numbers */
#define DNS_RECORDS_MAX 16   /* records of a reply that is learned, not counting OPT */
#define DNS_READ 32          /* bytes that may be read behind a position that is inside */
#define DNS_SCRATCH 1536     /* offset of dns_learn's notes in a reply's room, behind REPLY_MAX */

/* Byte 2 and byte 3 of a message. */
#define DNS_QR 0x80
#define DNS_OPCODE 0x78
#define DNS_AA 0x04
#define DNS_TC 0x02
#define DNS_RD 0x01
#define DNS_RA 0x80
#define DNS_Z 0x40
#define DNS_AD 0x20
#define DNS_CD 0x10
#define DNS_RCODE 0x0f

#define DNS_NOTIFY (4 << 3)
#define DNS_UPDATE (5 << 3)
#define DNS_NXDOMAIN 3
#define DNS_CLASS_IN 1
#define DNS_OPTION_COOKIE 10
#define DNS_DO 0x80          /* in byte 7 of an OPT from its type on */

enum {
	DNS_TYPE_SOA = 6,
	DNS_TYPE_OPT = 41,
	DNS_TYPE_RRSIG = 46,
	DNS_META_FIRST = 128,
	DNS_META_LAST = 255,
	DNS_TYPE_RESERVED = 65535,
};

/* The last byte of a key. */
enum {
	DNS_KEY_EDNS = 1,
	DNS_KEY_DO = 2,
	DNS_KEY_RD = 4,
	DNS_KEY_CD = 8,
	DNS_KEY_AD = 16,
};

/* A TTL of the stored reply, in which its bytes are zero. */
struct dns_note {
	u32 offset;
	u32 ttl;
};

enum {
	DNS_OPT_ENDS = 1,  /* the reply ends with its OPT record, which has no option */
	DNS_POINTS = 2,    /* its first record's name is a pointer into the question */
	DNS_ANY = 4,       /* it is the same for any spelling of the question */
};

/* Appended to the stored reply, at the next whole 8 bytes. */
struct dns_notes {
	u8 name;        /* bytes of the question's name, which are zero in the reply */
	u8 count;       /* of `ttls` that are there */
	u8 flags;       /* of those above */
	u8 last;        /* a bit for each capital among the first letters of the name's last label */
	u32 spelling;   /* a hash of where the name has capitals; 0 where there is none */
	struct dns_note ttls[DNS_RECORDS_MAX];
};

/* How far a reply has been read, and what was found. */
struct dns_walk {
	struct dns_notes notes;
	u32 length;    /* of the reply */
	u32 position;  /* in the reply */
	u32 asked;     /* the question's type */
	u32 answers;   /* number of the record where the answer section ends */
	u32 authority; /* and the authority section */
	u32 records;
	u32 least;     /* the smallest TTL */
	u32 opt;       /* offset of OPT's type, or 0 */
	u32 soa;       /* in the authority section: the reply is negative, wholly or at its end */
	u32 answered;  /* the type asked for is in the answer section */
	u32 is_signed;
	u32 last;      /* offset of the last label in the question's name */
};

/*
 * A field in map memory, read anew. The verifier knows nothing of what is read from there, so paths
 * that differ only in that become one. If it could conclude a value from where it left a loop, it
 * would follow all that comes behind once for each.
 */
#define DNS_ANEW(field) (*(volatile typeof(field) *)&(field))

static __always_inline u32 dns_u16(const u8 *at)
{
	return at[0] << 8 | at[1];
}

static __always_inline u32 dns_u32(const u8 *at)
{
	return dns_u16(at) << 16 | dns_u16(at + 2);
}

/*
 * Are DNS_READ bytes behind this position in a reply's room? The barrier keeps clang from joining
 * the check with another, which the verifier would not understand.
 */
static __always_inline bool dns_inside(u64 *position)
{
	asm volatile("" : "+r"(*position));
	return *position <= REPLY_ROOM - DNS_READ;
}

/*
 * Is it a type that records have and that can be asked for (RFC 6895 3.1): not OPT, no meta type?
 */
static __always_inline bool dns_data_type(u32 type)
{
	return type && type != DNS_TYPE_OPT && type != DNS_TYPE_RESERVED &&
	       (type < DNS_META_FIRST || type > DNS_META_LAST);
}

/*
 * The length of the question's name with its root label, or 0 for one that is compressed or too
 * long. The message may end before it does: the caller compares what follows with the message's
 * length.
 */
static __always_inline u64 dns_name(const u8 *message)
{
	u64 at = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < DNS_LABELS_MAX; i++) {
		u64 label = message[DNS_HEADER + at];

		if (!label)
			return at + 1;
		at += label + 1;
		asm volatile("" : "+r"(at));
		if (label > DNS_LABEL_MAX || at >= DNS_NAME_MAX)
			return 0;
	}
	return 0;
}

/* Is a loop's position within the name? Without this, clang counts down from `name`, unbounded. */
static __always_inline bool dns_before(u64 *at, u64 name)
{
	asm volatile("" : "+r"(*at));
	return *at < DNS_NAME_MAX && *at < name;  /* kernel 6.1 learns nothing by the second */
}

/* 8 bytes of the question's name, `at` bytes into it; zero where it has ended. */
static __always_inline u64 dns_name_word(const u8 *message, u64 at, u64 name)
{
	u64 word = *(const u64 *)(message + DNS_HEADER + at);

	if (name - at < sizeof(word))
		word &= __cpu_to_le64(~0ULL >> (64 - 8 * (name - at)));
	return word;
}

/*
 * A to Z in lower case, in all 8 bytes at once: 7-bit sums set a byte's top bit from `A` on, and
 * from behind `Z` on. Lengths of labels are smaller than `A`, and so stay.
 */
static __always_inline u64 dns_lower(u64 word)
{
	u64 low = word & 0x7f7f7f7f7f7f7f7fULL;
	u64 from_a = low + 0x3f3f3f3f3f3f3f3fULL;
	u64 behind_z = low + 0x2525252525252525ULL;

	return word | (from_a & ~behind_z & ~word & 0x8080808080808080ULL) >> 2;
}

/* In each of 8 bytes the lowest bit, if the byte is a capital. */
static __always_inline u64 dns_capitals(u64 word)
{
	return (word ^ dns_lower(word)) >> 5;
}

/* The hash of a spelling, with 8 bytes more of the name. */
static __always_inline u64 dns_spelling(u64 hash, u64 word)
{
	return (hash + dns_capitals(word)) * 0x9e3779b97f4a7c15ULL;
}

/* The length of the name in a key that has all but its last byte, or has it all. */
static __always_inline u64 dns_key_name(const struct key *key)
{
	u64 name = DNS_ANEW(key->length) - 3;

	asm volatile("" : "+r"(name));
	name = name <= DNS_NAME_MAX && name <= KEY_MAX - 3 ? name : 0;
	asm volatile("" : "+r"(name));  /* kernel 6.1 concludes nothing from before */
	return name;
}

/* Put name and type of a question into the key; its last byte stays zero. False: unreadable. */
static __always_inline bool dns_question(const u8 *message, struct key *key)
{
	u64 name = dns_name(message);

	if (!name || name > KEY_MAX - 3)
		return false;
	DNS_ANEW(key->length) = name + 3;
	name = dns_key_name(key);
#pragma clang loop unroll(disable)
	for (u64 at = 0; at < DNS_NAME_MAX; at += sizeof(u64)) {
		if (!dns_before(&at, name))
			break;
		*(u64 *)(key->bytes + at) = dns_lower(dns_name_word(message, at, name));
	}
	name = dns_key_name(key);
	key->bytes[name] = message[DNS_HEADER + name];
	key->bytes[name + 1] = message[DNS_HEADER + name + 1];
	return dns_data_type(dns_u16(message + DNS_HEADER + name)) &&
	       dns_u16(message + DNS_HEADER + name + 2) == DNS_CLASS_IN;
}

/* The last byte of a key, by a message's header and the flags of its OPT record, if it has one. */
static __always_inline u8 dns_flags(const u8 *message, bool edns, u8 edns_flags)
{
	u8 flags = 0;

	flags |= message[2] & DNS_RD ? DNS_KEY_RD : 0;
	flags |= message[3] & DNS_CD ? DNS_KEY_CD : 0;
	flags |= message[3] & DNS_AD ? DNS_KEY_AD : 0;
	if (edns)
		flags |= DNS_KEY_EDNS | (edns_flags & DNS_DO ? DNS_KEY_DO : 0);
	return flags;
}

/*
 * What in a read may change its reply, but does not come back in every reply: the key's last byte.
 * For other requests it is not known.
 */
static __always_inline u32 dns_asked(enum intent intent, const struct key *key)
{
	return intent == INTENT_READ ? key->bytes[dns_key_name(key) + 2] : ASKED_UNKNOWN;
}

/* The type of an OPT record that follows the question, behind the one byte of its name. */
static __always_inline const u8 *dns_request_opt(const u8 *text, u64 name)
{
	return text + DNS_HEADER + name + DNS_QUESTION_END + 1;
}

/* The bytes of a request's OPT record, or 0 for one that could change the answer in other ways. */
static __always_inline u32 dns_request_opt_length(const u8 *opt)
{
	u32 data = dns_u16(opt + 8);
	u32 cookie = dns_u16(opt + 12);

	/* Name, type; extended RCODE and version; flags. */
	if (opt[-1] || dns_u16(opt) != DNS_TYPE_OPT || dns_u16(opt + 4) ||
	    dns_u16(opt + 6) & ~(DNS_DO << 8))
		return 0;
	if (!data)
		return DNS_OPT;
	if (dns_u16(opt + 10) != DNS_OPTION_COOKIE || data != cookie + 4)
		return 0;
	if (cookie != 8 && (cookie < DNS_COOKIE_MIN || cookie > DNS_COOKIE_MAX))
		return 0;
	return DNS_OPT + data;
}

/* A message longer than DNS_REQUEST_MAX is no read: its beginning in `text` is enough. */
static __always_inline enum intent dns_request(const u8 *text, u32 length, struct key *key)
{
	u8 opcode = text[2] & DNS_OPCODE;
	const u8 *opt;
	bool edns = text[11];
	u64 name;
	u32 end;

	if (length < DNS_HEADER || text[2] & DNS_QR)
		return INTENT_OTHER;
	if (opcode == DNS_UPDATE || opcode == DNS_NOTIFY)
		return INTENT_WRITE_ALL;
	if (text[2] & ~DNS_RD || text[3] & ~(DNS_AD | DNS_CD))
		return INTENT_OTHER;
	if (dns_u16(text + 4) != 1 || dns_u32(text + 6) || dns_u16(text + 10) > 1)
		return INTENT_OTHER;
	if (!dns_question(text, key))
		return INTENT_OTHER;
	name = dns_key_name(key);
	end = DNS_HEADER + name + DNS_QUESTION_END;
	opt = dns_request_opt(text, name);
	if (edns) {
		u32 more = dns_request_opt_length(opt);

		if (!more)
			return INTENT_OTHER;
		end += more;
	}
	if (end != length)
		return INTENT_OTHER;
	key->bytes[name + 2] = dns_flags(text, edns, opt[6]);
	return INTENT_READ;
}

/* The longest reply that a request takes (RFC 6891 6.2.3: less than 512 says 512). */
static __always_inline u32 dns_room(const u8 *text, const u8 *opt)
{
	u32 size = text[11] ? dns_u16(opt + 2) : DNS_UDP_MIN;

	return size < DNS_UDP_MIN ? DNS_UDP_MIN : size;
}

/* Write the client's own spelling of the name (0x20) over zeros; its hash. */
static __always_inline u32 dns_spell(u8 *reply, const u8 *text, u64 name, u64 *sum)
{
	u64 spelling = 0;

#pragma clang loop unroll(disable)
	for (u64 at = 0; at < DNS_NAME_MAX; at += sizeof(u64)) {
		u64 word;

		if (!dns_before(&at, name))
			break;
		word = dns_name_word(text, at, name);
		*(u64 *)(reply + DNS_HEADER + at) |= word;
		*sum += (word & 0xffffffff) + (word >> 32);
		spelling = dns_spelling(spelling, word);
	}
	return spelling >> 32;
}

/*
 * Write one TTL, counted down, over zeros. At an odd offset each of its bytes is in the other half
 * of a 16-bit word, which in a one's-complement sum is the same as 8 bits to the left (RFC 1071
 * 2B).
 */
static __always_inline bool dns_count_down(u8 *reply, const struct dns_note *note, u32 age,
					   u64 *sum)
{
	u32 ttl = note->ttl > age ? note->ttl - age : 0;
	u64 offset = note->offset;
	u64 word = htonl(ttl);

	if (!dns_inside(&offset))
		return false;
	reply[offset] = ttl >> 24;
	reply[offset + 1] = ttl >> 16;
	reply[offset + 2] = ttl >> 8;
	reply[offset + 3] = ttl;
	*sum += offset & 1 ? word << 8 : word;
	return true;
}

/* The next offset of whole 8 bytes behind a reply, all of them in its room. */
static __always_inline u64 dns_aligned(u64 position)
{
	position += sizeof(u64) - 1;
	asm volatile("" : "+r"(position));
	return position & (REPLY_ROOM - sizeof(u64));
}

static __always_inline bool dns_answer(u8 *reply, u32 length, u32 stored, const u8 *text,
				       u32 text_length, u32 age, u64 *sum)
{
	u64 at = dns_aligned(length);
	const struct dns_notes *notes = (const struct dns_notes *)(reply + at);
	const u8 *opt = dns_request_opt(text, notes->name);

	if (length > dns_room(text, opt) || stored != at + sizeof(u64) * (1 + (u64)notes->count))
		return false;
	reply[0] = text[0];
	reply[1] = text[1];
	*sum += *(const u16 *)text;
	if (dns_spell(reply, text, notes->name, sum) != notes->spelling &&
	    !(notes->flags & DNS_ANY))
		return false;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < DNS_RECORDS_MAX; i++) {
		if (i >= DNS_ANEW(notes->count))
			break;
		at = dns_aligned(at + sizeof(u64));
		if (!dns_count_down(reply, (const struct dns_note *)(reply + at), age, sum))
			return false;
	}
	return true;
}

/*
 * Make a truncated reply without records (RFC 2181 9): the request itself, with the reply's flags.
 * A real client then asks again over TCP. It has no COOKIE, so a client that sent one gets no such
 * reply (RFC 7873 5.3). Returns its length, or 0.
 */
static __always_inline u32 dns_truncated(u8 *reply, const u8 *text, const struct key *key,
					 u32 length)
{
	u64 name = dns_key_name(key);
	const u8 *opt = dns_request_opt(text, name);
	u8 of_server[2] = { reply[2] & (DNS_AA | DNS_RD), reply[3] & ~DNS_AD };

	if (!name || (text[11] && dns_u16(opt + 8)))
		return 0;
#pragma unroll
	for (u32 at = 0; at < DNS_TRUNCATED_ROOM; at += sizeof(u64))
		*(u64 *)(reply + at) = *(const u64 *)(text + at);
	reply[2] = DNS_QR | DNS_TC | of_server[0];
	reply[3] = of_server[1];
	if (text[11]) {
		reply[DNS_HEADER + name + DNS_QUESTION_END + 3] = REPLY_SAFE >> 8;
		reply[DNS_HEADER + name + DNS_QUESTION_END + 4] = REPLY_SAFE & 0xff;
	}
	return length;
}

/* The COOKIE of a read: its option's code, length and data. NULL for none. */
static __always_inline const u8 *dns_cookie(const u8 *text, const struct key *key)
{
	const u8 *opt = dns_request_opt(text, dns_key_name(key));

	return text[11] && dns_u16(opt + 8) ? opt + DNS_OPT - 1 : NULL;
}

/* Append the request's whole COOKIE to a reply that ends with its OPT record. */
static __always_inline bool dns_return_cookie(u8 *reply, u32 *length, const u8 *text,
					      const struct key *key, u64 *sum)
{
	const u8 *opt = dns_request_opt(text, dns_key_name(key));
	u64 more = 4 + DNS_COOKIE_WHOLE, added = htons(more), at = dns_aligned(*length), word;

	if (!(((const struct dns_notes *)(reply + at))->flags & DNS_OPT_ENDS))
		return false;
	at = *length - 1;
	if (!dns_inside(&at) || *length + more > dns_room(text, opt))
		return false;
	reply[at] = more;  /* the last byte of OPT's RDLENGTH */
#pragma unroll
	for (u32 i = 0; i < 3; i++) {
		word = *(const u64 *)(opt + DNS_OPT - 1 + 8 * i);
		*(u64 *)(reply + at + 1 + 8 * i) = word;
		added += (word & 0xffffffff) + (word >> 32);
	}
	*(u32 *)(reply + at + 25) = *(const u32 *)(opt + DNS_OPT - 1 + 24);
	added += *(const u32 *)(opt + DNS_OPT - 1 + 24);
	*sum += *length & 1 ? added << 8 : added;  /* as in dns_count_down */
	*length += more;
	return true;
}

/* Skip the name of a record; a pointer ends it. The caller compares with the reply's length. */
static __always_inline bool dns_skip_name(const u8 *reply, struct dns_walk *walk)
{
	u64 at = walk->position;

#pragma clang loop unroll(disable)
	for (u64 i = 0; i < DNS_OWNER_LABELS_MAX; i++) {
		u64 label;

		if (!dns_inside(&at))
			return false;
		label = reply[at];
		if (!label || label >= DNS_POINTER) {
			walk->position = at + (label ? 2 : 1);
			return true;
		}
		if (label > DNS_LABEL_MAX)
			return false;
		at += label + 1;
	}
	return false;
}

/*
 * A negative reply, and the SOA in it, last as long as the SOA's TTL and the number at its end,
 * whichever is less (RFC 2308 3 and 5).
 */
static __always_inline bool dns_negative_ttl(const u8 *reply, u64 end, u32 data, u32 *ttl)
{
	u64 minimum = end - sizeof(u32);
	u32 seconds;

	if (data < DNS_SOA_MIN || !dns_inside(&minimum))
		return false;
	seconds = dns_u32(reply + minimum);
	if ((seconds | *ttl) >> 31)
		return false;
	if (seconds < *ttl)
		*ttl = seconds;
	return true;
}

/* Take the TTL out of a record and note it. With its top bit set it means 0 (RFC 2181 8). */
static __always_inline bool dns_take_ttl(u8 *reply, u64 offset, u32 ttl, struct dns_walk *walk)
{
	u64 count = DNS_ANEW(walk->notes.count);

	if (!ttl || ttl >> 31)
		return false;
	asm volatile("" : "+r"(count));
	if (count >= DNS_RECORDS_MAX || !dns_inside(&offset))
		return false;
	walk->notes.ttls[count].offset = offset;
	walk->notes.ttls[count].ttl = ttl;
	walk->notes.count = count + 1;
	if (ttl < walk->least)
		walk->least = ttl;
	reply[offset] = 0;
	reply[offset + 1] = 0;
	reply[offset + 2] = 0;
	reply[offset + 3] = 0;
	return true;
}

/* Note the OPT record: only one, the root's, in the additional section. */
static __always_inline bool dns_take_opt(u64 index, u64 owner, u64 at, struct dns_walk *walk)
{
	if (index < DNS_ANEW(walk->authority) || at != owner + 1 || walk->opt)
		return false;
	walk->opt = at;
	return true;
}

/* Read one record, from its name on; the position moves behind it. */
static __always_inline bool dns_record(u8 *reply, u64 index, struct dns_walk *walk)
{
	u64 owner = DNS_ANEW(walk->position), at, end;
	u32 type, ttl, data;
	bool answer;

	if (!dns_skip_name(reply, walk))
		return false;
	answer = index < DNS_ANEW(walk->answers);  /* or the loop in there would be followed twice */
	at = DNS_ANEW(walk->position);
	if (!dns_inside(&at))
		return false;
	type = dns_u16(reply + at);
	ttl = dns_u32(reply + at + 4);
	data = dns_u16(reply + at + 8);
	end = at + DNS_OPT - 1 + data;
	walk->position = end;
	if (type == DNS_TYPE_OPT)
		return dns_take_opt(index, owner, at, walk);
	if (!dns_data_type(type) || dns_u16(reply + at + 2) != DNS_CLASS_IN)
		return false;
	if (type == DNS_TYPE_SOA && !answer && index < DNS_ANEW(walk->authority)) {
		if (!dns_negative_ttl(reply, end, data, &ttl))
			return false;
		walk->soa = 1;
	}
	if (answer && type == walk->asked)
		walk->answered = 1;
	if (type == DNS_TYPE_RRSIG)
		walk->is_signed = 1;
	return dns_take_ttl(reply, at + 4, ttl, walk);
}

/* Read all records; false if one of them cannot be kept, or there is a byte behind the last. */
static __always_inline bool dns_records(u8 *reply, struct dns_walk *walk)
{
	walk->answers = dns_u16(reply + 6);
	walk->authority = walk->answers + dns_u16(reply + 8);
	walk->records = walk->authority + dns_u16(reply + 10);
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < DNS_RECORDS_MAX + 1; i++) {
		if (i >= DNS_ANEW(walk->records))
			break;
		if (!dns_record(reply, i, walk))
			return false;
	}
	return DNS_ANEW(walk->records) <= DNS_RECORDS_MAX + 1 &&
	       DNS_ANEW(walk->position) == walk->length;
}

/*
 * Check the OPT record of a reply: no extended RCODE, version 0, no flag but DO, no option. A
 * COOKIE at the end of the message is cut off.
 */
static __always_inline bool dns_clean_opt(u8 *reply, u32 *length, u64 opt)
{
	u32 data, cookie;

	if (!dns_inside(&opt) || dns_u16(reply + opt + 4) ||
	    dns_u16(reply + opt + 6) & ~(DNS_DO << 8))
		return false;
	data = dns_u16(reply + opt + 8);
	if (!data)
		return true;
	cookie = dns_u16(reply + opt + 12);
	if (dns_u16(reply + opt + 10) != DNS_OPTION_COOKIE || data != cookie + 4 ||
	    cookie < DNS_COOKIE_MIN || cookie > DNS_COOKIE_MAX || opt + 10 + data != *length)
		return false;
	reply[opt + 8] = 0;
	reply[opt + 9] = 0;
	*length = opt + 10;
	for (u32 i = 0; i < sizeof(u64); i++)
		reply[opt + 10 + i] = 0;
	return true;
}

/*
 * May this reply be kept, by what was found in it? For a name that does not exist, or has no data,
 * only with an SOA (RFC 2308 5), so no referral is kept. A chain of aliases without the type asked
 * for ends outside the server's zones, if the server is authoritative; otherwise it may be a
 * negative reply. No server sends signatures unless asked (RFC 4035 3.1.1): such a reply is another
 * request's.
 */
static __always_inline bool dns_keep(const u8 *reply, u8 asked, const struct dns_walk *walk)
{
	if (walk->is_signed && !(asked & DNS_KEY_DO) && walk->asked != DNS_TYPE_RRSIG)
		return false;
	if ((reply[3] & DNS_RCODE) == DNS_NXDOMAIN || !walk->answers)
		return walk->soa;
	return walk->answered || walk->soa || reply[2] & DNS_AA;
}

/* Take the question's name out, and note how it was spelled. */
static __always_inline void dns_take_name(u8 *reply, u64 name, struct dns_notes *notes)
{
	u64 spelling = DNS_ANEW(notes->spelling);  /* 0 */

#pragma clang loop unroll(disable)
	for (u64 at = 0; at < DNS_NAME_MAX; at += sizeof(u64)) {
		u64 word;

		if (!dns_before(&at, name))
			break;
		word = dns_name_word(reply, at, name);
		*(u64 *)(reply + DNS_HEADER + at) ^= word;
		spelling = dns_spelling(spelling, word);
	}
	notes->name = name;
	notes->spelling = spelling >> 32;
}

/* Find the last label of the question's name. */
static __always_inline void dns_find_last_label(const u8 *reply, struct dns_walk *walk)
{
	u64 at = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < DNS_LABELS_MAX; i++) {
		u64 label = reply[DNS_HEADER + at];

		if (!label)
			break;
		DNS_ANEW(walk->last) = at;
		at += label + 1;
		asm volatile("" : "+r"(at));
		if (at >= DNS_NAME_MAX)
			break;
	}
}

/* Note the capitals among the first letters of the question's last label. */
static __always_inline void dns_note_last_label(const u8 *reply, const struct key *key,
						struct dns_walk *walk)
{
	u64 name = dns_key_name(key), at = DNS_ANEW(walk->last), word;

	if (!dns_before(&at, name))
		return;
	word = dns_capitals(dns_name_word(reply, at, name));
	walk->notes.last = word * 0x0102040810204080ULL >> 56;
}

/* Note whether the name of the first record is a pointer to a label of the question's. */
static __always_inline void dns_note_pointer(const u8 *reply, const struct key *key,
					     struct dns_walk *walk)
{
	u64 name = dns_key_name(key);
	const u8 *owner = reply + DNS_HEADER + name + DNS_QUESTION_END;

	if (owner[0] == DNS_POINTER && owner[1] >= DNS_HEADER && owner[1] < DNS_HEADER + name - 1)
		walk->notes.flags = DNS_POINTS;
}

/* Put zeros where dns_answer writes, and the notes behind the reply. */
static __always_inline bool dns_store(u8 *reply, u32 length, u64 name, struct dns_walk *walk,
				      u32 *stored)
{
	u64 *notes = (u64 *)&walk->notes;
	u64 at = dns_aligned(length);

	dns_take_name(reply, name, &walk->notes);
	reply[0] = 0;
	reply[1] = 0;
	*stored = at + sizeof(u64) * (1 + (u64)walk->notes.count);
	if (*stored > REPLY_MAX)
		return false;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i <= DNS_RECORDS_MAX; i++) {
		if (i > DNS_ANEW(walk->notes.count))
			break;
		*(u64 *)(reply + dns_aligned(at + i * sizeof(u64))) = notes[i];
	}
	return true;
}

/* Read header and question of a reply; false if it may not be learned. */
static __always_inline bool dns_reply_question(const u8 *reply, u32 length, struct key *key)
{
	u8 rcode = reply[3] & DNS_RCODE;

	if (length < DNS_HEADER || length > REPLY_MAX)
		return false;
	if ((reply[2] & ~(DNS_AA | DNS_RD)) != DNS_QR || reply[3] & DNS_Z)
		return false;
	if ((rcode && rcode != DNS_NXDOMAIN) || dns_u16(reply + 4) != 1)
		return false;
	return dns_question(reply, key);
}

/*
 * What is known of length and flags is hidden before each loop: the verifier would follow the loop
 * once for each way to know it.
 */
static __always_inline bool dns_learn_of(u8 *reply, u32 *length, struct key *key, u32 *stored,
					 u32 *ttl, u8 asked)
{
	struct dns_walk *walk = (struct dns_walk *)(reply + DNS_SCRATCH);
	u64 name, opt, unknown = now();
	u8 said;

	if (!dns_reply_question(reply, *length, key))
		return false;
	name = dns_key_name(key);
	__builtin_memset(walk, 0, sizeof(*walk));
	walk->length = *length;
	walk->least = *ttl;
	dns_find_last_label(reply, walk);
	dns_note_last_label(reply, key, walk);
	dns_note_pointer(reply, key, walk);
	walk->asked = dns_u16(reply + DNS_HEADER + name);
	walk->position = DNS_HEADER + name + DNS_QUESTION_END;
	*length = forgotten(*length, unknown);
	asked = forgotten(asked, unknown);
	if (!dns_records(reply, walk))
		return false;
	opt = DNS_ANEW(walk->opt);
	if (!dns_inside(&opt) || (opt && !dns_clean_opt(reply, length, opt)))
		return false;
	said = dns_flags(reply, opt, reply[opt + 6]) & ~DNS_KEY_AD;
	if (opt && opt + DNS_OPT - 1 == *length)
		walk->notes.flags |= DNS_OPT_ENDS;
	if (said & ~asked || !dns_keep(reply, asked, walk))
		return false;
	*length = forgotten(*length, unknown);
	name = dns_key_name(key);
	key->bytes[name + 2] = asked;
	*ttl = walk->least;
	return dns_store(reply, *length, name, walk, stored);
}

/* `asked` is what dns_asked() said of the request. */
static __always_inline bool dns_learn(u8 *reply, u32 *length, struct key *key, u32 *stored,
				      u32 *ttl, u32 asked)
{
	return asked < ASKED_UNKNOWN && dns_learn_of(reply, length, key, stored, ttl, asked);
}

/* How the question of a learned reply was spelled. */
static __always_inline bool dns_spelled(const u8 *reply, u32 length, struct spelled *spelled)
{
	const struct dns_notes *notes = (const struct dns_notes *)(reply + dns_aligned(length));

	spelled->spelling = notes->spelling;
	spelled->last = notes->last;
	spelled->points = notes->flags & DNS_POINTS;
	return true;
}

/* Mark a learned reply as the same for any other spelling. */
static __always_inline void dns_give_any(u8 *reply, u32 length)
{
	((struct dns_notes *)(reply + dns_aligned(length)))->flags |= DNS_ANY;
}

/*
 * With NOERROR, an UPDATE is done (RFC 2136), and after a NOTIFY the server may look for a newer
 * zone (RFC 1996). BIND says so to any stranger's NOTIFY, even for a zone that it is the primary
 * of.
 */
static __always_inline enum answer dns_what_answer(const u8 *reply, u32 length)
{
	u8 opcode = reply[2] & DNS_OPCODE;

	if (length < DNS_HEADER || !(reply[2] & DNS_QR) ||
	    (opcode != DNS_NOTIFY && opcode != DNS_UPDATE))
		return ANSWER_READ;
	if (reply[3] & DNS_RCODE)
		return ANSWER_REFUSED;
	return opcode == DNS_UPDATE ? ANSWER_WRITTEN : ANSWER_HEEDED;
}

/* Over TCP a message is judged in the same way. */
static __always_inline enum answer dns_message_answer(const u8 *header, u32 length)
{
	return dns_what_answer(header, length);
}

/* An UPDATE has one reply, as a query has. */
static __always_inline bool dns_answers_more(enum intent intent)
{
	return false;
}

static __always_inline bool dns_counts_off(const u8 *reply)
{
	return true;
}

/* A COOKIE's option in a request: its code, length and data. */
static __always_inline u32 dns_cookie_length(const u8 *option)
{
	return option[2] << 8 | option[3];
}

static __always_inline bool dns_cookie_is_bare(const u8 *option)
{
	return dns_cookie_length(option) == DNS_COOKIE_CLIENT;
}

static __always_inline bool dns_cookie_is_whole(const u8 *option)
{
	return dns_cookie_length(option) == DNS_COOKIE_WHOLE;
}

static __always_inline bool dns_cookie_is_right(const u8 *option, const struct address *client,
						const struct cookies *known, u32 seconds)
{
	const u8 *cookie = option + 4;

	return dns_cookie_fresh(cookie, seconds) && dns_cookie_right(cookie, client, known);
}

#define DNS_COOKIE_OPT (DNS_OPT + 4)  /* an OPT record up to the data of its first option */
#define DNS_COOKIE_EDE 6  /* an extended error without text (RFC 8914), as NSD refuses with */

/*
 * Does a message end with an OPT record that has a COOKIE of `size` bytes first, and `more` bytes
 * behind that?
 */
static __always_inline bool dns_ends_with(const u8 *tail, const u32 size, const u32 more)
{
	const u8 *opt = tail + COOKIE_TAIL - DNS_COOKIE_OPT - size - more;

	return !opt[0] && !opt[1] && opt[2] == DNS_TYPE_OPT && !opt[9] &&
	       opt[10] == 4 + size + more && !opt[11] && opt[12] == DNS_OPTION_COOKIE &&
	       !opt[13] && opt[14] == size;
}

/*
 * Servers put the OPT record last, so the end of a reply tells. A reply with other options may be
 * overlooked: its request had to ask for those, and requests that ask for less get a cookie too.
 */
static __always_inline u32 dns_cookie_from_end(const u8 *tail)
{
	_Static_assert(COOKIE_TAIL == DNS_COOKIE_OPT + DNS_COOKIE_WHOLE + DNS_COOKIE_EDE &&
			       COOKIE_WHOLE == DNS_COOKIE_WHOLE,
		       "the room is for an OPT record with both");
	if (dns_ends_with(tail, DNS_COOKIE_WHOLE, DNS_COOKIE_EDE))
		return DNS_COOKIE_WHOLE + DNS_COOKIE_EDE;
	if (dns_ends_with(tail, DNS_COOKIE_WHOLE, 0) || dns_ends_with(tail, DNS_COOKIE_MIN, 0))
		return DNS_COOKIE_WHOLE;
	return 0;
}

/* Without additional records, somebody made the end of a TXT record, for example, look like one. */
static __always_inline bool dns_may_have_cookie(const u8 *front)
{
	return *(const __be16 *)(front + 10);
}

#endif
