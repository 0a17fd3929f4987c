# SPDX-License-Identifier: Apache-2.0
"""What a spoofed source gets: one that borrows an address, or sends back all it gets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from netns import line as lines
from netns.line import Line
from netns.process import INTERFACE, Carom, until
from netns.services import PORT, sized_reply, sized_request
from netns.wire import Client, Tap

OTHER_MAC = "02:de:ad:be:ef:01"
HOOKS = {"native": ("--mode", "native"), "generic": ("--mode", "generic"), "tc": ("--hook", "tc")}
QUIET = 1.0
"""Seconds without a packet, after which a loop is over: one lives by not pausing that long."""


@pytest.fixture(params=HOOKS)
def hook(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return HOOKS[request.param]


def frame(line: Line, payload: bytes, source: str, port: int, *, mac: str | None = None) -> bytes:
    """A request of the client's link, from whomever it says."""
    ip = IPv6 if ":" in line.address else IP
    made: Packet = Ether(src=mac or line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
    return bytes(
        made / ip(src=source, dst=line.address) / UDP(sport=port, dport=PORT) / Raw(payload)
    )


class TestBorrowedAddresses:
    """With --allow: from the MAC that this host would answer to, or by the stack alone."""

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_neighbour(self, own_line: Line, hook: tuple[str, ...], version: int) -> None:
        line = own_line.over(version)
        allow = ("--allow", line.client_address + ("/32" if version == 4 else "/128"))
        arguments = (*hook, "--bind", "::", "--app", "services:sized", *allow)
        secret = sized_request(30, 20)
        with (
            Carom(line.server, *arguments) as carom,
            Client(line.client, line.address) as client,
            Tap(line.client) as tap,
        ):
            client.until_answered(secret)
            until(lambda: self.hits(carom, client, secret) == 1, "a hit of the neighbour's own")
            tap.frames()
            before = carom.counters()
            source = line.client_address
            tap.send(frame(line, secret, source, 4444, mac=OTHER_MAC))
            until(lambda: carom.since(before).get("replies"), "the stack's answer")
            assert carom.since(before)["pass_neighbour"] == 1
            assert "hit" not in carom.since(before)
            to = bytes.fromhex(OTHER_MAC.replace(":", ""))
            assert not [one for one in tap.frames() if one.data[:6] == to]
            assert self.hits(carom, client, secret) == 1

    @staticmethod
    def hits(carom: Carom, client: Client, request: bytes) -> int:
        before = carom.counters()["hit"]
        assert client.ask(request) == sized_reply(request)
        return carom.counters()["hit"] - before

    def test_a_neighbour_with_a_new_mac(self, own_line: Line) -> None:
        """Followed, both ways: the old one is nobody's from then on."""
        allow = ("--hook", "tc", "--allow", "198.18.0.0/15")
        request = sized_request(30, 20)
        old, new = own_line.client.mac(INTERFACE), OTHER_MAC
        with (
            Carom(own_line.server, "--app", "services:sized", *allow) as carom,
            Client(own_line.client, own_line.address) as client,
            Tap(own_line.client) as tap,
        ):
            client.until_answered(request)
            until(lambda: self.hits(carom, client, request) == 1, "a hit")
            at = (own_line.client_address, "dev", INTERFACE)
            own_line.server.run("ip", "neigh", "replace", *at, "lladdr", new, "nud", "permanent")

            def verdict(mac: str) -> str:
                before = carom.counters()
                tap.send(frame(own_line, request, own_line.client_address, 4444, mac=mac))
                names = ("hit", "pass_neighbour")
                until(lambda: carom.since(before).keys() & set(names), "a verdict")
                (name,) = carom.since(before).keys() & set(names)
                return name

            until(lambda: verdict(new) == "hit", "the new MAC to be known")
            assert verdict(old) == "pass_neighbour"
            own_line.server.run("ip", "neigh", "del", *at)
            until(lambda: verdict(new) == "pass_neighbour", "nobody to be known")

    @pytest.mark.parametrize("version", [4, 6])
    def test_behind_a_gateway(self, hook: tuple[str, ...], version: int) -> None:
        """By the gateway's MAC, as long as the route goes there."""
        with lines.routed() as routed:
            line = routed.over(version)
            allow = ("--allow", line.client_address + ("/32" if version == 4 else "/128"))
            request = sized_request(30, 20)
            with (
                Carom(
                    line.server, *hook, "--bind", "::", "--app", "services:sized", *allow
                ) as carom,
                Client(line.client, line.address) as client,
            ):
                client.until_answered(request)
                until(lambda: self.hits(carom, client, request) == 1, "a hit by the gateway")
                # From now on the way there is another one, which does not exist.
                bits, other = ("32", "198.18.9.9") if version == 4 else ("128", "2001:db8:9::9")
                line.server.neighbour(INTERFACE, other, OTHER_MAC)
                line.server.run(
                    "ip", "route", "add", f"{line.client_address}/{bits}",
                    "via", other, "dev", INTERFACE, "onlink",
                )  # fmt: skip
                before = carom.counters()

                def passes() -> bool:
                    client.send(request)
                    return carom.since(before).get("pass_neighbour", 0) > 0

                until(passes, "the gateway not to be the way any more")
                line.server.run("ip", "route", "del", f"{line.client_address}/{bits}")
                until(lambda: client.answered(request), "the gateway to be the way again")


@contextlib.contextmanager
def echo(line: Line, port: int) -> Iterator[None]:
    """A plain echo server on the client's host: what it sends has a fresh TTL."""
    family = socket.AF_INET6 if ":" in line.address else socket.AF_INET
    udp = line.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    udp.bind((line.client_address, port))
    udp.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                data, origin = udp.recvfrom(2000)
                udp.sendto(data, origin)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        udp.close()


def rounds_of_a_loop(carom: Carom, line: Line, payload: bytes, port: int) -> dict[str, int]:
    """Send one spoofed packet, and wait for the end of what comes of it."""
    before = carom.counters()
    with echo(line, port), Tap(line.client) as tap:
        tap.send(frame(line, payload, line.client_address, port))
        since = carom.since(before)
        while not since:
            since = carom.since(before)

        def over() -> bool:
            seen = carom.since(before)
            time.sleep(QUIET)
            return seen == carom.since(before)

        until(over, "the loop to end")
    return carom.since(before)


class TestLoops:
    """With a host that sends back whatever it gets."""

    @pytest.mark.parametrize("version", [4, 6])
    def test_hits(self, own_line: Line, hook: tuple[str, ...], version: int) -> None:
        """The kernel leaves one out, and the server does not see it."""
        line = own_line.over(version)
        with (
            Carom(line.server, *hook, "--bind", "::", "--echoes", "50") as carom,
            Client(line.client, line.address) as client,
        ):
            client.ask(b"loop")
            assert rounds_of_a_loop(carom, line, b"loop", 40_000) == {"hit": 49, "drop_loop": 1}

    def test_bounces(self, own_line: Line, hook: tuple[str, ...]) -> None:
        with Carom(own_line.server, *hook, "--fast", "bounce", "--echoes", "50") as carom:
            found = rounds_of_a_loop(carom, own_line, b"loop", 40_000)
            assert found == {"bounce": 49, "drop_loop": 1}

    def test_replies_that_turn_back(self, own_line: Line, hook: tuple[str, ...]) -> None:
        """There and back again: none of them is its own request."""
        with (
            Carom(own_line.server, *hook, "--app", "services:backwards", "--echoes", "50") as carom,
            Client(own_line.client, own_line.address) as client,
        ):
            for request in (b"ab", b"ba", b"ab", b"ba"):
                assert client.ask(request) == request[::-1]
            found = rounds_of_a_loop(carom, own_line, b"ab", 40_000)
            assert found["drop_loop"] == 1
            assert 49 <= found["hit"] <= 100

    @pytest.mark.parametrize("how", [("--hook", "none"), ("--app", "uncached"), ("--fast", "off")])
    def test_the_servers_own(self, own_line: Line, how: tuple[str, ...]) -> None:
        with Carom(own_line.server, *how, "--echoes", "50") as carom:
            found = rounds_of_a_loop(carom, own_line, b"loop", 40_000)
            assert found["replies"] == 49
            assert carom.status()["server"]["loops_ended"] == 1

    def test_by_default(self, own_line: Line) -> None:
        with (
            Carom(own_line.server) as carom,
            Client(own_line.client, own_line.address) as client,
        ):
            client.ask(b"loop")
            found = rounds_of_a_loop(carom, own_line, b"loop", 40_000)
            assert found == {"hit": 999, "drop_loop": 1}
