/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests on their way through a server. Each finds its cell by a hash of its client, port, id and
 * service; others may share it. No cell is ever missing or full. Flights that share a cell share
 * the oldest token, which is good for all of them (include/token.h), and the writes' cells of
 * `versions`, which are then void once too often. What an acknowledgement may be of is known by flight.
 *
 * If a cell is used again, no read's reply comes later than half of FLIGHT_SECONDS after its
 * request, and no acknowledgement later than FLIGHT_SECONDS.
 *
 * A reply may count a request down only if that was counted up. Otherwise another reply would find
 * nothing, or a token that is too new. So requests that may have any number of replies are not
 * counted.
 *
 * A token is good for all that share a cell. What a request asked besides (protocols.h) is not: it
 * is known for one client, port and id in each cell, and only while no other request of the same
 * may wait that asked something different.
 */
#ifndef CAROM_FLIGHTS_H
#define CAROM_FLIGHTS_H

#include "abi.h"
#include "events.h"
#include "hash.h"
#include "lasting.h"
#include "parse.h"
#include "protocols.h"
#include "token.h"
#include "typed.h"

#define NO_CELL 0xffffffff

/*
 * A flight is 32 bits of its hash. The lower ones are the number of its cell; all of them are its
 * name, which tells it from others there.
 */
#define FLIGHT_BITS 14
_Static_assert(1 << FLIGHT_BITS == FLIGHTS, "a cell for each number");

/*
 * `count` reads have no reply yet; `count2` of them came after the second token was taken. With a
 * second one the first can be dropped: so every cell has a token no older than FLIGHT_SECONDS.
 */
struct reads {
	struct bpf_spin_lock lock;
	u32 count;
	u32 count2;
	u32 doubts;    /* of `count`: lines that may be reads, unless the server refuses them */
	u64 token;     /* taken when the first of them came, or earlier */
	u64 since;     /* jiffies then */
	u64 token2;
	u64 since2;
	u64 several;   /* jiffies until which a reply may be one of several: none is counted */
	u32 hidden;    /* of `count`: requests that the server may never have got */
	u32 unread;    /* jiffies when the last of these came; or 0 */
	u32 holder;    /* the flight whose `asked` is known */
	u32 asked;     /* what it asked besides; ASKED_UNKNOWN if its requests differ */
	u32 awaited;   /* its requests without a reply */
	u32 timed;     /* when its only one came, in microseconds (reply_times.h); 0 if it is not timed */
	u64 others;    /* a bit for each other flight that may wait, or for some of them */
	u64 others2;   /* the same for those that came, or may have, after the second token */
};

/* The writes of a flight, or its queries, that have no reply yet. */
struct waiter {
	u32 name;      /* waiter_name() */
	u32 last;      /* jiffies when the last of them came; of none, a time that is_late() */
	u32 count;
};

/* Writes on their way, and the cells of `versions` that their acknowledgements void. */
struct writes {
	struct bpf_spin_lock lock;
	u32 waiting;   /* writes without a reply */
	u32 queries;   /* queries without a reply, which may look like an acknowledgement */
	u32 doubts;    /* lines without a reply that are writes, unless the server refuses them */
	u64 last;      /* jiffies when the last came */
	u64 unread;    /* jiffies until which a reply may acknowledge what nobody could read */
	u64 uncounted; /* jiffies until which a refusal may be of something uncounted */
	u64 endless;   /* item_in() of the only write that waits, if it does not end; or 0 */
	u32 next;      /* the place that the next cell takes */
	u32 next_waiter;  /* the place that the next waiter takes, where there is no free one */
	u32 cells[FLIGHT_WRITES];  /* while any waits; NO_CELL where there is none yet */
	u32 times[FLIGHT_WRITES];  /* jiffies when each was written last */
	struct waiter waiters[FLIGHT_WAITERS];
};

/* One of the replies that a cell's reads may get. */
struct flight {
	u64 token;
	u64 since;
	u32 asked;  /* what its request asked besides; or ASKED_UNKNOWN */
	u32 timed;  /* as in struct reads */
};

LOCKED_ARRAY(reads, struct reads, FLIGHTS);
LOCKED_ARRAY(writes, struct writes, FLIGHTS);

static __always_inline u32 flight_of(const struct address *client, __be16 port, u32 service,
				     id_word id)
{
	struct siphash hash;

	siphash_begin(&hash, SAID(hash_secret0), SAID(hash_secret1));
	siphash_word(&hash, (u64)client->words[0] << 32 | client->words[1], 1);
	siphash_word(&hash, (u64)client->words[2] << 32 | client->words[3], 1);
	siphash_word(&hash, (u64)service << 32 | (u32)port << 16 | (u16)id, 1);
	if (sizeof(id) > sizeof(u16))
		siphash_word(&hash, id, 1);
	return siphash_end(&hash, 0, 0, 1, 3);
}

static __always_inline struct reads *reads_of(u32 flight)
{
	flight %= FLIGHTS;
	return reads.lookup(&flight);
}

static __always_inline struct writes *writes_of(u32 flight)
{
	flight %= FLIGHTS;
	return writes.lookup(&flight);
}

/* A flight's bit among a cell's others. */
static __always_inline u64 bit_of(u32 flight)
{
	return 1ULL << (flight >> FLIGHT_BITS & 63);
}

/* What a flight may have asked besides, if its reply comes now. Under the cell's lock, as below. */
static __always_inline u32 asked_by(const struct reads *cell, u32 flight)
{
	return cell->holder == flight && cell->awaited ? cell->asked : ASKED_UNKNOWN;
}

/* May a request of this flight wait in its cell? */
static __always_inline bool may_wait(const struct reads *cell, u32 flight)
{
	return (cell->holder == flight && cell->awaited) || cell->others & bit_of(flight);
}

/*
 * Note a request, what it asks besides, and when it came if it is timed. Its flight becomes the holder, and the former holder one
 * of the others, if it waits. A flight that may be among the others has a request on its way of
 * which nothing is known, and so stays there. So strangers' requests that nobody answers cost
 * others little: each sets one bit of 64.
 */
static __always_inline void note_asked(struct reads *cell, u32 flight, u32 asked, u32 timed)
{
	u64 other = bit_of(flight);

	if (cell->holder == flight) {
		if (cell->awaited && cell->asked != asked)
			asked = ASKED_UNKNOWN;
		cell->asked = asked;
		cell->timed = cell->awaited ? 0 : timed;  /* whose reply it would be cannot be told */
		cell->awaited += 1;
		return;
	}
	if (!(cell->others & other)) {
		other = cell->awaited ? bit_of(cell->holder) : 0;
		cell->holder = flight;
		cell->asked = asked;
		cell->timed = timed;
		cell->awaited = 1;
	}
	cell->others |= other;
	cell->others2 |= cell->count2 ? other : 0;
}

/* Another CPU that was here before may have read the clock later: then `since` is a tick ahead. */
static __always_inline bool passed(u64 jiffies, u64 since, u64 ticks)
{
	return (s64)(jiffies - since) >= (s64)ticks;
}

/*
 * A read, before the server sees it. `several`: it may have more than one reply, or one that is not
 * counted. `doubt`: it may be no read. `hidden`: the server may never see it, so the token is only
 * for replies to others. `asked` is what it asks besides, `timed` when it came, or 0. A token taken
 * before the lock is only older.
 */
static __always_inline void leave_token(u32 flight, bool several, bool doubt, bool hidden, u32 asked,
					u32 timed)
{
	struct reads *cell = reads_of(flight);
	u64 token = take_token(), jiffies = now();

	if (!cell)
		return;
	lock_value(&cell->lock);
	if (cell->count && passed(jiffies, cell->since, FLIGHT_SECONDS * TICKS)) {
		/* No reply to the first window's requests comes any more. */
		cell->count = passed(jiffies, cell->since2, FLIGHT_SECONDS * TICKS) ? 0
										    : cell->count2;
		cell->token = cell->token2;
		cell->since = cell->since2;
		cell->count2 = 0;
		cell->doubts = 0;
		cell->hidden = 0;
		cell->others = cell->others2;
		cell->others2 = 0;
	}
	if (!cell->count) {
		cell->token = token;
		cell->since = jiffies;
		cell->count2 = 0;
		cell->doubts = 0;
		cell->hidden = 0;
		cell->several = 0;
		cell->awaited = 0;
		cell->others = 0;
		cell->others2 = 0;
	} else if (!cell->count2 && passed(jiffies, cell->since, FLIGHT_SECONDS * TICKS / 2)) {
		cell->token2 = token;
		cell->since2 = jiffies;
		cell->count2 = 1;
	} else if (cell->count2) {
		cell->count2 += 1;
	}
	cell->count += 1;
	cell->doubts += doubt;
	cell->hidden += hidden;
	if (hidden)
		cell->unread = (u32)jiffies ? jiffies : 1;
	if (several)
		cell->several = jiffies + FLIGHT_SECONDS * TICKS;
	note_asked(cell, flight, asked, timed);
	unlock_value(&cell->lock);
}

static __always_inline void leave_read(u32 flight, bool several, u32 asked)
{
	leave_token(flight, several, false, false, asked, 0);
}

/* A datagram whose checksum seems wrong: a sender on this host may have left it half-made. */
static __always_inline void leave_hidden(u32 flight)
{
	leave_token(flight, true, false, true, ASKED_UNKNOWN, 0);
}

/* Not even the port of a request could be read: any reply to this client may be to it. */
static __always_inline void hide_client(const struct address *client, u32 service)
{
	leave_hidden(flight_of(client, 0, service, 0));
}

/*
 * A reply to this client: it gets no newer token than that of such a request in the last minute.
 * What that request asked besides is not known.
 */
static __always_inline void heed_hidden(const struct address *client, u32 service,
					struct flight *taken)
{
	u32 flight = flight_of(client, 0, service, 0), jiffies = now();
	struct reads *cell = reads_of(flight);

	if (!cell)
		return;
	lock_value(&cell->lock);
	if (cell->unread && jiffies - cell->unread + TICKS < (FLIGHT_SECONDS + 1) * TICKS) {
		if (may_wait(cell, flight))
			taken->asked = ASKED_UNKNOWN;
		if (cell->token < taken->token) {
			taken->token = cell->token;
			taken->since = cell->since;
		}
	}
	unlock_value(&cell->lock);
}

/* A line was refused: that is its only reply. */
static __always_inline void forget_doubt(u32 flight)
{
	struct reads *cell = reads_of(flight);

	if (!cell)
		return;
	lock_value(&cell->lock);
	if (cell->doubts && cell->count) {
		cell->doubts -= 1;
		cell->count -= 1;
	}
	unlock_value(&cell->lock);
}

/* A read's reply: it gets the oldest token of its cell. False if no read waits there. */
static __always_inline bool take_read(u32 flight, struct flight *taken)
{
	struct reads *cell = reads_of(flight);
	u64 jiffies = now();
	bool found;

	if (!cell)
		return false;
	lock_value(&cell->lock);
	found = cell->count > cell->hidden;
	taken->token = cell->token;
	taken->since = cell->since;
	taken->asked = asked_by(cell, flight);
	taken->timed = 0;
	if (cell->holder == flight && cell->awaited) {
		taken->timed = cell->timed;
		cell->timed = 0;
	}
	if (found && jiffies >= cell->several) {
		cell->count -= 1;
		if (cell->holder == flight && cell->awaited)
			cell->awaited -= 1;
	}
	unlock_value(&cell->lock);
	return found;
}

/* Another reply to what was counted as a read; when that came, if it was timed, or 0. */
static __always_inline u32 count_off(u32 flight)
{
	struct flight taken = {};

	take_read(flight, &taken);
	return taken.timed;
}

/* All ones if two numbers of 32 bits are equal, else 0; the verifier would follow a branch. */
static __always_inline u32 is_same(u64 one, u64 other)
{
	u64 difference = one ^ other;

	asm volatile("" : "+r"(difference));
	return -(u32)((difference - 1) >> 63);
}

/* Is a cell among those that wait? With `young` its time then becomes that of this write. */
static __always_inline u32 is_among(struct writes *waiting, u32 cell, u32 jiffies,
				     const bool young)
{
	u32 there = 0;

#pragma unroll
	for (u32 n = 0; n < FLIGHT_WRITES; n++) {
		u32 same = is_same(*(volatile u32 *)&waiting->cells[n], cell);

		if (young)
			waiting->times[n] ^= (waiting->times[n] ^ jiffies) & same;
		there |= same;
	}
	return there;
}

/* All ones if what came at that time, in jiffies, is not acknowledged any more, else 0. */
static __always_inline u32 is_late(u32 came, u32 jiffies)
{
	s64 left = (s64)(s32)(came + FLIGHT_SECONDS * TICKS - jiffies);

	asm volatile("" : "+r"(left));
	return ~(u32)(-left >> 63);
}

/* May it still be? */
static __always_inline bool may_come(u32 came, u32 jiffies)
{
	return (s32)(jiffies - came) < (s32)(FLIGHT_SECONDS * TICKS);
}

/* What tells a flight's writes, or its queries, from others in its cell. */
static __always_inline u32 waiter_name(u32 flight, bool query)
{
	return (flight >> FLIGHT_BITS) << 1 | query;
}

static __always_inline struct waiter *waiter_at(struct writes *waiting, u32 place)
{
	asm volatile("" : "+r"(place));  /* or clang leaves out what the verifier has to see */
	return &waiting->waiters[place & (FLIGHT_WAITERS - 1)];
}

/* Who waits under a name; NULL for nobody. */
static __always_inline struct waiter *find_waiter(struct writes *waiting, u32 name, u32 jiffies)
{
	u32 place = FLIGHT_WAITERS;
	struct waiter *waiter;

#pragma unroll
	for (u32 n = 0; n < FLIGHT_WAITERS; n++) {
		waiter = &waiting->waiters[n];
		place ^= (place ^ n) & is_same(*(volatile u32 *)&waiter->name, name) &
			 ~is_late(*(volatile u32 *)&waiter->last, jiffies);
	}
	waiter = place < FLIGHT_WAITERS ? waiter_at(waiting, place) : NULL;
	return waiter && waiter->count ? waiter : NULL;  /* times of 32 bits come round again */
}

/*
 * A place where nobody waits; where there is none, each has to go in its turn: then nothing explains
 * the acknowledgements that he waits for.
 */
static __always_inline struct waiter *free_waiter(struct writes *waiting, u32 jiffies)
{
	u32 place = waiting->next_waiter & (FLIGHT_WAITERS - 1);

	waiting->next_waiter = place + 1;
#pragma unroll
	for (u32 n = 0; n < FLIGHT_WAITERS; n++)
		place ^= (place ^ n) &
			 is_late(*(volatile u32 *)&waiting->waiters[n].last, jiffies);
	return waiter_at(waiting, place);
}

/* One more waits under a name. */
static __always_inline void add_waiter(struct writes *waiting, u32 name, u32 jiffies)
{
	struct waiter *waiter = find_waiter(waiting, name, jiffies);

	if (!waiter) {
		waiter = free_waiter(waiting, jiffies);
		waiter->name = name;
		waiter->count = 0;
	}
	waiter->last = jiffies;
	waiter->count += 1;
}

/* One of them has its reply. Where it was the last, also who has read the clock before sees a free place. */
static __always_inline void end_wait(struct waiter *waiter, u32 jiffies)
{
	waiter->count -= 1;
	if (!waiter->count)
		waiter->last = jiffies - 2 * FLIGHT_SECONDS * TICKS;
}

/* Void a cell, and fill nothing in it that is asked before the acknowledgement must have come. */
static __always_inline void void_held(u32 cell)
{
	hold_cell(cell, now() + FLIGHT_SECONDS * TICKS);
	void_cell(cell, false);
}

/* Drop what came long ago: an acknowledgement that comes later is unexplained. */
static __always_inline void let_go(struct writes *waiting, u64 jiffies)
{
	if (passed(jiffies, waiting->last, FLIGHT_SECONDS * TICKS)) {
		waiting->waiting = 0;
		waiting->queries = 0;
		waiting->doubts = 0;
	}
}

/* Note when the last write came. */
static __always_inline void note_last(struct writes *waiting, u64 jiffies)
{
	let_go(waiting, jiffies);
	waiting->last = jiffies;
}

/* Note, before the server sees it, what is no read or write but may be answered on this flight. */
static __always_inline void remember(u32 flight, u32 queries, u32 doubts, bool unread,
				     bool uncounted)
{
	struct writes *waiting = writes_of(flight);
	u64 jiffies = now(), until = jiffies + FLIGHT_SECONDS * TICKS;

	if (!waiting)
		return;
	lock_value(&waiting->lock);
	note_last(waiting, jiffies);
	waiting->queries += queries;
	waiting->doubts += doubts;
	if (queries)
		add_waiter(waiting, waiter_name(flight, true), jiffies);
	if (unread)
		waiting->unread = until;
	if (uncounted)
		waiting->uncounted = until;
	unlock_value(&waiting->lock);
}

/* A query whose reply may look like an acknowledgement: it explains one. */
static __always_inline void remember_query(u32 flight)
{
	remember(flight, 1, 0, false, false);
}

/* What nobody could read: it may write anything. */
static __always_inline void remember_unread(u32 flight)
{
	remember(flight, 0, 0, true, true);
}

/* A line that is a write or a read, unless the server refuses it. */
static __always_inline void remember_doubt(u32 flight)
{
	remember(flight, 0, 1, true, false);
	leave_token(flight, true, true, false, ASKED_UNKNOWN, 0);
}

/* Something that is not counted and may be refused. */
static __always_inline void remember_uncounted(u32 flight)
{
	remember(flight, 0, 0, false, true);
}

static __always_inline void void_fallen(u32 cell)
{
	count_event(FELL_OUT);
	void_held(cell);
}

/*
 * The cell whose place the next write takes, if it may still be acknowledged. It is void and held
 * before it is overwritten, as its acknowledgement may come in between. NO_CELL for none.
 */
static __always_inline u32 let_fall(struct writes *waiting, u32 cell)
{
	u32 place = *(volatile u32 *)&waiting->next & (FLIGHT_WRITES - 1);
	u32 fallen = *(volatile u32 *)&waiting->cells[place];

	if (!*(volatile u32 *)&waiting->waiting || fallen == NO_CELL ||
	    !may_come(*(volatile u32 *)&waiting->times[place], now()) ||
	    is_among(waiting, cell, 0, false))
		return NO_CELL;
	void_fallen(fallen);
	return fallen;
}

/*
 * A write, before the server sees it: remember what its one acknowledgement voids. If there are
 * more writes than places, the oldest falls out. So a write without acknowledgement only costs its
 * own key.
 */
static __always_inline void remember_write(u32 flight, u32 cell, u64 endless)
{
	struct writes *waiting = writes_of(flight);
	u32 fallen = NO_CELL, seen, place;
	u64 jiffies = now();

	if (!waiting)
		return;
	seen = let_fall(waiting, cell);
	lock_value(&waiting->lock);
	note_last(waiting, jiffies);
	if (!waiting->waiting)
		__builtin_memset(waiting->cells, 0xff, sizeof(waiting->cells));
	waiting->endless = waiting->waiting ? 0 : endless;
	waiting->waiting += 1;
	add_waiter(waiting, waiter_name(flight, false), jiffies);
	if (!is_among(waiting, cell, jiffies, true)) {
		place = waiting->next & (FLIGHT_WRITES - 1);
		if (may_come(waiting->times[place], jiffies))
			fallen = waiting->cells[place];
		waiting->cells[place] = cell;
		waiting->times[place] = jiffies;
		waiting->next = place + 1;
	}
	unlock_value(&waiting->lock);
	if (fallen != NO_CELL && fallen != seen)  /* another CPU took that place meanwhile */
		void_fallen(fallen);
}

/*
 * A write, before the server sees it. One that has one acknowledgement is remembered until that
 * comes. If its acknowledgement looks like a read's reply, nothing is filled for as long as that
 * may take. If it need not have one, an unexplained acknowledgement tells that it was done.
 * `endless` is the item that it stores, if that does not end; or 0.
 */
static __always_inline void void_write(u32 flight, u32 cell, enum intent intent, u64 endless)
{
	if (intent & INTENT_ANSWERS)
		void_held(cell);
	else
		void_cell(cell, intent & INTENT_QUIET);
	if (intent & (INTENT_ANSWERS | INTENT_QUIET))
		remember_uncounted(flight);
	else
		remember_write(flight, cell, endless);
}

/*
 * Hold the cell of a store whose data did not come, for as long as anybody may complete it. Replies
 * to what was asked since it was made void are void too, as it was not held yet.
 */
static __always_inline void hold_cut(u32 cell)
{
	hold_cell(cell, now() + (cell < SLOTS ? CUT_SECONDS : FLIGHT_SECONDS) * TICKS);
	void_cell(cell, false);
}

/* The writes that a reply may acknowledge. */
struct acknowledged {
	u32 cells[FLIGHT_WRITES];  /* cells that it voids; NO_CELL where there is none */
	bool explained;  /* a write of its flight waited for it, or a query did */
	bool unread;     /* it may be of what nobody could read */
	u64 endless;     /* the item that it stored, if that does not end; or 0 */
	u64 since;       /* jiffies when it came */
};

/* Copy the cells that may still be acknowledged, each in its place. */
static __always_inline void copy_cells(u32 *cells, const struct writes *waiting, u32 jiffies)
{
#pragma unroll
	for (u32 n = 0; n < FLIGHT_WRITES; n++)
		cells[n] = waiting->cells[n] | is_late(waiting->times[n], jiffies);
}

/*
 * Count one that waits down, if this can only be its reply, and not that of something uncounted. A
 * reply that is or may be a query's leaves the writes; so do a refusal, and an error that may be a
 * read's. `writer` and `asker`: the writes and queries of its flight, or NULL.
 */
static __always_inline void count_down(struct writes *waiting, struct waiter *writer,
				       struct waiter *asker, enum answer answer, u32 reads,
				       u64 jiffies, struct acknowledged *write)
{
	bool refused = !waiting->queries &&
		       (answer == ANSWER_REFUSED || (answer == ANSWER_ERROR && !reads));

	if (answer == ANSWER_EITHER && asker) {
		end_wait(asker, jiffies);
		waiting->queries -= 1;
	} else if (writer && jiffies >= waiting->unread && jiffies >= waiting->uncounted &&
		   (answer == ANSWER_WRITTEN || answer == ANSWER_EITHER || refused)) {
		write->endless = waiting->endless;
		write->since = waiting->last;
		waiting->endless = 0;
		end_wait(writer, jiffies);
		waiting->waiting -= 1;
	}
}

/*
 * Does a refusal end a doubt, with `others` reads without a reply? It does if it can be of nothing
 * else. What comes and is counted only now does not matter: the server has not seen it.
 */
static __always_inline bool ends_doubt(struct writes *waiting, u32 others, u64 jiffies)
{
	if (others || waiting->waiting || waiting->queries || jiffies < waiting->uncounted ||
	    !waiting->doubts)
		return false;
	waiting->doubts -= 1;
	if (!waiting->doubts)
		waiting->unread = 0;
	return true;
}

/* `cut`: the reply may be to a cut store that its request has completed, and so counts nothing down. */
static __always_inline void take_writes(u32 flight, enum answer answer, bool cut,
					struct acknowledged *write)
{
	struct writes *waiting = writes_of(flight);
	struct reads *beside = reads_of(flight);
	bool ended = false;
	u64 jiffies = now();
	struct waiter *writer, *asker;
	u32 others;

	__builtin_memset(write, 0, sizeof(*write));
	__builtin_memset(write->cells, 0xff, sizeof(write->cells));
	if (!waiting || !beside)
		return;
	lock_value(&beside->lock);
	others = beside->count - beside->doubts;
	unlock_value(&beside->lock);
	lock_value(&waiting->lock);
	let_go(waiting, jiffies);
	if (waiting->waiting)
		copy_cells(write->cells, waiting, jiffies);
	write->unread = jiffies < waiting->unread;
	writer = find_waiter(waiting, waiter_name(flight, false), jiffies);
	asker = find_waiter(waiting, waiter_name(flight, true), jiffies);
	write->explained = writer || (answer == ANSWER_EITHER && asker);
	if (answer == ANSWER_REFUSED || answer == ANSWER_ERROR)
		ended = ends_doubt(waiting, others, jiffies);
	if (!ended && !cut)
		count_down(waiting, writer, asker, answer, others, jiffies, write);
	unlock_value(&waiting->lock);
	if (ended)
		forget_doubt(flight);
}

static __always_inline void void_acknowledged(u32 cell)
{
	void_cell(cell, false);
	count_event(WRITE_DONE);
}

/* What else a reply that is no read's may mean. */
enum beside {
	BESIDE_NOTHING,
	BESIDE_UNREAD,  /* neither acknowledgement nor refusal, it may be to what nobody could read */
	BESIDE_ALL,     /* it has made the whole service void */
};

/*
 * Void what a reply that is no read's may acknowledge, before it leaves. `stored`: it says that a
 * store was done. `cut`: it may be to somebody's cut store.
 */
static __always_inline enum beside acknowledge(u32 flight, u32 service, enum answer answer, bool stored,
					       bool cut)
{
	u64 unknown = now();
	struct acknowledged write;
	bool refused, done, nothing;
	u32 end;

	take_writes(flight, answer, cut, &write);
	/* All is hidden that was found: the verifier would follow the rest once for each way to find it. */
	answer = forgotten(answer, unknown);
	write.explained = forgotten(write.explained, unknown) & 1;
	write.unread = forgotten(write.unread, unknown) & 1;
	refused = answer == ANSWER_REFUSED || answer == ANSWER_ERROR;
	done = answer == ANSWER_WRITTEN || answer == ANSWER_EITHER;
	nothing = refused || answer == ANSWER_PART;
	end = nothing ? SLOTS : NO_CELL;  /* a refused flush leaves the service alone */
	if (stored && write.endless)
		note_lasting(write.endless, write.since);
	if (refused)
		count_event(REFUSED);
	for (u32 n = 0; n < FLIGHT_WRITES; n++) {
		/*
		 * Otherwise clang enters the loop past its head, which kernels before 6.8 refuse
		 * (back-edge).
		 */
		asm volatile("" : "+r"(n));
		if (n < FLIGHT_WRITES && write.cells[n] < end)
			void_acknowledged(write.cells[n]);
	}
	if (done && (write.unread || !write.explained)) {
		note_ending(SLOTS + service, 0);
		void_cell(SLOTS + service, false);
		count_event(UNEXPLAINED);
		return BESIDE_ALL;
	}
	return write.unread && !done && !nothing ? BESIDE_UNREAD : BESIDE_NOTHING;
}

#endif
