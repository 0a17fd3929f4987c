# SPDX-License-Identifier: Apache-2.0
"""What memcached says of the end of its items: questions to it, and what its answers mean.

No question changes an item, but for `mg` on one that is marked stale (see `Lives.question`). What
doc/protocol.txt leaves open was read from the behaviour of 1.6.18, and of 1.6.24 from its source.
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
"""Seconds left of an item that does not end by itself."""

SLACK = 2
"""Seconds that an item may end sooner than its server's answer says: the server counts whole
seconds, by a timer that comes once a second and may pass two of their borders in one period."""

_START = 60  # the second in which a server's count begins: ITEM_UPDATE_INTERVAL, memcached.h
_RIGHT_SIGN = (1, 6, 24)
_STAT = re.compile(rb"STAT (\S+) ([^\r\n]*)\r\n")
_VERSION = re.compile(rb"(\d+)\.(\d+)\.(\d+)")


def _stats(answer: bytes) -> Mapping[bytes, bytes]:
    return dict(_STAT.findall(answer))


class Lives(NamedTuple):
    """What holds for all items of a server: seconds until its `flush_all` is due, its version."""

    now: int
    """The second that it has come to in its own count."""
    flush_in: float
    right_sign: bool
    """Whether `me` tells what is left of an item as a positive number: since 1.6.24."""

    @classmethod
    def read(cls, stats: bytes, settings: bytes) -> Lives:
        """From the answers to STATS and then SETTINGS. Raises Unclear.

        `oldest` is the second, in the server's own count, up to whose end items are flushed; once
        it has begun they are.
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
        """What to ask of an item first: `me` neither touches it nor counts as a use."""
        return b"me %b\r\n" % key

    def left(self, answer: bytes, key: bytes) -> float | None:
        """Seconds that are left of an item, by the answer to `question`; 0 for one that is gone.

        None where a second question is needed: before 1.6.24, -1 is one that never ends, or ends
        in a second. Raises Unclear.
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
    """Which tells an item that never ends from one that ends in a second.

    It does not touch the item (`u`), and asks for the value (`v`) so that the answer looks like no
    acknowledgement of a write. But the first `mg` of one that is marked stale is told to make
    it anew, and no other is.
    """
    return b"mg %b t u v\r\n" % key


def second_left(answer: bytes) -> tuple[float, bool]:
    """Seconds that are left, and whether the item is marked stale. Raises Unclear."""
    if answer == b"EN\r\n":
        return 0, False
    match = re.fullmatch(rb"VA \d+ t(-1|\d+)((?: [WXZ])*)\r\n.*", answer, re.DOTALL)
    if not match:
        raise Unclear(f"{answer[:40]!r} does not tell when an item ends")
    left = int(match[1])
    return (NEVER if left == -1 else left), b"X" in match[2]
