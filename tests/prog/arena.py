# SPDX-License-Identifier: Apache-2.0
"""Is everything in a store's arena where it belongs? For a store that nobody fills meanwhile."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from carom.daemon.store import Store
from carom.kernel import libbpf
from carom.kernel.abi import (
    ENTRY,
    LINE_BITS,
    PAGE_HEAD,
    PAGE_LAST,
    PAGE_LINES,
    SIZE_LINES,
    TAG_SHIFT,
)

SHELF = struct.Struct("=6Q16x")
"""struct shelf: free, fresh, hand, entries, first, pages."""

_LOW = 0xFFFFFFFF


def _pages(store: Store, size: int, first: int, count: int) -> list[int]:
    """The pages of a size, which are a ring."""
    pages = [first] if count else []
    for _ in range(count):
        has, following = PAGE_HEAD.unpack_from(store._page(pages[-1]))
        assert has == size + 1
        pages.append(following)
    assert len(set(pages)) == count
    assert not count or pages.pop() == first
    return pages


def _free(store: Store, line: int) -> Iterator[int]:
    """The lines that were given back."""
    while line:
        yield line
        memory = store.memory_at(line)
        assert memory
        head = ENTRY.unpack_from(memory)
        assert not head[3], "a line with an entry is free"
        line = head[4]


def check_lines(store: Store) -> None:
    """Each line that was given out has an entry or is free, and all are counted."""
    stored = used = 0
    for size, lines in enumerate(SIZE_LINES):
        packed = libbpf.lookup(store._module.map("shelves"), struct.pack("=I", size), SHELF.size)
        assert packed
        free, fresh, _, entries, first, pages = SHELF.unpack(packed)
        in_page = (PAGE_LAST - 1) // lines + 1
        starts = [
            page * PAGE_LINES + 1 + n * lines
            for page in _pages(store, size, first, pages)
            for n in range(fresh & _LOW if page == fresh >> 32 else in_page)
        ]
        given_back = list(_free(store, free & _LOW))
        taken = {line for line in starts if ENTRY.unpack_from(store.memory_at(line) or b"")[3]}
        assert len(given_back) == len(set(given_back))
        assert sorted([*taken, *given_back]) == sorted(starts), f"of size {size}"
        assert entries == len(taken)
        stored += entries
        used += pages
    assert stored == len(store)
    assert used == store._usage[1]


def lost_ways(store: Store) -> int:
    """How many words of the directory lead to no entry of theirs."""
    lost = 0
    for word in filter(None, store._buckets):
        memory = store.memory_at(word & (1 << LINE_BITS) - 1)
        head = ENTRY.unpack_from(memory) if memory else (0,) * 4
        lost += not head[3] or head[1] >> TAG_SHIFT != word >> TAG_SHIFT
    return lost
