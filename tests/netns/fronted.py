# SPDX-License-Identifier: Apache-2.0
"""What tests of `carom front` ask: a server that says what the test wants, and who answered."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from carom.kernel.resource import Resource
from carom.kernel.waiting import readable
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.memcache import PORT, Memcached, TCPClient, UDPClient, value_of
from netns.process import DEADLINE, Carom, until
from netns.wire import UDP_SEGMENT

FORCE = 33  # SO_RCVBUFFORCE, asm-generic/socket.h


def edge(carom: Carom) -> dict[str, int]:
    """Counters of what passed at the socket's edge."""
    counters: dict[str, int] = carom.status()["edge"]
    return counters


def hits_of(carom: Carom, udp: UDPClient, key: bytes, value: bytes, times: int = 3) -> int:
    """How many of so many gets the kernel answered; each had the value."""
    before = carom.counters()["hit"]
    for _ in range(times):
        assert udp.get(key) == value
    return carom.counters()["hit"] - before


def until_hit(carom: Carom, udp: UDPClient, key: bytes, value: bytes) -> None:
    """Ask for a key until the kernel answers: at once but for holds and voids on their way."""
    until(lambda: hits_of(carom, udp, key, value, 2) == 2, f"hits of {key!r}")


@contextlib.contextmanager
def fronted_memcached(line: Line) -> Iterator[tuple[Carom, UDPClient]]:
    """A carom before a memcached, whose `foo` is `bar` and in the cache; and who asks it."""
    with (
        Memcached(line.server),
        Carom(line.server, "--mode", "generic", command="front") as carom,
        TCPClient(line.client, line.address) as tcp,
        UDPClient(line.client, line.address) as udp,
    ):
        tcp.set(b"foo", b"bar")
        until_hit(carom, udp, b"foo", b"bar")
        yield carom, udp


def check_writes_are_seen(carom: Carom, tcp: TCPClient, udp: UDPClient) -> None:
    """What is set over TCP is what the kernel answers over UDP, before long."""
    for value in (b"old", b"new"):
        tcp.set(b"key", value)
        until_hit(carom, udp, b"key", value)


class Request(NamedTuple):
    """A datagram that a server has, and who sent it."""

    data: bytes
    origin: tuple[str, int]


class Fake(Resource):
    """A memcached over UDP that takes and answers one request at a time, as the test says."""

    def __init__(self, namespace: Namespace, port: int = PORT, address: str = "::"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.port = port
        self.socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.socket.setsockopt(socket.SOL_SOCKET, FORCE, 1 << 23)
        self.socket.settimeout(DEADLINE)
        self.socket.bind((address, port))

    def take(self) -> Request:
        """The next request."""
        return Request(*self.socket.recvfrom(65_536))

    def take_what_has(self, text: bytes) -> Request:
        """The next request with these bytes in it; others are left unanswered."""
        while True:
            found = self.take()
            if text in found.data:
                return found

    def answer(self, request: Request, text: bytes, *, part: int = 0, parts: int = 1) -> None:
        """Answer, with one datagram of so many."""
        numbers = part.to_bytes(2, "big") + parts.to_bytes(2, "big")
        self.socket.sendto(request.data[:2] + numbers + bytes(2) + text, request.origin)

    def answer_at_once(self, requests: Sequence[Request], text: bytes) -> None:
        """Answer several requests of one client by one packet, which the kernel cuts apart."""
        replies = [request.data[:2] + b"\0\0\0\1\0\0" + text for request in requests]
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(replies[0]))
        self.socket.sendto(b"".join(replies), requests[0].origin)
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)

    def drain(self) -> int:
        """Forget what has come; how much that was."""
        count = 0
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(65_536)
                count += 1
        except BlockingIOError:
            return count
        finally:
            self.socket.settimeout(DEADLINE)

    def is_asked(self, udp: UDPClient, key: bytes, value: bytes) -> bool:
        """Get a key by this client: is the server asked, who says this value, or the kernel?

        Both say the same, or the test fails.
        """
        number = udp.send(b"get %b\r\n" % key)
        asked = self.socket in readable([self.socket, udp.socket], DEADLINE)
        if asked:
            self.answer(self.take(), value_reply(key, value))
        assert value_of(udp.receive(number)) == value
        return asked

    def learned(self, udp: UDPClient, key: bytes, value: bytes) -> None:
        """Have the kernel answer for a key."""
        until(lambda: not self.is_asked(udp, key, value), f"a hit of {key!r}")

    def close(self) -> None:
        """End it."""
        self.socket.close()


def value_reply(key: bytes, value: bytes) -> bytes:
    """What a get of a key that has a value is answered with."""
    return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value)
