# SPDX-License-Identifier: Apache-2.0
"""Addresses of the host itself, on its loopback: requests to them come in by any interface."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


LARGE, IN_LARGE = "198.18.64.0/20", "198.18.77.9"
LARGE6, IN_LARGE6 = "2001:db8:78::/64", "2001:db8:78::9"
SMALL, IN_SMALL = "198.18.80.0/28", "198.18.80.9"
SMALL6, IN_SMALL6 = "2001:db8:79::/125", "2001:db8:79::5"


class Prefix(NamedTuple):
    """A prefix that a local route makes the server's (AnyIP), and an address of it."""

    line: Line
    network: str
    address: str

    def route(self, action: str) -> None:
        """Add the local route, or delete it."""
        self.line.server.run("ip", "route", action, "local", self.network, "dev", "lo")


def prefixes(*which: tuple[str, str]) -> Any:
    return pytest.mark.parametrize("prefix", which, indirect=True, ids=[one for one, _ in which])


@pytest.fixture
def prefix(straight: Line, request: pytest.FixtureRequest) -> Iterator[Prefix]:
    network, address = request.param
    via = straight.address6 if ":" in address else straight.address
    straight.server.up("lo")
    found = Prefix(straight, network, address)
    found.route("add")
    straight.client.run("ip", "route", "add", network, "via", via)
    yield found
    straight.client.run("ip", "route", "del", network)
    found.route("del")


@prefixes((LARGE, IN_LARGE), (LARGE6, IN_LARGE6))
def test_serve_at_one_of_a_local_prefix(straight: Line, prefix: Prefix) -> None:
    """It comes and goes with the route."""
    arguments = ("--fast", "bounce", "--bind", prefix.address)
    with (
        Carom(straight.server, *arguments) as carom,
        Client(straight.client, prefix.address) as client,
    ):
        assert client.ask(b"there") == b"there"
        assert carom.counters()["bounce"] == 1
        assert carom.status()["services"][0]["reach"][0] == {
            "interface": INTERFACE,
            "answered": True,
            "why": "",
            "but": "",
        }
        prefix.route("del")
        client.until_unanswered(b"gone?")
        prefix.route("add")
        until(lambda: client.answered(b"there") and carom.counters()["bounce"] > 1, "an answer")


@prefixes((SMALL, IN_SMALL), (SMALL6, IN_SMALL6), ("198.18.81.3/32", "198.18.81.3"))
def test_serve_at_all_of_a_small_local_prefix(straight: Line, prefix: Prefix) -> None:
    """One bound to all is answered at each address."""
    with (
        Carom(straight.server, "--bind", "::") as carom,
        Client(straight.client, prefix.address) as client,
    ):
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(4)}) == 1
        carom.expect(before, miss=1, hit=3, replies=1, fills=1)
        assert carom.status()["services"][0]["reach"][0]["but"] == ""


@prefixes((LARGE, IN_LARGE), (LARGE6, IN_LARGE6))
def test_serve_at_all_of_a_large_local_prefix(straight: Line, prefix: Prefix) -> None:
    """The server answers there, which is said."""
    with (
        Carom(straight.server, "--bind", "::") as carom,
        Client(straight.client, prefix.address) as client,
    ):
        before = carom.counters()
        assert {client.ask(b"same") for _ in range(4)} == {b"same"}
        carom.expect(before, pass_service=4, replies=4, fills=4)
        (reach,) = carom.status()["services"][0]["reach"]
        assert reach["answered"]
        assert f"the host has {prefix.network} by local routes" in reach["but"]


@prefixes((LARGE, IN_LARGE), (LARGE6, IN_LARGE6))
def test_front_at_a_local_prefix(straight: Line, prefix: Prefix) -> None:
    """A server that is bound to one address of it."""
    sysctl = Path("/proc/sys/net/ipv6/ip_nonlocal_bind")  # which memcached needs for IPv6's
    straight.server.call(partial(sysctl.write_text, "1"))
    with (
        Memcached(straight.server, addresses=f"127.0.0.1,{prefix.address}"),
        Carom(straight.server, command="front") as carom,
        TCPClient(straight.client, prefix.address) as tcp,
        UDPClient(straight.client, prefix.address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)


def test_of_another_interface(straight: Line) -> None:
    """An address of another interface is in the local routes too, and is not this one's."""
    straight.server.run("ip", "link", "add", "beside", "type", "bridge")
    straight.server.run("ip", "address", "add", "198.18.90.1/32", "dev", "beside")
    straight.server.run("ip", "link", "set", "beside", "up")
    try:
        ended = run(straight.server, "serve", "-i", INTERFACE, "--bind", "198.18.90.1")
        check_refused(straight, ended, 2, INTERFACE, "198.18.90.1")
    finally:
        straight.server.run("ip", "link", "del", "beside")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.7.7.7", "::1"])
def test_a_loopbacks_own(straight: Line, address: str) -> None:
    """Nothing comes in to these by an interface."""
    straight.server.up("lo")
    ended = run(straight.server, "serve", "-i", INTERFACE, "--bind", address)
    check_refused(straight, ended, 2, INTERFACE, address)
