# SPDX-License-Identifier: Apache-2.0
"""Exactly the capabilities that docs/operating.md names, where the kernel hides its addresses."""

from __future__ import annotations

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.nameserver import NSD, Resolver
from netns.process import CAROM, Carom, until
from netns.test_rights import FRONT, SERVE, USER, only, user
from netns.wire import Client

__all__ = ["user"]  # a fixture

pytestmark = pytest.mark.usefixtures("hidden_pointers")
XDP, TC = ("--mode", "generic"), ("--hook", "tc")


@pytest.mark.parametrize(("user", "hook"), [(0, XDP), (USER, XDP), (USER, TC)], indirect=["user"])
def test_serve(straight: Line, user: int, hook: tuple[str, ...]) -> None:
    program = (*only(*SERVE, user=user), *CAROM)
    with (
        Carom(straight.server, *hook, program=program) as carom,
        Client(straight.client, straight.address) as client,
    ):
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(5)}) == 1
        carom.expect(before, miss=1, hit=4, replies=1, fills=1)


@pytest.mark.parametrize(("user", "hook"), [(0, TC), (USER, XDP)], indirect=["user"])
def test_front_memcached(straight: Line, user: int, hook: tuple[str, ...]) -> None:
    program = (*only(*FRONT, user=user), *CAROM)
    with (
        Memcached(straight.server),
        Carom(straight.server, *hook, command="front", program=program) as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)


@pytest.mark.parametrize(("user", "hook"), [(0, XDP), (USER, TC)], indirect=["user"])
def test_front_dns(
    straight: Line, user: int, hook: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = (*only(*FRONT, user=user), *CAROM)
    arguments = ("--protocol", "dns", *hook)
    with (
        NSD(straight.server, tmp_path_factory.mktemp("nsd")),
        Carom(straight.server, *arguments, command="front", program=program) as carom,
        Resolver(straight.client, straight.address) as resolver,
    ):
        before = carom.counters()["hit"]

        def hit() -> bool:
            assert resolver.ask("www.example.org").ancount == 2
            return carom.counters()["hit"] > before

        until(hit, "a hit")


def test_root_as_it_is(straight: Line) -> None:
    with (
        Memcached(straight.server),
        Carom(straight.server, command="front") as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)
