# SPDX-License-Identifier: Apache-2.0
"""The four ports, their work, and their right replies: for clients, workers and programs."""

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
    """The work of a request at each port, and how programs are attached.

    `loops` is for work in a loop, `sleeps` (seconds) for work that sleeps; `queue` is the entries
    of the queue in front of it.
    """

    loops: tuple[int, ...] = (0,) * 4
    sleeps: tuple[float, ...] = (0.0,) * 4
    queue: int = 1
    mode: ModeOption = "auto"


def worked(value: int, loops: int) -> int:
    """The result of work.h for a number, computed independently."""
    for i in range(loops):
        value = ((value ^ value >> 15) * 0x2C1B3C6D + i) & 0xFFFFFFFF
    return value


def expected(name: Name, which: int, loops: int, request: bytes) -> bytes:
    """The right reply of port number `which`: the number after its work, or `reply_to`."""
    if name == "concurrency":
        return worked(int.from_bytes(request, "big"), loops).to_bytes(4, "big")
    return b"%07d" % reply_to(int(request), which)


def reply_to(value: int, which: int) -> int:
    """The reply of a port's worker to a number of seven digits; each port's reply is different."""
    return (value + which + 1) % 10**7
