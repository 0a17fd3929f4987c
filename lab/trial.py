# SPDX-License-Identifier: Apache-2.0
"""Experiments that ask a `carom serve`: how a cell is measured, and how its counts are checked."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import msgspec

from carom.errors import ExperimentError
from carom.kernel.abi import MISSES
from carom.lab.clients import load
from carom.lab.clients.ping import Options, Ping
from carom.lab.clients.requests import Plan
from carom.lab.experiment import Group, S
from carom.lab.record import Cell, Repetition, RoundTrips
from carom.lab.round_trips import RoundTripExperiment
from carom.lab.testbed import PORT, Bed, spent

_SOURCE_PORTS = 16_384  # how many requests can be unanswered before one is skipped

Counter = Literal["bounce", "hit", "userspace", "none"]
"""Where the hits of a cell are counted: a verdict of the kernel's, or the server's own cache."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How a cell is measured: the server's options, what warms it, what is asked.

    `clients` closed-loop clients ask at once (None: one, in the agent itself), or one generator
    sends at a `rate`, whether replies come or not. `windows` measurements follow each other. With
    `apart`, each host's packets are received on its own CPU.
    """

    cell: Cell
    server: list[str]
    plan: Plan
    seconds: float
    counter: Counter
    warm: tuple[Plan, ...] = ()
    app: str = "echo"
    clients: int | None = None
    rate: float | None = None
    windows: int = 1
    apart: bool = False
    all_hit: bool = False
    """Whether every request must be a hit; else those to the plan's hot keys."""
    fills: bool = False
    """Whether every miss must be filled."""
    optional: bool = False
    """Whether its series is left out where the driver refuses native XDP."""


class Asked(NamedTuple):
    """What a client did: requests sent, how many of these to hot keys, and the replies."""

    sent: int
    hot: int
    round_trips: RoundTrips
    skipped: int = 0
    offered: float | None = None


class TrialExperiment(RoundTripExperiment[S]):
    """An experiment whose grid is a list of trials, each with a server of its own."""

    @abstractmethod
    def trials(self, settings: S) -> list[Trial]:
        """The grid. Raises UsageError for impossible settings."""

    def groups(self, settings: S, index: int) -> list[Group]:
        """A group for each trial."""
        return [
            Group(trial.cell.series, (trial,), wait=trial.cell.wait, optional=trial.optional)
            for trial in self.trials(settings)
        ]

    def says(self, cell: Trial) -> str:
        """The name of its cell."""
        return self.series.name(cell.cell)

    @contextlib.contextmanager
    def serving(self, bed: Bed[S], group: Group) -> Iterator[int]:
        """The trial's server, warm; its pid."""
        (trial,) = group.cells
        cpus = bed.cpus.choose(group.wait)
        arguments = [
            *("-p", str(PORT), "--wait", "spin" if group.wait == "spin" else "block"),
            *("--cpu", str(cpus[1]), *trial.server),
        ]
        with ExitStack() as stack:
            # A generator attaches a program of its own at the client's end.
            serving = bed.serving(arguments, faced=trial.rate is None)
            pid = stack.enter_context(serving)["pid"]
            for plan in trial.warm:
                _ping(bed, plan, Options(count=plan.keys), trial)
            if trial.apart:
                stack.enter_context(bed.apart())
            yield pid

    def measure(self, bed: Bed[S], server: int, cell: Trial, index: int) -> Iterator[Repetition]:
        """Ask a trial's server; yields the record of each window as it ends.

        Raises ExperimentError when the counts disagree with the plan.
        """
        cpu = bed.cpus.choose(cell.cell.wait)[0]
        for since in _windows(cell):
            before = bed.server.call("status", pid=server)
            begin = bed.server.call("cpu_seconds", pids=[server])
            asked = _ask(bed, cell, cpu)
            busy = spent(begin, bed.server.call("cpu_seconds", pids=[server]))
            after = bed.server.call("status", pid=server)
            repetition = checked(cell, index, asked, before, after, busy, self.says(cell))
            yield msgspec.structs.replace(
                repetition, cell=msgspec.structs.replace(repetition.cell, since=since)
            )


def _windows(trial: Trial) -> Sequence[float | None]:
    """When each of a trial's measurements begins, in seconds; None for a single one."""
    if trial.windows == 1:
        return [None]
    return [number * trial.seconds for number in range(trial.windows)]


def _ask(bed: Bed[Any], trial: Trial, cpu: int) -> Asked:
    if trial.rate is not None:
        return _load(bed, trial, trial.rate, cpu)
    wait = trial.cell.wait
    options = Options(
        count=None, seconds=trial.seconds, wait="spin" if wait == "spin" else "block", cpu=cpu
    )
    ping = _ping(bed, trial.plan, options, trial)
    return Asked(ping.sent, ping.hot, ping.round_trips)


def _ping(bed: Bed[Any], plan: Plan, options: Options, trial: Trial) -> Ping:
    clients = trial.clients if options.seconds else None  # the agent can warm by itself
    address = bed.pair.server.address
    return bed.client.ping(address, PORT, plan, options, trial.app, clients=clients)


def _load(bed: Bed[Any], trial: Trial, rate: float, cpu: int) -> Asked:
    """Send requests at a rate, whether replies come or not."""
    options = load.Options(
        seconds=trial.seconds,
        rate=rate,
        source_ports=_SOURCE_PORTS,
        first_port=2**15 - _SOURCE_PORTS,
        cpu=cpu,
    )
    interface, address = bed.pair.client.interface, bed.pair.server.address
    result = bed.client.load(interface, address, PORT, trial.plan, options, trial.app)
    return Asked(result.sent, result.sent, result.round_trips, result.skipped, result.offered)


def checked(
    trial: Trial,
    index: int,
    asked: Asked,
    before: dict[str, Any],
    after: dict[str, Any],
    cpu_seconds: float | None,
    name: str,
) -> Repetition:
    """The record of a measurement, if the server's counts are as planned.

    A lost request may have been lost on its way there or back. A hook that sees skbs cannot tell
    one checksum in 65,536 from a half-made one, and leaves such a request to the server.
    Raises ExperimentError that begins with `name`, the cell's.
    """
    verdicts = {
        name: after["verdicts"][name] - count
        for name, count in before["verdicts"].items()
        if after["verdicts"][name] != count
    }
    planned = asked.sent if trial.all_hit else asked.hot
    hits, misses = _counted(trial, verdicts, before, after)
    trips = asked.round_trips
    if trips.wrong:
        raise ExperimentError(f"{name}: {trips.wrong} replies had wrong bytes")
    late = asked.sent - trips.count + verdicts.get("pass_checksum", 0)
    if hits is not None and misses is not None:
        due = asked.sent - planned
        if not (planned - late <= hits <= planned and due - late <= misses <= due):
            raise ExperimentError(
                f"{name}: planned {planned} hits and {due} misses, counted {hits} and {misses}",
                hint=f"{trips.lost} requests were lost, {trips.duplicated} replies came twice; "
                f"verdicts: {verdicts}",
            )
    filled = after["cache"]["fills"] - before["cache"]["fills"] if trial.fills else 0
    if trial.fills and not asked.sent - late <= filled <= asked.sent:
        raise ExperimentError(f"{name}: of {asked.sent} misses {filled} were filled")
    return Repetition(
        cell=trial.cell,
        index=index,
        round_trips=trips,
        planned_hits=None if hits is None else planned,
        counted_hits=hits,
        counted_misses=misses,
        verdicts=verdicts,
        server_cpu_seconds=cpu_seconds,
        skipped=asked.skipped,
        offered=asked.offered,
    )


def _counted(
    trial: Trial, verdicts: dict[str, int], before: dict[str, Any], after: dict[str, Any]
) -> tuple[int | None, int | None]:
    """Hits and misses as the kernel, or for userspace series the server, counted them."""
    if trial.counter == "none":
        return None, None
    if trial.counter == "userspace":
        rise = {
            name: after["userspace_cache"][name] - before["userspace_cache"][name]
            for name in ("hits", "misses")
        }
        return rise["hits"], rise["misses"]
    misses = sum(verdicts.get(verdict.name.lower(), 0) for verdict in MISSES)
    return verdicts.get(trial.counter, 0), misses
