# SPDX-License-Identifier: Apache-2.0
"""Where entries lie: sizes, refills, memory as it is needed, room for others."""

from __future__ import annotations

import errno
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.grower import Grower
from carom.daemon.store import ENTRY_BYTES, MEMORY_MIN, Extent, Store
from carom.errors import BPFError, UsageError
from carom.kernel import libbpf
from carom.kernel.abi import (
    CHUNK_PAGES,
    ENTRY,
    LINE,
    LINE_BITS,
    PAGE_BYTES,
    PAGE_LAST,
    PAGE_LINES,
    REPLY_MAX,
    SIZE_LINES,
    SLOTS,
    SLOTS_LINE,
    TAG_SHIFT,
    WAYS,
    Verdict,
    whole,
)
from carom.kernel.hashes import hash_of
from prog.arena import check_lines, lost_ways
from prog.host import Host
from prog.test_cache import answer, question

KEYS = (1, 7, 8, 9, 32, 63, 64, 65, 255, 256)
EDGES = [lines * LINE - ENTRY.size - whole(20) for lines in SIZE_LINES]
"""The longest replies, to a key of 20 bytes, in entries of each size."""

REPLIES = sorted(
    {size + more for size in EDGES for more in (-8, -7, 0, 1) if size + more <= REPLY_MAX}
    | {REPLY_MAX}
)
KEY = question(20)


def size_of(host: Host, key: bytes) -> int:
    """The size of a key's entry: an index of SIZE_LINES."""
    entry = host.cache.get(key)
    assert entry
    return next(
        size
        for size, lines in enumerate(SIZE_LINES)
        if ENTRY.size + whole(len(key)) + whole(len(entry.data)) <= lines * LINE
    )


def wipe(host: Host) -> None:
    """Remove all entries."""
    for service in range(4):
        host.fastpath.store.bump(SLOTS + service)
    host.sweep()
    assert len(host.fastpath.store) == 0


@pytest.fixture
def empty(host: Host) -> Iterator[Host]:
    """A host whose store is empty, before and after."""
    wipe(host)
    yield host
    wipe(host)


def check_store(store: Store) -> None:
    """Entries are found by their keys, lie apart, within their pages, and are counted."""
    taken = dict[int, int]()
    for entry in store.entries():
        assert store.find(entry.view << 8 | entry.service, entry.key) == entry
        size = ENTRY.size + whole(len(entry.key)) + whole(len(entry.data))
        at = entry.line % PAGE_LINES
        assert 1 <= at <= PAGE_LAST
        lines = -(-size // LINE)
        for line in range(entry.line, entry.line + lines):
            assert taken.setdefault(line, entry.line) == entry.line
        assert at + lines <= PAGE_LINES
    assert len(set(taken.values())) == len(store)
    check_lines(store)
    assert lost_ways(store) == 0


class TestSizes:
    """Where one size ends and the next begins."""

    @pytest.mark.parametrize("reply_size", REPLIES)
    @pytest.mark.parametrize("key_size", KEYS)
    def test_filled_and_hit(self, empty: Host, key_size: int, reply_size: int) -> None:
        key, reply = question(key_size), answer(reply_size)
        empty.fill(key, reply)
        assert empty.asks(key) == empty.hit(reply)
        assert empty.held() == {key: reply}

    def test_the_edges(self, empty: Host) -> None:
        """A key of 20 bytes with the longest reply of each size, and with one byte more."""
        for size, edge in enumerate(EDGES[:-1]):
            for length, expected in ((edge, size), (edge + 1, size + 1)):
                empty.fill(KEY, answer(length))
                assert size_of(empty, KEY) == expected
                assert empty.asks(KEY) == empty.hit(answer(length))

    def test_neighbours(self, empty: Host) -> None:
        """Entries of all sizes beside each other, each full to its last byte."""
        keys = {b"%20d" % n: b"\xff" * min(EDGES[n % 9], REPLY_MAX) for n in range(500)}
        for key, reply in keys.items():
            empty.fill(key, reply)
        for key, reply in keys.items():
            assert empty.asks(key) == empty.hit(reply)
        check_store(empty.fastpath.store)

    def test_a_key_that_is_the_front_of_another(self, empty: Host) -> None:
        keys = [question(256)[:n] for n in KEYS]
        for n, key in enumerate(keys):
            empty.fill(key, answer(100 + n))
        for n, key in enumerate(keys):
            assert empty.asks(key) == empty.hit(answer(100 + n))

    def test_too_long_a_key(self, empty: Host) -> None:
        empty.fill(question(256), answer(3))
        for length in (257, 259):
            payload = question(length)
            assert empty.asks(payload) == empty.missed(Verdict.PASS_SIZE, payload)

    @pytest.mark.parametrize("key_size", KEYS)
    def test_each_byte_of_a_reply(self, empty: Host, key_size: int) -> None:
        """What lies beside a reply in memory never leaves with it."""
        key = question(key_size)
        for size in (*range(1, 18), *range(500, 518)):
            empty.fill(key, b"\xff" * REPLY_MAX)
            empty.fill(key, b"\xff" * (size + 9))
            empty.fill(key, answer(size))
            assert empty.asks(key) == empty.hit(answer(size))


class TestRefill:
    """From one size to another, and back."""

    @pytest.mark.parametrize("last", [10, 64, 65, 512, 513, 1472])
    @pytest.mark.parametrize("first", [10, 64, 65, 512, 513, 1472])
    def test_the_new_one_answers(self, any_host: Host, first: int, last: int) -> None:
        for size in (first, last, first):
            any_host.fill(KEY, answer(size))
            assert any_host.asks(KEY) == any_host.hit(answer(size))
        assert any_host.held() == {KEY: answer(first)}
        assert len(any_host.fastpath.store) == 1

    def test_its_old_lines_are_used_again(self, empty: Host) -> None:
        store, lines = empty.fastpath.store, set()
        for n in range(1000):
            empty.fill(KEY, answer((10, 300, 1400)[n % 3]))
            entry = empty.cache.get(KEY)
            assert entry
            lines.add(entry.line)
        assert len(lines) <= 6
        assert len(store) == 1

    def test_dropped_lines_are_used_again(self, empty: Host) -> None:
        lines = set()
        for n in range(300):
            key = b"%d" % n
            empty.fill(key, answer(40))
            entry = empty.cache.get(key)
            assert entry
            lines.add(entry.line)
            assert empty.cache.drop(key)
            assert not empty.cache.drop(key)
        assert len(lines) == 1


class TestFull:
    """First come, first served: exactly as many as there is room for."""

    CAPACITY = 8

    @pytest.fixture
    def fcfs(self, load_fastpath: Callable[..., FastPath]) -> Iterator[Host]:
        host = Host(load_fastpath(policy="fcfs", capacity=self.CAPACITY, test_clock=True))
        wipe(host)
        yield host
        wipe(host)

    @pytest.mark.parametrize("sizes", [(10,), (1400,), (10, 100, 1000), (64, 65, 512, 513)])
    def test_room_is_for_any_lengths(self, fcfs: Host, sizes: tuple[int, ...]) -> None:
        for n in range(self.CAPACITY):
            fcfs.fill(b"%d" % n, answer(sizes[n % len(sizes)]))
        for n in range(self.CAPACITY, 2 * self.CAPACITY):
            fcfs.fill(b"%d" % n, answer(sizes[n % len(sizes)]))
            assert fcfs.asks(b"%d" % n) == fcfs.missed(Verdict.MISS, b"%d" % n)
        assert (fcfs.cache.fills, fcfs.cache.refused) == (self.CAPACITY, self.CAPACITY)
        for n in range(self.CAPACITY):
            assert fcfs.asks(b"%d" % n) == fcfs.hit(answer(sizes[n % len(sizes)]))

    @pytest.mark.parametrize("then", [10, 100, 1000])
    def test_a_refill_of_another_size_has_its_room(self, fcfs: Host, then: int) -> None:
        """A key that is in stays in, however long its next reply."""
        for n in range(self.CAPACITY):
            fcfs.fill(b"%d" % n, answer(400))
        for n in range(self.CAPACITY):
            fcfs.fill(b"%d" % n, answer(then))
            assert fcfs.asks(b"%d" % n) == fcfs.hit(answer(then))
        assert fcfs.cache.refused == 0
        check_store(fcfs.fastpath.store)

    def test_many(self, load_fastpath: Callable[..., FastPath]) -> None:
        """Of keys by the thousand, every one of the first finds its place."""
        capacity = 20_000
        host = Host(load_fastpath(policy="fcfs", capacity=capacity, test_clock=True))
        wipe(host)
        for n in range(capacity + 500):
            host.fill(b"%d" % n, b"%d" % n)
        assert (host.cache.fills, host.cache.refused) == (capacity, 500)
        for n in range(0, capacity, 7):
            assert host.asks(b"%d" % n) == host.hit(b"%d" % n)
        check_store(host.fastpath.store)
        assert host.cache.flush() == capacity
        for n in range(capacity):
            host.fill(b"later %d" % n, b"%d" % n)
        assert (host.cache.fills, host.cache.refused) == (2 * capacity, 500)
        wipe(host)


class TestRoom:
    """A full store that evicts."""

    CAPACITY = 1000

    @pytest.fixture
    def lru(self, load_fastpath: Callable[..., FastPath]) -> Iterator[Host]:
        host = Host(load_fastpath(policy="lru", capacity=self.CAPACITY, test_clock=True))
        wipe(host)
        yield host
        wipe(host)

    def test_every_reply_is_stored(self, lru: Host) -> None:
        for n in range(5 * self.CAPACITY):
            lru.fill(b"%d" % n, b"%d" % n)
            assert lru.asks(b"%d" % n) == lru.hit(b"%d" % n)
        assert lru.cache.refused == 0
        assert len(lru.fastpath.store) == self.CAPACITY
        check_store(lru.fastpath.store)

    def test_what_is_hit_stays(self, lru: Host) -> None:
        hot = [b"hot %d" % n for n in range(self.CAPACITY // 4)]
        for key in hot:
            lru.fill(key, b"hot")
        for n in range(4 * self.CAPACITY):
            lru.fill(b"%d" % n, b"cold")
            assert lru.asks(hot[n % len(hot)]).verdict is Verdict.HIT

    def test_what_expired_goes_first(self, lru: Host) -> None:
        for n in range(self.CAPACITY):
            lru.fill(b"%d" % n, b"x", 5 if n % 2 else 100)
            for _ in range(3):
                lru.asks(b"%d" % n)
        lru.clock.advance(5)
        for n in range(self.CAPACITY // 4):
            lru.fill(b"new %d" % n, b"x")
        held = lru.held()
        assert all(b"%d" % n in held for n in range(0, self.CAPACITY, 2))

    @pytest.mark.parametrize(
        ("before", "after"), [(10, 1000), (1000, 10), (200, 300), (1472, 1000), (700, 1000)]
    )
    def test_other_sizes_take_over(self, lru: Host, before: int, after: int) -> None:
        """However the lengths of replies change, there is room for those that are asked for."""
        for n in range(self.CAPACITY):
            lru.fill(b"before %d" % n, answer(before))
        for n in range(12 * self.CAPACITY):
            lru.fill(b"after %d" % n, answer(after))
            lru.asks(b"after %d" % n)
        assert lru.cache.refused < 0.01 * 12 * self.CAPACITY, "few, while pages have few of the old"
        sizes = Counter(len(reply) for reply in lru.held().values())
        assert sizes[after] > 0.97 * self.CAPACITY
        check_store(lru.fastpath.store)

    def test_one_of_another_size_is_stored_too(self, lru: Host) -> None:
        for n in range(self.CAPACITY):
            lru.fill(b"%d" % n, answer(10))
        for size in (100, 200, 300, 500, 700, 900, 1300, 1472):
            lru.fill(b"of %d" % size, answer(size))
            assert lru.asks(b"of %d" % size) == lru.hit(answer(size))
        assert lru.cache.refused == 0


class TestMemory:
    """As much as what is held, and no more than was allowed."""

    def test_an_entry_is_small(self) -> None:
        """The bars of an entry of 32/32 bytes, and of 10,000 of them."""
        assert ENTRY_BYTES <= 200
        with FastPath(capacity=10_000, admit="second", test_clock=True) as fastpath:
            host = Host(fastpath)
            begin = fastpath.store.memory
            for n in range(10_000):
                host.fill(b"%032d" % n, b"%032d" % n)
            assert host.cache.count() == 10_000
            assert begin < fastpath.store.memory <= 3_000_000

    def test_grows_for_replies_of_any_length(self) -> None:
        with FastPath(policy="fcfs", capacity=3000, test_clock=True) as fastpath:
            host = Host(fastpath)
            for n in range(3000):
                host.fill(b"%d" % n, answer(REPLY_MAX - n % 300))
            assert (host.cache.fills, host.cache.refused) == (3000, 0)
            check_store(fastpath.store)

    @pytest.mark.parametrize("policy", ["lru", "fcfs"])
    def test_no_more_than_allowed(self, policy: str) -> None:
        memory = 2 * MEMORY_MIN
        with FastPath(policy=policy, memory=memory, test_clock=True) as fastpath:
            host = Host(fastpath)
            for n in range(4000):
                host.fill(b"%d" % n, answer(1200))
                if policy == "lru":
                    assert host.asks(b"%d" % n) == host.hit(answer(1200))
            assert memory / 2 < fastpath.store.memory <= memory
            assert (host.cache.refused == 0) == (policy == "lru")
            assert host.cache.count() > 1000
            check_store(fastpath.store)

    @pytest.mark.parametrize("policy", ["lru", "fcfs"])
    def test_no_size_is_left_out(self, policy: str) -> None:
        """Whatever came first: no page is given back, so each size keeps one."""
        with FastPath(policy=policy, memory=MEMORY_MIN, test_clock=True) as fastpath:
            host = Host(fastpath)
            for n in range(20_000):
                host.fill(b"%020d" % n, answer(EDGES[4]))
            for edge in EDGES:
                host.fill(KEY, answer(min(edge, REPLY_MAX)))
                if edge != EDGES[4] or policy == "lru":
                    assert host.asks(KEY) == host.hit(answer(min(edge, REPLY_MAX)))
            check_store(fastpath.store)

    def test_what_cannot_grow_costs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither a store that has all that it may have, nor one on a host without memory."""
        asked = list[str]()

        def memory(name: str) -> int:
            asked.append(name)
            return 0 if name == "MemAvailable" else 2**30

        with FastPath(memory=MEMORY_MIN, test_clock=True) as full:
            host = Host(full)
            for n in range(2000):
                host.fill(b"%d" % n, answer(1400))
            monkeypatch.setattr("carom.daemon.store._memory", memory)
            for n in range(2000):
                host.fill(b"%d" % n, answer(1400))
            assert not asked
        monkeypatch.undo()
        with FastPath(capacity=100_000, test_clock=True) as short:
            monkeypatch.setattr("carom.daemon.store._memory", memory)
            host = Host(short)
            for n in range(5000):
                host.fill(b"%d" % n, answer(100))
            assert len(asked) < 20
            assert host.cache.count() > 300, "what the first pages hold"
            monkeypatch.undo()
            short.store._short_until = 0.0
            before = host.cache.count()
            for n in range(5000, 10_000):
                host.fill(b"%d" % n, answer(100))
            assert host.cache.count() > before + 4000, "there is memory again"

    def test_no_start_without_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = libbpf.create_map

        def refused(name: str, *shape: Any) -> int:
            if name == "chunk" and name in tried:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            tried.append(name)
            return create(name, *shape)

        tried = list[str]()
        monkeypatch.setattr(libbpf, "create_map", refused)
        with pytest.raises(BPFError, match="first 256 KiB: Cannot allocate") as raised:
            FastPath(test_clock=True)
        assert raised.value.hint

    def test_pages_are_added_before_programs_need_them(self) -> None:
        with FastPath(capacity=50_000, test_clock=True) as fastpath:
            host = Host(fastpath)
            grower = Grower(fastpath.store)
            try:
                for n in range(20_000):
                    host.cache.fill(b"%d" % n, b"x", (0, 2**60))
                assert host.cache.refused == 0
            finally:
                grower.close()

    def test_extent(self) -> None:
        """The directory has room enough, and memory is what was allowed."""
        for capacity in (1, 2, 7, 100, 10_000, 1_000_000):
            extent = Extent(capacity, "second")
            assert extent.buckets * WAYS >= 4 * capacity
            assert extent.buckets & extent.buckets - 1 == 0
            assert extent.seen == 8 * capacity
            largest = (PAGE_LAST - 1) // SIZE_LINES[-1] + 1
            assert extent.chunks * CHUNK_PAGES * largest >= capacity
        for memory in (MEMORY_MIN, 10 * MEMORY_MIN, 2**30):
            for admit in ("always", "second"):
                extent = Extent(5, admit, memory)  # type: ignore[arg-type]
                fixed = extent.buckets * WAYS * 8 + extent.seen * 4
                assert fixed + extent.chunks * CHUNK_PAGES * PAGE_BYTES <= memory
                assert extent.chunks * CHUNK_PAGES >= len(SIZE_LINES)
        most = Extent(10_000_000, "second").chunks * CHUNK_PAGES * PAGE_LINES
        assert most == 1 << LINE_BITS, "a word of the directory can name no more"
        with pytest.raises(UsageError, match=r"of 40 GiB .* no more than 16"):
            Extent(5, "second", 40 * 2**30)


class TestDirectory:
    """What leads to entries is a hint."""

    def colliding(self, host: Host, count: int) -> list[bytes]:
        """Keys whose hashes lead to one bucket."""
        store = host.fastpath.store
        buckets = len(store._buckets) // WAYS
        keys = (b"%d" % n for n in itertools.count())
        first = hash_of(store._weights, 0, b"0") % buckets
        same = (key for key in keys if hash_of(store._weights, 0, key) % buckets == first)
        return list(itertools.islice(same, count))

    def found(self, store: Store) -> tuple[int, int]:
        """KEY's hash, and the first word of its bucket."""
        hashed = hash_of(store._weights, 0, KEY)
        return hashed, hashed % (len(store._buckets) // WAYS) * WAYS

    def looked_at_first(self, store: Store) -> int:
        """The word of its bucket that is looked at first."""
        hashed, bucket = self.found(store)
        return bucket + (hashed >> 60)

    def test_a_bucket_overflows(self, load_fastpath: Callable[..., FastPath]) -> None:
        host = Host(load_fastpath(policy="lru", capacity=1000, test_clock=True))
        wipe(host)
        keys = self.colliding(host, WAYS + 5)
        for key in keys:
            host.fill(key, key)
            assert host.asks(key) == host.hit(key)
        assert (host.cache.refused, host.cache.count()) == (0, WAYS)
        check_store(host.fastpath.store)
        wipe(host)

    def test_a_word_has_its_way(self, empty: Host) -> None:
        """What is looked at first, or where that is another's, any."""
        store = empty.fastpath.store
        first = self.looked_at_first(store)
        empty.fill(KEY, b"own")
        assert empty.asks(KEY) == empty.hit(b"own")
        word = store._buckets[first]
        assert word
        wipe(empty)
        _, bucket = self.found(store)
        for ways in range(WAYS):
            store._buckets[bucket : bucket + WAYS] = memoryview(bytes(8 * WAYS)).cast("Q")
            store._buckets[first] = 1
            for way in range(ways):
                store._buckets[bucket + way] = 1
            empty.fill(KEY, b"%d" % ways)
            assert empty.asks(KEY) == empty.hit(b"%d" % ways)
            wipe(empty)
        store._buckets[bucket : bucket + WAYS] = memoryview(bytes(8 * WAYS)).cast("Q")

    def test_words_of_old(self, empty: Host) -> None:
        """Those of the key's hash that lead elsewhere go, whichever are found first; those that
        lead to the entry go with it, whatever else they say."""
        store = empty.fastpath.store
        hashed, bucket = self.found(store)
        first = self.looked_at_first(store)
        tag = hashed >> TAG_SHIFT << TAG_SHIFT
        for old in ((first,), (bucket,), (bucket + WAYS - 1,)):
            for way in old:
                store._buckets[way] = tag | 5
            for reply in (b"one", b"another that is longer" * 9, b"a third"):
                empty.fill(KEY, reply)
                assert empty.asks(KEY) == empty.hit(reply)
            words = store._buckets[bucket : bucket + WAYS]
            assert sum(word >> TAG_SHIFT == hashed >> TAG_SHIFT for word in words) == 1, old
            entry = empty.cache.get(KEY)
            assert entry
            store._buckets[bucket + 3] = tag | entry.line
            check_store(store)
            wipe(empty)
            assert not any(store._buckets[bucket : bucket + WAYS])

    def test_or_takes_no_more(self, load_fastpath: Callable[..., FastPath]) -> None:
        host = Host(load_fastpath(policy="fcfs", capacity=1000, test_clock=True))
        wipe(host)
        keys = self.colliding(host, WAYS + 5)
        for key in keys:
            host.fill(key, key)
        assert (host.cache.refused, host.cache.count()) == (5, WAYS)
        assert len(host.fastpath.store) == WAYS
        for key in keys[:WAYS]:
            assert host.asks(key) == host.hit(key)
        check_store(host.fastpath.store)
        wipe(host)

    def test_words_of_nothing(self, empty: Host) -> None:
        """Whatever a bucket says, an answer is the key's own."""
        store = empty.fastpath.store
        empty.fill(b"other", b"other")
        other = empty.cache.get(b"other")
        assert other
        hashed, bucket = self.found(store)
        tag = hashed >> TAG_SHIFT << TAG_SHIFT
        for line in (0, 1, other.line, other.line + 1, PAGE_LAST + 1, 2**20, (1 << LINE_BITS) - 1):
            store._buckets[bucket] = tag | line
            assert empty.asks(KEY).verdict in (Verdict.MISS, Verdict.MISS_TORN), line
            assert empty.cache.get(KEY) is None
        empty.fill(KEY, b"own")
        assert empty.asks(KEY) == empty.hit(b"own")
        assert empty.asks(b"other") == empty.hit(b"other")
        store._buckets[bucket : bucket + WAYS] = memoryview(bytes(8 * WAYS)).cast("Q")

    def test_a_word_names_the_line_of_its_version(self, empty: Host) -> None:
        """It only makes memory come sooner: a hit is judged by the entry's own cell."""
        store = empty.fastpath.store
        empty.fill(KEY, b"own")
        entry = empty.cache.get(KEY)
        assert entry
        bucket = self.looked_at_first(store)
        word = store._buckets[bucket]
        lines = SLOTS // SLOTS_LINE
        assert word >> LINE_BITS & lines - 1 == entry.slot // SLOTS_LINE
        for line in (0, lines // 2, lines - 1):
            store._buckets[bucket] = word & ~(lines - 1 << LINE_BITS) | line << LINE_BITS
            assert empty.asks(KEY) == empty.hit(b"own")
        store.bump(entry.slot)
        assert empty.asks(KEY) == empty.missed(Verdict.MISS_VOID, KEY)
        store._buckets[bucket] = word
        check_store(store)

    def test_a_word_of_a_free_line(self, empty: Host) -> None:
        """Who stores its key takes it out: it would hide the new entry."""
        store = empty.fastpath.store
        empty.fill(KEY, b"own")
        entry = empty.cache.get(KEY)
        assert entry
        hashed, bucket = self.found(store)
        assert store.drop(entry.line, entry.sequence)
        store._buckets[bucket] = hashed >> TAG_SHIFT << TAG_SHIFT | entry.line
        empty.fill(KEY, answer(500))
        assert empty.asks(KEY) == empty.hit(answer(500))
        check_store(store)

    def test_lost_words(self, empty: Host) -> None:
        """An entry that nothing leads to is no answer; it is swept when it has expired."""
        store = empty.fastpath.store
        empty.fill(KEY, b"own", 5)
        assert empty.cache.get(KEY)
        _, bucket = self.found(store)
        store._buckets[bucket : bucket + WAYS] = memoryview(bytes(8 * WAYS)).cast("Q")
        assert empty.asks(KEY) == empty.missed(Verdict.MISS, KEY)
        empty.clock.advance(5)
        assert empty.sweep() == 1
        assert len(store) == 0


def test_a_page_without_a_size(empty: Host) -> None:
    """A program that gives a page to a size has counted it before the page says so."""
    store = empty.fastpath.store
    empty.fill(KEY, answer(700))
    assert empty.cache.get(KEY)
    number = store._usage[1]
    page = store._page(number)
    inside = memoryview(bytes(page[: 64 * LINE]))
    try:
        for line in range(1, 60):  # as if all lines were entries, that have expired
            ENTRY.pack_into(page, line * LINE, 2, 0, 0, 5, 0, *(0,) * 10)
        store._usage[1] = number + 1
        assert [entry.key for entry in store.entries()] == [KEY]
        assert empty.sweep() == 0
    finally:
        store._usage[1] = number
        page[: len(inside)] = inside
    assert empty.asks(KEY) == empty.hit(answer(700))


class TestServices:
    """Two services of one fast path have the same key, and a reply each."""

    PORTS = 51141, 51142

    @pytest.fixture
    def second(self, empty: Host) -> Cache:
        place = empty.place._replace(port=self.PORTS[1], service=1)
        empty.fastpath.answer_at([empty.place, place])
        return Cache(empty.fastpath.store, empty.clock, 100, service=1)

    @pytest.mark.parametrize("sizes", [(30, 40), (100, 200), (1000, 1100), (100, 1000), (30, 100)])
    def test_neither_has_the_others(
        self, host: Host, second: Cache, sizes: tuple[int, int]
    ) -> None:
        replies = [answer(size) for size in sizes]
        host.fill(KEY, replies[0])
        second.fill(KEY, replies[1], second.take(KEY))
        for _ in range(2):
            for port, reply in zip(self.PORTS, replies, strict=True):
                asked = host.wire.request(KEY, udp={"dport": port})
                assert host.run(asked) == host.hit(reply, udp={"sport": port})
        assert [cache.count() for cache in (host.cache, second)] == [1, 1]

    @pytest.mark.parametrize("size", [30, 100, 1000])
    def test_a_flush_is_one_services(self, host: Host, second: Cache, size: int) -> None:
        host.fill(KEY, answer(size))
        second.fill(KEY, answer(size), second.take(KEY))
        assert second.flush() == 1
        assert host.asks(KEY) == host.hit(answer(size))
        asked = host.wire.request(KEY, udp={"dport": self.PORTS[1]})
        assert host.run(asked).verdict is Verdict.MISS

    def test_a_drop_is_one_services(self, host: Host, second: Cache) -> None:
        """The version it adds to is the slot's, whose every service pays a miss."""
        host.fill(KEY, answer(100))
        second.fill(KEY, answer(101), second.take(KEY))
        assert second.drop(KEY)
        assert second.get(KEY) is None
        entry = host.cache.get(KEY)
        assert entry
        assert entry.reply == answer(100)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["fill", "fill", "fill", "drop", "sweep", "advance", "hit"]),
        st.integers(0, 60),
        st.sampled_from([0, 40, 64, 300, 700, 1472]),
    ),
    max_size=300,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(operations=OPERATIONS)
@pytest.mark.parametrize("policy", ["lru", "fcfs"])
def test_any_order(
    load_fastpath: Callable[..., FastPath], policy: str, operations: list[tuple[str, int, int]]
) -> None:
    """Whatever is done, what is held is what was filled last, is found, and lies apart."""
    host = Host(load_fastpath(policy=policy, capacity=32, test_clock=True))
    wipe(host)
    filled = dict[bytes, bytes]()
    for what, number, size in operations:
        key = b"%d" % number + b"." * (number % 3 * 60)
        if what == "fill":
            before = host.cache.refused
            host.fill(key, answer(size), 1 + number % 4)
            if host.cache.refused == before:
                filled[key] = answer(size)
        elif what == "drop":
            host.cache.drop(key)
            filled.pop(key, None)
        elif what == "sweep":
            host.sweep()
        elif what == "advance":
            host.clock.advance(1)
        else:
            host.asks(key)
        held = host.held()
        assert len(held) == len(host.fastpath.store) <= 32
        assert held.items() <= filled.items()
    check_store(host.fastpath.store)


class TestAtOnce:
    """Threads fill, drop and sweep at the same time."""

    def test_nothing_is_lost(self, load_fastpath: Callable[..., FastPath]) -> None:
        host = Host(load_fastpath(policy="lru", capacity=500, test_clock=True))
        wipe(host)
        store, errors = host.fastpath.store, list[BaseException]()

        def work(service: int) -> None:
            try:
                rng, cache = random.Random(service), Cache(store, host.clock, 50, service)
                for n in range(4000):
                    key = b"%d" % rng.randrange(300)
                    if n % 7 == 0:
                        cache.drop(key)
                    else:
                        reply = b"%d %b " % (service, key) * rng.randrange(1, 60)
                        cache.fill(key, reply, cache.take(key))
                    entry = cache.get(key)
                    assert not entry or entry.reply.startswith(b"%d %b " % (service, key))
                    if n % 500 == 0:
                        store.sweep(host.clock.now())
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        check_store(store)
        assert len(store) <= 500
        wipe(host)


def test_the_hash_is_pythons(empty: Host) -> None:
    """Python finds what programs have stored, and the other way round, whatever the length."""
    rng = random.Random(4)
    for length in range(1, 257):
        for key in (rng.randbytes(length), bytes(length), b"\xff" * length):
            empty.fill(key, b"x")
            entry = empty.cache.get(key)
            assert entry and entry.key == key
            stored = empty.entry(key)["hash"]
            assert stored == hash_of(empty.fastpath.store._weights, 0, key)


def test_every_start_draws_weights() -> None:
    drawn = []
    for _ in range(2):
        with FastPath() as fastpath:
            drawn.append(set(fastpath.store._weights))
    assert not drawn[0] & drawn[1]
    assert all(len(weights) > 70 for weights in drawn)


def test_lines_that_are_not_there(load_fastpath: Callable[..., FastPath]) -> None:
    """Lines beyond the arena's, heads of pages and lines that no entry begins at."""
    store = load_fastpath(policy="lru", test_clock=True).store
    for line in (2**32 - 1, 2**31, PAGE_LAST + 1):
        assert not store.drop(line, 0)
