# SPDX-License-Identifier: Apache-2.0
"""Run an experiment on a pair: interleaved repetitions, each with its counts checked."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from carom.errors import ExperimentError
from carom.kernel.abi import MISSES
from carom.lab.clients import load
from carom.lab.clients.ping import Options, Ping
from carom.lab.course import (
    Course,
    CPUs,
    Progress,
    apart,
    course,
    environments,
    facing,
    head,
    now,
    spent,
)
from carom.lab.experiments.bounce_cache.grid import Trial
from carom.lab.hosts.agent import Agent
from carom.lab.model import Repetition, Results, RoundTrips
from carom.lab.show import words
from carom.vm.pair import Make, Pair

PORT = 51141

_SOURCE_PORTS = 16_384  # so many requests can be unanswered before one is skipped

log = structlog.get_logger()


class Settings(Protocol):
    """What is to be known of an experiment's settings here."""

    @property
    def repetitions(self) -> int:
        """How often each trial."""

    @property
    def seed(self) -> int:
        """Of the order."""


class Asked(NamedTuple):
    """What a client did: requests sent, those of them to hot keys, and what came of them."""

    sent: int
    hot: int
    round_trips: RoundTrips
    skipped: int = 0
    offered: float | None = None


class Laboratory:
    """A pair with an agent on either host."""

    def __init__(self, pair: Pair, client: Agent, server: Agent):
        self.pair = pair
        self.client = client
        self.server = server
        self.modes: set[str] = set()
        """Those that XDP was attached in."""
        self._cpus = CPUs.of(pair, client, server)

    def possible(self, trials: Sequence[Trial], going: Course) -> list[Trial]:
        """Those that this pair can do; what it cannot is said. ExperimentError if that is all."""
        waits = {trial.cell.wait for trial in trials}
        absent = sorted(wait for wait in waits if not self._cpus.can(wait))
        if absent:
            log.warning("not to be had on this pair", waits=", ".join(absent))
        if set(absent) == waits:
            raise ExperimentError(
                "these hosts cannot wait as asked",
                hint="one-cpu wants both on one machine, spin a CPU for each",
            )
        if any(trial.apart for trial in trials):
            self._cpus.apart()
        left = [trial for trial in trials if trial.cell.wait not in absent]
        for series, trial in {one.cell.series: one for one in left if one.optional}.items():
            with going.unless_refused(series):
                self._try(trial)
        left = [trial for trial in left if trial.cell.series not in going.left_out]
        if not left:
            raise ExperimentError("; ".join(going.left_out.values()))
        return left

    def _try(self, trial: Trial) -> None:
        with self._serving(trial, self._cpus.choose(trial.cell.wait)[1]):
            pass

    def measure(self, trial: Trial, index: int) -> Iterator[Repetition]:
        """Start a server, warm it, ask it, check what was counted, and stop it.

        A repetition for each of the trial's windows, as they are done. Raises ExperimentError
        when the counts disagree with the plan.
        """
        cpus = self._cpus.choose(trial.cell.wait)
        with self._serving(trial, cpus[1]) as pid, ExitStack() as stack:
            for plan in trial.warm:
                self._ping(plan, Options(count=plan.keys), trial)
            if trial.apart:
                stack.enter_context(apart(self.pair, self.client, self.server, cpus))
            for window in _windows(trial):
                yield self._window(trial, index, window, pid, cpus[0])

    @contextlib.contextmanager
    def _serving(self, trial: Trial, cpu: int) -> Iterator[int]:
        """The trial's server; its pid."""
        arguments = [
            *("-i", self.pair.server.interface, "-p", str(PORT)),
            *("--bind", self.pair.server.address),  # the faster socket
            *("--wait", "spin" if trial.cell.wait == "spin" else "block", "--cpu", str(cpu)),
            *trial.server,
        ]
        with ExitStack() as stack:
            faced = stack.enter_context(ExitStack())
            faced.enter_context(facing(self.pair, self.client, arguments))
            ready = self.server.call("serve", arguments=arguments)
            stack.callback(self.server.call, "stop", pid=ready["pid"])
            self.modes |= {one["mode"] for one in ready["interfaces"] if one["mode"]}
            if trial.rate is not None:  # a generator has a program of its own there
                faced.close()
            yield ready["pid"]

    def _window(
        self, trial: Trial, index: int, since: float | None, pid: int, cpu: int
    ) -> Repetition:
        before = self.server.call("status", pid=pid)
        begin = self.server.call("cpu_seconds", pids=[pid])
        asked = self._ask(trial, cpu)
        busy = spent(begin, self.server.call("cpu_seconds", pids=[pid]))
        after = self.server.call("status", pid=pid)
        one = checked(trial, index, asked, before, after, busy)
        if since is None:
            return one
        return msgspec.structs.replace(one, cell=msgspec.structs.replace(one.cell, since=since))

    def _ask(self, trial: Trial, cpu: int) -> Asked:
        if trial.rate is not None:
            return self._load(trial, trial.rate, cpu)
        wait = trial.cell.wait
        options = Options(
            count=None, seconds=trial.seconds, wait="spin" if wait == "spin" else "block", cpu=cpu
        )
        found = self._ping(trial.plan, options, trial)
        return Asked(found.sent, found.hot, found.round_trips)

    def _ping(self, plan: Any, options: Options, trial: Trial) -> Ping:
        clients = trial.clients if options.seconds else None  # the agent can warm by itself
        address = self.pair.server.address
        return self.client.ping(address, PORT, plan, options, trial.app, clients=clients)

    def _load(self, trial: Trial, rate: float, cpu: int) -> Asked:
        """Requests at a rate, whether replies come or not."""
        options = load.Options(
            seconds=trial.seconds,
            rate=rate,
            source_ports=_SOURCE_PORTS,
            first_port=2**15 - _SOURCE_PORTS,
            cpu=cpu,
        )
        found = self.client.load(
            self.pair.client.interface,
            self.pair.server.address,
            PORT,
            trial.plan,
            options,
            trial.app,
        )
        return Asked(found.sent, found.sent, found.round_trips, found.skipped, found.offered)


def _windows(trial: Trial) -> list[float | None]:
    """When each of a trial's measurements begins, in seconds; None where there is but one."""
    if trial.windows == 1:
        return [None]
    return [number * trial.seconds for number in range(trial.windows)]


def checked(
    trial: Trial,
    index: int,
    asked: Asked,
    before: dict[str, Any],
    after: dict[str, Any],
    cpu_seconds: float | None,
) -> Repetition:
    """The record of a measurement, if what the server's end counted is what was to be.

    A request that was lost may have been lost on its way there, or on its way back. One of 65,536
    has a checksum that a hook which sees skbs cannot tell from one that is half-made: it is left to
    the server. Raises ExperimentError.
    """
    verdicts = {
        name: after["verdicts"][name] - count
        for name, count in before["verdicts"].items()
        if after["verdicts"][name] != count
    }
    every = trial.counter == "bounce" or trial.cell.series == "xdp_hit"
    planned = asked.sent if every else asked.hot
    hits, misses = _counted(trial, verdicts, before, after)
    trips = asked.round_trips
    if trips.wrong:
        raise ExperimentError(f"{words.name(trial.cell)}: {trips.wrong} replies had wrong bytes")
    late = asked.sent - trips.count + verdicts.get("pass_checksum", 0)
    if hits is not None and misses is not None:
        due = asked.sent - planned
        if not (planned - late <= hits <= planned and due - late <= misses <= due):
            raise ExperimentError(
                f"{words.name(trial.cell)}: planned {planned} hits and {due} misses, "
                f"counted {hits} and {misses}",
                hint=f"{trips.lost} requests were lost, {trips.duplicated} replies came twice; "
                f"verdicts: {verdicts}",
            )
    filled = after["cache"]["fills"] - before["cache"]["fills"] if trial.fills else 0
    if trial.fills and not asked.sent - late <= filled <= asked.sent:
        raise ExperimentError(
            f"{words.name(trial.cell)}: of {asked.sent} misses {filled} were filled"
        )
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


def run(
    name: str,
    trials: Sequence[Trial],
    settings: Settings,
    make_pair: Make,
    progress: Progress,
) -> Results:
    """Measure every trial in every repetition, each repetition in an order of its own.

    Ctrl-C, or a host that is lost, keeps what was done: the results say that they are not
    complete. Raises CaromError.
    """
    started = now()
    repetitions: list[Repetition] = []
    order = random.Random(settings.seed)
    with ExitStack() as stack:
        # A generator has a program of its own at the client's end.
        pair = stack.enter_context(make_pair(bare=any(one.rate is not None for one in trials)))
        agents = [stack.enter_context(Agent(host)) for host in (pair.client, pair.server)]
        laboratory = Laboratory(pair, *agents)
        where, client = environments(pair, *agents)
        with course() as going:
            trials = laboratory.possible(trials, going)
            for index in range(settings.repetitions):
                for trial in order.sample(trials, len(trials)):
                    progress(words.name(trial.cell), index)
                    for one in laboratory.measure(trial, index):
                        repetitions.append(one)
    return Results(
        **head(
            name,
            settings,
            started,
            (where, client),
            going,
            mode=", ".join(sorted(laboratory.modes)),
        ),
        repetitions=repetitions,
    )
