# SPDX-License-Identifier: Apache-2.0
"""Several datagrams in one packet at the socket's edge: none of them is overlooked.

The kernel cuts apart what a server sends so (UDP GSO), and what it gets too, unless it wants that
whole (UDP GRO).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from netns.forge import head
from netns.fronted import Fake, Request, value_reply
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import UDPClient
from netns.wire import UDP_SEGMENT

PORT = 4100
UDP_GRO = 104  # linux/udp.h


@pytest.fixture
def fake(own_line: Line) -> Iterator[Fake]:
    own_line.offload(sender=True, replier=True)  # or the sender cuts it apart
    with Fake(own_line.server, PORT) as fake, fronts(own_line.server, f"memcached:{PORT}:ttl"):
        yield fake


@pytest.fixture
def reader(own_line: Line) -> Iterator[UDPClient]:
    with UDPClient(own_line.client, own_line.address, PORT) as client:
        yield client


@pytest.fixture
def writer(own_line: Line) -> Iterator[UDPClient]:
    with UDPClient(own_line.client, own_line.address, PORT) as client:
        yield client


def test_acknowledgements(fake: Fake, reader: UDPClient, writer: UDPClient) -> None:
    """Each voids what was written, however soon it comes behind others."""
    for turn in (b"1", b"2"):
        keys = [b"first" + turn, b"second" + turn]
        numbers = [writer.send(b"set %b 0 0 3\r\nnew\r\n" % key) for key in keys]
        writes = [fake.take() for _ in keys]
        for key in keys:
            fake.learned(reader, key, b"old")
        fake.answer_at_once(writes, b"STORED\r\n")
        assert [writer.receive(number) for number in numbers] == [b"STORED\r\n"] * 2
        for key in keys:
            assert fake.is_asked(reader, key, b"new")


def asks_at_once(client: UDPClient, text: bytes) -> None:
    """The same by ids 1 and 2, in one packet."""
    client.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(head(1) + text))
    client.socket.send(head(1) + text + head(2) + text)
    client.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)


def test_requests_that_are_cut_apart(fake: Fake, reader: UDPClient, writer: UDPClient) -> None:
    asks_at_once(writer, b"get key\r\n")
    for number in (1, 2):
        fake.answer(fake.take(), value_reply(b"key", b"value"))
        assert writer.receive(number) == value_reply(b"key", b"value")
    assert not fake.is_asked(reader, b"key", b"value")


def test_requests_that_the_server_gets_whole(
    fake: Fake, reader: UDPClient, writer: UDPClient
) -> None:
    """None has a token, and each may write: no reply is learned."""
    fake.learned(reader, b"key", b"old")
    fake.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    asks_at_once(writer, b"get key\r\n")
    both = fake.take()
    assert len(both.data) == 2 * len(head(1) + b"get key\r\n")
    assert fake.is_asked(reader, b"key", b"old"), "it was void"
    for number in (1, 2):
        fake.answer(Request(head(number), both.origin), value_reply(b"key", b"old"))
        writer.receive(number)
    for _ in range(3):
        assert fake.is_asked(reader, b"key", b"old")
