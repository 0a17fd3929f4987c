# SPDX-License-Identifier: Apache-2.0
"""A `get` of several keys: answered by one datagram if all are in the cache, else untouched."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from carom.daemon.fastpath import FastPath
from carom.daemon.learning import before_reply
from carom.kernel import libbpf
from carom.kernel.abi import REPLY_MAX, SLOTS, Verdict
from carom.protocols.memcached import DATAGRAM_MAX, HEADER, REQUEST_MAX, SPEC
from prog.conftest import SETTINGS
from prog.host import Host, passed
from prog.memcached_commands import SEED, datagram

KEYS_MAX = 24
"""JOINED_KEYS of join.h."""

END = b"END\r\n"
ROOM = DATAGRAM_MAX - HEADER.size - len(END)
"""Bytes that the values of a reply may take, with their lines."""


def value(name: bytes, data: bytes, cas: bytes = b"") -> bytes:
    return b"VALUE %b 0 %d%b\r\n%b\r\n" % (name, len(data), cas, data)


def reply(*values: bytes, request_id: int = 0x0102) -> bytes:
    return datagram(b"".join(values) + END, request_id=request_id)


@pytest.fixture(params=[*SETTINGS[:2], *SETTINGS[-2:]], ids=str)
def host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    loaded = load_fastpath(languages=(SPEC,), test_clock=True)
    host = Host(loaded, request.param)
    host.describe(protocol=SPEC, service=SPEC.number)
    host.fastpath.store.bump(SLOTS + SPEC.number)
    host.sweep()
    return host


def learn(host: Host, values: Mapping[bytes, bytes], cas: bytes = b"") -> dict[bytes, bytes]:
    """Fill the cache with values, by name, as the edge does; their parts of a reply."""
    parts = {name: value(name, data, cas) for name, data in values.items()}
    for name, part in parts.items():
        request = datagram((b"gets " if cas else b"get ") + name + b"\r\n")
        front = before_reply(SPEC, request, host.fastpath.store.voids[0])
        host.fastpath.store.grow_ahead()
        run = libbpf.test_run(host.fastpath.load("learn_frame"), front + reply(part))
        assert run.retval == libbpf.XDP_PASS
    return parts


def of_length(name: bytes, length: int) -> bytes:
    """Data with which a value takes that many bytes of a reply."""
    return next(bytes(n) for n in range(length) if len(value(name, bytes(n))) == length)


def test_all_are_known(host: Host) -> None:
    parts = learn(host, {b"a": b"one", b"b": b"", b"long-name": b"x" * 333})
    for names in ([b"a", b"b"], [b"b", b"a", b"long-name"], [b"a", b"a"], [b"long-name", b"b"]):
        request = datagram(b"get " + b" ".join(names) + b"\r\n", request_id=0xBEEF)
        expected = reply(*(parts[name] for name in names), request_id=0xBEEF)
        assert host.asks(request) == host.hit(expected)


def test_one_is_not_known(host: Host) -> None:
    learn(host, {b"a": b"one", b"b": b"two"})
    for names in (b"a b c", b"a c b", b"c a b", b"c d"):
        request = datagram(b"get %b\r\n" % names)
        assert host.asks(request) == host.missed(Verdict.MISS, request)


@pytest.mark.parametrize("gone", [b"a", b"b", b"c"])
@pytest.mark.parametrize("verdict", [Verdict.MISS_VOID, Verdict.MISS_EXPIRED, Verdict.MISS_TORN])
def test_one_does_not_count_any_more(host: Host, gone: bytes, verdict: Verdict) -> None:
    learn(host, {b"a": b"one", b"b": b"two", b"c": b"three"})
    entry = host.entry(b"g" + gone, SPEC.number)
    if verdict is Verdict.MISS_VOID:
        host.fastpath.store.bump(entry["slot"])
    elif verdict is Verdict.MISS_EXPIRED:
        entry["expires"] = host.clock.now()
    else:
        entry["sequence"] += 1
    request = datagram(b"get a b c\r\n")
    assert host.asks(request) == host.missed(verdict, request)
    entry["sequence"] += entry["sequence"] & 1  # or nobody could write it any more


def test_gets_has_its_own(host: Host) -> None:
    learn(host, {b"a": b"one", b"b": b"two"})
    request = datagram(b"gets a b\r\n")
    assert host.asks(request) == host.missed(Verdict.MISS, request)
    parts = learn(host, {b"a": b"one", b"b": b"two"}, b" 77")
    assert host.asks(request) == host.hit(reply(*parts.values()))


def test_as_long_as_a_datagram(host: Host) -> None:
    for last, verdict in ((400, Verdict.HIT), (401, Verdict.PASS_REQUEST)):
        lengths = {b"a": 400, b"b": ROOM - 800, b"c": last}
        parts = learn(host, {name: of_length(name, n) for name, n in lengths.items()})
        request, whole = datagram(b"get a b c\r\n"), reply(*parts.values())
        assert len(whole) == DATAGRAM_MAX + last - 400
        if verdict is Verdict.HIT:
            assert host.asks(request) == host.hit(whole)
        else:
            assert host.asks(request) == host.missed(verdict, request)


def test_two_of_the_longest_replies(host: Host) -> None:
    """What is made in the scratch may be nearly twice as long as a reply, and is not sent."""
    length = REPLY_MAX - HEADER.size - len(END)
    learn(host, {name: of_length(name, length) for name in (b"a", b"b")})
    request = datagram(b"get a b\r\n")
    assert host.asks(request) == host.missed(Verdict.PASS_REQUEST, request)


def test_as_many_as_there_are_programs(host: Host) -> None:
    parts = learn(host, {b"%d" % n: b"v%d" % n for n in range(KEYS_MAX + 1)})
    names, request = list(parts), b"get %b\r\n"
    most = datagram(request % b" ".join(names[:KEYS_MAX]))
    assert host.asks(most) == host.hit(reply(*list(parts.values())[:KEYS_MAX]))
    more = datagram(request % b" ".join(names))
    assert host.asks(more) == host.missed(Verdict.PASS_REQUEST, more)


def test_a_request_as_long_as_is_read(host: Host) -> None:
    fixed = len(datagram(b"get  b\r\n"))
    for length, verdict in ((REQUEST_MAX, Verdict.HIT), (REQUEST_MAX + 1, Verdict.PASS_SIZE)):
        names = [b"a" * 240, b"c" * (length - fixed - 241), b"b"]
        parts = learn(host, dict.fromkeys(names, b"v"))
        request = datagram(b"get %b\r\n" % b" ".join(names))
        assert len(request) == length
        if verdict is Verdict.HIT:
            assert host.asks(request) == host.hit(reply(*parts.values()))
        else:
            assert host.asks(request) == host.missed(verdict, request)


@pytest.mark.parametrize(
    "text", [b"get a  b\r\n", b"get  a b\r\n", b"get a b \r\n", b"get a b\t\r\n", b"get a b\0\r\n"]
)
def test_forms_that_are_not_plain(host: Host, text: bytes) -> None:
    learn(host, {b"a": b"one", b"b": b"two"})
    request = datagram(text)
    assert host.asks(request) == host.missed(Verdict.PASS_REQUEST, request)


def test_a_wrong_checksum(host: Host) -> None:
    learn(host, {b"a": b"one", b"b": b"two"})
    frame = host.wire.request(datagram(b"get a b\r\n"), udp={"chksum": 0x1234})
    assert host.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)


def random_names(rng: random.Random) -> Iterator[list[bytes]]:
    """Lists of names from two to as many as may be, longer names in shorter ones."""
    for _ in range(60):
        many = rng.randrange(2, KEYS_MAX + 1)
        longest = max(1, (REQUEST_MAX - 20) // many - 1)
        yield [
            bytes(rng.choices(b"abcdefgh\xc3\xbc", k=rng.randrange(1, min(longest, 250) + 1)))
            for _ in range(many)
        ]


def test_of_any_lengths(host: Host) -> None:
    """Each at any offset behind the one before; nothing of an earlier reply is left in it."""
    rng = random.Random(SEED)
    hits = 0
    for names in random_names(rng):
        most = max(1, 2 * (ROOM - sum(len(value(name, b"")) for name in names)) // len(names))
        parts = learn(host, {name: rng.randbytes(rng.randrange(most)) for name in set(names)})
        request, whole = datagram(b"get %b\r\n" % b" ".join(names)), reply(*map(parts.get, names))
        if len(whole) <= DATAGRAM_MAX:
            hits += 1
            assert host.asks(request) == host.hit(whole)
        else:
            assert host.asks(request) == host.missed(Verdict.PASS_REQUEST, request)
    assert 10 < hits < 50
