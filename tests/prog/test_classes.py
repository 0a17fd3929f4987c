# SPDX-License-Identifier: Apache-2.0
"""Keys and replies in length classes: each at its edges, torn apart, refilled, orphaned, full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.store import REPLY_CLASSES, LengthClass
from carom.kernel import libbpf
from carom.kernel.abi import KEY_SHORT, REPLY_MAX, REPLY_MEDIUM, REPLY_SHORT, SLOTS, Verdict
from prog.host import Host, entry_class
from prog.test_cache import answer, question, torn

KEYS = (KEY_SHORT - 1, KEY_SHORT, KEY_SHORT + 1, 255, 256)
REPLIES = (
    REPLY_SHORT - 1,
    REPLY_SHORT,
    REPLY_SHORT + 1,
    REPLY_MEDIUM - 1,
    REPLY_MEDIUM,
    REPLY_MEDIUM + 1,
    REPLY_MAX - 1,
    REPLY_MAX,
)
KEY = question(20)


def classes(length: int) -> LengthClass | None:
    """The class of a reply's own map; None when it lies in its entry."""
    if length <= REPLY_SHORT:
        return None
    return next(one for one in REPLY_CLASSES if length <= one.room)


def count(host: Host, length_class: LengthClass) -> int:
    """How many replies lie in a map."""
    fd = host.fastpath.map(length_class.map)
    return sum(n for n, _, _ in libbpf.batches(fd, 8, length_class.value.size))


def bodies(host: Host) -> tuple[int, ...]:
    """How many there are in each class."""
    return tuple(count(host, one) for one in REPLY_CLASSES)


def body_of(host: Host, key: bytes) -> bytes:
    """The key of a reply in its map."""
    entry = host.cache.get(key)
    assert entry
    return entry.body.to_bytes(8, "little")


def wipe(host: Host) -> None:
    """Empty every map, of both services and of orphans."""
    for service in (0, 1):
        host.fastpath.store.bump(SLOTS + service)
    host.fastpath.store.orphans = True
    host.sweep()
    assert bodies(host) == (0, 0)


@pytest.fixture
def empty(host: Host) -> Iterator[Host]:
    """A host whose every map is empty, before and after."""
    wipe(host)
    yield host
    wipe(host)


class TestEdges:
    """Where one class ends and the next begins."""

    @pytest.mark.parametrize("reply_size", REPLIES)
    @pytest.mark.parametrize("key_size", KEYS)
    def test_filled_and_hit(self, empty: Host, key_size: int, reply_size: int) -> None:
        key, reply = question(key_size), answer(reply_size)
        empty.fill(key, reply)
        assert empty.asks(key) == empty.hit(reply)
        entry = empty.cache.get(key)
        assert entry
        assert empty.cache.reply(entry) == reply
        assert len(empty.stored(key)) == entry_class(key).value.size
        expected = tuple(int(one is classes(reply_size)) for one in REPLY_CLASSES)
        assert bodies(empty) == expected

    def test_a_key_that_is_the_front_of_another(self, empty: Host) -> None:
        keys = [question(256)[:n] for n in KEYS]
        for n, key in enumerate(keys):
            empty.fill(key, answer(100 + n))
        for n, key in enumerate(keys):
            assert empty.asks(key) == empty.hit(answer(100 + n))

    def test_too_long_a_key(self, empty: Host) -> None:
        empty.fill(question(256), answer(3))
        payload = question(257)
        assert empty.asks(payload) == empty.missed(Verdict.PASS_SIZE, payload)
        payload = question(259)
        assert empty.asks(payload) == empty.missed(Verdict.PASS_SIZE, payload)

    @pytest.mark.parametrize("key_size", KEYS)
    def test_each_byte_of_a_long_reply(self, empty: Host, key_size: int) -> None:
        """What lies beside a reply in memory never leaves with it."""
        key = question(key_size)
        for size in range(REPLY_SHORT + 1, REPLY_SHORT + 10):
            empty.fill(key, b"\xff" * REPLY_MEDIUM)
            empty.fill(key, answer(size))
            assert empty.asks(key) == empty.hit(answer(size))
        for size in range(REPLY_MEDIUM + 1, REPLY_MEDIUM + 10):
            empty.fill(key, b"\xff" * REPLY_MAX)
            empty.fill(key, answer(size))
            assert empty.asks(key) == empty.hit(answer(size))


@pytest.mark.parametrize("reply_size", [65, 512, 513, 1472])
@pytest.mark.parametrize("key_size", [20, 100])
class TestApart:
    """An entry whose reply is gone, or another's: a miss that is told, and an untouched request."""

    def filled(self, host: Host, key_size: int, reply_size: int) -> tuple[bytes, int, LengthClass]:
        key, length_class = question(key_size), classes(reply_size)
        assert length_class
        host.fill(key, answer(reply_size))
        assert host.asks(key) == host.hit(answer(reply_size))
        return key, host.fastpath.map(length_class.map), length_class

    def test_evicted(self, any_host: Host, key_size: int, reply_size: int) -> None:
        host = any_host
        key, fd, _ = self.filled(host, key_size, reply_size)
        assert libbpf.delete(fd, body_of(host, key))
        assert host.asks(key) == host.missed(Verdict.MISS_TORN, key)
        entry = host.cache.get(key)
        assert entry
        assert host.cache.reply(entry) is None

    def test_replaced(self, host: Host, key_size: int, reply_size: int) -> None:
        """By a whole reply with a stamp of its own; by one half of it; by another's half."""
        key, fd, length_class = self.filled(host, key_size, reply_size)
        body = body_of(host, key)
        whole = libbpf.lookup(fd, body, length_class.value.size)
        assert whole
        head, data, tail = length_class.value.unpack(whole)
        entry = host.cache.get(key)
        assert entry
        for stamps in ((head + 1, tail + 1), (head + 1, tail), (head, tail + 1), (0, 0)):
            libbpf.update(fd, body, length_class.value.pack(stamps[0], data, stamps[1]))
            assert host.asks(key) == host.missed(Verdict.MISS_TORN, key), stamps
            assert host.cache.reply(entry) is None
        libbpf.update(fd, body, whole)
        assert host.asks(key) == host.hit(answer(reply_size))

    def test_the_entry_alone_replaced(self, host: Host, key_size: int, reply_size: int) -> None:
        key, _, _ = self.filled(host, key_size, reply_size)
        value = host.stored(key)
        host.store(key, torn(value, head=5, tail=5))
        assert host.asks(key) == host.missed(Verdict.MISS_TORN, key)
        host.store(key, value)
        assert host.asks(key) == host.hit(answer(reply_size))

    def test_another_body(self, host: Host, key_size: int, reply_size: int) -> None:
        """The body of another key of the same class, whole in itself."""
        key, _, _ = self.filled(host, key_size, reply_size)
        host.fill(b"another", answer(reply_size)[::-1])
        entry = host.cache.get(b"another")
        assert entry
        host.store(key, torn(host.stored(key), body=entry.body))
        assert host.asks(key) == host.missed(Verdict.MISS_TORN, key)


class TestRefill:
    """From one class to another, and back."""

    @pytest.mark.parametrize("last", [10, 64, 65, 512, 513, 1472])
    @pytest.mark.parametrize("first", [10, 64, 65, 512, 513, 1472])
    def test_the_new_one_answers(self, any_host: Host, first: int, last: int) -> None:
        for size in (first, last, first):
            any_host.fill(KEY, answer(size))
            assert any_host.asks(KEY) == any_host.hit(answer(size))
        assert any_host.held() == {KEY: answer(first)}

    def test_dropped_with_all_its_replies(self, empty: Host) -> None:
        for size in (100, 1000):
            empty.fill(KEY, answer(size))
        assert bodies(empty) == (1, 1)
        assert empty.cache.drop(KEY)
        assert bodies(empty) == (0, 0)

    def test_swept_with_all_its_replies(self, empty: Host) -> None:
        for size in (1000, 100):
            empty.fill(KEY, answer(size), 5)
        empty.fill(b"lives", answer(200), 50)
        empty.clock.advance(5)
        assert empty.sweep() == 1
        assert bodies(empty) == (1, 0)
        assert empty.asks(b"lives") == empty.hit(answer(200))


class TestFull:
    """First come, first served, and a class of replies without room."""

    CAPACITY = 8

    @pytest.fixture
    def fcfs(self, load_fastpath: Callable[..., FastPath]) -> Iterator[Host]:
        host = Host(load_fastpath(policy="fcfs", capacity=self.CAPACITY, test_clock=True))
        wipe(host)
        yield host
        wipe(host)

    @staticmethod
    def key(n: int, long: bool = False) -> bytes:
        return b"%d" % n + (b"." * KEY_SHORT if long else b"")

    def fill_up(self, host: Host, size: int) -> None:
        """As many short keys, with replies of one class."""
        for n in range(self.CAPACITY):
            host.fill(self.key(n), answer(size), 10)
        assert host.cache.refused == 0

    @pytest.mark.parametrize("size", [100, 1000])
    def test_refused_and_not_half_stored(self, fcfs: Host, size: int) -> None:
        """There is room for the entry of a long key, and none for its reply."""
        self.fill_up(fcfs, size)
        key = self.key(0, long=True)
        fcfs.fill(key, answer(size))
        assert (fcfs.cache.fills, fcfs.cache.refused) == (self.CAPACITY, 1)
        assert fcfs.asks(key) == fcfs.missed(Verdict.MISS, key)
        for n in range(self.CAPACITY):
            assert fcfs.asks(self.key(n)) == fcfs.hit(answer(size))
        fcfs.fill(key, answer(64))
        fcfs.fill(key, answer(1100 - size))
        assert fcfs.asks(key) == fcfs.hit(answer(1100 - size))

    @pytest.mark.parametrize(("first", "then"), [(100, 10), (1000, 10), (100, 1000), (1000, 100)])
    def test_orphans_are_swept_once_they_are_in_the_way(
        self, fcfs: Host, first: int, then: int
    ) -> None:
        """Refilled in another class, a key leaves its old reply behind."""
        self.fill_up(fcfs, first)
        self.fill_up(fcfs, then)
        key = self.key(0, long=True)
        fcfs.fill(key, answer(first))
        assert fcfs.cache.refused == 1
        assert fcfs.sweep() == 0
        fcfs.fill(key, answer(first))
        assert fcfs.cache.refused == 1
        assert fcfs.asks(key) == fcfs.hit(answer(first))
        for n in range(self.CAPACITY):
            assert fcfs.asks(self.key(n)) == fcfs.hit(answer(then))

    def test_orphans_of_another_service_are_swept_too(self, fcfs: Host) -> None:
        """The daemon has one sweeper, which is one service's."""
        second = Cache(fcfs.fastpath.store, fcfs.clock, 100, service=1)
        for size in (100, 10):
            for n in range(self.CAPACITY):
                second.fill(self.key(n), answer(size), second.take(self.key(n)))
        key = self.key(0, long=True)
        second.fill(key, answer(100), second.take(key))
        assert second.refused == 1
        fcfs.sweep()
        second.fill(key, answer(100), second.take(key))
        assert second.refused == 1

    def test_replies_that_live_are_no_orphans(self, fcfs: Host) -> None:
        fcfs.fill(self.key(0), answer(100))
        fcfs.fill(self.key(0, long=True), answer(1000))
        fcfs.fastpath.store.orphans = True
        assert fcfs.sweep() == 0
        assert fcfs.asks(self.key(0)) == fcfs.hit(answer(100))
        assert fcfs.asks(self.key(0, long=True)) == fcfs.hit(answer(1000))


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
        assert host.cache.reply(entry) == answer(100)

    def test_stamps_are_never_given_twice(self, host: Host, second: Cache) -> None:
        heads = []
        for n in range(20):
            key = b"%d" % n
            for cache in (host.cache, second):
                cache.fill(key, b"", cache.take(key))
                entry = cache.get(key)
                assert entry
                heads.append(entry.head)
        assert len(set(heads)) == len(heads) == 40
        assert heads == sorted(heads)
