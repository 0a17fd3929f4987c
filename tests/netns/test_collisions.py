# SPDX-License-Identifier: Apache-2.0
"""Nobody chooses a key that takes another's entry, reply or slot: live, at `carom front`.

The pairs of keys here shared a name or a slot whatever the secret was, before the hashes were
SipHash. By chance two keys share a slot once in 65,536 starts.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom, until
from netns.sums import looks_half_made
from prog.test_hashes import flipped

VICTIMS = ("static-content-1", "static-content-2")
FLIPS = ((3, 7, 11), (11, 15, 19), (19, 23, 27))
"""Bytes of the key: three that a word apart are inverted in their highest bit."""
ASKED = 20
ADDRESSES = 4


def qname(name: str) -> bytes:
    """`NAME.example.org` on the wire."""
    labels = (name, "example", "org")
    return b"".join(bytes((len(one),)) + one.encode() for one in labels) + b"\0"


def query_for(name: bytes) -> bytes:
    """For its addresses."""
    return struct.pack("!6H", 1, 0, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)


def reply_to(query: bytes) -> bytes:
    """Four addresses: a reply that lies in another map than its entry."""
    records = (
        struct.pack("!HHHIH4B", 0xC00C, 1, 1, 300, 4, 198, 18, 9, last) for last in range(ADDRESSES)
    )
    head = query[:2] + struct.pack("!5H", 0x8400, 1, ADDRESSES, 0, 0)
    return head + query[12:] + b"".join(records)


@pytest.fixture
def dns(straight: Line) -> Iterator[Carom]:
    """carom before a server that answers any name, of whatever bytes."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 53))
        made.settimeout(0.1)
        return made

    over = threading.Event()
    server = straight.server.call(make)

    def answer() -> None:
        while not over.is_set():
            try:
                query, client = server.recvfrom(2048)
            except TimeoutError:
                continue
            server.sendto(reply_to(query), client)

    thread = threading.Thread(target=answer)
    with ExitStack() as stack:
        stack.callback(server.close)
        stack.callback(thread.join)
        stack.callback(over.set)
        thread.start()
        arguments = ("--protocol", "dns", "--ttl", "1h")
        yield stack.enter_context(Carom(straight.server, *arguments, command="front"))


@pytest.mark.parametrize("victim", VICTIMS)
def test_names_made_up_throw_out_no_reply(dns: Carom, straight: Line, victim: str) -> None:
    names = [qname(victim), *(flipped(qname(victim), *at) for at in FLIPS)]

    def connected() -> socket.socket:
        """From a port from where none of the names looks half-made."""
        client = straight.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(5)
        client.connect((straight.address, 53))
        if any(looks_half_made(client, query_for(name)) for name in names):
            client.close()
            return connected()
        return client

    with connected() as client:

        def ask(name: bytes) -> None:
            query = query_for(name)
            client.send(query)
            expected, found = reply_to(query), client.recv(2048)
            assert (found[: len(query)], len(found)) == (expected[: len(query)], len(expected))

        def hits() -> int:
            before = dns.counters()["hit"]
            for _ in range(ASKED):
                ask(qname(victim))
            return dns.counters()["hit"] - before

        until(lambda: hits() == ASKED, "the victim's hits")
        for at in FLIPS:
            made = flipped(qname(victim), *at)
            before, learned = dns.counters()["hit"], dns.status()["edge"]["learned"]
            for _ in range(ASKED):
                ask(made)
                ask(qname(victim))
            assert dns.status()["edge"]["learned"] == learned + 1
            assert dns.counters()["hit"] == before + 2 * ASKED - 1, "all but the first"


def pairs(modulo: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys that are the same little-endian number modulo some."""
    seen: dict[int, bytes] = {}
    for n in itertools.count():
        key = b"user:%08d" % n
        rest = int.from_bytes(key, "little") % modulo
        if rest in seen:
            yield seen[rest], key
        seen[rest] = key


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_writes_void_no_key_that_was_chosen(
    straight: Line, memcached: Memcached, udp: UDPClient, transport: str
) -> None:
    with (
        Carom(straight.server, "--ttl", "1h", command="front") as front,
        TCPClient(straight.client, straight.address) as tcp,
    ):
        void = 0
        for victim, made in itertools.islice(pairs(65519), 3):
            # By UDP: whatever comes back on a TCP connection voids its own last keys.
            assert udp.ask(b"set %b 0 0 5\r\nvalue\r\n" % victim) == b"STORED\r\n"

            def hits(victim: bytes = victim) -> int:
                before = front.counters()["hit"]
                for _ in range(3):
                    assert udp.get(victim) == b"value"
                return front.counters()["hit"] - before

            until(lambda: hits() == 3, "the victim's hits")
            for _ in range(3):
                if transport == "tcp":
                    tcp.set(made, b"x")
                else:
                    assert udp.ask(b"set %b 0 0 1\r\nx\r\n" % made) == b"STORED\r\n"
            void += hits() < 3
        assert void <= 1
