# SPDX-License-Identifier: Apache-2.0
"""What the attached programs would do with a packet, asked of them without any effect."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.kernel.abi import WALKED, Hook, Stop, Verdict

_NOWHERE = struct.pack("=I", 0)


class Walk(NamedTuple):
    """The stops that a packet came to at a hook, and what was decided on it at the last one.

    `service` is the number of the service that it is for, None where that is not known. `reply` is
    the frame that would be sent; empty where none is.
    """

    hook: Hook
    stops: tuple[Stop, ...]
    """In the order of `Stop`; `last` is where its verdict was given."""
    last: Stop
    verdict: Verdict
    service: int | None
    reply: bytes


_ANSWERED = (Verdict.HIT, Verdict.BOUNCE, Verdict.SLIP)


class Walker:
    """Asks dry programs (`FastPath.dry`), one packet after the other."""

    def __init__(self, fastpath: FastPath, programs: Mapping[Hook, int]):
        self._fastpath = fastpath
        self._programs = programs
        self._walks = fastpath.map("walks")

    def walk(self, frame: bytes, hook: Hook, ifindex: int) -> list[Walk]:
        """What becomes of a frame that comes in by an interface, and is first seen at a hook.

        At TC too, where XDP leaves it to that. What waits to be stored is stored before, as the
        packet itself would do it. Raises OSError for a frame that the kernel does not take: one of
        less than 14 bytes, or of more than a page has room for.
        """
        self._fastpath.store.drain_all()
        walks = [self._ask(frame, hook, ifindex)]
        if walks[0].verdict is Verdict.PASS_TO_TC:
            walks.append(self._ask(frame, Hook.TC, ifindex))
        return walks

    def _ask(self, frame: bytes, hook: Hook, ifindex: int) -> Walk:
        libbpf.update(self._walks, _NOWHERE, bytes(WALKED.size))
        at_xdp, at_tc = (ifindex, 0) if hook == Hook.XDP else (0, ifindex)
        run = libbpf.test_run(self._programs[hook], frame, xdp_ifindex=at_xdp, tc_ifindex=at_tc)
        value = libbpf.lookup(self._walks, _NOWHERE, WALKED.size)
        assert value
        last, verdict, place, bits = WALKED.unpack(value)
        stops = tuple(stop for stop in Stop if bits >> stop & 1)
        reply = run.data if verdict in _ANSWERED else b""
        service = place - 1 if place else None
        return Walk(hook, stops, Stop(last), Verdict(verdict), service, reply)
