# SPDX-License-Identifier: Apache-2.0
"""Interfaces in a VRF: the server is where its sockets are, and no other's is taken for it."""

from __future__ import annotations

import functools
import socket

import pytest

from carom.kernel import links
from guest.ends import SERVER, Ends, check_hits
from netns.fronted import check_writes_are_seen, until_hit
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom, run
from netns.wire import Client

RED, ANYCAST = "red", "198.18.77.1"
ACCEPT = "net.ipv4.udp_l3mdev_accept={}", "net.ipv4.tcp_l3mdev_accept={}"


@pytest.fixture
def vrf(ends: Ends) -> Ends:
    """The server's eth0 is in one, with an anycast address on it; its eth1 is in none."""
    server = ends.server
    server.run(*f"ip link add {RED} type vrf table 10".split())
    server.up(RED)
    server.run(*f"ip link set eth0 master {RED}".split())
    ends.addresses("eth0")
    ends.addresses("eth1", "198.18.1.2", "198.18.1.1")
    server.address(RED, "127.0.0.1", 8)
    server.address(RED, ANYCAST, 32)
    ends.client.run("ip", "route", "add", ANYCAST, "via", SERVER)
    return ends


def accept(ends: Ends, value: int) -> None:
    """Let sockets that are bound to no device receive from every VRF, or not."""
    for one in ACCEPT:
        ends.server.run("sysctl", "-qw", one.format(value))


@pytest.mark.parametrize("arguments", [("--mode", "native"), ("--hook", "tc")])
def test_serve(vrf: Ends, arguments: tuple[str, ...]) -> None:
    """Misses and hits, at the interface's address and at the VRF's own."""
    with Carom(vrf.server, *arguments, interface="eth0") as carom:
        for address in (SERVER, ANYCAST):
            with Client(vrf.client, address) as client:
                check_hits(carom, client)
                client.ask(address.encode())  # a miss


def test_serve_in_different_vrfs(vrf: Ends) -> None:
    ended = run(vrf.server, "serve", "-i", "eth0", "-i", "eth1")
    assert ended.code == 2
    assert "different VRFs (eth0 in red, eth1 in none)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serve_leaves_its_vrf(vrf: Ends) -> None:
    """Its socket stays in the VRF: what comes in elsewhere is not answered, and status says so."""
    with Carom(vrf.server, "--fast", "bounce", interface="eth0") as carom:
        with Client(vrf.client, SERVER) as client:
            assert client.ask(b"there") == b"there"
            vrf.server.run("ip", "link", "set", "eth0", "nomaster")
            client.until_unanswered(b"gone?")
        (reach,) = carom.status()["services"][0]["reach"]
        assert reach["why"] == "carom's socket receives in the VRF red alone: start it anew"


@pytest.mark.parametrize(
    ("address", "bound"), [(SERVER, "::,0.0.0.0"), (ANYCAST, ANYCAST)], ids=["all", "anycast"]
)
def test_front(vrf: Ends, address: str, bound: str) -> None:
    """A server that was started in the VRF: hits, none of what a write has made old, and it is
    asked in the VRF when items end. Nothing there has an address of IPv6."""
    with (
        Memcached(vrf.server, vrf=RED, addresses=bound, local=address),
        Carom(vrf.server, command="front", interface="eth0") as carom,
        TCPClient(vrf.client, address) as tcp,
        UDPClient(vrf.client, address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)
        assert tcp.ask(b"set ends 0 3600 5\r\nvalue\r\n") == b"STORED\r\n"
        until_hit(carom, udp, b"ends", b"value")
        cache = carom.status()["cache"]
        assert cache["asked"] > 0, cache
        assert cache["unanswered"] == 0, cache


def test_where_a_server_is_asked(vrf: Ends) -> None:
    """A VRF's loopback address is the last choice: what is sent there leaves the VRF."""
    find = functools.partial(links.address_in, version=4)
    vrf.server.run("ip", "address", "flush", "dev", "eth0")
    found = vrf.server.call(lambda: find(socket.if_nametoindex(RED)))
    assert str(found) == ANYCAST
    vrf.server.run("ip", "address", "del", f"{ANYCAST}/32", "dev", RED)
    assert str(vrf.server.call(lambda: find(socket.if_nametoindex(RED)))) == "127.0.0.1"


def test_front_outside_of_it(vrf: Ends) -> None:
    """A server that is bound to no device is not reached from a VRF, and not taken for it."""
    with Memcached(vrf.server):
        ended = run(vrf.server, "front", "-i", "eth0")
    assert ended.code == 1, ended
    assert "which no request by eth0 reaches" in ended.stderr
    assert "udp_l3mdev_accept" in ended.stderr


def test_front_of_one_that_accepts_all(vrf: Ends) -> None:
    """Bound to no device, it is reached from a VRF by a setting."""
    accept(vrf, 1)
    with (
        Memcached(vrf.server),
        Carom(vrf.server, command="front", interface="eth0") as carom,
        TCPClient(vrf.client, SERVER) as tcp,
    ):
        tcp.set(b"key", b"value")
        (reach,) = carom.status()["services"][0]["reach"]
        assert reach["answered"], reach
