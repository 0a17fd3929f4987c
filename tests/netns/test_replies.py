# SPDX-License-Identifier: Apache-2.0
"""A reply is right and its checksums are valid, whoever left whichever checksum to its device."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.daemon import control
from carom.vm.netns import NamespacePair
from netns.line import Line, of_pair
from netns.process import INTERFACE, Carom
from netns.wire import Client, Frame, Tap, check_sums, checksum_errors

SIZES = (1, 2, 31, 32, 255, 256)


HOW = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "tc": ("--hook", "tc"),
}


@pytest.fixture(scope="module", params=["straight", "routed"])
def way(request: pytest.FixtureRequest) -> Line:
    """Either way from client to server."""
    found: Line = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module", params=HOW)
def how(request: pytest.FixtureRequest) -> str:
    """Either mode of XDP, or TC."""
    return str(request.param)


@pytest.fixture(scope="module", params=["bounce", "cache"])
def fast(request: pytest.FixtureRequest) -> str:
    """Either way to answer."""
    return str(request.param)


@pytest.fixture(scope="module")
def carom(way: Line, how: str, fast: str) -> Iterator[Carom]:
    """One carom for each of these and both IPs; offloads may change under it."""
    with Carom(way.server, *HOW[how], "--bind", "::", "--fast", fast) as carom:
        yield carom


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def line(way: Line, request: pytest.FixtureRequest) -> Line:
    """The way, over either IP."""
    return way.over(request.param)


def _payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _replies(frames: list[Frame]) -> list[Frame]:
    for frame in frames:
        assert UDP in frame.ip(), frame.ip().summary()
    return [frame for frame in frames if not frame.outgoing]


@pytest.mark.parametrize("replier", [True, False], ids=["replier-tx-on", "replier-tx-off"])
@pytest.mark.parametrize("sender", [True, False], ids=["sender-tx-on", "sender-tx-off"])
def test_reply_is_right(
    carom: Carom, line: Line, how: str, fast: str, sender: bool, replier: bool
) -> None:
    (on,) = carom.ready["interfaces"]
    assert (on["mode"] or on["hook"], carom.ready["services"][0]["fast"]) == (how, fast)
    line.offload(sender=sender, replier=replier)
    if fast == "cache":
        control.call("flush", carom.pid)
    before, before_tc = carom.counters(), carom.status()["hooks"]["tc"]
    errors = checksum_errors(line.client)
    asked, from_kernel = [], []
    with Client(line.client, line.address) as client, Tap(line.client) as tap:
        for size in SIZES:
            payload = _payload(size)
            if fast == "cache":
                assert client.ask(payload) == payload
                asked += tap.frames()
            assert client.ask(payload) == payload
            from_kernel += tap.frames()
        asked += from_kernel
        assert client.nothing_more()

    rounds = len(SIZES)
    if fast == "cache":
        carom.expect(before, miss=rounds, hit=rounds, replies=rounds, fills=rounds)
    else:
        carom.expect(before, bounce=rounds)
    at_tc = carom.status()["hooks"]["tc"]
    name = "hit" if fast == "cache" else "bounce"
    assert at_tc[name] - before_tc[name] == (rounds if how == "tc" else 0)
    assert checksum_errors(line.client) == errors
    requests = [frame for frame in asked if frame.outgoing]
    assert {frame.half_made for frame in requests} == {sender}, "offloads are not what was asked"
    assert len(requests) == len(_replies(asked)) == rounds * (2 if fast == "cache" else 1)
    for frame in _replies(asked):
        check_sums(frame)
    if how == "native" or not sender:
        assert not any(frame.half_made for frame in _replies(from_kernel))


def test_what_is_too_long_for_a_key(carom: Carom, line: Line, fast: str) -> None:
    payload = _payload(300)
    before = carom.counters()
    with Client(line.client, line.address) as client:
        for _ in range(2):
            assert client.ask(payload) == payload
        assert client.nothing_more()
    if fast == "cache":
        carom.expect(before, pass_size=2, replies=2, unfit=2)
    else:
        carom.expect(before, bounce=2)


def test_empty_request(carom: Carom, line: Line, fast: str) -> None:
    before = carom.counters()
    with Client(line.client, line.address) as client:
        assert client.ask(b"") == b""
        assert client.nothing_more()
    if fast == "cache":
        carom.expect(before, pass_size=1, replies=1, unfit=1)
    else:
        carom.expect(before, bounce=1)


@pytest.mark.parametrize("way", ["straight", "routed"])
def test_client_verifies_checksums(way: str, request: pytest.FixtureRequest) -> None:
    """What the tests above rely on: this client's kernel drops a wrong UDP checksum."""
    line: Line = request.getfixturevalue(way)
    port = 51999

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((line.address, port))
        return listener

    with (
        line.server.call(listen),
        Client(line.client, line.address, port) as client,
        Tap(line.server) as tap,
    ):
        client.send(b"request")
        (frame,) = tap.frames()
        reply = Ether(src=line.server.mac(INTERFACE), dst=Ether(frame.data).src)
        reply /= IP(src=line.address, dst=frame.ip().src, ttl=64)
        reply /= UDP(sport=port, dport=client.port)
        errors = checksum_errors(line.client)
        wrong = Ether(bytes(reply / b"wrong"))
        wrong[UDP].chksum ^= 1
        tap.send(bytes(wrong))
        tap.send(bytes(reply / b"right"))
        assert client.receive() == b"right"
        assert checksum_errors(line.client) == errors + 1


def test_pair_without_tx_checksums() -> None:
    """Both ends of such a pair make whole checksums by themselves."""
    with NamespacePair(tx_checksum=False) as pair:
        assert pair.server.offloads()["tx_checksum"] is False
        line = of_pair(pair)
        with (
            Carom(line.server, "--hook", "none") as carom,
            Client(line.client, line.address) as client,
            Tap(line.client) as tap,
        ):
            assert carom.mode is None
            assert client.ask(b"whole") == b"whole"
            frames = tap.frames()
    assert [(frame.outgoing, frame.half_made) for frame in frames] == [
        (True, False),
        (False, False),
    ]
    for frame in frames:
        check_sums(frame)
