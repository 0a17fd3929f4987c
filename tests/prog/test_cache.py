# SPDX-License-Identifier: Apache-2.0
"""Answers from the cache in full, each way to miss, and what the daemon's hands do to the map.

BPF_PROG_TEST_RUN always leaves room to grow a frame to a full MTU, so that PASS_ROOM comes from a
small MTU here; where a driver has no room is seen between namespaces only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.errors import UsageError
from carom.kernel.abi import (
    REPLY_MAX,
    SLOTS,
    USED_MAX,
    Entry,
    Fast,
    Verdict,
)
from prog.host import START, Host, Outcome, of_one_slot, passed, sent
from prog.packets import FRAME_MIN, cached_reply, request

REQUEST_SIZES = (1, 2, 3, 4, 5, 17, 18, 19, 31, 32, 59, 60, 61, 255, 256)
REPLY_SIZES = (0, 1, 17, 18, 19, 32, 63, 64, 65, 256, 504, 505, 511, 512, 513, 1025, 1471, 1472)

QUESTION, ANSWER = b"how many roads", b"the answer to it"
OTHER = b"another question"


def question(length: int) -> bytes:
    return bytes((i * 5 + length) % 255 + 1 for i in range(length))


def answer(length: int) -> bytes:
    return bytes((i * 11 + i // 256 + length + 128) % 256 for i in range(length))


def asks(host: Host, payload: bytes) -> Outcome:
    return host.asks(payload)


def missed(verdict: Verdict, payload: bytes) -> Outcome:
    """Of a host at XDP, for IPv4."""
    return passed(verdict, request(payload))


def hit(reply: bytes, **fields: dict[str, int]) -> Outcome:
    """Of a host at XDP, for IPv4."""
    return sent(Verdict.HIT, cached_reply(reply, **fields))


class TestHit:
    """What leaves is a whole frame, made from the entry and the request's headers."""

    @pytest.mark.parametrize("request_size", REQUEST_SIZES)
    def test_sizes(self, any_host: Host, request_size: int) -> None:
        wire, payload = any_host.wire, question(request_size)
        for reply_size in REPLY_SIZES:
            reply = answer(reply_size)
            any_host.fill(payload, reply)
            expected = any_host.hit(reply)
            assert len(expected.frame) == max(FRAME_MIN, wire.headers + reply_size)
            assert any_host.asks(payload) == expected
            assert any_host.asks(payload) == expected

    @pytest.mark.parametrize(
        "padding",
        [b"\0" * 17, b"\xa5" * 17, b"\xa5" * 300, b"\xa5" * 1471],
        ids=["zeros", "junk", "more-junk", "most-junk"],
    )
    def test_the_requests_padding_never_comes_back(self, any_host: Host, padding: bytes) -> None:
        for reply_size in (0, 1, 17, 18, 19, 32, 256, 1472):
            any_host.fill(b"k", answer(reply_size))
            frame = any_host.wire.request(b"k", padding=padding)
            assert any_host.run(frame) == any_host.hit(answer(reply_size))

    @pytest.mark.parametrize("reply_size", [0, 1, 2, 17])
    def test_nothing_of_a_longer_reply_stays_behind(self, any_host: Host, reply_size: int) -> None:
        any_host.fill(OTHER, b"\xff" * REPLY_MAX)
        any_host.fill(QUESTION, b"\xff" * REPLY_MAX)
        assert any_host.asks(OTHER) == any_host.hit(b"\xff" * REPLY_MAX)
        any_host.fill(QUESTION, answer(reply_size))
        assert any_host.asks(QUESTION) == any_host.hit(answer(reply_size))

    @pytest.mark.parametrize("kind", ["whole", "zero", "partial"])
    def test_checksums(self, any_summer: Host, kind: str) -> None:
        host, wire = any_summer, any_summer.wire
        if kind == "zero" and wire.version == 6:
            pytest.skip("IPv6 has no datagrams without a checksum")
        half = {"chksum": wire.pseudo_sum(len(QUESTION))}
        asked = {"whole": {}, "zero": {"chksum": 0}, "partial": half}[kind]
        for reply_size in (0, 1, 32, 33, 64, 65, 512, 513, 1472):
            reply = answer(reply_size)
            host.fill(QUESTION, reply)
            half_made = kind == "partial" and host.sees_skbs
            answered = {"chksum": wire.pseudo_sum(reply_size)} if half_made else {}
            assert host.run(wire.request(QUESTION, udp=asked)) == host.hit(reply, udp=answered)

    @pytest.mark.parametrize("reply_size", [2, 3, 18, 32, 513, 1472])
    def test_a_sum_of_zero_is_sent_as_ones(self, any_host: Host, reply_size: int) -> None:
        wire = any_host.wire
        reply = wire.tuned(0, answer(reply_size))
        any_host.fill(QUESTION, reply)
        expected = any_host.hit(reply)
        assert expected.frame[wire.check] == b"\xff\xff"
        assert any_host.asks(QUESTION) == expected

    @pytest.mark.parametrize("byte", [b"\0", b"\xff"], ids=["zeros", "ones"])
    def test_one_byte_over_and_over(self, any_host: Host, byte: bytes) -> None:
        for size in REPLY_SIZES:
            any_host.fill(byte * 32, byte * size)
            assert any_host.asks(byte * 32) == any_host.hit(byte * size)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
    @given(
        payload=st.binary(min_size=1, max_size=256),
        reply=st.integers(0, 1472).flatmap(lambda n: st.randoms().map(lambda r: r.randbytes(n))),
        padding=st.binary(max_size=40),
    )
    @example(payload=b";?@K[\xce\xac", reply=b"a", padding=b"")
    def test_any(self, any_host: Host, payload: bytes, reply: bytes, padding: bytes) -> None:
        """A whole sum that happens to be the pseudo-header's own is ambiguous, and passes."""
        wire = any_host.wire
        any_host.fill(payload, reply)
        frame = wire.request(payload, padding=padding)
        half = frame[wire.check] == wire.pseudo_sum(len(payload)).to_bytes(2, "big")
        ambiguous = half and any_host.sees_skbs
        expected = passed(Verdict.PASS_CHECKSUM, frame) if ambiguous else any_host.hit(reply)
        assert any_host.run(frame) == expected

    def test_headers_are_this_requests(self, any_host: Host) -> None:
        any_host.fill(QUESTION, ANSWER)
        wire = any_host.wire
        for n in range(1, 4):
            source = f"198.18.{n}.2" if wire.version == 4 else f"2001:db8:{n}::2"
            kept = {"id": n, "flags": "DF"} if wire.version == 4 else {}
            asked = wire.request(
                QUESTION,
                eth={"src": f"02:00:00:00:0{n}:02"},
                ip={"src": source} | wire.ttl(64 + n) | kept,
                udp={"sport": 40000 + n},
            )
            assert any_host.run(asked) == any_host.hit(
                ANSWER,
                eth={"dst": f"02:00:00:00:0{n}:02"},
                ip={"dst": source} | wire.ttl(63 + n) | kept,
                udp={"dport": 40000 + n},
            )

    def test_a_refill_replaces(self, host: Host) -> None:
        for reply in (b"first", b"second, which is longer", b"3"):
            host.fill(QUESTION, reply)
            assert asks(host, QUESTION) == hit(reply)
        assert host.cache.count() == 1


class TestMiss:
    """Each reason why an entry does not answer."""

    def test_not_there(self, host: Host) -> None:
        assert asks(host, QUESTION) == missed(Verdict.MISS, QUESTION)
        host.fill(OTHER, ANSWER)
        assert asks(host, QUESTION) == missed(Verdict.MISS, QUESTION)

    @pytest.mark.parametrize("size", REQUEST_SIZES)
    def test_the_whole_key_counts(self, host: Host, size: int) -> None:
        payload = question(size)
        host.fill(payload, ANSWER)
        for at in {0, size // 2, size - 1}:
            near = flipped(payload, at)
            assert asks(host, near) == missed(Verdict.MISS, near)
        shorter, longer = payload[:-1], payload + b"x"
        for other in (shorter, longer):
            expected = Verdict.MISS if 1 <= len(other) <= 256 else Verdict.PASS_SIZE
            assert asks(host, other) == missed(expected, other)

    def test_trailing_zeros_are_part_of_the_key(self, host: Host) -> None:
        keys = [b"k", b"k\0", b"k\0\0", b"k" + b"\0" * 255, b"\0", b"\0" * 256]
        for n, key in enumerate(keys):
            assert asks(host, key) == missed(Verdict.MISS, key)
            host.fill(key, b"reply %d" % n)
        assert [asks(host, key) for key in keys] == [hit(b"reply %d" % n) for n in range(6)]

    def test_the_service_is_part_of_the_key(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.entry(QUESTION)["service"] = 1
        assert asks(host, QUESTION) == missed(Verdict.MISS, QUESTION)

    @pytest.mark.parametrize("ttl", [None, 1, 7])
    def test_expires_at_its_tick(self, host: Host, ttl: int | None) -> None:
        host.fill(QUESTION, ANSWER, ttl)
        host.clock.advance((100 if ttl is None else ttl) - 1)
        assert asks(host, QUESTION) == hit(ANSWER)
        host.clock.advance(1)
        assert asks(host, QUESTION) == missed(Verdict.MISS_EXPIRED, QUESTION)
        host.clock.advance(10**6)
        assert asks(host, QUESTION) == missed(Verdict.MISS_EXPIRED, QUESTION)
        host.fill(QUESTION, ANSWER, ttl)
        assert asks(host, QUESTION) == hit(ANSWER)

    def test_invalidated(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.fill(OTHER, ANSWER)
        host.cache.invalidate(QUESTION)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)
        assert asks(host, OTHER) == hit(ANSWER)
        host.fill(QUESTION, b"new")
        assert asks(host, QUESTION) == hit(b"new")

    def test_a_token_from_before_an_invalidation_is_void(self, host: Host) -> None:
        token = host.cache.take(QUESTION)
        host.cache.invalidate(QUESTION)
        host.cache.fill(QUESTION, ANSWER, token)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_a_token_from_before_a_flush_is_void(self, host: Host) -> None:
        token = host.cache.take(QUESTION)
        host.cache.flush()
        host.cache.fill(QUESTION, ANSWER, token)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_a_new_generation_voids_all(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.fill(OTHER, ANSWER)
        host.fastpath.store.bump(SLOTS)
        for payload in (QUESTION, OTHER):
            assert asks(host, payload) == missed(Verdict.MISS_VOID, payload)

    def test_another_services_generation_voids_nothing(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.fastpath.store.bump(SLOTS + 1)
        assert asks(host, QUESTION) == hit(ANSWER)

    def test_a_key_of_the_same_slot_goes_with_it(self, host: Host) -> None:
        """A collision costs a miss; it never keeps what was written."""
        same = of_one_slot(b"a", host.fastpath.store.hashes.slot_of)
        host.fill(b"a", ANSWER)
        host.fill(same, b"of its own")
        assert asks(host, same) == hit(b"of its own")
        host.cache.invalidate(b"a")
        assert asks(host, same) == missed(Verdict.MISS_VOID, same)

    def test_void_before_expired(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER, 1)
        host.clock.advance(1)
        host.cache.invalidate(QUESTION)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_flushed(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        assert host.cache.flush() == 1
        assert asks(host, QUESTION) == missed(Verdict.MISS, QUESTION)

    def test_flushed_while_others_sweep(self, host: Host) -> None:
        """The sweeper's thread may be at it: what it takes was flushed as well."""
        ended = threading.Event()

        def sweep() -> None:
            while not ended.is_set():
                host.sweep()

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            for _ in range(40):
                for n in range(20):
                    host.fill(b"%02d" % n, ANSWER)
                assert host.cache.flush() == 20
                assert host.cache.count() == 0
        finally:
            ended.set()
            sweeper.join()


def flipped(payload: bytes, at: int) -> bytes:
    """The payload with one byte another."""
    return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


class TestWritten:
    """An entry that is not what its reader looks for: found before a byte of the packet changes."""

    @pytest.mark.parametrize("size", [0, 14, 64, 65, 1472])
    def test_being_written(self, any_host: Host, size: int) -> None:
        """Nobody reads it until it is whole."""
        any_host.fill(QUESTION, answer(size))
        entry = any_host.entry(QUESTION)
        for sequence in (1, 2**64 - 1):
            entry["sequence"] = sequence
            assert any_host.asks(QUESTION) == any_host.missed(Verdict.MISS_TORN, QUESTION)
            assert any_host.cache.get(QUESTION) is None
            assert list(any_host.cache.entries()) == []
        for sequence in (0, 2, 2**64 - 2):
            entry["sequence"] = sequence
            assert any_host.asks(QUESTION) == any_host.hit(answer(size))
            assert any_host.held() == {QUESTION: answer(size)}

    @pytest.mark.parametrize(
        ("field", "value", "verdict"),
        [
            ("service", 1, Verdict.MISS),
            ("key_length", len(QUESTION) + 1, Verdict.MISS),
            ("key_length", len(QUESTION) - 1, Verdict.MISS),
            ("key_length", 0, Verdict.MISS),
            ("length", 17, Verdict.MISS_TORN),
            ("length", 0xFFFF, Verdict.MISS_TORN),
            ("stored", REPLY_MAX + 1, Verdict.MISS_TORN),
            ("stored", 0xFFFF, Verdict.MISS_TORN),
        ],
    )
    def test_another(self, host: Host, field: str, value: int, verdict: Verdict) -> None:
        host.fill(QUESTION, ANSWER)
        entry = host.entry(QUESTION)
        before = entry[field]
        entry[field] = value
        assert asks(host, QUESTION) == missed(verdict, QUESTION)
        entry[field] = before
        assert asks(host, QUESTION) == hit(ANSWER)

    @pytest.mark.parametrize("size", [*range(1, 18), 20, 21, 31, 32, 33, 251, 252, 253, 255, 256])
    def test_each_byte_of_the_key(self, host: Host, size: int) -> None:
        payload = question(size)
        host.fill(payload, ANSWER)
        key = host.entry(payload).key
        for at in range(size):
            key[at] ^= 1
            assert asks(host, payload) == missed(Verdict.MISS, payload)
            key[at] ^= 1
        assert asks(host, payload) == hit(ANSWER)

    def test_written_before_void_and_expired(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER, 1)
        entry = host.entry(QUESTION)
        entry["sequence"] += 1
        host.cache.invalidate(QUESTION)
        host.clock.advance(1)
        assert asks(host, QUESTION) == missed(Verdict.MISS_TORN, QUESTION)
        entry["sequence"] += 1

    def test_nobody_else_writes_what_is_being_written(self, host: Host) -> None:
        """A fill, a removal and a longer life leave it to who began."""
        host.fill(QUESTION, ANSWER, 7)
        entry, sequence = host.entry(QUESTION), host.entry(QUESTION)["sequence"]
        found = host.cache.get(QUESTION)
        assert found
        entry["sequence"] = sequence + 1
        store = host.fastpath.store
        host.fill(QUESTION, b"another")
        store.drain(0)
        assert not store.drop(found.line, sequence)
        assert not store.drop(found.line, sequence + 1)
        assert not store.prolong(found, START + 50)
        entry["sequence"] = sequence
        assert (host.held(), entry["expires"]) == ({QUESTION: ANSWER}, START + 7)

    def test_what_was_written_since_stays(self, host: Host) -> None:
        """Whoever looked before may neither remove it nor let it live."""
        host.fill(QUESTION, ANSWER, 7)
        before = host.cache.get(QUESTION)
        assert before
        host.fill(QUESTION, b"new", 5)
        store = host.fastpath.store
        store.drain(0)
        assert not store.drop(before.line, before.sequence)
        assert not store.prolong(before, START + 50)
        assert asks(host, QUESTION) == hit(b"new")
        host.clock.advance(5)
        assert asks(host, QUESTION) == missed(Verdict.MISS_EXPIRED, QUESTION)

    def test_only_hits_are_uses(self, host: Host) -> None:
        """What is void or has expired does not stay for those who ask in vain."""
        host.fill(QUESTION, ANSWER, 5)
        for n in range(1, USED_MAX + 3):
            assert asks(host, QUESTION) == hit(ANSWER)
            assert host.entry(QUESTION)["used"] == min(n, USED_MAX)
        host.fill(QUESTION, ANSWER, 5)
        host.clock.advance(5)
        assert asks(host, QUESTION).verdict is Verdict.MISS_EXPIRED
        host.cache.invalidate(QUESTION)
        assert asks(host, QUESTION).verdict is Verdict.MISS_VOID
        assert host.entry(QUESTION)["used"] == 0

    @pytest.mark.parametrize("slot", [SLOTS + 256, 0xFFFFFFFF])
    def test_a_slot_out_of_bounds_is_void_once_anything_is(self, host: Host, slot: int) -> None:
        host.fill(QUESTION, ANSWER)
        entry = host.entry(QUESTION)
        entry["slot"] = slot
        assert asks(host, QUESTION) == host.hit(ANSWER)
        host.fastpath.store.bump(7)
        for token in (0, 1, host.fastpath.store.voids[0] - 1):
            entry["token"] = token
            assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_no_cell_is_asked_while_nothing_is_voided(self, host: Host) -> None:
        """A token that is the number of voids is good by that alone."""
        host.fill(QUESTION, ANSWER)
        entry = host.entry(QUESTION)
        slot, voids = host.cache.take(QUESTION)
        assert entry["token"] == voids == host.fastpath.store.voids[0]
        host.fastpath.store.versions[slot] = voids + 1  # which no void has written
        assert asks(host, QUESTION) == host.hit(ANSWER)
        host.fastpath.store.versions[slot] = 0
        host.fastpath.store.bump(slot + 1 & 0xFFFF)
        assert asks(host, QUESTION) == host.hit(ANSWER)
        host.fastpath.store.bump(slot)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_the_last_void_decides(self, host: Host) -> None:
        """A token is good that is no lower than the key's last void, and the service's."""
        host.fill(QUESTION, ANSWER)
        entry = host.entry(QUESTION)
        slot = host.cache.take(QUESTION)[0]
        for cell, other in ((slot, SLOTS), (SLOTS, slot)):
            host.fastpath.store.bump(other)
            host.fastpath.store.bump(cell)
            last = host.fastpath.store.versions[cell]
            for token, good in ((last - 1, False), (last, True), (last + 1, True)):
                entry["token"] = token
                expected = hit(ANSWER) if good else missed(Verdict.MISS_VOID, QUESTION)
                assert asks(host, QUESTION) == expected

    def test_voids_of_other_keys_leave_it(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        for n in range(100):
            if host.cache.take(b"%d" % n)[0] != host.cache.take(QUESTION)[0]:
                host.cache.invalidate(b"%d" % n)
        assert asks(host, QUESTION) == hit(ANSWER)


class TestPass:
    """A hit that cannot be sent, and a request that cannot be believed."""

    @pytest.mark.parametrize("size", [18, 19, 32, 64, 65, 512, 513, 1000, 1472])
    def test_mtu(self, any_host: Host, size: int) -> None:
        reply, headers = answer(size), any_host.wire.headers - any_host.wire.network
        any_host.fill(QUESTION, reply)
        any_host.describe(mtu=headers + size - 1)
        assert any_host.asks(QUESTION) == any_host.missed(Verdict.PASS_ROOM, QUESTION)
        any_host.describe(mtu=headers + size)
        assert any_host.asks(QUESTION) == any_host.hit(reply)

    def test_mtu_of_a_padded_request(self, any_host: Host) -> None:
        any_host.fill(QUESTION, answer(100))
        any_host.describe(mtu=127)
        frame = any_host.wire.request(QUESTION, padding=b"\xa5" * 200)
        assert any_host.run(frame) == passed(Verdict.PASS_ROOM, frame)

    @pytest.mark.parametrize("size", REQUEST_SIZES)
    def test_wrong_checksum(self, any_summer: Host, size: int) -> None:
        host, wire, payload = any_summer, any_summer.wire, question(size)
        host.fill(payload, answer(500))
        right = int.from_bytes(wire.request(payload)[wire.check], "big")
        for wrong in (right ^ 1, right ^ 0x8000, 0xFFFF ^ right):
            frame = wire.request(payload, udp={"chksum": wrong})
            assert host.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)
        assert host.asks(payload) == host.hit(answer(500))

    def test_ambiguous_checksum(self, any_summer: Host) -> None:
        host, wire = any_summer, any_summer.wire
        half = wire.pseudo_sum(32)
        payload = wire.tuned(half, question(32))
        host.fill(payload, ANSWER)
        assert wire.request(payload)[wire.check] == half.to_bytes(2, "big")
        expected = (
            host.missed(Verdict.PASS_CHECKSUM, payload) if host.sees_skbs else host.hit(ANSWER)
        )
        assert host.asks(payload) == expected

    def test_a_service_that_bounces_does_not_look(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.serve(Fast.BOUNCE)
        assert asks(host, QUESTION).verdict is Verdict.BOUNCE


class TestHands:
    """carom.daemon.cache: what it says of the map, and what it leaves there."""

    def test_get(self, host: Host) -> None:
        assert host.cache.get(QUESTION) is None
        host.cache.invalidate(QUESTION)
        token = host.cache.take(QUESTION)
        host.cache.fill(QUESTION, ANSWER, token, 7)
        slot, voids = token
        assert 0 <= slot < SLOTS
        entry = host.cache.get(QUESTION)
        assert entry == Entry(
            service=0,
            view=0,
            key=QUESTION,
            data=ANSWER,
            length=len(ANSWER),
            loops=False,
            expires=START + 7,
            filled=START,
            token=voids,
            slot=slot,
            line=entry.line if entry else 0,
            sequence=entry.sequence if entry else 0,
        )
        assert host.cache.get(QUESTION + b"\0") is None

    def test_state(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER, 7)
        entry = host.cache.get(QUESTION)
        assert entry
        assert (host.cache.state(entry), host.cache.seconds_left(entry)) == ("live", 7)
        host.clock.advance(6)
        assert (host.cache.state(entry), host.cache.seconds_left(entry)) == ("live", 1)
        host.clock.advance(2)
        assert (host.cache.state(entry), host.cache.seconds_left(entry)) == ("expired", -1)
        host.cache.invalidate(QUESTION)
        assert host.cache.state(entry) == "void"
        host.fill(QUESTION, ANSWER)
        entry = host.cache.get(QUESTION)
        assert entry
        assert host.cache.state(entry) == "live"
        host.fastpath.store.bump(SLOTS)
        assert host.cache.state(entry) == "void"

    def test_drop(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.fill(OTHER, ANSWER)
        token = host.cache.take(QUESTION)
        assert host.cache.drop(QUESTION)
        assert not host.cache.drop(QUESTION)
        assert asks(host, QUESTION) == missed(Verdict.MISS, QUESTION)
        assert asks(host, OTHER) == hit(ANSWER)
        host.cache.fill(QUESTION, ANSWER, token)
        assert asks(host, QUESTION) == missed(Verdict.MISS_VOID, QUESTION)

    def test_sweep_takes_the_dead_and_leaves_the_living(self, host: Host) -> None:
        host.fill(b"short", b"1", 5)
        host.fill(b"void", b"2", 50)
        host.fill(b"live", b"3", 6)
        host.cache.invalidate(b"void")
        assert host.sweep() == 1
        host.clock.advance(4)
        assert host.sweep() == 0
        host.clock.advance(1)
        assert host.sweep() == 1
        assert [entry.key for entry in host.cache.entries()] == [b"live"]
        assert asks(host, b"live") == hit(b"3")

    @pytest.mark.parametrize("size", [32, 500, 1472])
    def test_two_services_with_the_same_key(self, host: Host, size: int) -> None:
        """Whatever they are filled with, neither takes the other's room or gives its reply."""
        other = Cache(host.fastpath.store, host.clock, ttl=100, service=1)
        other.flush()
        replies = answer(size), answer(size)[::-1]
        for _ in range(3):
            for cache, reply in zip((host.cache, other), replies, strict=True):
                cache.fill(QUESTION, reply, cache.take(QUESTION))
            for service, reply in enumerate(replies):
                host.describe(service=service)
                assert asks(host, QUESTION) == hit(reply)

    def test_more_than_a_batch(self, host: Host) -> None:
        filled = {b"key %d" % n: b"reply %d" % n for n in range(1300)}
        for payload, reply in filled.items():
            host.fill(payload, reply, 5 if payload.endswith(b"7") else 10)
        assert host.cache.count() == 1300
        assert host.held() == filled
        host.clock.advance(5)
        assert host.sweep() == 130
        assert host.cache.count() == 1170
        assert host.cache.flush() == 1170
        assert (host.cache.count(), list(host.cache.entries())) == (0, [])

    def test_entries_leave_out_one_that_is_written(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER)
        host.fill(OTHER, ANSWER)
        entry = host.entry(QUESTION)
        entry["sequence"] += 1
        assert [entry.key for entry in host.cache.entries()] == [OTHER]
        assert host.cache.get(QUESTION) is None
        entry["sequence"] += 1

    def test_unfit(self, host: Host) -> None:
        for payload, reply in (
            (b"", ANSWER),
            (b"x" * 257, ANSWER),
            (QUESTION, b"x" * (REPLY_MAX + 1)),
        ):
            host.fill(payload, reply)
        cache = host.cache
        assert (cache.unfit, cache.fills, cache.refused, cache.count()) == (3, 0, 0, 0)

    def test_bump_knows_its_cells(self, host: Host) -> None:
        before = host.fastpath.store.voids[0]
        host.fastpath.store.bump(SLOTS - 1)
        assert host.fastpath.store.versions[SLOTS - 1] == host.fastpath.store.voids[0] == before + 1
        host.fastpath.store.bump(0)
        assert host.fastpath.store.versions[SLOTS - 1] == before + 1
        assert host.fastpath.store.versions[0] == host.fastpath.store.voids[0] == before + 2
        with pytest.raises(Exception, match="no cell"):
            host.fastpath.store.bump(SLOTS + 256)


class TestFull:
    """A cache with no room left, in either policy."""

    CAPACITY = 8

    @pytest.fixture
    def fcfs(self, load_fastpath: Callable[..., FastPath]) -> Host:
        return Host(load_fastpath(policy="fcfs", capacity=self.CAPACITY, test_clock=True))

    def fill_up(self, host: Host) -> None:
        for n in range(self.CAPACITY):
            host.fill(b"first %d" % n, b"reply %d" % n, 10)
        assert (host.cache.fills, host.cache.refused) == (self.CAPACITY, 0)

    def test_first_come_first_served(self, fcfs: Host) -> None:
        self.fill_up(fcfs)
        for n in range(3):
            fcfs.fill(OTHER, ANSWER)
            assert (fcfs.cache.fills, fcfs.cache.refused) == (self.CAPACITY, n + 1)
            assert asks(fcfs, OTHER) == missed(Verdict.MISS, OTHER)
        for n in range(self.CAPACITY):
            assert asks(fcfs, b"first %d" % n) == hit(b"reply %d" % n)

    def test_a_full_cache_still_takes_a_refill(self, fcfs: Host) -> None:
        self.fill_up(fcfs)
        fcfs.fill(b"first 3", b"new", 10)
        assert (fcfs.cache.fills, fcfs.cache.refused) == (self.CAPACITY + 1, 0)
        assert asks(fcfs, b"first 3") == hit(b"new")

    def test_swept_when_expired_it_takes_other_keys(self, fcfs: Host) -> None:
        self.fill_up(fcfs)
        fcfs.clock.advance(10)
        assert asks(fcfs, b"first 0") == missed(Verdict.MISS_EXPIRED, b"first 0")
        fcfs.fill(OTHER, ANSWER)
        assert fcfs.cache.refused == 1
        assert fcfs.sweep() == self.CAPACITY
        for n in range(self.CAPACITY):
            fcfs.fill(b"later %d" % n, b"reply %d" % n)
            assert asks(fcfs, b"later %d" % n) == hit(b"reply %d" % n)
        assert (fcfs.cache.fills, fcfs.cache.refused) == (2 * self.CAPACITY, 1)
        assert asks(fcfs, b"first 0") == missed(Verdict.MISS, b"first 0")

    def test_swept_when_void_it_takes_another_key(self, fcfs: Host) -> None:
        self.fill_up(fcfs)
        fcfs.cache.invalidate(b"first 5")
        assert fcfs.sweep() == 1
        fcfs.fill(OTHER, ANSWER)
        assert asks(fcfs, OTHER) == hit(ANSWER)

    def test_lru_goes_on(self, host: Host) -> None:
        capacity = 10_000
        for n in range(capacity + 2000):
            host.fill(b"key %d" % n, b"reply %d" % n)
            if n % 1000 == 0:
                assert asks(host, b"key %d" % n) == hit(b"reply %d" % n)
        assert (host.cache.fills, host.cache.refused) == (capacity + 2000, 0)
        assert len(host.fastpath.store) == capacity


def test_the_kernels_own_clock(load_fastpath: Callable[..., FastPath]) -> None:
    """The build that no test drives takes jiffies for lease and expiry, whatever the cell says."""
    fastpath = load_fastpath(policy="lru")
    host = Host(fastpath)
    now = fastpath.read_jiffies()
    host.fill(QUESTION, ANSWER, 10**6)
    host.fill(OTHER, ANSWER, 0)
    for cell in (0, now, now + 10**7):
        fastpath.clock[0] = cell
        fastpath.lease[0] = now + 10**6
        assert asks(host, QUESTION) == hit(ANSWER)
        assert asks(host, OTHER) == missed(Verdict.MISS_EXPIRED, OTHER)
        fastpath.lease[0] = now
        assert asks(host, QUESTION) == missed(Verdict.PASS_LEASE, QUESTION)
    assert now <= fastpath.read_jiffies() < now + 10**5


def test_a_capacity_beyond_memory_is_refused_with_the_largest_that_is_not() -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(UsageError, match="GiB of memory") as refused:
        FastPath(capacity=pages // 150)
    assert "--capacity" in str(refused.value.hint)
