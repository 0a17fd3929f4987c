# SPDX-License-Identifier: Apache-2.0
"""nsd: queries to a name server by dnsperf, with carom in front of it and without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from carom.lab.experiment import Needs
from carom.lab.experiments.contests import calls
from carom.lab.experiments.contests.contest import Contest
from carom.lab.experiments.contests.judging import Bar, Subject
from carom.lab.experiments.contests.ways import PER_CPU, RATE, WAYS, each_way, per_cpu_second
from carom.lab.testbed import Bed, facing
from carom.protocols.dns import PORT as DNS_PORT


@contextlib.contextmanager
def _nsd(bed: Bed[Any]) -> Iterator[list[int]]:
    """A name server on the server's CPU, of one process that answers; yields all its processes."""
    pids = bed.server.call(
        calls.NSD,
        address=bed.pair.server.address,
        port=DNS_PORT,
        names=bed.settings.keys,
        cpu=bed.cpus.apart()[1],
    )
    try:
        yield pids
    finally:
        bed.server.call("stop", pid=pids[0])


def _asked(bed: Bed[Any], seconds: float) -> dict[str, float]:
    """What dnsperf says of so many seconds."""
    answer: dict[str, float] = bed.client.call(
        calls.DNSPERF,
        address=bed.pair.server.address,
        port=DNS_PORT,
        names=bed.settings.keys,
        seconds=seconds,
        cpu=bed.cpus.apart()[0],
    )
    return answer


def _queries(bed: Bed[Any], pids: list[int]) -> dict[str, float]:
    with bed.apart():
        begin = bed.server.call("cpu_seconds", pids=pids)
        asked = _asked(bed, bed.settings.seconds)
        end = bed.server.call("cpu_seconds", pids=pids)
    return {RATE: asked["rate"], **per_cpu_second(asked["completed"], begin, end)}


def _alone(bed: Bed[Any]) -> dict[str, float]:
    with _nsd(bed) as pids:
        return _queries(bed, pids)


def _fronted(bed: Bed[Any], *arguments: str) -> dict[str, float]:
    front = ("--protocol", "dns", "-p", str(DNS_PORT), "--ttl", "1h")
    with (
        _nsd(bed) as pids,
        bed.serving((*front, *arguments), "front") as carom,
        facing(bed.pair, bed.client, arguments),
    ):
        _asked(bed, 0.0)
        return _queries(bed, [*pids, carom["pid"]])


class NSD(Contest):
    """The server alone, and with carom at each hook."""

    name = "nsd"
    needs = Needs({"nsd": "nsd", "dnsperf": "dnsperf"}, apart=True)
    description = "queries to a name server (NSD), with carom in front and without, by dnsperf"
    subjects = (Subject("NSD", _alone), *each_way("carom, ", _fronted))
    bars = tuple(
        bar
        for name in (f"carom, {way}" for way in WAYS)
        for bar in (
            Bar(f"{name}: queries a second", RATE, name, ("NSD",)),
            Bar(
                f"{name}: queries a CPU-second",
                PER_CPU,
                name,
                ("NSD",),
                at_least=3 if name == "carom, native" else None,
            ),
        )
    )


EXPERIMENT = NSD()
