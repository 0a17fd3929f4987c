/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes on a TCP connection, command by command, each of which voids its key; every payload that the
 * server sends on the connection voids the keys of its last writes once more, for it may acknowledge
 * any of them. A datagram of several commands is read in the same way.
 *
 * The state hangs on the accepted socket, so nothing that strangers send takes its place. What is
 * read has to be what TCP takes. That is judged by the socket's own `rcv_nxt`, up to which TCP has
 * the stream: a segment that begins where reading ended is read; one that ends before `rcv_nxt` is
 * an old one; one beyond is left to TCP. If TCP has ever got further than was read, or a segment
 * lies over bytes that were read and not taken, the stream is lost: it may write anything from here
 * on.
 *
 * Segments come here before the socket is locked, so two CPUs may have one each. `inside` lets one
 * of them read; the other's segment is not read, and so the connection is lost. What the server
 * sends may pass at the same time: a cell is in `cells` before its segment reaches the server, so
 * before it is acknowledged, and one that is displaced is held before it is gone from there.
 */
#ifndef CAROM_STREAM_H
#define CAROM_STREAM_H

#include "connection.h"
#include "edge.h"
#include "flights.h"

/* Commands that one run of edge_stream reads; it runs 33 times. Of newer clangs' the verifier takes fewer. */
#define STREAM_STEPS (__clang_major__ < 15 ? 4 : 2)
#define STREAM_READS 64      /* short reads that it passes over before */
#define REPLIES_ROOM 512      /* bytes of a server's payload that are looked at */
#define WINDOW_MAX (1 << 26)  /* what a client may send unacknowledged: twice the most of tcp_rmem */
#define ACKS_BEHIND (1 << 30) /* how far an acknowledgement may lie behind others: the largest window */
#define ACKS_AHEAD (1 << 18)  /* and before what is sent: that may be on its way meanwhile */
#define ACKS_LATER (1 << 24)  /* before what is sent until TCP looks, where its socket is owned for long */
#define LATER_REACH (1 << 18) /* how far from where reading is such a segment counts */

SOCKET_STORAGE(streams, struct stream, 0);

static __always_inline bool enter_stream(struct stream *stream)
{
	__sync_fetch_and_add(&stream->inside, 1);
	return *(volatile u32 *)&stream->inside == 1;
}

static __always_inline void leave_stream(struct stream *stream)
{
	__sync_fetch_and_add(&stream->inside, -1);
}

static __always_inline void lose(u32 service)
{
	count_event(STREAM_LOST);
	note_ending(SLOTS + service, 0);
	void_unread(service);
}

/*
 * The stream of an accepted socket, `received` TCP's own number. It begins with the first packet that
 * is seen of it; of one that had bytes before, nobody knows what it is in the middle of.
 */
static __always_inline struct stream *find_stream(struct bpf_sock *sk, u32 service, u32 *received)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	struct stream *stream;

	if (!tcp)
		return NULL;
	*received = tcp->rcv_nxt;
	stream = streams.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stream)
		return NULL;
	if (!stream->begun) {
		stream_begin(stream, *received);
		stream->heard = tcp->snd_nxt;
		stream->lost = tcp->bytes_received != 0;
		if (stream->lost)
			lose(service);
	} else if (is_behind(*received, stream->next) && !stream->lost) {
		stream->lost = 1;
		lose(service);
	}
	return stream;
}

/* The payload's first eight bytes. */
static __always_inline u64 first_word(const struct datagram *datagram)
{
	u32 length = datagram->length < sizeof(u64) ? datagram->length : sizeof(u64);
	u64 word = 0;

	if (length)
		bpf_skb_load_bytes(datagram->skb, datagram->offset, &word,
				   bounded(length, sizeof(u64)));
	return word;
}

/*
 * Does a command begin with this segment, as far as can be seen, on a connection that is lost? Its
 * client has all that the server has sent. Who sends such a thing in the middle of a value hides
 * nothing but his own write.
 */
static __always_inline bool begins_anew(const struct datagram *datagram, struct bpf_sock *sk,
					u32 protocol, u32 received)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	return tcp && datagram->sequence == received && datagram->received == tcp->snd_nxt &&
	       stream_may_begin(protocol, first_word(datagram));
}

/*
 * May TCP take a segment, by both its numbers, if it has sent so much more by then? What it refuses by
 * them is a stranger's, who has seen neither.
 */
static __always_inline bool may_be_taken(const struct datagram *datagram, struct bpf_sock *sk,
					 u32 received, u32 ahead)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	u64 acks;

	if (!tcp)
		return true;
	acks = tcp->bytes_acked < ACKS_BEHIND ? tcp->bytes_acked : ACKS_BEHIND;
	return datagram->sequence - received + WINDOW_MAX <= 2 * WINDOW_MAX &&
	       tcp->snd_nxt + ahead - datagram->received <=
		       tcp->snd_nxt + ahead - tcp->snd_una + acks;
}

/*
 * One that TCP may not take `soon`, but later, counts where it may come before another that is read; an
 * urgent pointer, of whatever segment, counts everywhere: the byte there is left out of what the server
 * reads.
 */
static __always_inline bool counts(const struct datagram *datagram, struct bpf_sock *sk, u32 received,
				   bool soon)
{
	if (datagram->urgent)
		return may_be_taken(datagram, sk, received, ACKS_LATER);
	return (datagram->length || datagram->ends) &&
	       (soon ||
		(datagram->sequence - received + LATER_REACH <= 2 * LATER_REACH &&
		 may_be_taken(datagram, sk, received, ACKS_LATER)));
}

/* What becomes of a segment. */
enum fate {
	FATE_READ,
	FATE_LEFT,  /* to TCP: it was read before, or cannot be read yet */
	FATE_LOST,
};

static __always_inline enum fate judge_segment(const struct stream *stream, u32 received,
					       const struct datagram *datagram, u32 end)
{
	if (datagram->sequence == stream->next)
		return stream_has_left(stream, datagram->sequence, end) ? FATE_LOST : FATE_READ;
	if (!is_behind(end, received) || is_behind(datagram->sequence, stream->next))
		return FATE_LEFT;
	return FATE_LOST;
}

/* A segment of the client's: true where there is something to read in it. Then it is inside. */
static __always_inline bool see_segment(const struct datagram *datagram, struct bpf_sock *sk,
					u32 service, u32 protocol, u32 alone,
					struct edge_scratch *scratch)
{
	u32 end = datagram->sequence + datagram->length + datagram->ends, received = 0;
	struct stream *stream = find_stream(sk, service, &received);
	bool alone_inside, soon;
	enum fate fate;

	if (!stream) {
		lose(service);
		return false;
	}
	soon = may_be_taken(datagram, sk, received, ACKS_AHEAD);
	if (!counts(datagram, sk, received, soon))
		return false;
	alone_inside = enter_stream(stream);
	stream_passes(stream, received);
	if (datagram->urgent)
		stream_tears(stream, datagram->sequence);
	if (!alone_inside || stream->torn)
		stream->lost = 1;
	else if (stream_is_lost(stream) && begins_anew(datagram, sk, protocol, received))
		stream_begin_anew(stream, received, now());
	fate = stream->lost ? FATE_LOST : judge_segment(stream, received, datagram, end);
	if (fate == FATE_READ && !soon)
		fate = FATE_LEFT;
	if (fate == FATE_LOST)
		stream->lost = 1;
	if (fate == FATE_READ)
		stream->next = end;
	else if (is_behind(end, received))
		stream_leaves(stream, datagram->sequence, end);
	if (fate != FATE_LEFT && stream_is_lost(stream) && datagram->length) {
		count_voider(datagram, service);
		lose(service);
	}
	if (fate != FATE_READ || !datagram->length) {
		leave_stream(stream);
		return false;
	}
	scratch->unread.offset = datagram->offset;
	scratch->unread.left = datagram->length;
	scratch->unread.service = service;
	scratch->unread.protocol = protocol;
	scratch->unread.stream = 1;
	scratch->unread.alone = alone;
	return true;
}

/* A datagram's commands, to be read one by one. */
static __always_inline void begin_datagram(const struct datagram *datagram, u32 service,
					   u32 protocol, u32 flight, struct edge_scratch *scratch)
{
	u32 front = datagram_front(protocol);

	stream_begin(&scratch->datagram, 0);
	scratch->datagram.lost = !is_readable(protocol, scratch->text);
	scratch->unread.offset = datagram->offset + front;
	scratch->unread.left = datagram->length > front ? datagram->length - front : 0;
	scratch->unread.service = service;
	scratch->unread.protocol = protocol;
	scratch->unread.flight = flight;
	scratch->unread.stream = 0;
	scratch->unread.reads = 0;
	scratch->unread.cell = SLOTS + service;
}

/* What is held of a line and behind it what is unread, as stream_read() wants it; 0: it cannot. */
static __always_inline u32 load_unread(struct __sk_buff *skb, const struct stream *stream,
				       struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	u32 left = unread->left, from = datagram_front(unread->protocol), size;
	u32 held = stream_held(unread->protocol, stream, scratch->text);

	if (!left || held > STREAM_LINE_MAX)
		return 0;
	size = TEXT_ROOM - from - held;
	if (size > left)
		size = left;
	size = bounded(size, TEXT_ROOM);
	held = bounded(from + held, 2 * STREAM_LINE_MAX);
	*(u64 *)(scratch->text + held + size) = 0;
	if (bpf_skb_load_bytes(skb, unread->offset, scratch->text + held, size))
		return 0;
	return held + *(volatile u32 *)&unread->left;
}

/*
 * A cell that is no longer among those that each payload of the server's voids. While one may tell that it
 * was written, as its acknowledgement or as one of what stood behind it, a key is held, and a service is
 * void with each.
 */
static __always_inline void void_displaced(struct stream *stream, u32 cell)
{
	u32 written = stream->times[stream->writes & (STREAM_CELLS - 1)];
	u64 jiffies = now();

	if (!stream_waits(stream))
		return;
	if (is_awaited(written, jiffies)) {
		if (cell >= SLOTS)
			*(volatile u32 *)&stream->all = written | 1;
		else
			hold_cell(cell, jiffies + FLIGHT_SECONDS * TICKS / 2 - ((u32)jiffies - written));
	}
	void_cell(cell, true);
}

static __always_inline void write_cell(struct stream *stream, u32 cell, bool quiet)
{
	u32 displaced = stream_displaces(stream);

	void_cell(cell, quiet);
	if (displaced != NO_CELL)
		void_displaced(stream, displaced);
	asm volatile("" ::: "memory");
	stream_wrote(stream, cell, quiet, now());
}

/*
 * A line that nobody knows: its reply tells, for what the server refuses has written nothing. Where
 * none need follow, it is as what cannot be read.
 */
static __always_inline void doubt(struct stream *stream, const struct unread *unread,
				  enum intent intent)
{
	u32 flight = unread->flight;

	stream_doubts(stream, now());
	if (intent & INTENT_QUIET)
		lose(unread->service);
	if (!unread->stream)
		remember_doubt(flight);
}

/* What writes all, in a datagram: flush_all alone has one acknowledgement, of others nobody knows. */
static __always_inline void void_all(u32 flight, u32 cell, enum intent intent)
{
	void_cell(cell, true);
	if (intent & INTENT_LASTING)
		remember_write(flight, cell, 0);
	else
		remember_unread(flight);
}

static __always_inline void take_write(struct stream *stream, struct unread *unread,
				       const struct key *key, enum intent intent)
{
	bool all = (intent & INTENT_MASK) == INTENT_WRITE_ALL;
	u64 item = all ? 0 : protocol_item(unread->protocol, key);
	u32 cell = all ? SLOTS + unread->service : item_slot(item);

	if (all && intent & INTENT_UNSURE) {
		doubt(stream, unread, intent);
		return;
	}
	count_event(all ? WRITE_ALL_SEEN : WRITE_SEEN);
	unread->cell = cell;
	note_ending(cell, intent);
	if (all)
		note_ending(unnamed(unread->service), intent);
	if (unread->stream && unread->alone &&
	    (intent & (INTENT_ENDLESS | INTENT_QUIET)) == INTENT_ENDLESS)
		stream_stores(stream, item_in(item, unread->service), now());
	if (unread->stream)
		write_cell(stream, cell, intent & INTENT_QUIET);
	else if (!all)
		void_write(unread->flight, cell, intent, 0);
	else
		void_all(unread->flight, cell, intent);
}

/*
 * A store's data has come to its end: the server does it from now on, and did not when its line came.
 * Nothing else was read meanwhile, so it is the last that wrote.
 */
static __always_inline void end_store(struct stream *stream)
{
	u32 place = (stream->writes - 1) & (STREAM_CELLS - 1), jiffies = now();

	if (!stream->writes || stream->times[place] == jiffies)
		return;
	void_cell(stream->cells[place], true);
	*(volatile u32 *)&stream->times[place] = jiffies;
}

/* Read one command, or a part of one. */
static __always_inline void step(struct __sk_buff *skb, struct stream *stream,
				 struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	struct key *key = &scratch->draft.key;
	u32 length = load_unread(skb, stream, scratch), skip = stream->skip, done;
	enum intent intent;

	if (!length) {
		stream->lost = 1;
		return;
	}
	__builtin_memset(key, 0, sizeof(*key));
	stream_begins(stream);
	done = stream_read(unread->protocol, stream, scratch->text, length, key, &intent);
	unread->offset += done;
	unread->left -= done;
	if (stream->data == stream->lines)
		*(volatile u32 *)&stream->data_at = now();
	if (skip && !stream->skip && unread->stream)
		end_store(stream);
	if ((intent & (INTENT_MASK | INTENT_QUIET | INTENT_ANSWERS)) == (INTENT_WRITE | INTENT_QUIET))
		stream_hushes(stream);
	if ((intent & INTENT_MASK) < INTENT_WRITE || intent & INTENT_ANSWERS)
		unread->reads = 1;
	if (intent & INTENT_EITHER && !unread->stream) {
		u32 flight = unread->flight;

		remember_query(flight);
	}
	if ((intent & INTENT_MASK) >= INTENT_WRITE && !stream->lost)
		take_write(stream, unread, key, intent);
}

/* Pass over a read, if one comes for certain, and is short. Bulk readers send hundreds in a segment. */
static __always_inline bool pass_read(struct __sk_buff *skb, struct stream *stream,
				      struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	u32 from = datagram_front(unread->protocol), left = unread->left, size, done;

	if (!unread->stream || !left || stream->lost || stream->held || stream->skip ||
	    stream->in_line)
		return false;
	size = bounded(left < AHEAD_ROOM ? left : AHEAD_ROOM, AHEAD_ROOM);
	*(u64 *)(scratch->text + from + size) = 0;
	if (bpf_skb_load_bytes(skb, unread->offset, scratch->text + from, size))
		return false;
	unread->done = stream_ahead(unread->protocol, stream, scratch->text, from + size);
	done = *(volatile u32 *)&unread->done;  /* of which the verifier is to know nothing */
	if (!done)
		return false;
	stream_begins(stream);
	unread->offset += done;
	unread->left -= done;
	return true;
}

static __always_inline struct stream *stream_inside(struct __sk_buff *skb,
						    struct edge_scratch *scratch)
{
	struct bpf_sock *sk;

	if (!scratch->unread.stream)
		return &scratch->datagram;
	sk = internet_socket(skb);
	return sk ? streams.sk_storage_get(sk, 0, 0) : NULL;
}

/*
 * A datagram was read to its end. A line that is not ended is dropped by the server; a store whose
 * data is not all there takes whatever comes next, from whomever, for the rest. Where in that the
 * server begins to read again, nobody knows.
 */
static __always_inline void end_datagram(const struct stream *stream, const struct unread *unread)
{
	u32 service = unread->service, flight = unread->flight;

	if (stream->lost) {
		lose(service);
		remember_unread(flight);
	}
	if (stream->lost || unread->reads)
		leave_read(flight, true, ASKED_UNKNOWN);
	if (!stream->skip)
		return;
	count_event(CUT);
	hold_cut(unread->cell);
	note_cut(service);
}

static __always_inline void end_reading(struct stream *stream, struct edge_scratch *scratch)
{
	if (!scratch->unread.stream) {
		end_datagram(stream, &scratch->unread);
		return;
	}
	if (stream->lost)
		lose(scratch->unread.service);
	leave_stream(stream);
}

/* Have edge_stream read what is unread. Does not come back, unless that cannot be. */
static __always_inline void go_on(struct __sk_buff *skb, struct edge_scratch *scratch)
{
	struct stream *stream;

	edge_programs.call(skb, EDGE_STREAM);
	stream = stream_inside(skb, scratch);
	if (stream) {
		stream->lost = 1;
		end_reading(stream, scratch);
	}
}

/* Read on in a packet. The scratch memory is ours since edge_ingress. */
static __always_inline void read_on(struct __sk_buff *skb, struct edge_scratch *scratch)
{
	struct stream *stream = stream_inside(skb, scratch);

	if (!stream) {
		lose(scratch->unread.service);
		return;
	}
	for (u32 n = 0; n < STREAM_READS && pass_read(skb, stream, scratch); n++)
		;
	for (u32 n = 0; n < STREAM_STEPS && scratch->unread.left && !stream->lost; n++)
		step(skb, stream, scratch);
	if (scratch->unread.left && !stream->lost)
		go_on(skb, scratch);
	else
		end_reading(stream, scratch);
}

/*
 * Is a payload of the server's in another language than what was read, or does it tell that the server
 * may have taken a store's data for commands? It does so where it does not know the store.
 */
static __always_inline bool disagrees(const struct datagram *datagram, u32 protocol,
				      struct stream *stream)
{
	u64 first = first_word(datagram);

	return !stream_agrees(protocol, stream, little_u64(first)) ||
	       (stream_refuses_line(protocol, stream, first) && stream_may_spill(stream, now()));
}

/*
 * How many replies a payload of the server's may be, and how it differs from a row of refusals; of a
 * long one nobody counts them.
 */
static __always_inline u32 count_replies(const struct datagram *datagram, u32 protocol,
					 const struct stream *stream, u64 *unlike)
{
	u64 row = 0;
	u32 replies = 0;

	if (datagram->length > REPLIES_ROOM)
		return 0;
	for (u32 at = 0; at < REPLIES_ROOM; at += sizeof(u64)) {
		u32 left = datagram->length - at;
		u64 word = 0;

		counted(at);
		if (at >= datagram->length)
			break;
		left = bounded(left < sizeof(word) ? left : sizeof(word), sizeof(word));
		if (bpf_skb_load_bytes(datagram->skb, datagram->offset + at, &word, left))
			break;
		replies += stream_replies(protocol, stream, word);
		row = stream_row(protocol, row);
		*unlike |= (little_u64(word) ^ row) << (64 - 8 * left);
	}
	return replies;
}

/* The eight behind them, or 0 where there are fewer. */
static __always_inline u64 second_word(const struct datagram *datagram)
{
	u64 word = 0;

	if (datagram->length >= 2 * sizeof(word))
		bpf_skb_load_bytes(datagram->skb, datagram->offset + sizeof(word), &word,
				   sizeof(word));
	return word;
}

/* Its last eight bytes; of fewer, the same as the first. */
static __always_inline u64 last_word(const struct datagram *datagram)
{
	u64 word = 0;

	if (datagram->length < sizeof(word))
		return first_word(datagram);
	bpf_skb_load_bytes(datagram->skb, datagram->offset + datagram->length - sizeof(word), &word,
			   sizeof(word));
	return word;
}

/*
 * Was a payload of the server's looked at before, or its beginning? `snd_nxt` does not tell: what the
 * host's own queue has dropped is new to TCP once more.
 */
static __always_inline bool is_sent_again(struct stream *stream, const struct datagram *datagram)
{
	u32 end = datagram->sequence + datagram->length;
	bool again = is_behind(stream->heard, datagram->sequence);

	if (is_behind(end, stream->heard))
		stream->heard = end;
	return again;
}

/* What a payload of the server's is, by its beginning and its end: bits. */
enum said {
	SAID_REFUSAL = 1 << 0,   /* of one command, or of several lines */
	SAID_WHOLE = 1 << 1,     /* one reply, for certain */
	SAID_READS = 1 << 2,     /* it begins as a read's reply */
	SAID_WRITES = 1 << 3,    /* it begins as an acknowledgement */
	SAID_STORED = 1 << 4,    /* it begins as that of a store */
	SAID_OF_QUIET = 1 << 5,  /* it may be the reply to a write that asked for none */
	SAID_BEARS_OUT = 1 << 6, /* it tells that a command began where one seemed to */
};

/*
 * Is a payload one value, whole? Only where the scratch memory is free, which another program may have;
 * else nobody knows.
 */
static __always_inline bool is_one_value(const struct datagram *datagram, u32 protocol)
{
	u64 last = last_word(datagram);
	u32 length = datagram->length < REPLIES_ROOM ? datagram->length : REPLIES_ROOM;
	struct edge_scratch *scratch = enter(false);
	u32 front = datagram_front(protocol);
	bool found = false;

	if (!scratch)
		return false;
	length = bounded(length, REPLIES_ROOM);
	*(u64 *)(scratch->draft.bytes + front + (length & ~7u)) = 0;
	__builtin_memset(&scratch->draft.key, 0, sizeof(scratch->draft.key));
	if (!bpf_skb_load_bytes(datagram->skb, datagram->offset, scratch->draft.bytes + front,
				length))
		found = stream_is_value(protocol, scratch->draft.bytes, last, datagram->length,
					&scratch->draft.key);
	leave(scratch);
	return found;
}

/* What it is. The verifier is to know nothing of it, or it would follow what comes behind once for each. */
static __always_inline u32 hear(const struct datagram *datagram, u32 protocol, struct stream *stream)
{
	u64 first = first_word(datagram), last = last_word(datagram), unlike = 0;
	u32 length = datagram->length, replies = count_replies(datagram, protocol, stream, &unlike);
	bool refusal = stream_refuses(protocol, stream, first, length, replies, !unlike);
	bool whole = stream_is_whole(protocol, stream, first, second_word(datagram), last, length,
				     replies);
	bool reads = stream_reads(protocol, stream, first);
	volatile u32 *said = &stream->said;

	*said = bits_without(!refusal, SAID_REFUSAL) | bits_without(!whole, SAID_WHOLE) |
		bits_without(!reads, SAID_READS) |
		bits_without(!stream_writes(protocol, stream, first), SAID_WRITES) |
		bits_without(!stream_says_stored(protocol, stream, first), SAID_STORED) |
		bits_without(!stream_is_of_quiet(protocol, stream, first), SAID_OF_QUIET) |
		bits_without(!stream_in_binary(protocol, stream) && (refusal || (!whole && !reads)),
			     SAID_BEARS_OUT);
	return *said;
}

/* A store was acknowledged, and nothing else can have been. */
static __always_inline void note_stored(const struct stream *stream)
{
	u32 since;
	u64 item = stream_stored(stream, &since), jiffies = now();

	if (item)
		note_lasting(item, jiffies - (u32)((u32)jiffies - since));
}

/*
 * What a payload tells of those to come: one that is not one whole reply may have a rest. True where it
 * may be a value, whole, which edge_value finds out.
 */
static __always_inline bool note_said(struct stream *stream, u32 said)
{
	bool value = (said & (SAID_READS | SAID_WHOLE)) == SAID_READS;

	if (said & SAID_WHOLE &&
	    stream_settles(stream, said & SAID_REFUSAL, said & SAID_OF_QUIET) && said & SAID_STORED)
		note_stored(stream);
	else if (!(said & SAID_WHOLE) && !value)
		stream->adrift = 1;
	if (said & SAID_BEARS_OUT)
		stream_bears_out(stream, now());
	return value;
}

/* A payload of which hear_payload() says that it may be a value. */
static __always_inline void see_value(const struct datagram *datagram, struct bpf_sock *sk,
				      u32 protocol)
{
	struct stream *stream = streams.sk_storage_get(sk, 0, 0);

	if (!stream)
		return;
	if (is_one_value(datagram, protocol))
		stream_settles(stream, false, stream_is_of_quiet(protocol, stream, first_word(datagram)));
	else
		stream->adrift = 1;
}

static __always_inline void void_said(const struct datagram *datagram, u32 service)
{
	note_ending(SLOTS + service, 0);
	count_voider(datagram, service);
	void_cell(SLOTS + service, false);
}

/*
 * A payload of the server's: its stream. True where hear_payload() is to look at what it says. They need no
 * scratch memory, and so come upon nobody else's.
 */
static __always_inline bool see_payload(const struct datagram *datagram, struct bpf_sock *sk,
					u32 service, u32 protocol)
{
	struct stream *stream;
	u32 received = 0;

	/* An empty one, too: it may be the first that is seen, behind bytes that came unseen. */
	stream = find_stream(sk, service, &received);
	if (!stream) {
		count_event(STREAM_LOST);
		void_said(datagram, service);
		return false;
	}
	if (!datagram->length)
		return false;
	stream->again = is_sent_again(stream, datagram);
	if (!stream->again && disagrees(datagram, protocol, stream) && !stream->lost) {
		stream->lost = 1;
		count_voider(datagram, service);
		lose(service);
	}
	return true;
}

/*
 * What it says. A line that nobody knows may have been a write, unless it was refused, and the refusal can
 * be of no other. True where it may be one value, whole.
 */
static __always_inline bool hear_payload(const struct datagram *datagram, struct bpf_sock *sk,
					 u32 service, u32 protocol)
{
	struct stream *stream = streams.sk_storage_get(sk, 0, 0);
	u32 said;

	if (!stream) {  /* as where see_payload() has none */
		void_said(datagram, service);
		return false;
	}
	said = hear(datagram, protocol, stream);
	if (!(said & SAID_REFUSAL) && (stream_in_doubt(stream, now()) || stream_is_lost(stream))) {
		count_event(STREAM_LOST);
		void_said(datagram, service);
	} else if (!stream->again && said & SAID_WRITES && !stream_acknowledges(stream)) {
		count_event(UNEXPLAINED);
		void_said(datagram, service);
	}
	for (u32 n = 0; n < STREAM_CELLS; n++) {
		u32 cell = stream_cell(stream, n, now());

		if (cell == NO_CELL)
			continue;
		void_cell(cell, false);
		count_event(WRITE_DONE);
	}
	return !stream->again && note_said(stream, said);
}

/*
 * A connection is closed by the server, which has done by now whatever it will do of it: also what it
 * could acknowledge to nobody, since its client is gone.
 */
static __always_inline void see_end(struct bpf_sock *sk)
{
	struct mark *mark = marks.sk_storage_get(sk, 0, 0);
	struct stream *stream = streams.sk_storage_get(sk, 0, 0);
	u32 service, jiffies = now();

	if (!mark || !stream)
		return;
	service = mark->service & (SERVICES_MAX - 1);
	if (stream_is_lost(stream) || stream_in_doubt(stream, jiffies))
		void_unread(service);
	for (u32 n = 0; n < STREAM_CELLS; n++) {
		u32 cell = stream_cell(stream, n, jiffies);

		if (cell != NO_CELL)
			void_cell(cell, false);
	}
}

#endif
