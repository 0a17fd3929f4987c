# SPDX-License-Identifier: Apache-2.0
"""What a full store takes: with `--admit second`, replies to keys that were missed before."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.kernel import forked, libbpf
from carom.kernel.abi import LIMITS, SEEN_PER_ENTRY, Verdict
from carom.kernel.resource import Resource
from carom.lab.tools.admission import ONE_PASS, Scan, measure
from prog.host import Host

CAPACITY = 2048
OTHERS = 100
"""Entries of another service."""

LIMITS_CAPACITY = 1
"""The cell of `store_limits` that has the capacity."""

SIZES = (20, 64, 65, 200)
"""Bytes of keys."""


class Daemon(Resource):
    """Fills by the daemon."""

    def __init__(self, load: Callable[..., FastPath]):
        self.host = Host(load(policy="lru", admit="second", capacity=CAPACITY, test_clock=True))
        self.fastpath = self.host.fastpath
        self.others = Cache(self.fastpath.store, self.host.clock, 10**6, service=1)
        for n in range(OTHERS):  # so that there is what may go
            self.others.fill(key(n), b"", self.others.take(key(n)))
        seen = self.fastpath.map("seen")
        for cell in range(SEEN_PER_ENTRY * CAPACITY):
            libbpf.update(seen, struct.pack("=I", cell), bytes(4))
        self.limits = forked.shared(self.fastpath.map("store_limits"), LIMITS.size).cast("Q")

    def fill(self, key: bytes, reply: bytes = b"") -> bool:
        """Was a reply stored?"""
        cache = self.host.cache
        before = cache.fills, cache.not_admitted
        self.host.fill(key, reply or b"reply to " + key[:20])
        after = cache.fills, cache.not_admitted
        assert sum(after) == sum(before) + 1
        return after[0] > before[0]

    def leave_room(self, places: int) -> None:
        """Have so many free places."""
        self.limits[LIMITS_CAPACITY] = len(self.fastpath.store) + places

    def room(self) -> int:
        """How many are left."""
        return int(self.limits[LIMITS_CAPACITY]) - len(self.fastpath.store)

    def present(self, key: bytes) -> bool:
        """Is there an entry?"""
        return self.host.cache.get(key) is not None

    def forget(self, key: bytes) -> None:
        """Remove an entry, as an eviction does."""
        self.host.cache.drop(key)

    def close(self) -> None:
        """The fast path is the session's."""
        self.limits[LIMITS_CAPACITY] = CAPACITY
        self.limits.release()
        self.others.flush()


@pytest.fixture
def filler(load_fastpath: Callable[..., FastPath]) -> Iterator[Daemon]:
    """A store that is full of others' entries."""
    with Daemon(load_fastpath) as made:
        made.leave_room(0)
        yield made


def key(number: int, size: int = 20) -> bytes:
    return (b"%d " % number).ljust(size, b"k")


@pytest.mark.parametrize("size", SIZES)
def test_the_first_is_not_stored_and_the_second_is(filler: Daemon, size: int) -> None:
    assert not filler.fill(key(1, size))
    assert not filler.present(key(1, size))
    assert filler.fill(key(1, size))
    assert filler.present(key(1, size))


def test_keys_are_told_apart(filler: Daemon) -> None:
    """Few share a cell, and none passes for another."""
    keys = [key(n) for n in range(CAPACITY)]
    assert not any(list(map(filler.fill, keys)))
    admitted = sum(map(filler.fill, keys))
    # In 8 cells a key, a key finds its own overwritten by one of the later: 1 of 16, on average.
    assert 0.85 * CAPACITY < admitted < CAPACITY


@pytest.mark.parametrize("windows", [1 / 8, 4])
def test_the_window_ages(filler: Daemon, windows: float) -> None:
    """As many other keys as there are cells, e to the power of minus as much remembers."""
    keys = [key(n) for n in range(200)]
    for one in keys:
        assert not filler.fill(one)
    for n in range(round(windows * SEEN_PER_ENTRY * CAPACITY)):
        filler.fill(key(10_000 + n))
    remembered = sum(map(filler.fill, keys))
    if windows < 1:
        assert remembered > 0.75 * len(keys)  # 88 % on average
    else:
        assert remembered < 0.15 * len(keys)  # 2 %


@pytest.mark.parametrize("size", SIZES)
def test_while_there_is_room_all_are_stored(filler: Daemon, size: int) -> None:
    filler.leave_room(3)
    assert [filler.fill(key(n, size)) for n in range(5)] == [True, True, True, False, False]
    assert filler.room() == 0
    assert [filler.fill(key(n, size)) for n in (3, 4)] == [True, True]


def test_what_had_room_is_remembered(filler: Daemon) -> None:
    filler.leave_room(1)
    assert filler.fill(key(1))
    filler.forget(key(1))
    assert filler.fill(key(1))


def test_keys_seen_take_room_too(filler: Daemon) -> None:
    filler.fill(key(1))
    filler.leave_room(1)
    assert filler.fill(key(1))
    assert filler.room() == 0


@pytest.mark.parametrize("size", SIZES)
def test_what_is_there_may_be_replaced(filler: Daemon, size: int) -> None:
    """However long ago it was seen missing: it takes no other's place."""
    filler.leave_room(1)
    assert filler.fill(key(1, size))
    for n in range(4 * SEEN_PER_ENTRY * CAPACITY):
        filler.fill(key(10 + n))
        if n % 1000 == 0:
            assert filler.fill(key(1, size))
    assert filler.fill(key(1, size))
    filler.forget(key(1, size))
    filler.leave_room(0)
    assert filler.fill(key(1, size)), "it was seen a moment ago"


class TestDaemon:
    """What the daemon's hands add."""

    @pytest.fixture
    def daemon(self, load_fastpath: Callable[..., FastPath]) -> Daemon:
        """An empty cache with all its room."""
        daemon = Daemon(load_fastpath)
        daemon.host.sweep()
        return daemon

    def test_what_is_not_admitted_goes_on_missing(self, daemon: Daemon) -> None:
        daemon.leave_room(0)
        host = daemon.host
        host.fill(b"k", b"first")
        assert host.asks(b"k") == host.missed(Verdict.MISS, b"k")
        host.fill(b"k", b"second")
        assert host.asks(b"k") == host.hit(b"second")
        cache = host.cache
        assert (cache.fills, cache.refused, cache.not_admitted) == (1, 0, 1)

    @pytest.mark.parametrize("length", [65, 512, 513, 1472])
    def test_longer_replies_leave_nothing(self, daemon: Daemon, length: int) -> None:
        daemon.leave_room(0)
        assert not daemon.fill(b"k", b"x" * length)
        assert (daemon.room(), daemon.host.held()) == (0, {})
        assert daemon.fill(b"k", b"x" * length)
        assert daemon.host.asks(b"k") == daemon.host.hit(b"x" * length)

    def test_other_keys_take_over(self, daemon: Daemon) -> None:
        """Keys that are asked for again are no scan's."""
        for n in range(2 * CAPACITY):
            daemon.fill(key(n))
        daemon.leave_room(0)
        new = [key(10 * CAPACITY + n) for n in range(CAPACITY // 4)]
        for one in new:
            assert not daemon.fill(one)
        assert sum(map(daemon.fill, new)) > 0.8 * len(new)

    def test_a_full_cache_has_no_room(self, daemon: Daemon) -> None:
        for n in range(2 * CAPACITY):
            for _ in range(2):
                daemon.fill(key(n))
        daemon.host.sweep()
        assert daemon.room() == 0

    def test_always(self, load_fastpath: Callable[..., FastPath]) -> None:
        """The other way to admit takes what comes first, and remembers what was missed too."""
        host = Host(load_fastpath(policy="lru", capacity=64, test_clock=True))
        for n in range(100):
            host.fill(key(n), b"reply")
            assert host.asks(key(n)) == host.hit(b"reply")
        assert host.cache.not_admitted == 0
        host.cache.flush()


@pytest.fixture(scope="module")
def rates() -> dict[tuple[str, str], float]:
    """Hit rates of hot requests, by scan and admission."""
    scan = Scan(keys=20_000, capacity=CAPACITY, hot=30_000)
    return {(row.scan, row.admit): row.hit_rate for row in measure(scan)}


class TestScan:
    """The lab's comparison, small: on the programs and the maps, counted by the kernel."""

    @pytest.mark.parametrize("admit", ["always", "second"])
    def test_in_one_piece(self, rates: dict[tuple[str, str], float], admit: str) -> None:
        """What was hit stays, however many keys come by."""
        assert rates[ONE_PASS, admit] > 0.9

    @pytest.mark.parametrize("admit", ["always", "second"])
    def test_among_hot_requests(self, rates: dict[tuple[str, str], float], admit: str) -> None:
        assert rates["50%", admit] > rates["0%", admit] - 0.04

    def test_it_costs_nothing_without(self, rates: dict[tuple[str, str], float]) -> None:
        assert rates["0%", "second"] > rates["0%", "always"] - 0.01
