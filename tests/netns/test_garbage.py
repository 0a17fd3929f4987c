# SPDX-License-Identifier: Apache-2.0
"""Frames that make no sense: none stops carom, and what it answers is an answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netns.line import Line
from netns.process import INTERFACE, Carom, until
from netns.services import PORT
from netns.wire import Client, Frame, Tap, check_sums

FRAMES = 300
SHORTEST = 14  # bytes that the kernel wants of a frame


def _changed(source: random.Random, frame: bytes) -> bytes:
    """A request with some wrong bytes, behind the MACs."""
    wrong = bytearray(frame)
    for _ in range(source.randint(1, 4)):
        wrong[source.randrange(12, len(wrong))] = source.randrange(256)
    return bytes(wrong)


def _shortened(source: random.Random, frame: bytes) -> bytes:
    return frame[: source.randrange(SHORTEST, len(frame))]


def _lengthened(source: random.Random, frame: bytes) -> bytes:
    return frame + source.randbytes(source.randint(1, 1400))


def _noise(source: random.Random, frame: bytes) -> bytes:
    """Nothing right but the MACs, and often the EtherType."""
    start = source.choice((12, 14))
    return frame[:start] + source.randbytes(source.randint(2, 1400))


KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "changed": _changed,
    "shortened": _shortened,
    "lengthened": _lengthened,
    "noise": _noise,
}


@pytest.fixture(
    scope="module", params=["native-bounce", "generic-bounce", "native-cache", "generic-cache"]
)
def carom(straight: Line, request: pytest.FixtureRequest) -> Iterator[Carom]:
    """Carom in each form."""
    mode, fast = request.param.split("-")
    with Carom(straight.server, "--mode", mode, "--fast", fast) as carom:
        yield carom


@pytest.mark.parametrize("kind", KINDS)
def test_garbage(carom: Carom, straight: Line, kind: str) -> None:
    source = random.Random(kind)
    request = Ether(src=straight.client.mac(INTERFACE), dst=straight.server.mac(INTERFACE))
    request /= IP(src=straight.client_address, dst=straight.address)
    request /= UDP(sport=50_000, dport=PORT) / bytes(range(32))
    right = bytes(request)
    frames = [KINDS[kind](source, right) for _ in range(FRAMES)]

    def judged() -> int:
        return sum(carom.status()["verdicts"].values())

    before = judged()
    with Tap(straight.client) as tap:
        for frame in frames:
            tap.send(frame)
        until(lambda: judged() >= before + FRAMES, "a verdict on each frame")
        answers = [frame for frame in tap.frames() if _from_carom(frame)]
    if kind == "lengthened":  # padding is no fault
        assert len(answers) == FRAMES
    for answer in answers:
        check_sums(answer)
    assert carom.counters()["fault"] == 0
    with Client(straight.client, straight.address) as client:
        for size in (1, 32, 256, 300):
            payload = source.randbytes(size)
            assert client.ask(payload) == client.ask(payload) == payload


def _from_carom(frame: Frame) -> bool:
    return not frame.outgoing and UDP in frame.ip() and frame.ip()[UDP].sport == PORT
