# SPDX-License-Identifier: Apache-2.0
"""Frames that are not made anew, but filled in, are what scapy makes."""

from __future__ import annotations

import random

import pytest

from prog.packets import HOST_MAC, WIRES, Wire

LENGTHS = (0, 1, 2, 3, 18, 19, 255, 1472)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_filled_in(wire: Wire, length: int) -> None:
    eth, ip, udp = {"src": HOST_MAC}, {"dst": wire.client} | wire.ttl(31), {"sport": 1024}
    for number in range(3):
        payload = random.Random(number).randbytes(length) if number else b"\xff" * length
        assert wire.request(payload) == wire.built(payload)
        assert wire.request(payload, padding=b"xy") == wire.built(payload) + b"xy"
        assert wire.request(payload, eth=eth, ip=ip, udp=udp) == wire.built(payload, eth, ip, udp)


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_a_sum_of_zero(wire: Wire) -> None:
    """It is sent as 0xffff, for 0 says that there is none."""
    payload = wire.tuned(0, b"0123456789")
    assert wire.request(payload) == wire.built(payload)
    assert wire.request(payload)[wire.check] == b"\xff\xff"
