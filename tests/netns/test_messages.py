# SPDX-License-Identifier: Apache-2.0
"""A name server's messages over TCP, in whatever payloads: what it says that it changed is void."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from carom.kernel.resource import Resource
from netns.fronted import Fake
from netns.fronts import fronts
from netns.line import Line
from netns.process import DEADLINE, Carom, until
from netns.test_names import NOERROR, REFUSED, UPDATE, Names

PORT = 4155
NAME = "www.example.org"


def said(opcode: int, rcode: int = NOERROR) -> bytes:
    return bytes(DNS(id=7, qr=1, opcode=opcode, rcode=rcode, qd=DNSQR(qname="example.org")))


CHANGED, NOT_CHANGED = said(UPDATE), said(UPDATE, REFUSED)
LIAR = bytes(
    DNS(
        id=8,
        qr=1,
        qd=DNSQR(qname=NAME, qtype="TXT"),
        an=DNSRR(rrname=NAME, type="TXT", rdata=[struct.pack("!H", len(CHANGED)) + CHANGED] * 4),
    )
)
"""A query's answer that has another message's bytes in it."""

SHORTEST = struct.pack("!HHHHHH", 9, 0x8001, 0, 0, 0, 0)
ROWS = [[], [LIAR], [SHORTEST] * 400]
"""What stands before a change on connections from before carom's start, one each."""


def framed(messages: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("!H", len(one)) + one for one in messages)


class Talk(Resource):
    """One connection, and both of its ends."""

    def __init__(self, line: Line, listener: socket.socket):
        self._client = line.client.call(lambda: socket.socket())
        self._client.settimeout(DEADLINE)
        self._client.connect((line.address, PORT))
        self._server, _ = listener.accept()
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, *payloads: bytes) -> None:
        """Each leaves by itself; returns when all have come."""
        for payload in payloads:
            self._server.sendall(payload)
            got = 0
            while got < len(payload):
                got += len(self._client.recv(65_536))

    def close(self) -> None:
        self._client.close()
        self._server.close()


class Hosts(NamedTuple):
    line: Line
    listener: socket.socket
    carom: Carom
    names: Names
    older: list[Talk]
    """From before carom's start."""

    def kept(self) -> None:
        """What is asked for again and again is a hit."""
        until(lambda: not self.names.is_asked(self.carom, NAME), "a hit")

    def is_void(self) -> bool:
        return self.names.is_asked(self.carom, NAME)


@pytest.fixture(scope="module")
def hosts(straight: Line) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            straight.server.call(lambda: socket.create_server(("0.0.0.0", PORT)))
        )
        listener.settimeout(DEADLINE)
        fake = stack.enter_context(Fake(straight.server, PORT, "0.0.0.0"))
        older = [stack.enter_context(Talk(straight, listener)) for _ in ROWS]
        for one in older:
            one.say(framed([LIAR]))
        carom = stack.enter_context(fronts(straight.server, f"dns:{PORT}"))
        names = Names(straight, fake)
        stack.callback(names.client.close)
        yield Hosts(straight, listener, carom, names, older)


@pytest.fixture
def talk(hosts: Hosts) -> Iterator[Talk]:
    with Talk(hosts.line, hosts.listener) as talk:
        yield talk


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("behind", [0, 2])
def test_a_change_among_answers(hosts: Hosts, talk: Talk, before: int, behind: int) -> None:
    for _ in range(3):
        hosts.kept()
        talk.say(framed([LIAR] * before + [CHANGED] + [LIAR] * behind))
        assert hosts.is_void()


@pytest.mark.parametrize("messages", [[LIAR], [NOT_CHANGED], [LIAR, NOT_CHANGED, SHORTEST, LIAR]])
def test_no_change(hosts: Hosts, talk: Talk, messages: list[bytes]) -> None:
    hosts.kept()
    for _ in range(50):
        talk.say(framed(messages))
        assert not hosts.is_void()


def test_cut_anywhere(hosts: Hosts, talk: Talk) -> None:
    """The change is void once its front has left, and before its rest has."""
    data = framed([SHORTEST, CHANGED, SHORTEST])
    front = len(framed([SHORTEST])) + 14
    for at in range(1, len(data)):
        hosts.kept()
        talk.say(data[:at])
        assert hosts.is_void() == (at >= front)
        hosts.kept()
        talk.say(data[at:])
        assert hosts.is_void() == (at < front)


def test_byte_by_byte(hosts: Hosts, talk: Talk) -> None:
    for messages, changes in (([LIAR, LIAR], False), ([SHORTEST, CHANGED, LIAR], True)):
        hosts.kept()
        data = framed(messages)
        talk.say(*(data[at : at + 1] for at in range(len(data))))
        assert hosts.is_void() == changes


@pytest.mark.parametrize("message", [SHORTEST, SHORTEST + bytes(5)], ids=["shortest", "longer"])
def test_more_in_a_payload_than_one_run_reads(hosts: Hosts, talk: Talk, message: bytes) -> None:
    """Up to as many as one holds. They go several times: at first TCP cuts what is so long."""
    for count in (149, 150, 151, 1000, 64_000 // len(framed([message]))):
        for last in (message, CHANGED):
            hosts.kept()
            talk.say(*[framed([message] * count + [last])] * 5)
            assert hosts.is_void() == (last is CHANGED)


def test_a_long_message(hosts: Hosts, talk: Talk) -> None:
    """As of a zone's transfer: other messages' bytes may stand anywhere in it."""
    long = SHORTEST + framed([CHANGED]) * 2000
    for messages, changes in (([long], False), ([long, CHANGED], True), ([long, long], False)):
        hosts.kept()
        talk.say(framed(messages))
        assert hosts.is_void() == changes


@pytest.fixture
def losing(hosts: Hosts) -> Iterator[Callable[[], None]]:
    """Drop one in four TCP packets that come to the client."""
    client = hosts.line.client
    try:
        client.run("nft", "add table inet lossy")
    except Exception as error:
        pytest.skip(f"nftables is not here: {error}")
    client.run("nft", "add chain inet lossy in { type filter hook prerouting priority -300; }")
    rule = f"add rule inet lossy in tcp sport {PORT} numgen random mod 4 == 0 drop"
    yield lambda: client.run("nft", rule)
    client.run("nft", "delete table inet lossy")


def test_what_is_sent_again(hosts: Hosts, talk: Talk, losing: Callable[[], None]) -> None:
    losing()
    for round in range(30):
        change = round % 3 == 0
        hosts.kept()
        messages = [LIAR, CHANGED if change else NOT_CHANGED, LIAR]
        data = framed(messages)
        talk.say(data[: 5 + round], data[5 + round :])
        assert hosts.is_void() == change


@pytest.mark.parametrize("row", ROWS, ids=len)
def test_a_connection_from_before(hosts: Hosts, row: list[bytes]) -> None:
    """Its messages are known from the first payload of whole ones; what came before voids."""
    older = hosts.older.pop()
    data = framed([LIAR, LIAR])
    for payload in (data[:-1], data[-1:], framed([*row, CHANGED])):
        hosts.kept()
        older.say(payload)
        assert hosts.is_void()
    hosts.kept()
    for _ in range(20):
        older.say(data)
        assert not hosts.is_void()
    older.say(framed([LIAR, CHANGED]))
    assert hosts.is_void()
