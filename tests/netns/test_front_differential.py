# SPDX-License-Identifier: Apache-2.0
"""Mutated frames to a memcached and a name server: with carom in front, the replies are the same.

The servers are real, and in turn: with `carom front` before one, and then without.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import dns.message
import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRROPT

from carom.vm.namespace import Namespace
from netns.facing import Batch, Peer, RealServer, Reply, batches, facing, peer, replies
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.nameserver import NSD
from netns.process import Carom, until
from netns.wire import check_sums
from prog.memcached_commands import KEYS, datagram
from prog.mutations import frames
from prog.packets import HOST, PORT, Wire

COUNT, LONG = 100, 5_000
"""Frames for each hook, mode and IP."""

HOOKS = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "tc": ("--hook", "tc"),
}
UNBOUND = ("--amplify", "0", "--total-rate", "0", "--prefix-rate", "0", "--ttl", "1h")

VALUES = {key: b"%d" % n * (n * n * n * 8 + 1) for n, key in enumerate((*KEYS[:5], b"0"))}
READS = [b"%b %b" % (word, key) for key in VALUES for word in (b"get", b"gets")]
COMMANDS = [*READS, b"get k l", b"incr 0 3", b"decr 0 1", b"get absent"]

NAMES = ("www.example.org", "WWW.example.org", "alias.example.org", "nope.example.org")


def to_memcached() -> tuple[bytes, ...]:
    """Reads for the most part; no write whose outcome depends on the time, and none with data,
    for cut short it would take the next datagram for its data."""
    numbered = enumerate(COMMANDS)
    return tuple(datagram(text + b"\r\n", request_id=256 + n) for n, text in numbered)


def to_nsd() -> tuple[bytes, ...]:
    """Questions with and without EDNS."""
    options = ([], [DNSRROPT(rclass=1232)])
    asked = itertools.product(NAMES, ("A", "AAAA"), options)
    return tuple(
        bytes(DNS(id=256 + n, rd=n % 2, qd=DNSQR(qname=name, qtype=kind), ar=option))
        for n, (name, kind, option) in enumerate(asked)
    )


_numbers = itertools.cycle(range(1, 256))


def memcached_fence() -> tuple[bytes, bytes]:
    """What is not there is never learned."""
    head = datagram(b"", request_id=next(_numbers))
    return head + b"get fence\r\n", head


def nsd_fence() -> tuple[bytes, bytes]:
    """NSD knows this class not, nor does carom."""
    number = next(_numbers)
    question = DNSQR(qname="fence.example.org", qtype="A", qclass="CH")
    return bytes(DNS(id=number, qd=question)), struct.pack("!H", number)


@contextmanager
def memcached(host: Namespace, _: Path) -> Iterator[None]:
    """One that holds VALUES."""
    with Memcached(host, PORT), TCPClient(host, "127.0.0.1", PORT) as client:
        for key, value in VALUES.items():
            client.set(key, value)
        yield


def nsd(host: Namespace, folder: Path) -> NSD:
    """One with a zone."""
    return NSD(host, folder, port=PORT)


def without_ttls(reply: bytes) -> str:
    """A reply in full, but for its TTLs."""
    message = dns.message.from_wire(reply)
    for section in message.sections:
        for records in section:
            records.ttl = 0
    return str(message.to_text())


def ttls(reply: bytes) -> list[int]:
    """All of them, those of EDNS apart."""
    message = dns.message.from_wire(reply)
    return [records.ttl for section in message.sections for records in section]


def as_they_come(some: list[Reply]) -> list[Reply]:
    return some


def whole_messages(some: list[Reply]) -> list[Reply]:
    """All values up to END in one datagram: memcached 1.6 sends one for each, carom one for all.

    Each of memcached's says in its header that it is the only one.
    """
    whole = list[Reply]()
    for one in some:
        before = whole[-1].payload if whole else b""
        if before[8:].startswith(b"VALUE ") and not before.endswith(b"END\r\n"):
            whole[-1] = one._replace(payload=before + one.payload[8:])
        else:
            whole.append(one)
    return whole


def same_bytes(by_carom: bytes, by_server: bytes) -> bool:
    return by_carom == by_server


def same_answer(by_carom: bytes, by_server: bytes) -> bool:
    """TTLs apart, which carom counts down."""
    if by_carom == by_server:
        return True
    if without_ttls(by_carom) != without_ttls(by_server) or len(by_carom) != len(by_server):
        return False
    pairs = zip(ttls(by_carom), ttls(by_server), strict=True)
    return all(ours <= theirs for ours, theirs in pairs)


Asked = list[tuple[Batch, dict[Peer, list[Reply]]]]
"""Batches of frames, and what each frame's source was answered."""


class Server(NamedTuple):
    """A server, what it is asked, and how its replies are compared."""

    run: Callable[[Namespace, Path], AbstractContextManager[object]]
    payloads: tuple[bytes, ...]
    fence: Callable[[], tuple[bytes, bytes]]
    same: Callable[[bytes, bytes], bool]
    whole: Callable[[list[Reply]], list[Reply]]


SERVERS = {
    "memcached": Server(memcached, to_memcached(), memcached_fence, same_bytes, whole_messages),
    "dns": Server(nsd, to_nsd(), nsd_fence, same_answer, as_they_come),
}


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    """A pair for this module."""
    with facing() as ends:
        yield ends


def ask(exchange: RealServer, server: Server, made: list[bytes], warm: Callable[[], None]) -> Asked:
    """Each batch, and the replies to it, whose checksums are right.

    Payloads as they should be come first: what no cache can read voids all of it for a while.
    """

    def garbled(frame: bytes) -> bool:
        return not any(payload in frame for payload in server.payloads)

    done = []
    for batch in batches(exchange.wire, made):
        warm()
        found = replies(exchange.wire, exchange.send(sorted(batch.values(), key=garbled)))
        found.pop(exchange.fencer, None)
        for _, frame in itertools.chain(*found.values()):
            check_sums(frame)
        by_source = {source: [one for one, _ in some] for source, some in found.items()}
        done.append((batch, by_source))
    return done


def has_port(wire: Wire, frame: bytes) -> bool:
    """Not from port 0: memcached cannot send such a reply, and was silent from then on."""
    source = peer(wire, frame, 0)
    return source is None or source[1] != 0


class Warmer:
    """Asks for all that memcached holds until the kernel answers it all; `hits` are those."""

    def __init__(self, carom: Carom, client: Namespace):
        self.hits = 0
        self._carom = carom
        self._client = client

    def warm(self) -> None:
        """See to it that all is in the cache."""
        before = self._carom.counters()["hit"]
        until(self._all_hit, "hits of all that is there")
        self.hits += self._carom.counters()["hit"] - before

    def _all_hit(self) -> bool:
        before = self._carom.counters()["hit"]
        with UDPClient(self._client, HOST, PORT) as udp:
            for text in READS:
                udp.ask(text + b"\r\n")
        return self._carom.counters()["hit"] - before == len(READS)


def cold() -> None:
    """Leave the cache as it is."""


def is_same(server: Server, ours: list[Reply], theirs: list[Reply]) -> bool:
    """Are replies to one frame as they should be?"""
    ours, theirs = server.whole(ours), server.whole(theirs)
    ends = [one._replace(payload=b"") for one in ours] == [
        one._replace(payload=b"") for one in theirs
    ]
    return ends and all(
        server.same(one.payload, other.payload) for one, other in zip(ours, theirs, strict=True)
    )


def held(server: Server, fronted: Asked, alone: Asked) -> None:
    """Hold the replies with carom in front against those without."""
    for (batch, ours), (_, theirs) in zip(fronted, alone, strict=True):
        assert ours.keys() == theirs.keys()
        for source, some in ours.items():
            told = f"{batch[source].hex()}: {some}, the server {theirs[source]}"
            assert is_same(server, some, theirs[source]), told


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("protocol", SERVERS)
def test_answers_as_the_server_does(
    ends: tuple[Namespace, Namespace], tmp_path: Path, long_form: bool, protocol: str, hook: str
) -> None:
    client, host = ends
    server = SERVERS[protocol]
    count = LONG if long_form else COUNT

    def asked(warm: Callable[[], None]) -> Iterator[Asked]:
        for wire in (Wire(4), Wire(6)):
            with RealServer(client, host, wire, server.fence) as exchange:
                made = [one for one in frames(wire, server.payloads, count) if has_port(wire, one)]
                yield ask(exchange, server, made, warm)

    where = ("--protocol", protocol, "-p", str(PORT), "--bind", "::", *HOOKS[hook], *UNBOUND)
    with server.run(host, tmp_path), Carom(host, *where, command="front") as carom:
        warmer = Warmer(carom, client)
        if protocol == "dns":
            list(asked(cold))  # it is learned from; a slow server may answer behind all of them
        fronted = list(asked(warmer.warm if protocol == "memcached" else cold))
        counted = carom.counters()
    with server.run(host, tmp_path):
        alone = list(asked(cold))
    for with_carom, without in zip(fronted, alone, strict=True):
        held(server, with_carom, without)
    hits = counted["hit"] - warmer.hits
    total = sum(len(some) for one in alone for _, some in one)
    print(f"{2 * count:,} frames, answered {total:,}, by carom {hits:,}")
    assert counted["fault"] == 0
    assert hits > count // 20
