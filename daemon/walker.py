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
    """The last stop that a packet came to at a hook, and what was decided on it there.

    `service` is the number of the service that it is for, None where that is not known. `reply` is
    the frame that would be sent; empty where none is.
    """

    hook: Hook
    last: Stop
    verdict: Verdict
    service: int | None
    reply: bytes


_STOPS: Mapping[Stop, tuple[Verdict, ...]] = {
    Stop.PARSE: (
        Verdict.PASS_ETHERTYPE,
        Verdict.PASS_VERSION,
        Verdict.PASS_OPTIONS,
        Verdict.PASS_FRAGMENT,
        Verdict.PASS_PROTOCOL,
        Verdict.PASS_LENGTH,
    ),
    Stop.SERVICE: (Verdict.PASS_SERVICE,),
    Stop.MAC: (Verdict.PASS_MAC,),
    Stop.SOURCE: (
        Verdict.PASS_SOURCE_NOBODY,
        Verdict.PASS_SOURCE_LOOPBACK,
        Verdict.PASS_SOURCE_GROUP,
        Verdict.PASS_SOURCE_MAC,
        Verdict.PASS_SOURCE_LOW,
        Verdict.PASS_SOURCE_SERVED,
    ),
    Stop.HEADER: (Verdict.PASS_TTL,),
    Stop.OFF: (Verdict.PASS_OFF,),
    Stop.LEASE: (Verdict.PASS_LEASE,),
    Stop.CPU: (Verdict.PASS_CPU,),
    Stop.KEY: (
        Verdict.PASS_SIZE,
        Verdict.PASS_REQUEST,
        Verdict.PASS_WRITE,
        Verdict.PASS_TRUNCATED,
    ),
    Stop.LOOK_UP: (
        Verdict.MISS,
        Verdict.MISS_EXPIRED,
        Verdict.MISS_VOID,
        Verdict.MISS_TORN,
    ),
    Stop.AMPLIFY: (Verdict.PASS_AMPLIFY,),
    Stop.MAPS: (Verdict.PASS_SOURCE_OWN, Verdict.PASS_ALLOW, Verdict.PASS_NEIGHBOUR),
    Stop.CHECKSUM: (Verdict.PASS_CHECKSUM,),
    Stop.COOKIE: (Verdict.PASS_COOKIE,),
    Stop.RESPONSES: (Verdict.PASS_RESPONSES,),
    Stop.LENGTH: (Verdict.PASS_ROOM, Verdict.PASS_MTU),
    Stop.RATE: (Verdict.PASS_RATE,),
    Stop.ROOM: (Verdict.PASS_TO_TC,),
    Stop.LOOP: (Verdict.DROP_LOOP,),
    Stop.ANSWER: (
        Verdict.HIT,
        Verdict.BOUNCE,
        Verdict.SLIP,
        Verdict.PASS_SHADOW,
        Verdict.FAULT,
    ),
}
"""Where a verdict is given, unless the program says otherwise (at_stop() of walk.h)."""

_STOP_OF = {verdict: stop for stop, verdicts in _STOPS.items() for verdict in verdicts}


def _last(verdict: Verdict, service: int | None) -> Stop:
    cut_off = verdict is Verdict.PASS_TRUNCATED and service is None
    return Stop.PARSE if cut_off else _STOP_OF[verdict]


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
        room = WALKED.size * libbpf.possible_cpus()
        libbpf.update(self._walks, _NOWHERE, bytes(room))
        at_xdp, at_tc = (ifindex, 0) if hook == Hook.XDP else (0, ifindex)
        run = libbpf.test_run(self._programs[hook], frame, xdp_ifindex=at_xdp, tc_ifindex=at_tc)
        value = libbpf.lookup(self._walks, _NOWHERE, room)
        assert value
        ((number, place, said, _),) = (one for one in WALKED.iter_unpack(value) if any(one))
        verdict, service = Verdict(number), place - 1 if place else None
        reply = run.data if verdict in _ANSWERED else b""
        return Walk(hook, Stop(said) or _last(verdict, service), verdict, service, reply)
