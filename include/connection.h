/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A TCP connection in its `struct stream`, with the cells of its last writes. What the bytes mean
 * is for its protocol to say.
 *
 * One program at a time reads a connection's segments; another may see the server's payloads at the
 * same moment. The second reads `cells` and `writes`, which the first writes. Both write
 * `answered`: whichever does so last, no write that may still wait is left out. Either may find
 * that the stream is lost.
 */
#ifndef CAROM_CONNECTION_H
#define CAROM_CONNECTION_H

#include "abi.h"
#include "parameter.h"

#define NO_CELL 0xffffffff

/* Is a sequence number behind another? */
static __always_inline bool is_behind(u32 number, u32 other)
{
	return (s32)(number - other) > 0;
}

/* Begin a connection; the byte with this sequence number is the next to read. */
static __always_inline void stream_begin(struct stream *stream, u32 sequence)
{
	stream->next = sequence;
	stream->skip = 0;
	stream->held = 0;
	stream->lost = 0;
	stream->in_line = 0;
	stream->asked = 0;
	stream->answered = 0;
	stream->writes = 0;
	stream->acked = 0;
	stream->lines = 0;
	stream->settled = 0;
	stream->doubts = 0;
	stream->doubt = 0;
	stream->doubted = 0;
	stream->hushed = 0;
	stream->stores = 0;
	stream->data = 0;
	stream->any_early = 0;
	stream->dialect = 0;
	stream->adrift = 0;
	stream->torn = 0;
	stream->anew = 0;
	stream->borne = 0;
	stream->all = 0;
	stream->begun = 1;
}

/*
 * Go on with a lost connection where a command seems to begin with this byte. Its former writes
 * stay. Where the server's replies begin and end is not known any more. A connection that has begun
 * anew before, and seems to be between two commands, stays as it is.
 */
static __always_inline void stream_begin_anew(struct stream *stream, u32 sequence, u32 jiffies)
{
	if (!stream->lost && !stream->skip && !stream->held && !stream->in_line)
		return;
	*(volatile u32 *)&stream->anew = jiffies ? jiffies : 1;
	stream->next = sequence;
	stream->skip = 0;
	stream->held = 0;
	stream->in_line = 0;
	stream->dialect = 0;
	stream->acked = stream->asked + stream->doubts;
	stream->adrift = 1;
	stream->lost = 0;
}

/*
 * May what was sent at that time (jiffies) still be answered? As in flights.h. It may have been
 * sent after this program read the clock.
 */
static __always_inline bool is_awaited(u32 sent, u32 jiffies)
{
	return jiffies - sent + TICKS < FLIGHT_SECONDS * TICKS / 2 + TICKS;
}

/* Note a segment that is not read, but TCP may take. */
static __always_inline void stream_leaves(struct stream *stream, u32 sequence, u32 end)
{
	if (!stream->any_early || is_behind(stream->early, sequence))
		stream->early = sequence;
	if (!stream->any_early || is_behind(end, stream->early_end))
		stream->early_end = end;
	stream->any_early = 1;
}

/* May TCP have bytes of this range from a segment that was left to it? They may be different. */
static __always_inline bool stream_has_left(const struct stream *stream, u32 sequence, u32 end)
{
	return stream->any_early && is_behind(end, stream->early) &&
	       is_behind(stream->early_end, sequence);
}

/* Note that a byte up to 64 KiB behind this number may be left out of what the server reads. */
static __always_inline void stream_tears(struct stream *stream, u32 sequence)
{
	u32 end = sequence + 65536;

	if (!stream->torn || is_behind(end, stream->torn_to))
		stream->torn_to = end;
	stream->torn = 1;
}

/* TCP has received all before this number: notes on older bytes are dropped. */
static __always_inline void stream_passes(struct stream *stream, u32 received)
{
	if (!is_behind(stream->torn_to, received))
		stream->torn = 0;
	if (!is_behind(stream->early_end, received))
		stream->any_early = 0;
}

/*
 * May the server still refuse a kind of store that it does not know, and take its data for
 * commands?
 */
static __always_inline bool stream_may_spill(const struct stream *stream, u32 jiffies)
{
	return (s32)(*(volatile u32 *)&stream->data - stream->settled) > 0 &&
	       is_awaited(*(volatile u32 *)&stream->data_at, jiffies);
}

/* Is the connection lost: not known what the client sends on it? */
static __always_inline bool stream_is_lost(const struct stream *stream)
{
	return *(volatile u8 *)&stream->lost ||
	       *(volatile u32 *)&stream->anew != *(volatile u32 *)&stream->borne;
}

/*
 * The server has answered as if a command had begun where one seemed to. That counts once no answer
 * to what was not read can come any more.
 */
static __always_inline void stream_bears_out(struct stream *stream, u32 jiffies)
{
	u32 anew = *(volatile u32 *)&stream->anew;

	if (!is_awaited(anew, jiffies))
		*(volatile u32 *)&stream->borne = anew;
}

/* How many of the last writes may still be answered; more than STREAM_CELLS: all in `cells`. */
static __always_inline u32 stream_unanswered(const struct stream *stream)
{
	u32 answered = *(volatile u32 *)&stream->answered;  /* before `writes`, which only grows */

	return *(volatile u32 *)&stream->writes - answered;
}

/*
 * The n-th of the cells to void again when the server has sent any payload, or NO_CELL. `n` is
 * below STREAM_CELLS; 0 is the last write.
 */
static __always_inline u32 stream_cell(const struct stream *stream, u32 n, u32 jiffies)
{
	u32 unanswered = stream_unanswered(stream);
	u32 place = (*(volatile u32 *)&stream->writes - 1 - n) & (STREAM_CELLS - 1);

	return n < unanswered && is_awaited(*(volatile u32 *)&stream->times[place], jiffies)
		       ? *(volatile u32 *)&stream->cells[place]
		       : NO_CELL;
}

/* Something is read: count a new command, if the one before was read to its end. */
static __always_inline void stream_begins(struct stream *stream)
{
	if (!stream->held && !stream->skip && !stream->in_line)
		*(volatile u32 *)&stream->lines = stream->lines + 1;
}

/* The command that is read asks for no answer, so none is waited for. */
static __always_inline void stream_hushes(struct stream *stream)
{
	u32 lines = stream->lines;

	*(volatile u32 *)&stream->hushed = lines;  /* before `lines`, and before the write's cell */
	*(volatile u32 *)&stream->lines = lines - 1;
}

/* The command that is read stores an item without an end, once it is acknowledged. */
static __always_inline void stream_stores(struct stream *stream, u64 item, u32 jiffies)
{
	*(volatile u32 *)&stream->stores = 0;
	*(volatile u64 *)&stream->endless = item;
	*(volatile u32 *)&stream->since = jiffies;
	*(volatile u32 *)&stream->stores = stream->lines;
}

/*
 * The item that the last settled command stored without an end, and in `*since` when it came; or 0.
 */
static __always_inline u64 stream_stored(const struct stream *stream, u32 *since)
{
	u32 settled = stream->settled, stores = *(volatile u32 *)&stream->stores;
	u64 item = *(volatile u64 *)&stream->endless;

	*since = *(volatile u32 *)&stream->since;
	return stores == settled && *(volatile u32 *)&stream->stores == settled ? item : 0;
}

/* The command that is read is a line that is a write, unless the server refuses it. */
static __always_inline void stream_doubts(struct stream *stream, u32 jiffies)
{
	*(volatile u32 *)&stream->doubted = stream->lines;
	*(volatile u32 *)&stream->doubt = jiffies;
	*(volatile u32 *)&stream->doubts = stream->doubts + 1;
}

/*
 * The server has sent a whole reply. If only one command waited, the reply is to that one, all
 * before it is done, and this is true. If more wait, nobody knows which are answered, and that
 * stays so; it is the same after a reply that may be to a write that asked for none (`of_quiet`). A
 * refusal acknowledges nothing.
 */
static __always_inline bool stream_settles(struct stream *stream, bool refused, bool of_quiet)
{
	u32 writes = *(volatile u32 *)&stream->writes;  /* read first: later ones do not count */
	u32 lines = *(volatile u32 *)&stream->lines;
	u32 hushed = *(volatile u32 *)&stream->hushed;

	if (of_quiet && hushed && (s32)(hushed - stream->settled) > 0)
		stream->adrift = 1;
	if (stream->adrift || lines - stream->settled != 1)
		return false;
	stream->settled = lines;
	if (!hushed || (s32)(hushed - lines) <= 0)  /* or such a write came behind it */
		*(volatile u32 *)&stream->answered = writes;
	if (refused && *(volatile u32 *)&stream->doubted == lines)
		stream->acked += 1;
	return true;
}

/* May a payload that refuses nothing acknowledge a doubted line, or a write of everything? */
static __always_inline bool stream_in_doubt(const struct stream *stream, u32 jiffies)
{
	u32 all = *(volatile u32 *)&stream->all;

	return (all && is_awaited(all, jiffies)) ||
	       ((s32)(*(volatile u32 *)&stream->doubted - stream->settled) > 0 &&
		is_awaited(*(volatile u32 *)&stream->doubt, jiffies));
}

/*
 * The cell that the next write displaces. Its own acknowledgement may still come, so it is held
 * first, as after a quiet write; only then may stream_wrote() overwrite it.
 */
static __always_inline u32 stream_displaces(const struct stream *stream)
{
	return stream->writes < STREAM_CELLS ? NO_CELL
					     : stream->cells[stream->writes & (STREAM_CELLS - 1)];
}

static __always_inline void stream_wrote(struct stream *stream, u32 cell, bool quiet, u32 jiffies)
{
	u32 writes = stream->writes;

	*(volatile u32 *)&stream->times[writes & (STREAM_CELLS - 1)] = jiffies;
	*(volatile u32 *)&stream->cells[writes & (STREAM_CELLS - 1)] = cell;
	if (writes - *(volatile u32 *)&stream->answered > STREAM_CELLS)
		*(volatile u32 *)&stream->answered = writes - STREAM_CELLS;  /* never far behind */
	*(volatile u32 *)&stream->writes = writes + 1 ? writes + 1 : STREAM_CELLS;
	if (!quiet)
		stream->asked += 1;
}

/* May the write that the next one displaces still wait for its acknowledgement? */
static __always_inline bool stream_waits(const struct stream *stream)
{
	return stream_unanswered(stream) >= STREAM_CELLS;
}

/*
 * The server has sent a payload that begins with an acknowledgement. False if there are more of
 * them than writes that were seen: some came by a way that is not watched.
 */
static __always_inline bool stream_acknowledges(struct stream *stream)
{
	u32 asked = *(volatile u32 *)&stream->asked + *(volatile u32 *)&stream->doubts;

	stream->acked += 1;
	if ((s32)(stream->acked - asked) <= 0)
		return true;
	stream->acked = asked;
	return false;
}

#endif
