# SPDX-License-Identifier: Apache-2.0
"""memcached: GETs with carom in front of it and without, under load and one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from carom.lab.clients.requests import Plan
from carom.lab.experiment import Needs
from carom.lab.experiments.contests import calls
from carom.lab.experiments.contests.contest import Contest
from carom.lab.experiments.contests.judging import Bar, Subject
from carom.lab.experiments.contests.ways import (
    BLOCKING,
    PER_CPU,
    RATE,
    SPINNING,
    WAYS,
    ask,
    each_way,
    full_load,
    keyed,
    load_all,
)
from carom.lab.testbed import Bed, facing
from carom.protocols.memcached import PORT as MEMCACHED_PORT

_GETS = Plan(form="memcached", size=(20, 20))
_MEMCACHED = "carom.lab.experiments.contests.memcached_client:values"


def _gets(bed: Bed[Any], pids: list[int], *arguments: str) -> dict[str, float]:
    """The figures of a memcached: GETs at full load, and one by one."""
    plan = keyed(bed, _GETS)
    figures = full_load(bed, plan, _MEMCACHED, MEMCACHED_PORT, pids)
    with facing(bed.pair, bed.client, arguments):
        for name, spin in ((BLOCKING, False), (SPINNING, True)):
            trips = ask(bed, plan, _MEMCACHED, MEMCACHED_PORT, spin=spin)
            figures[name] = trips.p50 / 1e3
    return figures


@contextlib.contextmanager
def _memcached(bed: Bed[Any]) -> Iterator[int]:
    plan = msgspec.to_builtins(keyed(bed, _GETS))
    address = bed.pair.server.address
    pid = bed.server.call(calls.MEMCACHED, address=address, port=MEMCACHED_PORT, plan=plan)
    try:
        bed.server.call("pin", pid=pid, cpu=bed.cpus.apart()[1])
        yield pid
    finally:
        bed.server.call("stop", pid=pid)


def _alone(bed: Bed[Any]) -> dict[str, float]:
    with _memcached(bed) as pid:
        return _gets(bed, [pid])


def _fronted(bed: Bed[Any], *arguments: str) -> dict[str, float]:
    front = ("--protocol", "memcached", "-p", str(MEMCACHED_PORT))
    with (
        _memcached(bed) as pid,
        bed.serving(("--ttl", "1h", *front, *arguments), "front") as carom,
    ):
        plan = keyed(bed, _GETS)
        load_all(bed, plan, _MEMCACHED, MEMCACHED_PORT, warm=True)
        return _gets(bed, [pid, carom["pid"]], *arguments)


class Memcached(Contest):
    """The server alone, and with carom at each hook."""

    name = "memcached"
    needs = Needs({"memcached": "memcached"}, apart=True)
    description = "GETs of a memcached, with carom in front and without: under load, and one by one"
    subjects = (
        Subject("memcached", _alone),
        *each_way("carom, ", _fronted),
    )
    bars = tuple(
        bar
        for name in (f"carom, {way}" for way in WAYS)
        for bar in (
            Bar(
                f"{name}: GETs a second",
                RATE,
                name,
                ("memcached",),
                at_least=8 if name == "carom, native" else None,
            ),
            Bar(f"{name}: GETs a CPU-second", PER_CPU, name, ("memcached",)),
            Bar(
                f"{name}: p50 blocking, without / with", BLOCKING, "memcached", (name,), at_least=8
            ),
            Bar(
                f"{name}: p50 spinning, without / with",
                SPINNING,
                "memcached",
                (name,),
                at_least=1.5,
            ),
        )
    )


EXPERIMENT = Memcached()
