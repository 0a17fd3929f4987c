# SPDX-License-Identifier: Apache-2.0
"""When memcached's items end: the questions to it, and what its answers mean.

No question changes an item, except `mg` for an item that is marked stale (see `second_question`).
What doc/protocol.txt leaves open was taken from how 1.6.18 behaves and from the source of 1.6.24.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from carom.protocols.spec import Unclear

STATS = b"stats\r\n"
SETTINGS = b"stats settings\r\n"

NEVER = math.inf
"""The seconds left of an item that does not end by itself."""

SLACK = 2
"""How many seconds an item may end before the time in its server's answer: the server counts whole
seconds, by a timer that fires once a second and may pass two full seconds in one period."""

_START = 60  # the second in which a server's count begins: ITEM_UPDATE_INTERVAL, memcached.h
_RIGHT_SIGN = (1, 6, 24)
_STAT = re.compile(rb"STAT (\S+) ([^\r\n]*)\r\n")
_VERSION = re.compile(rb"(\d+)\.(\d+)\.(\d+)")


def _stats(answer: bytes) -> Mapping[bytes, bytes]:
    return dict(_STAT.findall(answer))


class Lives(NamedTuple):
    """What holds for all items of a server: its clock, a `flush_all` to come, its version."""

    now: int
    """The current second in the server's own count."""
    flush_in: float
    """Seconds until a `flush_all` is due; NEVER if none was ordered."""
    right_sign: bool
    """Whether `me` gives the time left as a positive number, as since 1.6.24."""

    @classmethod
    def read(cls, stats: bytes, settings: bytes) -> Lives:
        """From the answers to STATS and to SETTINGS. Raises Unclear.

        `oldest` is a second in the server's own count: once it begins, all items stored up to its
        end are flushed.
        """
        told, set_to = _stats(stats), _stats(settings)
        version = _VERSION.match(told.get(b"version", b""))
        try:
            now, oldest = int(told[b"uptime"]) + _START, int(set_to[b"oldest"])
        except (KeyError, ValueError) as error:
            raise Unclear("it does not tell uptime and oldest") from error
        if not version:
            raise Unclear("it does not tell its version")
        numbers = tuple(map(int, version.groups()))
        return cls(now, oldest - now if oldest > now else NEVER, numbers >= _RIGHT_SIGN)

    @staticmethod
    def question(key: bytes) -> bytes:
        """The first question about an item: `me` neither touches it nor counts as a use."""
        return b"me %b\r\n" % key

    def left(self, answer: bytes, key: bytes) -> float | None:
        """The seconds left of an item, by the answer to `question`; 0 for one that is gone.

        None where the second question is needed: before 1.6.24, -1 stands for an item that never
        ends and for one that ends in a second. Raises Unclear.
        """
        if answer in (b"EN\r\n", b"NF\r\n"):
            return 0
        match = re.match(rb"ME %b exp=(-?\d+) " % re.escape(key), answer)
        if not match:
            raise Unclear(f"{answer[:40]!r} does not tell when an item ends")
        left = int(match[1])
        if left == -1:
            return NEVER if self.right_sign else None
        if (left < 0) is self.right_sign and left:
            raise Unclear(f"{answer[:40]!r} is not what its version says")
        return abs(left)


def second_question(key: bytes) -> bytes:
    """The question that tells an item that never ends from one that ends in a second.

    It does not touch the item (`u`), and asks for the value (`v`), so that the answer does not look
    like an acknowledgement of a write. But of an item that is marked stale, only the first `mg` is
    asked to recache it: this question may be that one.
    """
    return b"mg %b t u v\r\n" % key


def second_left(answer: bytes) -> tuple[float, bool]:
    """The seconds left of an item, and whether it is marked stale. Raises Unclear."""
    if answer == b"EN\r\n":
        return 0, False
    match = re.fullmatch(rb"VA \d+ t(-1|\d+)((?: [WXZ])*)\r\n.*", answer, re.DOTALL)
    if not match:
        raise Unclear(f"{answer[:40]!r} does not tell when an item ends")
    left = int(match[1])
    return (NEVER if left == -1 else left), b"X" in match[2]
