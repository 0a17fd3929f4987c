# SPDX-License-Identifier: Apache-2.0
"""Addresses of the host itself, on its loopback: requests to them come in by any interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import INTERFACE, Carom, run, until
from netns.test_errors import check_refused
from netns.wire import Client

ANYCAST, ANYCAST6 = "198.18.77.1", "2001:db8:77::1"


@pytest.fixture(scope="module", params=[ANYCAST, ANYCAST6])
def anycast(straight: Line, request: pytest.FixtureRequest) -> Iterator[str]:
    """An address that the server has on its loopback, and the client a route to."""
    address = str(request.param)
    via = straight.address6 if ":" in address else straight.address
    straight.server.up("lo")
    straight.server.run("ip", "address", "add", address, "dev", "lo")
    straight.client.run("ip", "route", "add", address, "via", via)
    yield address
    straight.client.run("ip", "route", "del", address)
    straight.server.run("ip", "address", "del", address, "dev", "lo")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("bound", [True, False])
def test_serve(straight: Line, anycast: str, hook: str, bound: bool) -> None:
    bind = anycast if bound else "::"
    with (
        Carom(straight.server, "--hook", hook, "--bind", bind) as carom,
        Client(straight.client, anycast) as client,
    ):
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(4)}) == 1
        carom.expect(before, miss=1, hit=3, replies=1, fills=1)


def test_front(straight: Line, anycast: str) -> None:
    """A server that is bound to it. (A memcached that is bound to all answers from another.)"""
    with (
        Memcached(straight.server, addresses=f"127.0.0.1,{anycast}"),
        Carom(straight.server, command="front") as carom,
        TCPClient(straight.client, anycast) as tcp,
        UDPClient(straight.client, anycast) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)


def test_it_comes_and_goes(straight: Line, anycast: str) -> None:
    arguments = ("--fast", "bounce", "--bind", "::")
    server, what = straight.server, (anycast, "dev", "lo")
    with Carom(server, *arguments) as carom, Client(straight.client, anycast) as client:
        assert client.ask(b"there") == b"there"
        server.run("ip", "address", "del", *what)
        client.until_unanswered(b"gone?")
        server.run("ip", "address", "add", *what)
        until(lambda: client.answered(b"there") and carom.counters()["bounce"] > 1, "an answer")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.7.7.7", "::1"])
def test_a_loopbacks_own(straight: Line, address: str) -> None:
    """Nothing comes in to these by an interface."""
    straight.server.up("lo")
    ended = run(straight.server, "serve", "-i", INTERFACE, "--bind", address)
    check_refused(straight, ended, 2, INTERFACE, address)
