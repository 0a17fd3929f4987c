# SPDX-License-Identifier: Apache-2.0
"""A macvlan on top of the interface: answered at its own address and MAC, and no other's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import INTERFACE, Carom, until
from netns.wire import Client

ADDRESS = "198.18.66.2"
UPPER = "macvlan0"


@pytest.fixture(params=["private", "vepa", "bridge"])
def upper(straight: Line, request: pytest.FixtureRequest) -> Iterator[str]:
    """The server has one with an address, to which the client has a route."""
    server, client = straight.server, straight.client
    server.run(*f"ip link add {UPPER} link {INTERFACE} type macvlan mode {request.param}".split())
    server.up(UPPER)
    server.address(UPPER, ADDRESS, 24)
    client.run("ip", "route", "add", ADDRESS, "dev", INTERFACE)
    client.neighbour(INTERFACE, ADDRESS, server.mac(UPPER))
    server.run("ip", "route", "add", f"{straight.client_address}/32", "dev", UPPER, "metric", "9")
    yield ADDRESS
    client.run("ip", "neigh", "del", ADDRESS, "dev", INTERFACE)
    client.run("ip", "route", "del", ADDRESS)
    server.run("ip", "link", "del", UPPER)


@pytest.mark.parametrize(
    "arguments", [("--mode", "native"), ("--mode", "generic"), ("--hook", "tc")]
)
def test_hits(straight: Line, upper: str, arguments: tuple[str, ...]) -> None:
    with (
        Carom(straight.server, *arguments) as carom,
        Client(straight.client, upper) as client,
        Client(straight.client, straight.address) as own,
    ):
        before = carom.counters()
        for one in (client, own):
            assert len({one.ask(b"same") for _ in range(3)}) == 1
        carom.expect(before, miss=1, hit=5, replies=1, fills=1)


def test_another_mac(straight: Line, upper: str) -> None:
    """At the interface's own MAC nothing is answered for the macvlan: the server does it."""
    neighbour = (upper, "lladdr", straight.server.mac(INTERFACE), "dev", INTERFACE)
    with Carom(straight.server, "--fast", "bounce") as carom:
        straight.client.run("ip", "neigh", "replace", *neighbour, "nud", "permanent")
        before = carom.counters()
        with Client(straight.client, upper) as client:
            client.answered(b"ask")
        assert carom.since(before)["pass_mac"] == 1


def test_front(straight: Line, upper: str) -> None:
    with (
        Memcached(straight.server),
        Carom(straight.server, command="front") as carom,
        TCPClient(straight.client, upper) as tcp,
        UDPClient(straight.client, upper) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)


def test_it_comes_and_goes(straight: Line, upper: str) -> None:
    with (
        Carom(straight.server, "--fast", "bounce") as carom,
        Client(straight.client, upper) as client,
    ):
        assert client.ask(b"there") == b"there"
        straight.server.run("ip", "link", "set", UPPER, "down")
        client.until_unanswered(b"gone?")
        straight.server.run("ip", "link", "set", UPPER, "up")
        until(lambda: client.answered(b"there") and carom.counters()["bounce"] > 1, "an answer")
