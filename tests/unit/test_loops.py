# SPDX-License-Identifier: Apache-2.0
"""Which replies of a server of ours may go in a loop, and that each such loop ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from carom.daemon.loops import Loops

EVERY = 10
CLIENT, OTHER = ("198.18.0.1", 40_000), ("198.18.0.1", 40_001)


def rounds(answer: Callable[[bytes], bytes], first: bytes, most: int = 200) -> int:
    """How often a server answers a request whose replies come back as requests."""
    loops, request = Loops(EVERY), first
    for done in range(most):
        reply = answer(request)
        if loops.ends(CLIENT, request, reply):
            return done
        request = reply
    return most


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (lambda request: request, 1),
        (lambda request: b"always the same", 1),
        (lambda request: request[::-1], 2),
        (lambda request: request.swapcase(), 2),
        (lambda request: bytes([(request[0] + 1) % 7]), 7),
    ],
    ids=["echo", "fixed", "backwards", "toggles", "seven"],
)
def test_a_loop_ends(answer: Callable[[bytes], bytes], length: int) -> None:
    """Whichever way its replies go round."""
    assert 0 < rounds(answer, b"\0first") <= length * (EVERY + 1)


def test_no_loop_is_left_alone() -> None:
    """A client that asks the same time and again, or what it never asked before."""
    loops = Loops(EVERY)
    for _ in range(5 * EVERY):
        assert not loops.ends(CLIENT, b"question", b"answer")
    for n in range(5 * EVERY):
        assert not loops.ends(CLIENT, b"question %d" % n, b"answer %d" % n)


def test_echoes_are_counted_by_client_and_request() -> None:
    loops = Loops(EVERY)
    for _ in range(EVERY - 1):
        for client, request in itertools.product((CLIENT, OTHER), (b"a", b"b")):
            assert not loops.ends(client, request, request)
    assert loops.ends(CLIENT, b"a", b"a")
    assert not loops.ends(CLIENT, b"a", b"a"), "and from there anew"
    assert loops.ends(OTHER, b"b", b"b")
    assert loops.ended == 2


def test_memory_is_bounded() -> None:
    loops = Loops(EVERY)
    for n in range(200_000):
        request = b"%d" % n
        loops.ends(CLIENT, request, request)
    assert len(loops._asked) + len(loops._asked_before) <= 2 * 65_536
    assert len(loops._counts) <= 65_536
