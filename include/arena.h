/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where entries lie: an arena of pages, each with entries of one size, in lines of 64 bytes. Pages are
 * given to sizes as they are needed; userspace adds more of them (daemon/store.py).
 */
#ifndef CAROM_ARENA_H
#define CAROM_ARENA_H

#include "abi.h"
#include "clock.h"
#include "copy.h"
#include "maps.h"

#define TRIES 16            /* of a change that another CPU may forestall */
#define RETURN_TRIES 64     /* of one without which a line would be lost */
#define LOOKS 32            /* at entries that may make room */
#define LOOKS_NEW 8         /* at new ones */
#define LINES_BITS 6        /* of a size's lines in LINES */
#define LINES                                                                                    \
	(2ull | 3ull << 6 | 4ull << 12 | 6ull << 18 | 8ull << 24 | 11ull << 30 | 15ull << 36 |   \
	 21ull << 42 | 29ull << 48)
#define PAGES_LOW 8         /* pages left at which userspace is told */
#define FRESH_BUSY ~0ull    /* in `fresh`: another CPU is getting a page */

/* Lines that an entry of a size takes. */
static __always_inline u32 lines_of(u32 size)
{
	return LINES >> size * LINES_BITS & ((1 << LINES_BITS) - 1);
}

/* Entries of a size in a page; their lines begin behind the first. */
static __always_inline u32 entries_of(u32 size)
{
	return (PAGE_LAST - 1) / lines_of(size) + 1;
}

/* The size for that many bytes; SIZES for too many. Without a branch, for the verifier. */
static __always_inline u32 size_for(u32 bytes)
{
	u64 size = 0;

#pragma unroll
	for (u32 n = 0; n < SIZES; n++) {
		u64 over = (u64)LINE * lines_of(n) - bytes;

		asm volatile("" : "+r"(over));
		size += over >> 63;
	}
	return size;
}

/*
 * All other reads and writes of this CPU's stay on their side of it. Where loads stay in order, and so do
 * stores, only the compiler has to keep it. Elsewhere an atomic operation that gives a value is a full
 * barrier (Linux' memory model), whatever it is done to.
 */
static __always_inline void fence(void)
{
	if (!SAID(in_order)) {
		u64 cell = 0;

		asm volatile("" : : "r"(&cell) : "memory");  /* or clang does it without a cell */
		asm volatile("" : : "r"(__sync_fetch_and_add(&cell, 1)) : "memory");
	}
	asm volatile("" : : : "memory");
}

static __always_inline struct arena_page *page_at(u32 number)
{
	u32 chunk = number / CHUNK_PAGES, index = number % CHUNK_PAGES;
	void *pages = chunks.lookup(&chunk);

	return pages ? look_into(pages, &index) : NULL;
}

/* The entry at a line, where there is a page. */
static __always_inline struct entry *entry_at(u32 line)
{
	struct arena_page *page = page_at(line / PAGE_LINES);
	u64 at = line % PAGE_LINES;

	if (!page)
		return NULL;
	asm volatile("" : "+r"(at));  /* or clang adds it before it has looked at the page */
	at &= PAGE_LINES - 1;
	if (at > PAGE_LAST)
		return NULL;
	return (struct entry *)(page->bytes + at * LINE);
}

static __always_inline u64 sequence_of(const struct entry *entry)
{
	return *(volatile u64 *)&entry->sequence;
}

/* Become the only one who writes an entry, if it is what it was at this number. */
static __always_inline bool lock_entry(struct entry *entry, u64 sequence)
{
	if (sequence & 1 ||
	    __sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)
		return false;
	fence();
	return true;
}

/* What was written before is there for whoever sees the number. */
static __always_inline void unlock_entry(struct entry *entry)
{
	fence();
	if (__sync_fetch_and_add(&entry->sequence, 1) == ~0ull)
		entry->next = 0;  /* never; but the sum is asked for, and so in order */
}

/* Give a line back; nothing is stored there. */
static __always_inline void put_line(struct shelf *shelf, struct entry *entry, u32 line)
{
	for (u32 n = 0; n < RETURN_TRIES; n++) {
		u64 first = *(volatile u64 *)&shelf->free;

		counted(n);
		*(volatile u32 *)&entry->next = first;
		fence();
		if (__sync_val_compare_and_swap(&shelf->free, first,
						((first >> 32) + 1) << 32 | line) == first)
			return;
	}
}

/* A line that was given back; 0 if there is none. The count keeps old takers from succeeding. */
static __always_inline u32 reuse_line(struct shelf *shelf)
{
	for (u32 n = 0; n < TRIES; n++) {
		u64 first = *(volatile u64 *)&shelf->free;
		struct entry *entry = entry_at(first);
		u32 next;

		counted(n);
		if (!(u32)first || !entry)
			break;
		next = *(volatile u32 *)&entry->next;
		if (__sync_val_compare_and_swap(&shelf->free, first,
						((first >> 32) + 1) << 32 | next) == first)
			return first;
	}
	return 0;
}

/* Tell userspace that few pages are left, if that helps. */
static __always_inline void want_pages(const struct limits *limits, u64 left)
{
	if (left < PAGES_LOW && *(volatile u64 *)&limits->grows)
		wanted.ringbuf_output(&left, sizeof(left), 0);
}

/* How many sizes have no page yet. */
static __always_inline u32 sizes_without(void)
{
	u32 count = 0;

	for (u32 n = 0; n < SIZES; n++) {
		u32 size = n;
		struct shelf *shelf = shelves.lookup(&size);

		counted(n);
		if (shelf)
			count = forgotten(count + bits_without(*(volatile u64 *)&shelf->pages, 1),
					  now());
	}
	return count;
}

/*
 * Is there a page for a size? Where no more are to come, the last ones are for sizes that have none:
 * a page stays with its size, so they would never get one.
 */
static __always_inline bool has_page(const struct limits *limits, const struct usage *usage,
				     const struct shelf *shelf)
{
	u64 used = *(volatile u64 *)&usage->pages, pages = *(volatile u64 *)&limits->pages;

	return used < pages && (*(volatile u64 *)&limits->grows || !*(volatile u64 *)&shelf->pages ||
				pages - used > sizes_without());
}

/* Give a page to a size, if there is one. One CPU at a time does it for a size. */
static __always_inline bool add_page(const struct limits *limits, struct usage *usage,
				     struct shelf *shelf, u32 size, u32 *added)
{
	u64 number = *(volatile u64 *)&usage->pages;
	struct page_head *head, *first;

	want_pages(limits, *(volatile u64 *)&limits->pages - number);
	if (!has_page(limits, usage, shelf) ||
	    __sync_val_compare_and_swap(&usage->pages, number, number + 1) != number)
		return false;
	head = (struct page_head *)page_at(number);
	if (!head)
		return false;
	head->next = number;
	fence();
	*(volatile u32 *)&head->size_plus_one = size + 1;
	if (shelf->pages) {
		first = (struct page_head *)page_at(shelf->first);
		if (!first)
			return false;
		head->next = first->next;
		fence();
		first->next = number;
	} else {
		shelf->first = number;
		shelf->hand = number << 32;
	}
	fence();
	shelf->pages += 1;
	*added = number;
	return true;
}

static __always_inline u32 line_of(u64 page, u32 number, u32 size)
{
	return page * PAGE_LINES + 1 + number * lines_of(size);
}

/* A line that was never used; 0 if there is none. */
static __always_inline u32 fresh_line(const struct limits *limits, struct usage *usage,
				      struct shelf *shelf, u32 size)
{
	u64 fresh;
	u32 page;

	for (u32 n = 0; n < TRIES; n++) {
		fresh = *(volatile u64 *)&shelf->fresh;
		counted(n);
		if (fresh == FRESH_BUSY)
			return 0;
		if (!fresh || (u32)fresh >= entries_of(size))
			break;
		if (__sync_val_compare_and_swap(&shelf->fresh, fresh, fresh + 1) == fresh)
			return line_of(fresh >> 32, fresh, size);
	}
	if (__sync_val_compare_and_swap(&shelf->fresh, fresh, FRESH_BUSY) != fresh)
		return 0;
	if (!add_page(limits, usage, shelf, size, &page)) {
		*(volatile u64 *)&shelf->fresh = fresh;
		return 0;
	}
	fence();
	*(volatile u64 *)&shelf->fresh = (u64)page << 32 | 1;
	return line_of(page, 0, size);
}

/*
 * Where a shelf's hand is after `hand`: at the next entry of the page, of its `entries` or of those that were
 * ever used, or at the first of the next page. Without a branch, for the verifier: by the signs of differences.
 */
static __always_inline u64 hand_behind(const struct shelf *shelf, const struct arena_page *page,
				       u64 hand, u64 entries)
{
	u64 fresh = *(volatile u64 *)&shelf->fresh, next = hand + 1;
	u64 other_page = (next ^ fresh) >> 32;
	u64 stays = (((u32)next - entries) & ((next - fresh) | -other_page)) >> 63;
	u64 turned = (u64)*(volatile u32 *)&((const struct page_head *)page)->next << 32;

	asm volatile("" : "+r"(stays));
	return (next & -stays) | (turned & (stays - 1));
}

#endif
