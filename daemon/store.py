# SPDX-License-Identifier: Apache-2.0
"""Every service's entries in the kernel: finding, removing and sweeping them, and their memory.

Userspace reads the store's memory and never writes an entry: a program does that, which is atomic
with what the others do (xdp/hand.c). It writes use counters alone, which are no part of a reply.
"""

from __future__ import annotations

import contextlib
import secrets
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carom.errors import BPFError, CaromError, UsageError
from carom.kernel import forked, libbpf
from carom.kernel.abi import (
    CHUNK_PAGES,
    DRAFT,
    ENTRY,
    LIMITS,
    LINE,
    LINE_BITS,
    ORDER,
    PAGE_BYTES,
    PAGE_HEAD,
    PAGE_LAST,
    PAGE_LINES,
    RING,
    SEEN_PER_ENTRY,
    SERVICES_MAX,
    SIZE_LINES,
    SLOTS,
    TAG_SHIFT,
    USAGE,
    WAYS,
    WEIGHTS,
    Entry,
    Stored,
    unpack_entry,
)
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes, hash_of
from carom.kernel.resource import Resource

if TYPE_CHECKING:
    from carom.daemon.pinned import Pinned

Policy = Literal["lru", "fcfs"]
Admit = Literal["always", "second"]
"""What a full store takes: every reply, or only one whose key is asked for a second time."""

_PER_BUCKET = 4  # entries, on average: of 16 ways hardly any bucket needs all
_WORD = 8
ENTRY_BYTES = SIZE_LINES[0] * LINE + WAYS * _WORD // _PER_BUCKET + 4 * SEEN_PER_ENTRY
"""Bytes that one entry takes at least: the smallest, with its part of all that finds it."""

MEMORY_MIN = 2 * 2**20
"""The least memory of a store: some pages for each size of entries."""

_NEW_SHARE, _NEW_MIN = 8, 64
"""Of a full store, so small a part is for new entries that were never hit; at least so many."""

_CHUNK_BYTES = CHUNK_PAGES * PAGE_BYTES
_LINES_MAX = 1 << LINE_BITS
_CHUNKS_MAX = _LINES_MAX // (CHUNK_PAGES * PAGE_LINES)
_MEMORY_SHARE = 0.8
_LEFT_SHARE = 0.05
"""The share of the host's memory that is left to others, however much a store might hold."""

_BUCKETS, _CAPACITY, _PAGES, _GROWS, _EVICTS, _SEEN, _ALWAYS, _RECENTS, _FIRST_WEIGHT = range(9)
_ENTRIES, _PAGES_USED = range(2)
"""Cells of `store_limits` and `store_usage`."""

_SERVICES_MIN = 8
_RING_WORDS = RING * DRAFT.size // _WORD
_AT_ONCE = 8  # pages that `entries_from` reads
_RETRY = 1.0  # seconds until the host is asked for memory again, once it had none
_PAGES_LOW = 8  # PAGES_LOW of arena.h
_KEY_LENGTH, _KEY_LENGTH_AT = 3, 18  # in ENTRY: the number of the field, and its first byte
_SERVICE_AT, _USED_AT = 16, 59
_FRAME = 64  # bytes of the frame that a program of xdp/hand.c is run with


def _memory(name: str) -> int:
    """A figure of the host's memory, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def check_memory(capacity: int) -> None:
    """Raises UsageError for a capacity that memory cannot hold, were all entries the smallest."""
    available = _memory("MemAvailable")
    needed, most = capacity * ENTRY_BYTES, int(_MEMORY_SHARE * available)
    if needed > most:
        raise UsageError(
            f"a capacity of {capacity} needs {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} are available",
            hint=f"at most --capacity {most // ENTRY_BYTES} here, or --memory {most >> 20}M",
        )


def _column(page: memoryview, lines: int, at: int) -> list[int]:
    """A field of two bytes of all places for entries in a page, of so many lines each."""
    return page.cast("H")[(LINE + at) // 2 :: lines * LINE // 2].tolist()


class Extent:
    """How large a store is, and may become: `capacity` entries, or what `memory` bytes hold.

    Raises UsageError for more memory than a word of the directory can name.
    """

    def __init__(self, capacity: int, admit: Admit, memory: int = 0, services: int = 1):
        self.capacity = memory // ENTRY_BYTES if memory else capacity
        self.buckets = 1 << max(0, (self.capacity - 1) // _PER_BUCKET).bit_length()
        self.seen = SEEN_PER_ENTRY * self.capacity
        self.admit = admit
        new = max(self.capacity // _NEW_SHARE, min(self.capacity, _NEW_MIN))
        self.recents = 1 << new.bit_length() - 1
        fixed = self.buckets * WAYS * _WORD + self.seen * 4
        in_page = [(PAGE_LAST - 1) // lines + 1 for lines in SIZE_LINES]
        pages = sum(-(-self.capacity // count) for count in in_page)
        most = (memory - fixed) // _CHUNK_BYTES if memory else -(-pages // CHUNK_PAGES)
        if memory and most > _CHUNKS_MAX:
            raise UsageError(
                f"of {memory >> 30} GiB of memory a store could use no more than "
                f"{_CHUNKS_MAX * _CHUNK_BYTES >> 30} for its entries",
                hint="less --memory",
            )
        self.chunks = max(1, min(most, _CHUNKS_MAX))
        self._services = max(_SERVICES_MIN, services) + 1

    def sizes(self) -> dict[str, int]:
        """How many elements the store's maps have."""
        return {
            "buckets": self.buckets,
            "chunks": self.chunks,
            "seen": self.seen,
            "recents": self.recents,
            "drafts": self._services * RING,
            "drained": self._services,
            "outcomes": self._services * len(Stored),
        }


CALLED = ("bump", "drop", "prolong")
"""The programs that userspace calls."""

DRAINS = "xdp_store"
"""The one that it calls too where there are drafts."""


class Store(Resource):
    """The entries of one fast path's services, dead or alive; each service has its Cache.

    `versions`, `voids` and `holds` are the maps' own cells: reads need no system call, and only
    `bump` raises versions. `removed` is how many entries all sweeps took.
    """

    def __init__(
        self,
        module: Module,
        hashes: Hashes,
        extent: Extent,
        policy: Policy,
        *,
        drafts: bool,
        pinned: Pinned | None = None,
    ):
        """Without `drafts` nobody fills it from userspace. Chunks are `pinned`, if anything is.

        It goes on with a store whose maps and chunks were taken over. Raises VerifierError,
        BPFError.
        """
        self._module = module
        self._extent = extent
        self._pinned = pinned
        self.hashes = hashes
        self._chunks: list[memoryview] = []
        self._short_until = 0.0
        self._growing, self._hand, self._sweeping, self._restoring = (
            threading.Lock() for _ in range(4)
        )
        self._bump, self._drop, self._prolong = (
            libbpf.Order(module.program(name), _FRAME) for name in CALLED
        )
        self._drain = libbpf.Order(module.program(DRAINS), _FRAME) if drafts else None
        self._services = extent.sizes()["drained"]
        self._secret = hashes.parameters["hash_secret0"]
        with contextlib.ExitStack() as stack:

            def cells(name: str, count: int) -> memoryview:
                memory = module.cells(name, count)
                stack.callback(memory.release)
                return memory

            self.versions = cells("versions", SLOTS + SERVICES_MAX)
            self.voids = cells("voids", 1)
            self.holds = cells("holds", SLOTS + SERVICES_MAX)
            self._limits = cells("store_limits", LIMITS.size // _WORD)
            self._usage = cells("store_usage", USAGE.size // _WORD)
            self._buckets = cells("buckets", extent.buckets * WAYS)
            self._drained = cells("drained", self._services)
            self._drafts = cells("drafts", self._services * _RING_WORDS)
            self._outcomes = cells("outcomes", self._services * len(Stored))
            stack.callback(self._chunks.clear)
            if self._limits[_PAGES]:
                self._take_chunks()
            else:
                self._add_first_chunk()
                for n in range(WEIGHTS):
                    self._limits[_FIRST_WEIGHT + n] = secrets.randbits(64)
            self._stack = stack.pop_all()
        self._weights = list(self._limits[_FIRST_WEIGHT : _FIRST_WEIGHT + WEIGHTS])
        self._limits[_BUCKETS] = extent.buckets - 1
        self._limits[_EVICTS] = policy == "lru"
        self._limits[_SEEN] = extent.seen
        self._limits[_ALWAYS] = extent.admit == "always"
        self._limits[_RECENTS] = extent.recents
        self._limits[_CAPACITY] = extent.capacity
        self.removed = 0

    def __len__(self) -> int:
        """How many entries there are, dead or alive."""
        self.drain_all()
        return int(self._usage[_ENTRIES])

    @property
    def memory(self) -> int:
        """Bytes of memory that entries have so far, and what finds them."""
        found = len(self._buckets) * _WORD + self._extent.seen * 4
        return found + len(self._chunks) * _CHUNK_BYTES

    def grow(self) -> bool:
        """Give the arena more pages; False when it may have no more, or the host has none.

        Then entries make room for others of their size. A host that had no memory is asked again
        a second later.
        """
        with self._growing:
            number = len(self._chunks)
            if number == self._extent.chunks or time.monotonic() < self._short_until:
                return False
            if _memory("MemAvailable") > _LEFT_SHARE * _memory("MemTotal"):
                with contextlib.suppress(OSError, CaromError):
                    self._add_chunk(number)
                    return True
            self._short_until = time.monotonic() + _RETRY
            self._limits[_GROWS] = 0
            return False

    def _add_first_chunk(self) -> None:
        """Without it nothing could ever be stored, so it is had at the start or not at all."""
        try:
            self._add_chunk(0)
        except OSError as error:
            raise BPFError(
                f"the cache cannot have its first {_CHUNK_BYTES >> 10} KiB: {error.strerror}",
                hint="free some memory, or raise the limit of its control group",
            ) from error

    def _take_chunks(self) -> None:
        """Go on with the chunks of a store that was taken over. Raises BPFError."""
        for number in range(self._limits[_PAGES] // CHUNK_PAGES):
            descriptor = self._pinned.take(f"chunk-{number}") if self._pinned else None
            if descriptor is None:
                raise BPFError(
                    f"what is pinned lacks a part of its cache, chunk-{number}",
                    hint="`carom unpin` takes it all away",
                )
            try:
                self._chunks.append(forked.shared(descriptor, _CHUNK_BYTES))
            finally:
                forked.close(descriptor)
        self._limits[_GROWS] = len(self._chunks) < self._extent.chunks

    def _add_chunk(self, number: int) -> None:
        descriptor = self._module.another("chunk")
        try:
            memory = forked.shared(descriptor, _CHUNK_BYTES)
            if self._pinned:
                self._pinned.put(f"chunk-{number}", descriptor)
            key, value = struct.pack("=I", number), struct.pack("=I", descriptor)
            libbpf.update(self._module.map("chunks"), key, value)
        finally:
            forked.close(descriptor)
        self._chunks.append(memory)
        # Said before the last pages are there: these are given out with care (has_page of arena.h).
        self._limits[_GROWS] = number + 1 < self._extent.chunks
        self._limits[_PAGES] = len(self._chunks) * CHUNK_PAGES

    def grow_ahead(self) -> None:
        """Grow until some pages are left that no entry lies in, if that is possible."""
        while self._limits[_PAGES] - self._usage[_PAGES_USED] < _PAGES_LOW and self.grow():
            pass

    def needs(self) -> libbpf.Ring:
        """What programs say when few pages are left; for one who forks nothing, and closes it."""
        return libbpf.Ring(self._module.map("wanted"), lambda _: None)

    def drafts(self, service: int) -> memoryview:
        """The words of a service's RING drafts."""
        return self._drafts[service * _RING_WORDS :][:_RING_WORDS]

    def drafted(self, service: int) -> int:
        """The number of a service's next draft; none waits."""
        self.drain(service)
        return self._drained[service]

    def outcomes(self, service: int) -> memoryview:
        """How many of a service's drafts became what, by Stored, once they are drained."""
        return self._outcomes[service * len(Stored) :][: len(Stored)]

    def drain(self, service: int, finished: int | None = None) -> None:
        """Store all drafts of a service that wait; the one of the number that is `finished` too."""
        ready = 0 if finished is None else finished + 1
        while self._drain and (ready or self._waits(service)):
            with self._hand:
                self._drain(ORDER, ready, 0, 0, service, self._secret)
            ready = 0

    def _waits(self, service: int) -> bool:
        """Whether the next draft of a service is there: asked without a system call."""
        number = self._drained[service]
        at = service * _RING_WORDS + number % RING * (DRAFT.size // _WORD)
        return bool(self._drafts[at] == number + 1)

    def drain_all(self) -> None:
        """Store all drafts that wait."""
        for service in range(self._services):
            self.drain(service)

    def restore(self, service: int, key: bytes, reply: bytes, what: Sequence[int]) -> bool:
        """Store a reply that no request has asked for, at once; False where there is no room.

        `what` is as in DRAFT, from the token to the key's sum. Any thread may call it: the last
        ring of drafts is for nothing else.
        """
        with self._restoring:
            self.grow_ahead()
            ring = self._services - 1
            number, before = self._drained[ring], self.outcomes(ring)[Stored.STORED]
            at = number % RING * DRAFT.size
            drafts = self.drafts(ring).cast("B")
            DRAFT.pack_into(drafts, at, 0, *what, service, len(key), key, reply)
            self.drain(ring, number)
            return bool(self.outcomes(ring)[Stored.STORED] > before)

    def bump(self, cell: int) -> None:
        """Void a cell: from now on entries with an older token are void, on every CPU."""
        with self._hand:
            if self._bump(ORDER, 0, 0, 0, cell, self._secret) != libbpf.XDP_PASS:
                raise BPFError(f"versions has no cell {cell}")

    def find(self, service: int, key: bytes) -> Entry | None:
        """The entry under a key; `service` is the number in it."""
        self.drain(service % SERVICES_MAX)
        hashed = hash_of(self._weights, service, key)
        start = (hashed & self._limits[_BUCKETS]) * WAYS
        for word in self._buckets[start : start + WAYS]:
            line = word & _LINES_MAX - 1
            memory = self.memory_at(line) if word >> TAG_SHIFT == hashed >> TAG_SHIFT else None
            entry = unpack_entry(memory, line) if memory else None
            if entry and (entry.view * SERVICES_MAX + entry.service, entry.key) == (service, key):
                return entry
        return None

    def memory_at(self, line: int) -> memoryview | None:
        """The memory from a line to its page's end; None where no entry can begin."""
        number, at = divmod(line, PAGE_LINES)
        if at > PAGE_LAST or number >= len(self._chunks) * CHUNK_PAGES:
            return None
        return self._page(number)[at * LINE :]

    def _page(self, number: int) -> memoryview:
        chunk, index = divmod(number, CHUNK_PAGES)
        return self._chunks[chunk][index * PAGE_BYTES :][:PAGE_BYTES]

    def entries(self) -> Iterator[Entry]:
        """All entries, dead or alive, in no order."""
        self.drain_all()
        yield from self._entries_of()

    def entries_from(self, page: int) -> tuple[list[Entry], int | None]:
        """The entries of some pages from one on, and the page behind them; None at the end."""
        self.drain_all()
        used = self._usage[_PAGES_USED]
        end = min(page + _AT_ONCE, used)
        return list(self._entries_of(range(page, end))), end if end < used else None

    def _entries_of(self, numbers: Iterable[int] | None = None) -> Iterator[Entry]:
        for line, memory, _ in self._heads(numbers):
            entry = unpack_entry(memory, line)
            if entry:
                yield entry

    def count(self, service: int) -> int:
        """How many entries a service has, dead or alive."""
        self.drain_all()
        return sum(
            1
            for _, page, lines in self.pages()
            for length, owner in zip(
                _column(page, lines, _KEY_LENGTH_AT),
                _column(page, lines, _SERVICE_AT),
                strict=True,
            )
            if length and owner % SERVICES_MAX == service
        )

    def pages(self, numbers: Iterable[int] | None = None) -> Iterator[tuple[int, memoryview, int]]:
        """The number of each page (of these) that is in use, its memory, its entries' lines."""
        for number in range(self._usage[_PAGES_USED]) if numbers is None else numbers:
            page = self._page(number)
            size, _ = PAGE_HEAD.unpack_from(page)
            if size:  # otherwise a program is about to give it to one
                yield number, page, SIZE_LINES[size - 1]

    @staticmethod
    def uses(page: memoryview, lines: int) -> memoryview:
        """The use counters of all places of a page, which anybody may write (abi.h)."""
        return page[LINE + _USED_AT : (PAGE_LAST + 1) * LINE : lines * LINE]

    def entry_at(self, number: int, line: int) -> Entry | None:
        """The entry at a line of a page; None if there is none, or it is written now."""
        return unpack_entry(self._page(number)[line * LINE :], number * PAGE_LINES + line)

    def _heads(
        self, numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[int, memoryview, tuple[int, ...]]]:
        """The line of each entry (of these pages), the memory from there, its front, by ENTRY."""
        for number, page, lines in self.pages(numbers):
            # Most places of a page may be empty: their lengths are read together.
            lengths = _column(page, lines, _KEY_LENGTH_AT)
            for at, length in zip(range(1, PAGE_LAST + 1, lines), lengths, strict=False):
                head = ENTRY.unpack_from(page, at * LINE) if length else ()
                if head and head[_KEY_LENGTH]:
                    yield number * PAGE_LINES + at, page[at * LINE :], head

    def drop(self, line: int, sequence: int) -> bool:
        """Remove the entry at a line; False if it was written since it had this sequence number."""
        with self._hand:
            order = self._drop(ORDER, sequence, 0, line, 0, self._secret)
            return order == libbpf.XDP_PASS

    def prolong(self, entry: Entry, expires: int) -> bool:
        """Change when an entry expires, in jiffies; False if it was written since it was read."""
        with self._hand:
            order = self._prolong(ORDER, entry.sequence, expires, entry.line, 0, self._secret)
            return order == libbpf.XDP_PASS

    def sweep(self, now: int) -> int:
        """Remove entries that can no longer hit, so that a full store has room again.

        `now` is in jiffies. One thread sweeps at a time. Returns how many were removed. Drafts go
        on waiting: who asks while another CPU stores one is not answered.
        """
        with self._sweeping:
            removed = sum(self.drop(line, sequence) for line, sequence in self._dead(now))
            self.removed += removed
        return removed

    def _dead(self, now: int) -> Iterator[tuple[int, int]]:
        """The lines of entries that can no longer hit, and their sequence numbers."""
        versions = self.versions
        for line, _, head in self._heads():
            sequence, _, service, _, _, token, expires, _, slot, *_ = head
            version = max(versions[slot % SLOTS], versions[SLOTS + service % SERVICES_MAX])
            if expires <= now or token < version:
                yield line, sequence

    def close(self) -> None:
        """Release its cells; the maps are the module's."""
        self._stack.close()
