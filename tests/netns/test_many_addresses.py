# SPDX-License-Identifier: Apache-2.0
"""Hosts with thousands of addresses: there is room, or it is said; what goes is always followed."""

from __future__ import annotations

import subprocess

from carom.kernel.abi import VIEWS_MAX
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.memcache import UDPClient
from netns.process import INTERFACE, Carom, run, until
from netns.puppet import Puppet
from netns.wire import Client

SECOND = "198.18.0.3"
MANY = 4500


def batch(host: Namespace, what: str, interface: str, first: int, count: int) -> None:
    """Give or take so many addresses."""
    text = "".join(
        f"addr {what} 198.19.{n >> 8}.{n & 255}/32 dev {interface}\n"
        for n in range(first, first + count)
    )
    subprocess.run(host.argv(["ip", "-batch", "-"]), input=text, text=True, check=True)


def second(line: Line) -> Client:
    """A client of an address that is to go."""
    line.server.address(INTERFACE, SECOND, 29)
    line.client.neighbour(INTERFACE, SECOND, line.server.mac(INTERFACE))
    return Client(line.client, SECOND)


def followed(carom: Carom) -> bool:
    return not carom.status()["not_followed"]


def test_own_addresses(own_line: Line) -> None:
    """There at the start, and more of them later: an address that goes is no longer answered."""
    server = own_line.server
    batch(server, "add", "lo", 1, MANY)
    with (
        second(own_line) as client,
        Carom(server, "--fast", "bounce", "--mode", "generic") as carom,
    ):
        assert client.ask(b"before") == b"before"
        batch(server, "add", "lo", MANY + 1, 1500)
        server.run("ip", "addr", "del", f"{SECOND}/29", "dev", INTERFACE)
        client.until_unanswered(b"gone?")
        before = carom.counters()
        assert not client.answered(b"gone")
        carom.expect(before, pass_service=1)
        assert followed(carom)


def test_more_than_there_is_room_for(own_line: Line) -> None:
    """What cannot be followed is said, and tried again; what goes goes all the same."""
    server = own_line.server
    with (
        second(own_line) as client,
        Carom(server, "--fast", "bounce", "--mode", "generic") as carom,
        Client(own_line.client, own_line.address) as first,
    ):
        assert client.ask(b"before") == b"before"
        batch(server, "add", INTERFACE, 1, MANY)
        until(lambda: not followed(carom), "the status to say so")
        (why,) = carom.status()["not_followed"].values()
        assert "endpoints" in why
        assert "4,096" in why
        assert "could not be followed" in carom.stderr()
        assert "Traceback" not in carom.stderr()

        server.run("ip", "addr", "del", f"{SECOND}/29", "dev", INTERFACE)
        client.until_unanswered(b"gone?")
        assert first.ask(b"still there") == b"still there"
        assert not followed(carom)

        batch(server, "del", INTERFACE, 1, MANY)
        until(lambda: followed(carom), "the rest to be followed")


def test_many_at_the_start(own_line: Line) -> None:
    """Room is made for what is there."""
    batch(own_line.server, "add", INTERFACE, 1, MANY)
    with (
        Carom(own_line.server, "--fast", "bounce", "--mode", "generic") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        assert client.ask(b"there") == b"there"
        assert carom.counters()["bounce"] == 1
        assert followed(carom)


def test_a_server_of_more_addresses_than_are_told_apart(own_line: Line) -> None:
    """Later than at the start, where it is refused: some are not answered, which is said."""
    server, port = own_line.server, 4300
    batch(server, "add", INTERFACE, 1, VIEWS_MAX + 1)
    with Puppet(server) as puppet:
        first = puppet.udp(own_line.address, port)
        with (
            Carom(server, "-p", str(port), "--hook", "tc", command="front") as carom,
            UDPClient(own_line.client, own_line.address, port) as client,
        ):
            first.learned(client, b"key", b"value")
            more = [puppet.udp(f"198.19.{n >> 8}.{n & 255}", port) for n in range(1, VIEWS_MAX + 2)]
            until(lambda: "2 are not answered" in carom.stderr(), "it to be said")
            assert carom.status()["services"][0]["reach"][0]["answered"]
            first.learned(client, b"key", b"value")
            for one in more[:2]:
                one.close()
            own_line.client.run("ip", "route", "add", "198.19.1.1/32", "via", own_line.address)
            with UDPClient(own_line.client, "198.19.1.1", port) as last:
                more[-1].learned(last, b"key", b"another")
            first.learned(client, b"key", b"value")
        more += [puppet.udp(f"198.19.0.{n}", port) for n in (1, 2)]
        ended = run(server, "front", "-i", INTERFACE, "-p", str(port))
        assert ended.code == 1
        assert f"up to {VIEWS_MAX}" in ended.stderr
