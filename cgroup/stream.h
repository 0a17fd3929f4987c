/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes on a TCP connection, command by command. Each voids its key. Every payload that the server
 * sends on the connection voids the keys of the last writes once more, as it may acknowledge any of
 * them. A datagram of several commands is read in the same way.
 *
 * The state is kept on the accepted socket, so nothing that strangers send can displace it. What is
 * read has to be what TCP takes. The socket's own `rcv_nxt`, up to which TCP has the stream, tells
 * that: a segment that begins where reading ended is read; one that ends before `rcv_nxt` is old;
 * one beyond is left to TCP. If TCP ever got further than reading, or a segment overlaps bytes that
 * were read and not taken, the stream is lost: it may write anything from here on.
 *
 * Segments come here before the socket is locked, so two CPUs may have one each. `inside` lets one
 * of them read; the other's segment is not read, and so the connection is lost. The server's
 * payloads may pass at the same time. So a cell is put into `cells` before its segment reaches the
 * server and is acknowledged, and a displaced one is held before it is overwritten.
 */
#ifndef CAROM_STREAM_H
#define CAROM_STREAM_H

#include "connection.h"
#include "edge.h"
#include "flights.h"

/*
 * Commands that one run of edge_stream or edge_commands reads. There are 33 tail calls, and the longest
 * datagram takes six to come there. With newer clangs fewer pass the verifier.
 */
#define STREAM_STEPS (__clang_major__ < 15 ? 4 : 2)
#define STREAM_READS 64      /* short reads that a run passes over first */
#define REPLIES_ROOM 512      /* bytes that are looked at of a server's payload */
#define WINDOW_MAX (1 << 26)  /* what a client may send unacknowledged: twice the most of tcp_rmem */
#define ACKS_BEHIND (1 << 30) /* an acknowledgement may be this far behind others: the largest window */
#define ACKS_AHEAD (1 << 18)  /* and this far ahead of what TCP has sent, which may leave meanwhile */
#define ACKS_LATER (1 << 24)  /* the same until TCP looks at it, if its socket is owned for long */
#define LATER_REACH (1 << 18) /* such a segment counts up to this far from where reading is */

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
 * The stream of an accepted socket; `received` becomes TCP's own number. It begins with the first
 * packet that is seen. If there were bytes before, it is lost: it may be in the middle of anything.
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
 * Does a command seem to begin with this segment, on a connection that is lost? Its client has
 * received all that the server has sent. Who sends something like this within a value only hides
 * his own write.
 */
static __always_inline bool begins_anew(const struct datagram *datagram, struct bpf_sock *sk,
					u32 protocol, u32 received)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	return tcp && datagram->sequence == received && datagram->received == tcp->snd_nxt &&
	       stream_may_begin(protocol, first_word(datagram));
}

/*
 * May TCP take a segment, by its sequence and acknowledgement numbers, if TCP has sent that much
 * more by then? A segment that it refuses by them is a stranger's, who has seen neither.
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
 * A segment that TCP may take later, but not `soon`, counts where it may come before another that
 * is read. An urgent pointer counts in any segment: the server does not read the byte there.
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

/* What happens to a segment. */
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

/* A segment of the client's: true if there is something to read in it; then `inside` counts it. */
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
	scratch->unread.alone = alone;
	return true;
}

/* Begin to read a datagram's commands, one by one. */
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
	scratch->unread.reads = 0;
	scratch->unread.cell = SLOTS + service;
}

/* Load what is held of a line, and then what is unread, for stream_read(); 0 if that fails. */
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
 * A displaced cell: the server's payloads do not void it any more. While one of them may tell that
 * it was written, as its acknowledgement or as that of something behind it, a key is held, and a
 * whole service is void with each payload.
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
 * An unknown line: its reply tells whether it wrote, as a line that the server refuses has written
 * nothing. If it need not have a reply, it counts as unreadable.
 */
static __always_inline void doubt(struct stream *stream, const struct unread *unread,
				  enum intent intent, const bool segment)
{
	u32 flight = unread->flight;

	stream_doubts(stream, now());
	if (intent & INTENT_QUIET)
		lose(unread->service);
	if (!segment)
		remember_doubt(flight);
}

/* A write of everything, in a datagram: only flush_all is known to have one acknowledgement. */
static __always_inline void void_all(u32 flight, u32 cell, enum intent intent)
{
	void_cell(cell, true);
	if (intent & INTENT_LASTING)
		remember_write(flight, cell, 0);
	else
		remember_unread(flight);
}

static __always_inline void take_write(struct stream *stream, struct unread *unread,
				       const struct key *key, enum intent intent,
				       const bool segment)
{
	bool all = (intent & INTENT_MASK) == INTENT_WRITE_ALL;
	u64 item = all ? 0 : protocol_item(unread->protocol, key);
	u32 cell = all ? SLOTS + unread->service : item_slot(item);

	if (all && intent & INTENT_UNSURE) {
		doubt(stream, unread, intent, segment);
		return;
	}
	count_event(all ? WRITE_ALL_SEEN : WRITE_SEEN);
	unread->cell = cell;
	note_ending(cell, intent);
	if (all)
		note_ending(unnamed(unread->service), intent);
	if (segment && unread->alone &&
	    (intent & (INTENT_ENDLESS | INTENT_QUIET)) == INTENT_ENDLESS)
		stream_stores(stream, item_in(item, unread->service), now());
	if (segment)
		write_cell(stream, cell, intent & INTENT_QUIET);
	else if (!all)
		void_write(unread->flight, cell, intent, 0);
	else
		void_all(unread->flight, cell, intent);
}

/*
 * A store's data has come to its end: only now can the server do the store. Nothing else was read
 * meanwhile, so it is the last write.
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
				 struct edge_scratch *scratch, const bool segment)
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
	done = forgotten(done, now());
	intent = forgotten(intent, now());
	unread->offset += done;
	unread->left -= done;
	if (stream->data == stream->lines)
		*(volatile u32 *)&stream->data_at = now();
	if (skip && !stream->skip && segment)
		end_store(stream);
	if ((intent & (INTENT_MASK | INTENT_QUIET | INTENT_ANSWERS)) == (INTENT_WRITE | INTENT_QUIET))
		stream_hushes(stream);
	if ((intent & INTENT_MASK) < INTENT_WRITE || intent & INTENT_ANSWERS)
		unread->reads = 1;
	if (intent & INTENT_EITHER && !segment) {
		u32 flight = unread->flight;

		remember_query(flight);
	}
	if ((intent & INTENT_MASK) >= INTENT_WRITE && !stream->lost)
		take_write(stream, unread, key, intent, segment);
}

/* Pass over what is certainly a short read. Bulk readers send hundreds of them in a segment. */
static __always_inline bool pass_read(struct __sk_buff *skb, struct stream *stream,
				      struct edge_scratch *scratch)
{
	struct unread *unread = &scratch->unread;
	u32 from = datagram_front(unread->protocol), left = unread->left, size, done;

	if (!left || stream->lost || stream->held || stream->skip || stream->in_line)
		return false;
	size = bounded(left < AHEAD_ROOM ? left : AHEAD_ROOM, AHEAD_ROOM);
	*(u64 *)(scratch->text + from + size) = 0;
	if (bpf_skb_load_bytes(skb, unread->offset, scratch->text + from, size))
		return false;
	unread->done = stream_ahead(unread->protocol, stream, scratch->text, from + size);
	done = *(volatile u32 *)&unread->done;  /* hidden from the verifier */
	if (!done)
		return false;
	stream_begins(stream);
	unread->offset += done;
	unread->left -= done;
	return true;
}

static __always_inline struct stream *stream_inside(struct __sk_buff *skb,
						    struct edge_scratch *scratch, const bool segment)
{
	struct bpf_sock *sk;

	if (!segment)
		return &scratch->datagram;
	sk = internet_socket(skb);
	return sk ? streams.sk_storage_get(sk, 0, 0) : NULL;
}

/*
 * A datagram was read to its end. The server drops a line that does not end. A store whose data is
 * not all there takes whatever comes next, from anybody, as the rest; it is not known where in that
 * the server begins to read commands again.
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

static __always_inline void end_reading(struct stream *stream, struct edge_scratch *scratch,
					const bool segment)
{
	if (!segment) {
		end_datagram(stream, &scratch->unread);
		return;
	}
	if (stream->lost)
		lose(scratch->unread.service);
	leave_stream(stream);
}

/* Have another program read what is unread. Returns only if the tail call fails. */
static __always_inline void go_on(struct __sk_buff *skb, struct edge_scratch *scratch,
				  const bool segment)
{
	struct stream *stream;

	if (segment) {
		edge_programs.call(skb, EDGE_STREAM);
		CALLED(EDGE_STREAM);
	} else {
		edge_programs.call(skb, EDGE_COMMANDS);
		CALLED(EDGE_COMMANDS);
	}
	stream = stream_inside(skb, scratch, segment);
	if (stream) {
		stream->lost = 1;
		end_reading(stream, scratch, segment);
	}
}

/* Read on in a segment or a datagram. The scratch memory is ours since the first program. */
static __always_inline void read_on(struct __sk_buff *skb, struct edge_scratch *scratch,
				    const bool segment)
{
	struct stream *stream = stream_inside(skb, scratch, segment);

	if (!stream) {
		lose(scratch->unread.service);
		return;
	}
	for (u32 n = 0; segment && n < STREAM_READS && pass_read(skb, stream, scratch); n++)
		;
	for (u32 n = 0; n < STREAM_STEPS && scratch->unread.left && !stream->lost; n++)
		step(skb, stream, scratch, segment);
	if (scratch->unread.left && !stream->lost)
		go_on(skb, scratch, segment);
	else
		end_reading(stream, scratch, segment);
}

/*
 * Is a payload of the server's in another language than what was read? Or does it show that the
 * server may have taken a store's data for commands, because it does not know the store?
 */
static __always_inline bool disagrees(const struct datagram *datagram, u32 protocol,
				      struct stream *stream)
{
	u64 first = first_word(datagram);

	return !stream_agrees(protocol, stream, little_u64(first)) ||
	       (stream_refuses_line(protocol, stream, first) && stream_may_spill(stream, now()));
}

/*
 * How many replies a payload of the server's may hold, and how it differs from a row of refusals.
 * In a long payload they are not counted.
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
 * Was a payload of the server's, or its beginning, looked at before? `snd_nxt` does not tell: what
 * the host's own queue has dropped counts as new to TCP.
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
	SAID_BEARS_OUT = 1 << 6, /* it shows that a command began where one seemed to */
};

/*
 * Is a payload one whole value? It is not known if another program is using the scratch memory.
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

/*
 * What a payload is, hidden from the verifier, which would follow the code behind once for each
 * value.
 */
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

/* A store was acknowledged, and the reply can be to nothing else. */
static __always_inline void note_stored(const struct stream *stream)
{
	u32 since;
	u64 item = stream_stored(stream, &since), jiffies = now();

	if (item)
		note_lasting(item, jiffies - (u32)((u32)jiffies - since));
}

/*
 * What a payload tells about the next ones: if it is not one whole reply, more of it may follow.
 * True if it may be one whole value, which edge_value finds out.
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

/* A payload that may be a value by hear_payload(). */
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
 * A payload of the server's: find its stream. True if hear_payload() has to look at what it says.
 * Neither needs the scratch memory, which another program may be using.
 */
static __always_inline bool see_payload(const struct datagram *datagram, struct bpf_sock *sk,
					u32 service, u32 protocol)
{
	struct stream *stream;
	u32 received = 0;

	/* For an empty one too: it may be the first that is seen, after bytes that were not. */
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
 * Look at what a payload says. An unknown line may have been a write, unless it was refused, and
 * the refusal can be of no other. True if it may be one whole value.
 */
static __always_inline bool hear_payload(const struct datagram *datagram, struct bpf_sock *sk,
					 u32 service, u32 protocol)
{
	struct stream *stream = streams.sk_storage_get(sk, 0, 0);
	u32 said;

	if (!stream) {  /* as in see_payload() */
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
 * The server closes a connection. It has done by now all that it will do of it, even what it could
 * not acknowledge because its client is gone.
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
