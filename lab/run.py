# SPDX-License-Identifier: Apache-2.0
"""Run an experiment on a pair: interleaved repetitions, each with its counts checked."""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

import msgspec

from carom.errors import ExperimentError
from carom.include.abi import MISSES
from carom.lab.agent import Agent
from carom.lab.grid import Settings, Trial
from carom.lab.hosts import CPUs, course, environments
from carom.lab.model import Repetition, Results, Wait
from carom.lab.ping import Options, Ping
from carom.vm.pair import Pair

PORT = 51141

Progress = Callable[[Trial, int], None]
"""Told of each trial and the index of its repetition before it is measured."""


class Laboratory:
    """A pair with an agent on either host."""

    def __init__(self, pair: Pair, client: Agent, server: Agent):
        self.pair = pair
        self.client = client
        self.server = server
        self.mode: str | None = None
        """The mode that XDP was last attached in."""
        self._cpus = CPUs.of(pair, client, server)

    def can(self, wait: Wait) -> bool:
        """Whether these hosts can wait like that."""
        return self._cpus.can(wait)

    def measure(self, trial: Trial, index: int) -> Repetition:
        """Start a server, warm it, ask it, check what was counted, and stop it.

        Raises ExperimentError when the counts disagree with the plan.
        """
        cell = trial.cell
        wait: Literal["block", "spin"] = "spin" if cell.wait == "spin" else "block"
        client_cpu, server_cpu = self._cpus.choose(cell.wait)
        ready = self.server.call(
            "serve",
            arguments=[
                *("-i", self.pair.server.interface, "-p", str(PORT)),
                *("--bind", self.pair.server.address),  # the faster socket
                *("--wait", wait, "--cpu", str(server_cpu)),
                *trial.server,
            ],
        )
        self.mode = next((one["mode"] for one in ready["interfaces"]), None) or self.mode
        try:
            for plan in trial.warm:
                self._ask(plan, Options(count=plan.keys), trial)
            before = self.server.call("status", pid=ready["pid"])
            options = Options(count=None, seconds=trial.seconds, wait=wait, cpu=client_cpu)
            ping = self._ask(trial.plan, options, trial)
            after = self.server.call("status", pid=ready["pid"])
        finally:
            self.server.call("stop", pid=ready["pid"])
        return self._checked(trial, index, ping, before, after)

    def _ask(self, plan: Any, options: Options, trial: Trial) -> Ping:
        return self.client.ping(self.pair.server.address, PORT, plan, options, trial.app)

    @staticmethod
    def _checked(
        trial: Trial, index: int, ping: Ping, before: dict[str, Any], after: dict[str, Any]
    ) -> Repetition:
        verdicts = {
            name: after["verdicts"][name] - count
            for name, count in before["verdicts"].items()
            if after["verdicts"][name] != count
        }
        planned = (
            ping.sent if trial.counter == "bounce" or trial.cell.series == "xdp_hit" else ping.hot
        )
        hits, misses = _counted(trial, verdicts, before, after)
        trips = ping.round_trips
        one = Repetition(
            cell=trial.cell,
            index=index,
            round_trips=trips,
            planned_hits=None if hits is None else planned,
            counted_hits=hits,
            counted_misses=misses,
            verdicts=verdicts,
            server_cpu_seconds=after["cpu_seconds"] - before["cpu_seconds"],
        )
        if trips.wrong:
            raise ExperimentError(f"{_name(trial)}: {trips.wrong} replies had wrong bytes")
        if hits is not None and (hits, misses) != (planned, ping.sent - planned):
            raise ExperimentError(
                f"{_name(trial)}: planned {planned} hits and {ping.sent - planned} misses, counted "
                f"{hits} and {misses}",
                hint=f"{trips.lost} requests were lost, {trips.duplicated} replies came twice; "
                f"verdicts: {verdicts}",
            )
        return one


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


def _name(trial: Trial) -> str:
    cell = trial.cell
    rate = "" if cell.hit_rate is None else f" at hit rate {cell.hit_rate:g}"
    return f"{cell.series}, {cell.wait}{rate}"


def run(
    name: str,
    trials: list[Trial],
    settings: Settings,
    make_pair: Callable[[], Pair],
    progress: Progress,
) -> Results:
    """Measure every trial in every repetition, each repetition in an order of its own.

    Ctrl-C, or a host that is lost, keeps what was done: the results say that they are not
    complete. Raises CaromError.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    repetitions: list[Repetition] = []
    order = random.Random(settings.seed)
    with ExitStack() as stack:
        pair = stack.enter_context(make_pair())
        agents = [stack.enter_context(Agent(host)) for host in (pair.client, pair.server)]
        laboratory = Laboratory(pair, *agents)
        where, client = environments(pair, *agents)
        trials = [trial for trial in trials if laboratory.can(trial.cell.wait)]
        if not trials:
            raise ExperimentError(
                "these hosts cannot wait as asked",
                hint="one-cpu wants both on one machine, spin a CPU for each",
            )
        with course() as going:
            for index in range(settings.repetitions):
                for trial in order.sample(trials, len(trials)):
                    progress(trial, index)
                    repetitions.append(laboratory.measure(trial, index))
    return Results(
        experiment=name,
        started=started,
        seed=settings.seed,
        command=shlex.join(["carom", *sys.argv[1:]]),
        settings=_plain(settings),
        environment=msgspec.structs.replace(where, mode=laboratory.mode),
        client_environment=client,
        complete=going.complete,
        stopped=going.stopped,
        repetitions=repetitions,
    )


def _plain(settings: Settings) -> dict[str, Any]:
    values = msgspec.to_builtins(settings)
    return {name: value for name, value in values.items() if value is not None}
