# SPDX-License-Identifier: Apache-2.0
"""A service that gets requests and has no hits says so once, and why."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from netns.fronted import until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import DEADLINE, INTERFACE, Carom
from netns.services import PORT
from netns.wire import Client

ANOTHER = "198.18.0.6"


def silence_of(carom: Carom, ask: Callable[[], object]) -> dict[str, Any]:
    """What it says after a while of these requests."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for _ in range(5):
            with contextlib.suppress(ConnectionRefusedError):
                ask()
        (service,) = carom.status()["services"]
        if service["silence"]:
            return dict(service["silence"])
        time.sleep(0.2)
    pytest.fail("nothing was said")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_another_address(own_line: Line, hook: str) -> None:
    """Requests come to an address that the service is not bound to, or came later."""
    line = own_line
    line.server.address(INTERFACE, ANOTHER, 29)
    line.client.neighbour(INTERFACE, ANOTHER, line.server.mac(INTERFACE))
    with (
        Carom(line.server, "--hook", hook, "--bind", line.address) as carom,
        Client(line.client, ANOTHER) as lost,
        Client(line.client, line.address) as right,
    ):
        said = silence_of(carom, lambda: lost.send(b"lost"))
        assert said["what"] == "pass_service"
        assert said["requests"] >= 10
        assert f"they come to {ANOTHER} port {PORT} by {INTERFACE}, where" in said["why"]
        assert f"why='they come to {ANOTHER}" in carom.stderr()
        assert carom.stderr().count("the kernel answers none") == 1
        end = time.monotonic() + DEADLINE
        while carom.status()["services"][0]["silence"]:  # until there are hits
            assert time.monotonic() < end
            assert right.ask(b"right") == b"right"
            time.sleep(0.1)


def test_by_another_way(own_line: Line) -> None:
    """The server is asked from the host itself."""
    with (
        Carom(own_line.server) as carom,
        Client(own_line.server, own_line.address) as local,
    ):
        said = silence_of(carom, lambda: local.ask(b"local"))
        assert said["what"] == "elsewhere"
        assert "from this host itself" in said["why"]


def test_what_is_not_kept(own_line: Line) -> None:
    """Absent keys are never learned; then keys that are there are."""
    line = own_line
    numbers = itertools.count()
    with (
        Memcached(line.server),
        Carom(line.server, command="front") as carom,
        UDPClient(line.client, line.address) as udp,
        TCPClient(line.server, "127.0.0.1") as tcp,
    ):
        said = silence_of(carom, lambda: udp.get(b"absent%d" % next(numbers)))
        assert said["what"] == "miss"
        assert "absent keys" in said["why"]
        tcp.set(b"k", b"v")
        until_hit(carom, udp, b"k", b"v")


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"uncached %d", "are not to be kept (cache=False"),
        (b"silent %d", "its handler returns None"),
        (b"raise %d", "the handler fails at them"),
        (b"plain %d", "make room for others before they are asked for again"),
    ],
)
def test_why_a_handlers_replies_are_not_given(own_line: Line, request_: bytes, why: str) -> None:
    """By the counters: what it says of its replies, and what becomes of those that are kept."""
    numbers = itertools.count()
    small = ("--capacity", "16", "--admit", "always")
    with (
        Carom(own_line.server, "--app", "services:told", *small, handlers_fail=True) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        said = silence_of(carom, lambda: client.send(request_ % next(numbers)))
    assert said["what"] == "miss"
    assert why in said["why"]


def test_replies_that_end_before_they_are_asked_for_again(own_line: Line) -> None:
    numbers = itertools.count()
    with (
        Carom(own_line.server, "--app", "services:told", "--ttl", "1ms") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        said = silence_of(carom, lambda: client.send(b"plain %d" % next(numbers)))
    assert "reach the end of their time" in said["why"]


def test_few_requests_are_counted_together(own_line: Line) -> None:
    """Each ten seconds have too few to tell anything."""
    with (
        Carom(own_line.server, "--app", "services:told") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        for number in range(14):
            client.send(b"uncached %d" % number)
            time.sleep(2)
        (service,) = carom.status()["services"]
    assert service["silence"]["requests"] >= 10
    assert service["silence"]["seconds"] > 15
    assert "cache=False" in service["silence"]["why"]
