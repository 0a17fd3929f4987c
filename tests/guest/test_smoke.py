# SPDX-License-Identifier: Apache-2.0
"""A distribution's own kernel: each hook and mode has hits."""

from __future__ import annotations

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom
from netns.wire import Client

WAYS = [("--mode", "generic"), ("--mode", "native"), ("--hook", "tc")]


@pytest.mark.parametrize("arguments", WAYS)
def test_serve(straight: Line, arguments: tuple[str, ...]) -> None:
    with (
        Carom(straight.server, *arguments) as carom,
        Client(straight.client, straight.address) as client,
    ):
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(5)}) == 1
        carom.expect(before, miss=1, hit=4, replies=1, fills=1)


@pytest.mark.parametrize("arguments", WAYS)
def test_front(straight: Line, arguments: tuple[str, ...]) -> None:
    with (
        Memcached(straight.server),
        Carom(straight.server, *arguments, command="front") as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)
