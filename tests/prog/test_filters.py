# SPDX-License-Identifier: Apache-2.0
"""Every filter, at every place, says of every request what its Python reference says."""

from __future__ import annotations

import functools
import ipaddress
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from scapy.layers.inet import IPOption_NOP

from carom.errors import UsageError
from carom.filters.filter import Endpoint, Filter
from carom.filters.names import NAMES, PLACES, Name
from carom.kernel import libbpf
from carom.protocols.kv.store import KeyValueStore
from prog.filters import Reference
from prog.host import IFINDEX, mac_of
from prog.packets import HOST_MAC, PORT, WIRES, Wire

MIX = 10_000
KEYS = (0, 1, 10, 0x41, 0x5A7A, 0x30, 2**31, 2**32 - 1)  # two begin with a letter's byte
WORDS = (b"PUT", b"GET", b"DELETE", b"STOP")
CLIENTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
PASSES = {"xdp": libbpf.XDP_PASS, "tc": 0xFFFFFFFF}
DROPS = {"xdp": libbpf.XDP_DROP, "tc": 2}


def _valid(draw: random.Random) -> bytes:
    word = draw.choices(WORDS, (6, 4, 3, 1))[0]
    key = struct.pack("<I", draw.choice(KEYS)) if word != b"STOP" else b""
    return word + key + (struct.pack("<q", draw.randint(-9, 9)) if word == b"PUT" else b"")


def _near_miss(draw: random.Random) -> bytes:
    good = _valid(draw)
    match draw.randrange(8):
        case 0:
            return good[: draw.randrange(len(good))]
        case 1:
            return good + draw.randbytes(draw.randint(1, 40))
        case 2:
            return good.lower()
        case 3:  # one letter more, and one byte less behind it: the length of a good one
            return good[:3] + b"T" + good[3:-1]
        case 4:
            at = draw.randrange(len(good))
            return good[:at] + draw.randbytes(1) + good[at + 1 :]
        case 5:
            return b"\0" + good
        case 6:
            return draw.choice(WORDS) + draw.randbytes(draw.choice((4, 7, 8, 12)))
        case _:
            return draw.choice(WORDS)


def mix(seed: int, count: int = MIX) -> list[bytes]:
    """Requests: valid, nearly so, and not at all."""
    draw = random.Random(seed)
    kinds: tuple[Callable[[random.Random], bytes], ...] = (
        _valid,
        _near_miss,
        lambda draw: b"BAD" + draw.randbytes(draw.randrange(300)),
        lambda draw: draw.randbytes(draw.randrange(20)),
    )
    return [draw.choices(kinds, (5, 5, 1, 1))[0](draw) for _ in range(count)]


@functools.cache
def _headers(wire: Wire, length: int, client: str) -> bytes:
    fields = {} if client == wire.client else {"ip": {"src": client}}
    return wire.request(bytes(length), **fields)[: wire.headers]


def frame(payload: bytes, client: str = CLIENTS[0], wire: Wire = WIRES[0]) -> bytes:
    """A request's frame, whose UDP checksum is any: filters do not look at it."""
    return _headers(wire, len(payload), client) + payload


class Judge:
    """A filter at XDP or TC, run on frames; what it accepted is told by what it returned."""

    def __init__(self, filter: Filter):
        self.filter = filter

    def __enter__(self) -> Judge:
        self.filter.filter([Endpoint(ipaddress.ip_address(WIRES[0].host), PORT, IFINDEX, MAC)])
        return self

    def __exit__(self, *_: object) -> None:
        self.filter.filter([])

    def accepts(self, request: bytes, client: str) -> bool:
        packet = frame(request, client)
        result = libbpf.test_run(self.filter.program, packet)
        assert result.data == packet, "a filter changes nothing"
        place = self.filter.place
        assert result.retval in (PASSES[place], DROPS[place])
        return result.retval == PASSES[place]


class SocketJudge:
    """A filter at a real socket on the loopback."""

    def __init__(self, filter: Filter):
        self.filter = filter

    def __enter__(self) -> SocketJudge:
        self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind(("127.0.0.1", 0))
        self._server.settimeout(5)
        self.filter.attach_socket(self._server)
        self._clients = {}
        for address in CLIENTS:
            client = self._clients[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.bind((address, 0))
            client.connect(self._server.getsockname())
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._server, *self._clients.values()):
            one.close()

    def accepts(self, request: bytes, client: str) -> bool:
        """One of its counters rises whatever it says; what it accepts can be received."""
        before = self._accepted()
        self._clients[client].send(request)
        rejected, accepted = (
            now - then for now, then in zip(self._accepted(), before, strict=True)
        )
        assert rejected + accepted == 1
        if accepted:
            assert self._server.recv(2048) == request
        return bool(accepted)

    def _accepted(self) -> tuple[int, int]:
        tallies = {name: sum(values) for name, values in self.filter.tallies().items()}
        return (
            tallies["invalid_rejected"] + tallies["valid_rejected"],
            tallies["invalid_accepted"] + tallies["valid_accepted"],
        )


MAC = mac_of(HOST_MAC)


@pytest.fixture(scope="module", params=PLACES)
def filter(request: pytest.FixtureRequest) -> Iterator[Filter]:
    """All filters of a place, with a clock of their own."""
    with Filter("simple", request.param, 1, test_clock=True) as filter:
        yield filter


@pytest.fixture
def judge(filter: Filter) -> Iterator[Judge | SocketJudge]:
    """The same, with settings as they are at first."""
    filter.clock[0] = 1000
    for name, value in (("accept", 1), ("rate", 0), ("client-rate", 0)):
        filter.set(name, value)
    with (SocketJudge if filter.place == "socket" else Judge)(filter) as judge:
        yield judge
    filter._links.clear()


STATELESS: tuple[Name, ...] = NAMES[:6]


@pytest.mark.parametrize("name", STATELESS)
def test_mix(judge: Judge | SocketJudge, name: Name) -> None:
    judge.filter.load(name)
    reference = Reference(name)
    judged = {True: 0, False: 0}
    for number, request in enumerate(mix(1)):
        if name == "parameterized" and number % 1000 == 0:
            reference.accept = not reference.accept
            judge.filter.set("accept", reference.accept)
        verdict = judge.accepts(request, CLIENTS[0])
        assert verdict == reference.accepts(request), request
        judged[verdict] += 1
    if name not in ("simple", "reject"):
        assert min(judged.values()) > MIX / 20, "a mix that tells little"


def test_the_hole_and_its_closing(judge: Judge | SocketJudge) -> None:
    """`PUTT` has a PUT's length: the published filter takes it for one, the strict one does not."""
    hole = b"PUTT" + bytes(11)
    for name, verdict in (("robust-valid-command", True), ("strict-valid-command", False)):
        judge.filter.load(name)  # type: ignore[arg-type]
        assert judge.accepts(hole, CLIENTS[0]) is verdict


@pytest.mark.parametrize(("rate", "client_rate"), [(0, 0), (7, 0), (0, 3), (7, 3), (1, 1)])
def test_limited_puts(judge: Judge | SocketJudge, rate: int, client_rate: int) -> None:
    reference = Reference("limited-puts")
    reference.rate, reference.client_rate = rate, client_rate
    judge.filter.load("limited-puts")
    judge.filter.set("rate", rate)
    judge.filter.set("client-rate", client_rate)
    draw, second = random.Random(2), judge.filter.clock[0]
    for request in mix(2):
        if draw.random() < 0.05:
            second += draw.randint(1, 3)
            judge.filter.clock[0] = second
        client = draw.choice(CLIENTS)
        assert judge.accepts(request, client) == reference.accepts(request, client, second)


class Now(NamedTuple):
    """The filter's clock."""

    filter: Filter

    def now(self) -> int:
        return self.filter.clock[0]

    def ticks(self, seconds: float) -> int:
        return round(seconds)


@pytest.mark.parametrize("seed", range(3))
def test_existing_key(judge: Judge | SocketJudge, seed: int) -> None:
    """The server does what was accepted after a while: a key also exists while its PUT waits."""
    store, waiting = KeyValueStore(), deque[bytes]()
    store.handle(b"PUT" + struct.pack("<Iq", KEYS[0], 1))  # it was there before
    store.watcher = judge.filter.keys
    judge.filter.learn(store.values, Now(judge.filter))
    judge.filter.load("existing-key")

    def exists(key: int) -> bool:
        coming = b"PUT" + struct.pack("<I", key)
        return key in store.values or any(one.startswith(coming) for one in waiting)

    reference = Reference("existing-key", exists)
    absent = b"GET" + struct.pack("<I", KEYS[1])
    assert judge.accepts(absent, CLIENTS[0]), "at first it cannot know"
    judge.filter.clock[0] += 1
    draw, rejected = random.Random(seed), 0
    for request in mix(seed):
        verdict = judge.accepts(request, CLIENTS[0])
        assert verdict == reference.accepts(request), request
        rejected += not verdict and Reference("strict-valid-command").accepts(request)
        if verdict:
            waiting.append(request)
        while waiting and draw.random() < 0.5:
            store.handle(waiting.popleft())
    assert rejected > 100, "keys were hardly ever absent"


def test_a_put_past_the_filter(judge: Judge | SocketJudge) -> None:
    """Its key cannot be counted: it exists for good, and the server says what is true."""
    store = KeyValueStore()
    store.watcher = judge.filter.keys
    judge.filter.learn((), Now(judge.filter))
    judge.filter.load("existing-key")
    judge.filter.clock[0] += 1
    key = struct.pack("<I", 5)
    assert not judge.accepts(b"GET" + key, CLIENTS[0])
    store.handle(b"PUT" + key + bytes(8))
    assert judge.accepts(b"GET" + key, CLIENTS[0])
    store.handle(b"DELETE" + key)
    assert judge.accepts(b"GET" + key, CLIENTS[0])


def test_too_many_keys(judge: Judge | SocketJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can no longer tell, and accepts every key, until it starts anew."""
    monkeypatch.setattr("carom.filters.keys.KEYS_MAX", 2)
    store = KeyValueStore()
    store.watcher = judge.filter.keys
    judge.filter.learn((), Now(judge.filter))
    judge.filter.load("existing-key")
    judge.filter.clock[0] += 1
    absent = b"GET" + struct.pack("<I", 200)  # its first byte is no letter
    for key in range(3):
        assert not judge.accepts(absent, CLIENTS[0])
        store.handle(b"PUT" + struct.pack("<Iq", key, 1))
    assert judge.accepts(absent, CLIENTS[0])
    judge.filter.learn((), Now(judge.filter))
    judge.filter.clock[0] += 1
    assert not judge.accepts(absent, CLIENTS[0])


def test_tallies(judge: Judge | SocketJudge) -> None:
    """Valid is what the server would understand, whatever the filter thinks."""
    judge.filter.load("robust-valid-command")
    before = judge.filter.tallies()
    requests = mix(3, 1000)
    expected = {"invalid_rejected": 0, "invalid_accepted": 0, "valid_rejected": 0} | {
        "valid_accepted": 0,
        "lost": 0,
    }
    for request in requests:
        accepted = judge.accepts(request, CLIENTS[0])
        valid = Reference("strict-valid-command").accepts(request)
        name = f"{'valid' if valid else 'invalid'}_{'accepted' if accepted else 'rejected'}"
        expected[name] += 1
    after = judge.filter.tallies()
    assert {name: sum(after[name]) - sum(before[name]) for name in after} == expected
    assert expected["invalid_accepted"] and not expected["valid_rejected"]


def test_captures(judge: Judge | SocketJudge) -> None:
    """Asked for, packets are copied as they came; at most so many a second; not for long."""
    filter = judge.filter
    filter.load("strict-valid-command")
    now = Now(filter)
    judge.accepts(b"GETaaaa", CLIENTS[0])
    assert filter.captures(now, rate=5, limit=100) == [], "nobody had asked"
    payloads = [b"", b"STOP", b"GET" + bytes(4), b"BAD" + bytes(600)]
    verdicts = [judge.accepts(payload, CLIENTS[0]) for payload in payloads]
    found = filter.captures(now, rate=5, limit=3)
    found += filter.captures(now, rate=5, limit=3)
    assert [one.accepted for one in found] == verdicts == [one.valid for one in found]
    for payload, one in zip(payloads, found, strict=True):
        whole = frame(payload)[0 if filter.place != "socket" else 14 :]
        assert (one.hook, one.length) == (filter.place, len(whole))
        assert len(one.data) == min(len(whole), 500)
        if filter.place == "socket":
            assert one.data[28:] == payload[: 500 - 28]
        else:
            assert one.data == whole[:500]
    lost = sum(filter.tallies()["lost"])
    for _ in range(10):
        judge.accepts(b"STOP", CLIENTS[0])
    assert len(filter.captures(now, rate=5, limit=100)) == 1, "four of five were spent"
    assert sum(filter.tallies()["lost"]) == lost + 9
    filter.clock[0] += 10
    judge.accepts(b"STOP", CLIENTS[0])
    assert filter.captures(now, rate=5, limit=100) == []


def test_ttl_floor() -> None:
    """At the socket: what would keep a loop going is dropped, as without a filter."""
    with (
        Filter("simple", "socket", 1, test_clock=True) as filter,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        filter.attach_socket(server, ttl_floor=32)
        for ttl in (31, 32):
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            client.sendto(b"%d" % ttl, server.getsockname())
        assert server.recv(100) == b"32"


@pytest.fixture(params=("xdp", "tc"))
def rejecting(request: pytest.FixtureRequest) -> Iterator[Filter]:
    """A filter that accepts nothing."""
    with Filter("reject", request.param, 1, test_clock=True) as filter:
        yield filter


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_where_it_filters(rejecting: Filter, wire: Wire) -> None:
    """At its endpoint, IPv4 or IPv6, behind the tags that it has; nowhere else."""
    outer, inner = (*wire.tags, 0, 0)[:2]
    host = ipaddress.ip_address(wire.host)
    place = rejecting.place

    def result(packet: bytes) -> int:
        ran = libbpf.test_run(rejecting.program, packet)
        assert ran.data == packet
        return ran.retval

    request = wire.request(b"GET" + bytes(4))
    assert result(request) == PASSES[place]
    rejecting.filter([Endpoint(host, PORT, IFINDEX, MAC, outer, inner)])
    assert result(request) == DROPS[place]
    others = [
        wire.request(b"x", udp={"dport": PORT + 1}),
        wire.request(b"x", eth={"dst": "02:00:00:00:00:09"}),
        wire.request(b"x", ip={"dst": "198.18.0.9" if wire.version == 4 else "2001:db8::9"}),
        request[:-1],
        *(other.request(b"x") for other in WIRES if other != wire),
    ]
    for packet in others:
        assert result(packet) == PASSES[place], packet
    rejecting.filter([])
    assert result(request) == PASSES[place]


def test_fragments_and_options_pass(rejecting: Filter) -> None:
    """They are not whole datagrams here: the server looks at them."""
    wire = WIRES[0]
    rejecting.filter([Endpoint(ipaddress.ip_address(wire.host), PORT, IFINDEX, MAC)])
    assert libbpf.test_run(rejecting.program, wire.request(b"x")).retval == DROPS[rejecting.place]
    for fields in ({"flags": "MF"}, {"frag": 3}, {"options": [IPOption_NOP()] * 4}):
        packet = wire.request(b"x", ip=fields)
        assert libbpf.test_run(rejecting.program, packet).retval == PASSES[rejecting.place]


def test_settings(filter: Filter) -> None:
    filter.set("rate", 5)
    assert filter.settings() == {"accept": 1, "rate": 5, "client-rate": 0}
    for name, value in (("speed", 1), ("accept", 2), ("rate", -1), ("rate", 2**32)):
        with pytest.raises(UsageError):
            filter.set(name, value)
    filter.set("rate", 0)
