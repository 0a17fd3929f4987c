/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A TCP connection in its `struct stream`: whether segments come in sequence, and the cells of its
 * last writes. What the bytes say is its protocol's affair.
 *
 * One program at a time reads a connection's segments; another may see the server's payloads at the
 * same moment. It reads `cells` and `writes`, which the first writes, and alone writes `answered`;
 * either may find that the stream is lost.
 */
#ifndef CAROM_CONNECTION_H
#define CAROM_CONNECTION_H

#include "abi.h"

#define NO_CELL 0xffffffff

/* A connection whose first byte has this number: on its SYN. */
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
	stream->dialect = 0;
}

/*
 * Before a segment is read: false where it, and so the stream, is lost. A segment that comes again
 * is out of sequence too: it was seen, but the first one may have been another, with a wrong
 * checksum, for at the socket's edge that is not known yet.
 */
static __always_inline bool stream_arrive(struct stream *stream, u32 sequence, u32 length)
{
	if (sequence != stream->next)
		stream->lost = 1;
	stream->next = sequence + length;
	return !stream->lost;
}

/*
 * The n-th of the cells to void again when the server has sent a payload, any payload; `n` is below
 * STREAM_CELLS.
 */
static __always_inline u32 stream_cell(const struct stream *stream, u32 n)
{
	return n < *(volatile u32 *)&stream->writes
		       ? *(volatile u32 *)&stream->cells[n & (STREAM_CELLS - 1)]
		       : NO_CELL;
}

/*
 * The cell that the next write displaces. Its own acknowledgement may still be to come, so it is
 * held first, as after a quiet write; only then may stream_wrote() take it out of sight.
 */
static __always_inline u32 stream_displaces(const struct stream *stream)
{
	return stream->writes < STREAM_CELLS ? NO_CELL
					     : stream->cells[stream->writes & (STREAM_CELLS - 1)];
}

static __always_inline void stream_wrote(struct stream *stream, u32 cell, bool quiet)
{
	u32 writes = stream->writes;

	*(volatile u32 *)&stream->cells[writes & (STREAM_CELLS - 1)] = cell;
	*(volatile u32 *)&stream->writes = writes + 1 ? writes + 1 : STREAM_CELLS;
	if (!quiet)
		stream->asked += 1;
}

/* Writes that may be without an acknowledgement: beyond STREAM_CELLS, some are forgotten. */
static __always_inline u32 stream_unanswered(const struct stream *stream)
{
	return *(volatile u32 *)&stream->asked - *(volatile u32 *)&stream->answered;
}

/* The server has sent at most so many acknowledgements. */
static __always_inline void stream_answered(struct stream *stream, u32 replies)
{
	u32 unanswered = stream_unanswered(stream);

	stream->answered += replies < unanswered ? replies : unanswered;
}

#endif
