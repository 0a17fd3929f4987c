# SPDX-License-Identifier: Apache-2.0
"""Requests from this host's own addresses pass: a filter of bits is asked first, then the map."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Collection, Iterator

import pytest

from carom.daemon.own_addresses import _filter
from carom.kernel.abi import Fast, Verdict, packed_address
from carom.kernel.netlink import Address
from prog.host import Host
from prog.packets import HOST, HOST6, Wire

POOL = [
    *(ipaddress.ip_address("198.19.0.0") + n for n in range(1, 2000)),
    *(ipaddress.ip_address("2001:db8:1::") + (n << 64 | n * n << 16 | n) for n in range(1, 2000)),
]


def cell_and_bit(address: Address) -> tuple[int, int]:
    """Where an address is in the filter."""
    ((cell, bits),) = [at for at in enumerate(_filter([packed_address(address)])) if at[1]]
    return cell, bits


def of_one_bit() -> tuple[Address, Address]:
    """Two that the filter does not tell apart."""
    seen: dict[tuple[int, int], Address] = {}
    for address in POOL:
        other = seen.setdefault(cell_and_bit(address), address)
        if other != address:
            return other, address
    raise AssertionError("none share a bit")


def check(host: Host, own: Collection[Address], others: Collection[Address]) -> None:
    """Requests from these pass, and those from the others are answered."""
    for address in (*own, *others):
        frame = Wire(address.version).request(b"asked", ip={"src": str(address)})
        expected = Verdict.PASS_SOURCE_OWN if address in own else Verdict.BOUNCE
        assert host.run(frame).verdict == expected, address


@pytest.fixture
def bouncing(host: Host) -> Iterator[Host]:
    """At its addresses of both IPs."""
    at_both = [host.place._replace(address=ipaddress.ip_address(one)) for one in (HOST, HOST6)]
    host.fastpath.answer_at(place._replace(fast=Fast.BOUNCE) for place in at_both)
    yield host
    host.fastpath.refuse([])


def test_what_comes_and_what_goes(bouncing: Host) -> None:
    """Many of both IPs, some of which are there again."""
    draw = random.Random(1)
    for count in (0, 1, 1000, 1001, 100, 3000, 0):
        own = set(draw.sample(POOL, count))
        bouncing.fastpath.refuse(own)
        others = [address for address in POOL if address not in own]
        check(
            bouncing, draw.sample(sorted(own, key=str), min(count, 200)), draw.sample(others, 200)
        )


def test_two_of_one_bit(bouncing: Host) -> None:
    """The map tells them apart, and the bit stays as long as one is there."""
    one, other = of_one_bit()
    for own in ((), (one,), (one, other), (other,), ()):
        bouncing.fastpath.refuse(own)
        check(bouncing, own, [address for address in (one, other) if address not in own])
