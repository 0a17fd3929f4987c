# SPDX-License-Identifier: Apache-2.0
"""Fills that wait in memory until a program needs them: nobody can tell, but by the clock."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.store import Store
from carom.kernel import libbpf
from carom.kernel.abi import DRAFT, RING, SLOTS, USAGE, Hook, Verdict
from prog.host import START, Host, Setting
from prog.test_cache import ANSWER, OTHER, QUESTION, answer, question


def stored(host: Host) -> int:
    """How many entries there are, whatever waits."""
    value = libbpf.lookup(host.fastpath.map("store_usage"), bytes(4), USAGE.size)
    assert value
    return int(USAGE.unpack(value)[0])


@pytest.fixture
def empty(host: Host) -> Iterator[Host]:
    """A host whose store is empty, before and after."""
    for service in range(2):
        host.fastpath.store.bump(SLOTS + service)
    host.sweep()
    yield host
    host.cache.flush()


class TestWaiting:
    """From the fill to the first who asks."""

    def test_the_first_who_asks_has_it(self, any_host: Host) -> None:
        """One verdict is counted, at either hook, for any packet."""
        for size in (0, 1, 64, 65, 1472):
            before = stored(any_host)
            payload = question(1 + size % 200)
            any_host.fill(payload, answer(size))
            assert stored(any_host) == before
            assert any_host.asks(payload) == any_host.hit(answer(size))
            assert stored(any_host) == before + 1

    def test_whoever_asks_stores_all(self, empty: Host) -> None:
        for n in range(RING):
            empty.fill(b"%d" % n, b"reply %d" % n)
        assert stored(empty) == 0
        assert empty.asks(OTHER) == empty.missed(Verdict.MISS, OTHER)
        assert stored(empty) == RING

    def test_who_asks_for_another_key_stores_it_too(self, empty: Host) -> None:
        empty.fill(QUESTION, ANSWER)
        assert empty.asks(QUESTION) == empty.hit(ANSWER)
        empty.fill(OTHER, b"waits")
        assert empty.asks(QUESTION) == empty.hit(ANSWER)
        assert stored(empty) == 2
        assert empty.asks(OTHER) == empty.hit(b"waits")

    def test_who_is_not_answered_stores_nothing(self, empty: Host) -> None:
        """Somebody else's packet, a request that is too long, one without a lease."""
        empty.fill(QUESTION, ANSWER)
        assert empty.run(empty.wire.request(b"x", udp={"dport": 9})).verdict is Verdict.PASS_SERVICE
        empty.fastpath.lease[0] = 0
        assert empty.asks(QUESTION) == empty.missed(Verdict.PASS_LEASE, QUESTION)
        assert stored(empty) == 0

    def test_a_sweep_leaves_them(self, empty: Host) -> None:
        """Else who asks at the same moment, on another CPU, finds neither draft nor entry."""
        empty.fill(QUESTION, ANSWER)
        assert empty.fastpath.store.sweep(empty.clock.now()) == 0
        assert stored(empty) == 0
        assert empty.asks(QUESTION) == empty.hit(ANSWER)

    @pytest.mark.parametrize("count", [1, RING - 1, RING, RING + 1, 3 * RING + 5])
    def test_as_many_as_there_are(self, empty: Host, count: int) -> None:
        """A full ring is stored by who fills it."""
        for n in range(count):
            empty.fill(b"%d" % n, b"reply %d" % n)
        for n in reversed(range(count)):
            assert empty.asks(b"%d" % n) == empty.hit(b"reply %d" % n)
        assert (empty.cache.fills, empty.cache.refused) == (count, 0)

    def test_refills_come_in_their_order(self, empty: Host) -> None:
        for n in range(RING):
            empty.fill(QUESTION, b"%d" % n)
        assert empty.asks(QUESTION) == empty.hit(b"%d" % (RING - 1))

    def test_what_is_void_meanwhile_never_answers(self, any_host: Host) -> None:
        any_host.fill(QUESTION, ANSWER)
        any_host.cache.invalidate(QUESTION)
        assert any_host.asks(QUESTION) == any_host.missed(Verdict.MISS_VOID, QUESTION)

    def test_time_counts_from_the_fill(self, empty: Host) -> None:
        empty.fill(QUESTION, ANSWER, 5)
        empty.clock.advance(4)
        assert empty.asks(QUESTION) == empty.hit(ANSWER)
        empty.fill(OTHER, ANSWER, 5)
        empty.clock.advance(5)
        assert empty.asks(OTHER) == empty.missed(Verdict.MISS_EXPIRED, OTHER)

    def test_a_later_hook_too(self, empty: Host) -> None:
        host = Host(empty.fastpath, Setting(Hook.TC))
        empty.fill(QUESTION, ANSWER)
        assert host.asks(QUESTION) == host.hit(ANSWER)


class TestOutOfOrder:
    """A CPU whose stores others may see in another order: a program finishes each draft."""

    def test_stored_at_once(self, empty: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("carom.daemon.cache.IN_ORDER", False)
        store, drain, seen = empty.fastpath.store, Store.drain, list[list[int]]()

        def watched(self: Store, service: int, finished: int | None = None) -> None:
            if finished is not None:
                ready = self.drafts(service)[:: DRAFT.size // 8]
                seen.append(list(ready))
            drain(self, service, finished)

        monkeypatch.setattr(Store, "drain", watched)
        for n in range(3 * RING):
            payload = b"%d" % n
            empty.fill(payload, b"reply %d" % n)
            assert stored(empty) == n + 1
            assert empty.asks(payload) == empty.hit(b"reply %d" % n)
        assert seen == [[0] * RING] * 3 * RING, "no draft is ready before a program says so"
        assert store.drafted(0) == empty.cache._number


class TestHands:
    """What the daemon says includes what waits."""

    def test_all_of_them(self, empty: Host) -> None:
        cache = empty.cache
        empty.fill(QUESTION, ANSWER, 7)
        entry = cache.get(QUESTION)
        assert entry and (entry.reply, entry.expires) == (ANSWER, START + 7)
        empty.fill(OTHER, ANSWER)
        assert sorted(one.key for one in cache.entries()) == sorted([QUESTION, OTHER])
        empty.fill(b"third", ANSWER)
        assert (cache.count(), cache.fills, len(empty.fastpath.store)) == (3, 3, 3)
        empty.fill(b"fourth", ANSWER)
        assert cache.drop(b"fourth")
        empty.fill(b"fifth", ANSWER)
        assert cache.flush() == 4
        empty.fill(b"sixth", ANSWER, 1)
        empty.clock.advance(1)
        assert empty.sweep() == 1
        empty.fill(b"seventh", ANSWER, 1)
        assert cache.let_live(0, b"seventh", START + 50, lambda: True)


class TestServices:
    """Each has a ring of its own."""

    def test_neither_stores_the_others(self, empty: Host) -> None:
        place = empty.place._replace(port=51142, service=1)
        empty.fastpath.answer_at([empty.place, place])
        second = Cache(empty.fastpath.store, empty.clock, 100, service=1)
        empty.fill(QUESTION, ANSWER)
        second.fill(QUESTION, b"second", second.take(QUESTION))
        asked = empty.wire.request(QUESTION, udp={"dport": 51142})
        assert empty.run(asked) == empty.hit(b"second", udp={"sport": 51142})
        assert stored(empty) == 1
        assert empty.asks(QUESTION) == empty.hit(ANSWER)
        second.flush()


class TestStuck:
    """A program that was interrupted while it stored a draft."""

    def test_its_place_is_left_out_until_it_goes_on(self, empty: Host) -> None:
        """Until then fills are lost, which is told."""
        cache = empty.cache
        number = empty.fastpath.store.drafted(0)
        drafts = empty.fastpath.store.drafts(0)
        at = (number + 2) % RING * DRAFT.size // 8
        drafts[at] = 7  # of a number that was taken
        for n in range(RING):
            empty.fill(b"%d" % n, b"x")
        assert (cache.fills, cache.refused) == (2, RING - 2)
        drafts[at] = 0
        for n in range(RING):
            empty.fill(b"%d" % n, b"x")
        assert (cache.fills, cache.refused) == (2 + RING, RING - 2)

    def test_garbage_is_not_stored(self, empty: Host) -> None:
        """Lengths that no key and no reply has."""
        number = empty.fastpath.store.drafted(0)
        drafts = empty.fastpath.store.drafts(0).cast("B")
        for lengths in ((0xFFFF, 0xFFFF, 5), (5, 5, 0xFFFF), (1473, 1473, 5), (5, 5, 0)):
            at = number % RING * DRAFT.size
            fields = (2**63, 2**63, START, 1, *lengths[:2], 0, 0, 0, 0, 0, lengths[2], b"k", b"r")
            DRAFT.pack_into(drafts, at, number + 1, *fields)
            empty.fastpath.store.drain(0)
            number += 1
        assert stored(empty) == 0
        assert empty.asks(QUESTION) == empty.missed(Verdict.MISS, QUESTION)


def test_full_and_admission(load_fastpath: Callable[..., FastPath]) -> None:
    """What becomes of drafts is counted when they are stored."""
    host = Host(load_fastpath(policy="fcfs", capacity=8, test_clock=True))
    host.cache.flush()
    for n in range(12):
        host.fill(b"%d" % n, b"x")
    assert (host.cache.fills, host.cache.refused) == (8, 4)
    again = Cache(host.fastpath.store, host.clock, 100)
    assert (again.fills, again.refused, again.not_admitted) == (0, 0, 0)
    host.cache.flush()


def test_the_layout(host: Host) -> None:
    """A draft's first word says whether it waits."""
    assert DRAFT.size % struct.calcsize("=Q") == 0
