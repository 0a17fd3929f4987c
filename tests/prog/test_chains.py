# SPDX-License-Identifier: Apache-2.0
"""Where the fast path looks for a service: a port's chain in an array, then the map of them all."""

from __future__ import annotations

import ipaddress
import random
from collections import deque

import pytest

from carom.daemon import places as daemon_places
from carom.daemon.places import Place
from carom.kernel.abi import CHAIN_MAX, PLACES_MAX, PORT_MORE, Fast, Verdict
from prog.host import Host
from prog.packets import PORT

BOUNCED = b"bounced"
FIRST = ipaddress.ip_address("198.18.1.1")


def elsewhere(host: Host, number: int) -> Place:
    """The same at another address."""
    return host.place._replace(address=FIRST + number)


def asks(host: Host, number: int) -> Verdict:
    """What becomes of a request there."""
    return host.run(host.wire.request(BOUNCED, ip={"dst": str(FIRST + number)})).verdict


def word(host: Host, port: int = PORT) -> int:
    """What the kernel knows of a port."""
    return host.fastpath._places._ports[port // 4] >> port % 4 * 16 & 0xFFFF


@pytest.fixture
def bouncing(host: Host) -> Host:
    host.place = host.place._replace(fast=Fast.BOUNCE)
    return host


@pytest.mark.parametrize("count", [1, CHAIN_MAX, CHAIN_MAX + 1, 3 * CHAIN_MAX])
def test_every_place_of_a_port_is_found(bouncing: Host, count: int) -> None:
    bouncing.fastpath.answer_at(elsewhere(bouncing, n) for n in range(count))
    assert [asks(bouncing, n) for n in range(count)] == [Verdict.BOUNCE] * count
    assert asks(bouncing, count) == Verdict.PASS_SERVICE
    assert bool(word(bouncing) & PORT_MORE) == (count > CHAIN_MAX)


def test_a_port_of_nobody(bouncing: Host) -> None:
    bouncing.fastpath.answer_at([])
    assert word(bouncing) == 0
    assert asks(bouncing, 0) == Verdict.PASS_SERVICE


def test_what_goes_and_what_comes(bouncing: Host) -> None:
    """Places change one by one; each time all that are there are found, and no other."""
    there: set[int] = set()
    for turn in range(6 * CHAIN_MAX):
        there ^= {turn * 7 % (2 * CHAIN_MAX)}
        bouncing.fastpath.answer_at(elsewhere(bouncing, n) for n in there)
        found = {n for n in range(2 * CHAIN_MAX) if asks(bouncing, n) == Verdict.BOUNCE}
        assert found == there


@pytest.mark.parametrize("left", [0, 1, 10, 3 * CHAIN_MAX])
def test_few_elements_are_left(bouncing: Host, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """For three ports of many places, which come, change and go: whatever is found, it is right."""
    places, draw = bouncing.fastpath._places, random.Random(left)
    bouncing.fastpath.answer_at([])
    everywhere = [elsewhere(bouncing, n)._replace(port=PORT + n % 3) for n in range(6 * CHAIN_MAX)]
    monkeypatch.setattr(places, "_resting", deque())
    monkeypatch.setattr(places, "_free", deque(range(1, 1 + left)))
    try:
        for turn in range(15):
            monkeypatch.setattr(daemon_places, "REST", draw.choice((0.0, 0.01, 3600.0)))
            there = {n for n in range(len(everywhere)) if draw.random() < draw.choice((0.1, 0.9))}
            now = {n: draw.choice((everywhere[n].mac, bytes(6))) for n in there}
            wanted = [everywhere[n]._replace(mac=mac) for n, mac in now.items()]
            if turn % 2:
                bouncing.fastpath.withdraw(wanted)
            bouncing.fastpath.answer_at(draw.sample(wanted, len(wanted)))
            for n, place in enumerate(everywhere):
                asked = {"ip": {"dst": str(place.address)}, "udp": {"dport": place.port}}
                verdict = bouncing.run(bouncing.wire.request(BOUNCED, **asked)).verdict
                expected = Verdict.BOUNCE if now.get(n) == place.mac else Verdict.PASS_MAC
                assert verdict == (expected if n in now else Verdict.PASS_SERVICE)
    finally:
        bouncing.fastpath.answer_at([])  # no chain has them any more


def test_a_place_that_changes(bouncing: Host) -> None:
    bouncing.fastpath.answer_at([elsewhere(bouncing, 0)])
    bouncing.fastpath.answer_at([elsewhere(bouncing, 0)._replace(mac=bytes(6))])
    assert asks(bouncing, 0) == Verdict.PASS_MAC
    bouncing.fastpath.withdraw([elsewhere(bouncing, 1)])
    assert asks(bouncing, 0) == Verdict.PASS_SERVICE


def test_what_may_be_looked_at_is_not_written(
    bouncing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An element that was unlinked rests; where all rest, places are found in the map alone."""
    monkeypatch.setattr(daemon_places, "REST", 3600.0)
    chains, used = bouncing.fastpath._places._chains, []
    for turn in range(PLACES_MAX + 10):
        bouncing.fastpath.answer_at([elsewhere(bouncing, 0)._replace(mtu=1000 + turn)])
        used += chains[PORT].indices
        assert turn % 100 or asks(bouncing, 0) == Verdict.BOUNCE
    assert len(used) == len(set(used)) <= PLACES_MAX
    assert word(bouncing) == PORT_MORE
    assert asks(bouncing, 0) == Verdict.BOUNCE
    places = bouncing.fastpath._places
    places._resting = type(places._resting)((0.0, index) for _, index in places._resting)
    bouncing.fastpath.answer_at([elsewhere(bouncing, 0)])
    assert word(bouncing) & ~PORT_MORE == chains[PORT].indices[0]
