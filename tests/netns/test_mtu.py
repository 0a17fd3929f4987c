# SPDX-License-Identifier: Apache-2.0
"""Links behind a router that take less than the server's own: every reply arrives."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.vm.namespace import Namespace
from netns import line as lines
from netns.line import ROUTER_NEAR, Line, forwarding
from netns.process import INTERFACE, Carom, until
from netns.services import sized_reply, sized_request
from netns.wire import Client

LINK = 1300
LONG, SHORT = 1350, 1232
ANY = ("--app", "services:sized", "--bind", "::", "--amplify", "0")
LONGEST = ("--max-reply", "1472")
HOOKS = {"native": ("--mode", "native"), "tc": ("--hook", "tc")}


@pytest.fixture(params=HOOKS)
def hook(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return HOOKS[request.param]


def narrow(line: Line, mtu: int) -> None:
    """Let the client's link take so much, at both of its ends."""
    line.client.run("ip", "link", "set", INTERFACE, "mtu", str(mtu))
    for name in Path("/run/netns").iterdir():
        shown = subprocess.run(
            ["ip", "-n", name.name, "address", "show", "dev", "near", "to", ROUTER_NEAR],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if ROUTER_NEAR in shown and name.name.endswith("router"):
            subprocess.run(
                ["ip", "-n", name.name, "link", "set", "near", "mtu", str(mtu)], check=True
            )


@pytest.fixture
def routed() -> Iterator[Line]:
    with lines.routed() as line:
        yield line


def learned(server: Namespace, client: str) -> bool:
    return f"mtu {LINK}" in server.run("ip", "route", "get", client)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("forwards", [False, True], ids=["plain", "forwards"])
def test_longer_replies(routed: Line, hook: tuple[str, ...], version: int, forwards: bool) -> None:
    """The route is asked where it can be; where it says no, or nothing, the server answers."""
    line = routed.over(version)
    narrow(line, LINK)
    long, short = sized_request(LONG, 64), sized_request(SHORT, 64)
    with (
        Carom(line.server, *hook, *ANY, *LONGEST) as carom,
        Client(line.client, line.address) as client,
    ):
        notes = [note for note in carom.ready["notes"] if "does not forward" in note]
        assert len(notes) == 1, "the routers of this line are not this host"
        # The first is lost: by it the stack learns what the path takes.
        client.until_answered(long)
        until(lambda: learned(line.server, line.client_address), "a path's MTU")
        if forwards:
            with forwarding(line.server):
                before = carom.counters()
                assert [client.ask(long) for _ in range(5)] == [sized_reply(long)] * 5
                carom.expect(before, pass_mtu=5, replies=5, fills=5)
        before = carom.counters()
        assert [client.ask(long) for _ in range(5)] == [sized_reply(long)] * 5
        carom.expect(before, pass_mtu=5, replies=5, fills=5)
        assert client.ask(short) == sized_reply(short)
        before = carom.counters()
        assert [client.ask(short) for _ in range(5)] == [sized_reply(short)] * 5
        changed = carom.since(before)
        assert changed["hit"] == 5
        assert client.nothing_more()


@pytest.mark.parametrize("version", [4, 6])
def test_where_the_route_takes_them(routed: Line, hook: tuple[str, ...], version: int) -> None:
    """On a host that forwards; by default, or on any other, the server answers."""
    line = routed.over(version)
    long = sized_request(LONG, 64)
    for more, forwards, verdict in (
        (LONGEST, True, "hit"),
        (LONGEST, False, "pass_mtu"),
        ((), True, "pass_mtu"),
    ):
        with (
            Carom(line.server, *hook, *ANY, *more) as carom,
            Client(line.client, line.address) as client,
        ):
            assert client.ask(long) == sized_reply(long)
            before = carom.counters()
            if forwards:
                with forwarding(line.server):
                    assert client.ask(long) == sized_reply(long)
            else:
                assert client.ask(long) == sized_reply(long)
            assert carom.since(before)[verdict] == 1


@pytest.mark.parametrize("mtu", [600, 300])
def test_replies_that_a_router_fragments(routed: Line, hook: tuple[str, ...], mtu: int) -> None:
    """IPv4 has links of less than 1,260 bytes: the kernel's replies may be cut up on the way."""
    narrow(routed, mtu)
    request = sized_request(SHORT, 64)
    with (
        Carom(routed.server, *hook, *ANY) as carom,
        Client(routed.client, routed.address) as client,
    ):
        client.until_answered(request)
        before = carom.counters()
        for _ in range(20):
            assert client.ask(request) == sized_reply(request)
        assert carom.since(before)["hit"] == 20


def test_bounced(straight: Line) -> None:
    """A bounce is no longer either."""
    with (
        Carom(straight.server, "--hook", "tc", "--fast", "bounce") as carom,
        Client(straight.client, straight.address) as client,
    ):
        for size, verdict in ((SHORT, "bounce"), (SHORT + 1, "pass_mtu")):
            before = carom.counters()
            assert client.ask(bytes(size)) == bytes(size)
            assert carom.since(before)[verdict] == 1
