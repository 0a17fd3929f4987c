# SPDX-License-Identifier: Apache-2.0
"""cgroup/spellings.h: to whom a learned reply may be given, by tables of replies in a row."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import pytest

from carom import protocols
from carom.kernel.abi import SERVICES_MAX, SLOTS
from prog.calls import Calls

SPELLINGS = 16_384
"""Cells."""

SERVICE, TTL, START = 3, 60, 1000
_CALL = struct.Struct("=QQQIIIIIi")


class As(IntEnum):
    """`enum spelled_as`."""

    ITSELF = 0
    ANY = 1
    OTHER = 2


class Said(NamedTuple):
    """A reply: how its request was spelled, what it says, and what becomes of it."""

    spelling: int
    becomes: As
    digest: int = 7
    points: bool = True
    last: int | None = None
    """Of the last label; `spelling` where it is None."""
    after: int = 0
    """Seconds since the one before."""
    key: int = 42
    ttl: int = TTL
    token: int = 1
    void: int = 0
    """Of the service, before this; then tokens count from here."""


PLAIN = 0
ORDERS = {
    "the same spelling": [Said(5, As.ITSELF), Said(5, As.ITSELF)],
    "another, the same answer": [Said(PLAIN, As.ITSELF), Said(5, As.ANY), Said(9, As.ANY)],
    "and the plain one behind it": [Said(5, As.ITSELF), Said(PLAIN, As.ANY), Said(5, As.ANY)],
    "other answers": [Said(PLAIN, As.ITSELF), Said(5, As.OTHER, 8), Said(6, As.OTHER, 9)],
    "the plain one takes any's place": [
        Said(5, As.ITSELF),
        Said(6, As.OTHER, 8),
        Said(PLAIN, As.ITSELF, 9),
        Said(5, As.OTHER, 10),
        Said(PLAIN, As.ITSELF, 9),
    ],
    "two others agree": [Said(PLAIN, As.ITSELF), Said(5, As.OTHER, 8), Said(6, As.ANY, 8)],
    "two others agree, without pointers": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.OTHER, 8, points=False),
        Said(6, As.OTHER, 8, points=False),
    ],
    "the same in the last label": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.OTHER, last=PLAIN),
        Said(6, As.OTHER, last=PLAIN),
        Said(7, As.ANY),
    ],
    "just before the former expires": [Said(PLAIN, As.ITSELF), Said(5, As.ANY, after=TTL - 1)],
    "when it has expired": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.ITSELF, after=TTL),
        Said(6, As.ANY, after=TTL - 1),
    ],
    "of one that was not stored, the end counts too": [
        Said(PLAIN, As.ITSELF, ttl=100),
        Said(5, As.OTHER, 8, ttl=10),
        Said(6, As.OTHER, 8, after=10),
    ],
    "a place lasts as long as its reply": [
        Said(5, As.ITSELF, ttl=100),
        Said(6, As.OTHER, 8, after=99, ttl=100),
        Said(6, As.ITSELF, 8, after=1),
        Said(5, As.OTHER, 9, after=1),
    ],
    "what is known outlives the reply": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.ANY),
        Said(6, As.ANY, 8, points=False, after=10 * TTL),
    ],
    "but not a void": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.ANY),
        Said(6, As.ITSELF, token=9, void=9),
        Said(7, As.ANY, token=9),
    ],
    "a reply from before a void tells nothing": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.ITSELF, token=8, void=9),
        Said(6, As.ITSELF, token=9),
        Said(7, As.ANY, token=9),
    ],
    "another key": [Said(PLAIN, As.ITSELF), Said(5, As.ITSELF, key=43), Said(6, As.ANY, key=43)],
    "another key of the cell": [
        Said(PLAIN, As.ITSELF),
        Said(5, As.ITSELF, key=42 + SPELLINGS),
        Said(6, As.ITSELF),
        Said(7, As.ANY),
    ],
}


class Programs(Calls):
    """spellings.c."""

    def __init__(self) -> None:
        cells = {"clock": 1, "versions": SLOTS + SERVICES_MAX}
        super().__init__("spellings.c", _CALL, ["judge"], cells, [protocols.spec("dns")])
        self.clock, self.versions = self.cells["clock"], self.cells["versions"]

    def judge(self, said: Said) -> As:
        """What becomes of a reply."""
        last = said.spelling if said.last is None else said.last
        numbers = (said.key, said.token, said.digest, said.ttl, SERVICE, said.spelling, last)
        return As(self.run("judge", *numbers, said.points, -1)[-1])


@pytest.fixture
def programs() -> Iterator[Programs]:
    with Programs() as loaded:
        yield loaded


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_who_is_given_a_reply(programs: Programs, order: list[Said]) -> None:
    programs.clock[0] = START
    for number, said in enumerate(order):
        programs.clock[0] += said.after
        if said.void:
            programs.versions[SLOTS + SERVICE] = said.void
        assert programs.judge(said) is said.becomes, f"{number}: {said}"
