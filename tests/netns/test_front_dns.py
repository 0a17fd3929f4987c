# SPDX-License-Identifier: Apache-2.0
"""`carom front --protocol dns` before a real name server (NSD)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from scapy.layers.dns import DNS

from carom.vm.netns import SERVER_IPV6
from netns.line import Line
from netns.nameserver import NSD, Resolver
from netns.process import Carom, run, until

NXDOMAIN = 3


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, nsd: NSD) -> Iterator[Carom]:
    arguments = ("--protocol", "dns", "--hook", request.param, "--bind", "::", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.fixture(params=["198.18.0.2", SERVER_IPV6], ids=["ipv4", "ipv6"])
def resolver(request: pytest.FixtureRequest, straight: Line) -> Iterator[Resolver]:
    with Resolver(straight.client, request.param) as resolver:
        yield resolver


@pytest.fixture
def direct(straight: Line) -> Iterator[Resolver]:
    """Asks the server by loopback, where no fast path is."""
    with Resolver(straight.server, "127.0.0.1") as resolver:
        yield resolver


def records(reply: DNS) -> list[bytes]:
    """The answers without their TTLs."""
    found = []
    for one in reply.an or []:
        without = one.copy()
        without.ttl = 0
        found.append(bytes(without))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("www.example.org", "A"),
        ("www.example.org", "AAAA"),
        ("alias.example.org", "A"),
        ("long.example.org", "TXT"),
        ("example.org", "SOA"),
        ("example.org", "NS"),
        ("nope.example.org", "A"),
        ("ns.example.org", "MX"),
    ],
)
def test_learned(front: Carom, resolver: Resolver, direct: Resolver, name: str, kind: str) -> None:
    """The kernel answers as the server does, TTLs apart, which never exceed the server's."""
    expected = direct.ask(name, kind)
    front.flush()
    before = front.counters()
    replies = [resolver.ask(name, kind) for _ in range(4)]
    changed = front.since(before)
    if expected.tc:
        assert changed.get("hit", 0) == 0, "a truncated reply is not learned"
    else:
        assert changed["hit"] == 3
    for reply in replies:
        assert (reply.rcode, reply.aa, reply.tc) == (expected.rcode, expected.aa, expected.tc)
        assert records(reply) == records(expected)
        for ours, theirs in zip(reply.an or [], expected.an or [], strict=True):
            assert ours.ttl <= theirs.ttl


def test_spelling_and_flags_are_the_clients_own(front: Carom, resolver: Resolver) -> None:
    """Once the server has said the same to one other spelling."""
    front.flush()
    resolver.ask("www.example.org")
    resolver.ask("Www.Example.Org")
    before = front.counters()
    for name in ("WWW.example.org", "wWw.ExAmPlE.oRg", "www.EXAMPLE.ORG", "www.example.org"):
        resolver.ask(name)
    assert front.since(before) == {"hit": 4}
    resolver.ask("www.example.org", rd=1)
    assert front.since(before) == {"hit": 4, "miss": 1, "fills": 1}


def test_ttls_count_down(front: Carom, resolver: Resolver) -> None:
    front.flush()
    resolver.ask("www.example.org")
    start = time.monotonic()
    first = resolver.ask("www.example.org").an[0].ttl
    until(lambda: time.monotonic() - start > 2, "two seconds to pass")
    assert resolver.ask("www.example.org").an[0].ttl <= first - 2


def test_a_ttl_of_0_is_not_kept(front: Carom, resolver: Resolver) -> None:
    before = front.counters()
    for _ in range(3):
        assert resolver.ask("brief.example.org").an[0].ttl == 0
    assert "hit" not in front.since(before)


def test_absent_names_say_so(front: Carom, resolver: Resolver) -> None:
    for _ in range(2):
        assert resolver.ask("nothing.example.org").rcode == NXDOMAIN


def test_drop_by_name(front: Carom, resolver: Resolver) -> None:
    resolver.ask("www.example.org", "AAAA")
    pid = ("--pid", str(front.pid))
    dropped = run(front.namespace, "cache", "drop", "www.example.org AAAA", *pid)
    assert dropped.stdout == "dropped\n"
    before = front.counters()
    resolver.ask("www.example.org", "AAAA")
    assert "hit" not in front.since(before)
