# SPDX-License-Identifier: Apache-2.0
"""What `carom why` asks of services: where they are, and what becomes of a frame."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from typing import Any, NamedTuple

from carom.daemon.fastpath import Attachment, FastPath
from carom.daemon.places import Place
from carom.daemon.receiver import Receiver
from carom.daemon.remedies import GROWN, REMEDIES
from carom.daemon.running import Running
from carom.daemon.walker import Walk, Walker
from carom.errors import UsageError
from carom.kernel.abi import FRAME_MIN, Hook, Stop


class Asked(NamedTuple):
    """What is asked: services, by their receivers in the order of their ids, and where they are."""

    fastpath: FastPath | None
    receivers: Sequence[Receiver]
    attachments: Sequence[Attachment]

    @classmethod
    def of(cls, running: Running) -> Asked:
        """Those that run."""
        receivers = [backend.receiver for backend in running.parts.backends]
        return cls(running.parts.fastpath, receivers, running.attachments)


def places(asked: Asked, source: str | None = None) -> list[dict[str, Any]]:
    """Where services are answered, and how frames have to be made that are; with `source`, from
    which MAC those of that address come, None where that is not known."""
    found = []
    for receiver in asked.receivers:
        for attachment in asked.attachments:
            for place in receiver.places(attachment):
                found.append(
                    {
                        "port": place.port,
                        "protocol": place.protocol.name,
                        "address": str(place.address),
                        "interface": attachment.interface.name,
                        "hook": attachment.hook,
                        "mac": place.mac.hex(":"),
                        "tags": [tag for tag in (place.outer, place.inner) if tag],
                        "from_mac": _mac_of(asked.fastpath, place, source),
                    }
                )
    return found


def _mac_of(fastpath: FastPath | None, place: Place, source: str | None) -> str | None:
    if not source or not fastpath:
        return None
    mac = fastpath.station_of(place.link or place.ifindex, ipaddress.ip_address(source))
    return mac.hex(":") if mac else None


def why(asked: Asked, frames: Sequence[str], interface: str) -> list[list[dict[str, Any]]]:
    """The walks of frames, in hexadecimal, that come in by an interface (walker.py); none of a
    frame that the kernel does not take.

    Raises UsageError for an interface that is not attached to.
    """
    fastpath = asked.fastpath
    at = {one.interface.name: one for one in asked.attachments}
    if not fastpath or interface not in at:
        names = ", ".join(at) or "nothing, as --hook is none"
        raise UsageError(f"no fast path is on {interface}", hint=f"it is on {names}")
    hook = Hook.TC if at[interface].hook == "tc" else Hook.XDP
    found = []
    with fastpath.dry() as programs:
        walker = Walker(fastpath, programs)
        for frame in frames:
            walks: list[Walk] = []
            with contextlib.suppress(OSError):
                walks = walker.walk(bytes.fromhex(frame), hook, at[interface].interface.ifindex)
            found.append([_shown(walk, asked.receivers, len(frame) // 2) for walk in walks])
    return found


def _shown(walk: Walk, receivers: Sequence[Receiver], came: int) -> dict[str, Any]:
    receiver = None if walk.service is None else receivers[walk.service]
    remedy = REMEDIES[walk.verdict]
    grown = walk.hook == Hook.XDP and len(walk.reply) > max(came, FRAME_MIN)
    return {
        "hook": walk.hook.name.lower(),
        "stops": {
            stop.name.lower(): walk.verdict.name.lower() if stop == walk.last else "passed"
            for stop in Stop
            if stop <= walk.last and not (receiver and stop in _left_out(receiver))
        },
        "verdict": walk.verdict.name.lower(),
        "what": f"{remedy.what}; {GROWN}" if grown else remedy.what,
        "change": remedy.change,
        "port": receiver.options.port if receiver else None,
        "reply": walk.reply.hex(),
    }


def _left_out(receiver: Receiver) -> set[Stop]:
    """Stops that a service's requests do not come to."""
    options, spec = receiver.options, receiver.protocol
    left_out = set[Stop]()
    if options.fast == "bounce":
        left_out |= {Stop.LOOK_UP, Stop.AMPLIFY}
    if spec.whole_key:
        left_out.add(Stop.ADAPT)
    if not spec.cookies:
        left_out.add(Stop.COOKIE)
    if not options.max_hits_per_cpu:
        left_out.add(Stop.CPU)
    if not options.responses_per_second:
        left_out.add(Stop.RESPONSES)
    if not options.echoes:
        left_out.add(Stop.LOOP)
    return left_out
