# SPDX-License-Identifier: Apache-2.0
"""The server's interface changes under a running carom."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from carom.vm.namespace import Namespace
from netns.line import Line
from netns.process import INTERFACE, Carom, attached, until
from netns.services import PORT
from netns.wire import Client

SECOND = "198.18.3.1"


@pytest.fixture
def second(straight: Line) -> Iterator[Client]:
    """A client of an address that the server's interface is yet to get."""
    straight.client.run("ip", "route", "add", f"{SECOND}/32", "via", straight.address)
    with Client(straight.client, SECOND) as client:
        yield client
    straight.client.run("ip", "route", "del", f"{SECOND}/32")
    _address(straight.server, "del", check=False)


def _address(namespace: Namespace, what: str, address: str = SECOND, check: bool = True) -> None:
    if check or address in namespace.run("ip", "address", "show", INTERFACE):
        namespace.run("ip", "address", what, f"{address}/32", "dev", INTERFACE)


def _until_bounced(carom: Carom, client: Client) -> None:
    """Ask until the fast path answers."""
    before = carom.counters()["bounce"]
    until(
        lambda: client.answered(b"ask") and carom.counters()["bounce"] > before,
        "the fast path to answer",
    )


def test_address_comes_and_goes(straight: Line, client: Client, second: Client) -> None:
    with Carom(straight.server, "--fast", "bounce") as carom:
        before = carom.counters()
        assert not second.answered(b"nobody has this address yet")
        carom.expect(before, pass_service=1)

        _address(straight.server, "add")
        _until_bounced(carom, second)
        before = carom.counters()
        assert second.ask(b"second") == b"second"
        assert client.ask(b"first") == b"first"
        carom.expect(before, bounce=2)

        _address(straight.server, "del")
        second.until_unanswered(b"gone?")
        before = carom.counters()
        assert not second.answered(b"gone")
        carom.expect(before, pass_service=1)
        before = carom.counters()
        assert client.ask(b"first") == b"first"
        carom.expect(before, bounce=1)


def test_bound_to_one_address(straight: Line, client: Client, second: Client) -> None:
    """Another address of the interface is not answered, not even by its fast path."""
    _address(straight.server, "add")
    with Carom(straight.server, "--fast", "bounce", "--bind", straight.address) as carom:
        before = carom.counters()
        assert client.ask(b"mine") == b"mine"
        assert not second.answered(b"not mine")
        carom.expect(before, bounce=1, pass_service=1)


def test_bound_address_goes(straight: Line, second: Client) -> None:
    """The fast path stops; when the address comes back, so does it."""
    _address(straight.server, "add")
    with Carom(straight.server, "--fast", "bounce", "--bind", SECOND) as carom:
        assert second.ask(b"there") == b"there"
        _address(straight.server, "del")
        second.until_unanswered(b"gone?")
        until(lambda: SECOND in carom.stderr(), "a warning that names the address")
        _address(straight.server, "add")
        _until_bounced(carom, second)


def test_miss_at_a_second_address(straight: Line, second: Client) -> None:
    """The server's reply comes from the address that was asked, as a hit's does."""
    _address(straight.server, "add")
    with Carom(straight.server, "--fast", "cache") as carom:
        for payload in (b"one", b"two"):
            assert second.answered(payload, seconds=1)
        assert carom.counters()["miss"] == 2


def test_other_mac(own_line: Line) -> None:
    """Frames for the interface's new MAC are answered, and for its old one no longer."""
    new = "02:00:00:00:00:07"
    with (
        Carom(own_line.server, "--fast", "bounce", "--mode", "generic") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        assert client.ask(b"old") == b"old"
        own_line.server.run("ip", "link", "set", INTERFACE, "address", new)
        until(lambda: not client.answered(b"still the old?"), "the old MAC to be forgotten")
        neighbour = (own_line.address, "lladdr", new, "dev", INTERFACE, "nud", "permanent")
        own_line.client.run("ip", "neigh", "replace", *neighbour)
        _until_bounced(carom, client)


def test_down_and_up(own_line: Line) -> None:
    with (
        Carom(own_line.server, "--fast", "bounce", "--mode", "native") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        assert client.ask(b"up") == b"up"
        own_line.server.run("ip", "link", "set", INTERFACE, "down")
        client.until_unanswered(b"down")
        own_line.server.run("ip", "link", "set", INTERFACE, "up")
        _until_bounced(carom, client)


def test_interface_is_deleted(own_line: Line) -> None:
    """What is left, here the loopback, is served on, and the end is an ordinary one."""
    server = own_line.server
    server.up("lo")
    with (
        Carom(server, "--mode", "native") as carom,
        Client(own_line.client, own_line.address) as client,
        Client(server, "127.0.0.1") as local,
    ):
        assert client.ask(b"before") == b"before"
        server.run("ip", "link", "del", INTERFACE)
        until(lambda: "is gone" in carom.stderr(), "a warning that the interface is gone")
        before = carom.counters()
        for i in range(3):
            assert local.ask(b"after %d" % i) == b"after %d" % i
        carom.expect(before, replies=3, fills=3)
        carom.interface = None
        carom.signal(signal.SIGTERM)
        ended = carom.wait()
        carom.check_clean(ended)


def test_auto_on_a_veth_is_generic(straight: Line, client: Client) -> None:
    """Native would lose every reply there without a program at the peer: so it is asked for."""
    with Carom(straight.server, "--fast", "bounce") as carom:
        assert carom.mode == "generic"
        assert client.ask(b"generic") == b"generic"
        assert attached(straight.server)
        assert "generic XDP" in carom.stderr()
        assert "--mode native" in carom.stderr()
        assert carom.ready["services"][0]["port"] == PORT
