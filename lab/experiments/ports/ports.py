# SPDX-License-Identifier: Apache-2.0
"""Four ports, and what is replied at each: known to clients, workers and programs."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from carom.xdp.link import ModeOption

Name = Literal["concurrency", "demux"]
"""The experiments with four ports."""

NAMES: tuple[Name, ...] = get_args(Name)
FIRST_PORT = 51141
PORTS = range(4)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a request of each port costs, and how programs are attached.

    `loops` where work is a loop, `sleeps` in seconds where it sleeps; `queue` is the entries of a
    queue before it.
    """

    loops: tuple[int, ...] = (0,) * 4
    sleeps: tuple[float, ...] = (0.0,) * 4
    queue: int = 1
    mode: ModeOption = "auto"


def worked(value: int, loops: int) -> int:
    """What work.h makes of a number, computed apart from it."""
    for i in range(loops):
        value = ((value ^ value >> 15) * 0x2C1B3C6D + i) & 0xFFFFFFFF
    return value


def expected(name: Name, which: int, loops: int, request: bytes) -> bytes:
    """The right reply of a port: the number worked on, or the number and one more for each port."""
    if name == "concurrency":
        return worked(int.from_bytes(request, "big"), loops).to_bytes(4, "big")
    return b"%07d" % reply_to(int(request), which)


def reply_to(value: int, which: int) -> int:
    """What the worker of a port replies to a number of seven digits: no other replies the same."""
    return (value + which + 1) % 10**7
