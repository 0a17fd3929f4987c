# SPDX-License-Identifier: Apache-2.0
"""What the contests share: ways to attach carom, full load, and requests one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from carom.errors import ExperimentError
from carom.lab.clients import load as generator
from carom.lab.clients import ping
from carom.lab.clients.requests import Plan
from carom.lab.experiments.contests.judging import Subject
from carom.lab.record import RoundTrips
from carom.lab.testbed import Bed, spent

RATE, PER_CPU = "replies/s", "replies/CPU-s"
BLOCKING, SPINNING = "p50 blocking, µs", "p50 spinning, µs"
_OUTSTANDING = 128  # requests at once: so few fit into every queue on the way
_WARM_RATE = 20_000.0

WAYS = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "TC": ("--hook", "tc"),
}
"""How carom is attached, and with which options."""

HITS = Plan(size=(32, 32))


def each_way(prefix: str, measure: Callable[..., dict[str, float]]) -> Iterator[Subject]:
    """A subject for each way to attach carom, measured with its options."""
    for way, options in WAYS.items():
        yield Subject(
            prefix + way,
            functools.partial(lambda bed, chosen: measure(bed, *chosen), chosen=options),
        )


def serving(bed: Bed[Any], *arguments: str) -> AbstractContextManager[dict[str, Any]]:
    """A `carom serve` on the server's CPU, whose replies do not expire during the run."""
    cpu = str(bed.cpus.apart()[1])
    return bed.serving(("--cpu", cpu, "--ttl", "1h", *arguments))


def load_all(
    bed: Bed[Any], plan: Plan, app: str, port: int, *, warm: bool = False
) -> generator.Load:
    """Ask at full load for the settings' seconds; with `warm`, once for every key."""
    options = generator.Options(
        count=plan.keys if warm else None,
        seconds=None if warm else bed.settings.seconds,
        rate=_WARM_RATE if warm else None,
        source_ports=_OUTSTANDING,
        cpu=bed.cpus.apart()[0],
        timeout=0.5,
    )
    done = bed.client.load(
        bed.pair.client.interface, bed.pair.server.address, port, plan, options, app
    )
    if done.round_trips.wrong or not done.round_trips.count:
        raise ExperimentError(
            f"{done.round_trips.wrong} of {done.sent} replies were wrong, "
            f"{done.round_trips.count} right"
        )
    return done


def full_load(bed: Bed[Any], plan: Plan, app: str, port: int, pids: list[int]) -> dict[str, float]:
    """Replies a second, and replies a second of the server's CPU time, under full load."""
    with bed.apart():
        begin = bed.server.call("cpu_seconds", pids=pids)
        done = load_all(bed, plan, app, port)
        end = bed.server.call("cpu_seconds", pids=pids)
    return {RATE: done.round_trips.rate, **per_cpu_second(done.round_trips.count, begin, end)}


def per_cpu_second(replies: float, begin: float | None, end: float | None) -> dict[str, float]:
    """Replies by the CPU time between two calls of `cpu_seconds`; nothing where it is unknown."""
    busy = spent(begin, end)
    if busy is None:
        return {}
    if busy <= 0:  # kernel threads are known by when they appear, which a second run confuses
        raise ExperimentError(
            "the server's CPU time was not counted: what its interface receives had another thread",
            hint="does another experiment run on this machine? let it end first",
        )
    return {PER_CPU: replies / busy}


def keyed(bed: Bed[Any], plan: Plan) -> Plan:
    """The plan, over as many keys as the settings say."""
    return msgspec.structs.replace(plan, keys=bed.settings.keys)


def ask(bed: Bed[Any], plan: Plan, app: str, port: int, *, spin: bool) -> RoundTrips:
    """Ask one request after the other, for half the seconds. ExperimentError for a wrong reply."""
    options = ping.Options(
        count=None,
        seconds=bed.settings.seconds / 2,
        wait="spin" if spin else "block",
        cpu=bed.cpus.apart()[0],
    )
    address = bed.pair.server.address
    trips = bed.client.ping(address, port, plan, options, app).round_trips
    if trips.wrong or trips.lost:
        raise ExperimentError(f"{trips.wrong} replies were wrong, {trips.lost} lost")
    return trips
