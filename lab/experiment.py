# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, and `run`, which runs any of them.

An experiment is one object: its settings, the groups of cells that it measures in a repetition,
how one cell is measured, and how a run of it is shown. `run` draws the orders, leaves out what a
driver refuses, and makes the record.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar

import msgspec

from carom import log
from carom.errors import ExperimentError
from carom.lab.course import Course, course
from carom.lab.hosts.agent import Agent
from carom.lab.record import M, Run, Wait
from carom.lab.shown import Shown
from carom.lab.testbed import Bed, CPUs, environments
from carom.settings import Option
from carom.settings import check as check_settings
from carom.vm.pair import Make
from carom.xdp.link import ModeOption

Progress = Callable[[str, int], None]
"""Called with the name of the cell that is measured next, and the index of its repetition."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of every experiment; an experiment adds fields of its own.

    A field with an `Option` is an option of `carom lab run`.
    """

    repetitions: Annotated[int, Option("How often each cell is measured.", low=1)] = 10
    seed: Annotated[int, Option("Seed of the random draws, and of the order.")] = 1

    def checked(self) -> Self:
        """The same settings. Raises UsageError that names the first wrong one."""
        check_settings(self)
        return self


Seconds = Annotated[float, Option("How long a repetition measures.", low=1e-3, high=86_400)]
Waits = Annotated[tuple[Wait, ...], Option("How both ends wait for a packet.", order="once")]
Keys = Annotated[int, Option("How many different requests.", low=2, high=10_000)]
Mode = Annotated[ModeOption, Option("XDP's mode.")]


S = TypeVar("S", bound=Settings)


class Group(NamedTuple):
    """A server, and the cells that are measured while it runs."""

    series: str
    """Its series: where the driver refuses the server, the whole series is left out."""
    cells: Sequence[Any]
    drawn: bool = False
    """Whether each repetition draws an order for the cells; else they are measured as listed."""
    wait: Wait = "blocking"
    """How both ends wait for a packet. The group is left out where the hosts cannot."""
    optional: bool = True
    """Whether the run goes on without the series where a driver refuses native XDP."""


class Needs(NamedTuple):
    """What an experiment needs of the hosts."""

    programs: Mapping[str, str] = {}
    """Programs on the server's host, each with the Debian package that has it."""
    apart: bool = False
    """Whether each host needs a CPU of its own."""


class Experiment(Shown[M], Generic[S, M]):
    """One experiment: what it measures, and how its runs are shown."""

    name: str
    description: str
    replaces: frozenset[str] = frozenset()
    """The experiments that this one does at once; it replaces them when all are asked for."""
    full: S
    """The default settings."""
    short: S
    """The settings of `--short`, which takes from half a minute to four minutes."""
    needs: Needs = Needs()
    bare: bool = False
    """Whether the pair is made without a program at the client's end."""
    clients: int = 1
    """How many agents the client's host has."""

    # Measuring

    @abstractmethod
    def groups(self, settings: S, index: int) -> Sequence[Group]:
        """What is measured in one repetition. Raises UsageError for impossible settings."""

    @abstractmethod
    def measure(self, bed: Bed[S], server: Any, cell: Any, index: int) -> Iterable[M]:
        """Measure one cell: one record, or several. ExperimentError where counts disagree."""

    def prepared(self, bed: Bed[S]) -> AbstractContextManager[Any]:
        """Prepare the hosts, and undo that at the end of the run."""
        return contextlib.nullcontext()

    def serving(self, bed: Bed[S], group: Group) -> AbstractContextManager[Any]:
        """Run a group's server; `measure` gets what this yields as `server`."""
        return contextlib.nullcontext()

    def says(self, cell: Any) -> str:
        """A cell's name while it is measured."""
        return str(cell)

    def steps(self, settings: S) -> int:
        """How many cells a run measures."""
        repetitions = range(settings.repetitions)
        return sum(
            len(group.cells) for index in repetitions for group in self.groups(settings, index)
        )


def check(experiments: Sequence[Experiment[Any, Any]], make_pair: Make) -> None:
    """Check that the pair has what the experiments need. Raises ExperimentError if not."""
    if not any(experiment.needs.programs or experiment.needs.apart for experiment in experiments):
        return
    packages = {
        name: package
        for experiment in experiments
        for name, package in experiment.needs.programs.items()
    }
    with make_pair() as pair, Agent(pair.client) as client, Agent(pair.server) as server:
        for program in server.call("lacking", programs=sorted(packages)):
            names = [
                experiment.name
                for experiment in experiments
                if program in experiment.needs.programs
            ]
            raise ExperimentError(
                f"{program} is not installed on the server's host, and {' and '.join(names)} "
                f"{'needs' if len(names) == 1 else 'need'} it",
                hint=f"apt install {packages[program]}",
            )
        if any(experiment.needs.apart for experiment in experiments):
            CPUs.of(pair, client, server).apart()


def run(experiment: Experiment[S, M], settings: S, progress: Progress, make_pair: Make) -> Run[M]:
    """Measure every cell in every repetition, each repetition in an order of its own.

    After Ctrl-C, or an error while measuring, the run has what was measured until then, and says
    that it is not complete. Raises CaromError where measuring cannot begin.
    """
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    measurements: list[M] = []
    with ExitStack() as stack:
        pair = stack.enter_context(make_pair(bare=experiment.bare))
        clients = [stack.enter_context(Agent(pair.client)) for _ in range(experiment.clients)]
        server = stack.enter_context(Agent(pair.server))
        bed = Bed(pair, clients, server, settings)
        where = environments(pair, bed.client, server)
        stack.enter_context(experiment.prepared(bed))
        with course() as going:
            _measure(experiment, bed, going, progress, measurements.append)
    mode = ", ".join(sorted(bed.modes))
    return Run(
        experiment=experiment.name,
        measured=experiment.measures.MEASURED,
        started=started,
        seed=settings.seed,
        command=shlex.join(["carom", *sys.argv[1:]]),
        settings=_recorded(settings, going),
        environment=msgspec.structs.replace(where[0], mode=mode or where[0].mode),
        client_environment=where[1],
        complete=going.complete,
        stopped=going.stopped,
        measurements=measurements,
    )


def _measure(
    experiment: Experiment[S, M],
    bed: Bed[S],
    going: Course,
    progress: Progress,
    keep: Callable[[M], None],
) -> None:
    order = random.Random(bed.settings.seed)
    for index in range(bed.settings.repetitions):
        groups = _possible(experiment.groups(bed.settings, index), bed.cpus, tell=index == 0)
        for group in order.sample(groups, len(groups)):
            if group.series in going.left_out:
                continue
            refusals = going.unless_refused(group.series) if group.optional else ExitStack()
            with refusals, experiment.serving(bed, group) as server:
                cells = group.cells
                for cell in order.sample(cells, len(cells)) if group.drawn else cells:
                    progress(experiment.says(cell), index)
                    for measurement in experiment.measure(bed, server, cell, index):
                        keep(measurement)
        if all(group.series in going.left_out for group in groups):
            raise ExperimentError("; ".join(going.left_out.values()))


def _possible(groups: Sequence[Group], cpus: CPUs, *, tell: bool) -> list[Group]:
    """The groups whose wait the hosts can do. ExperimentError if there is none."""
    waits = {group.wait for group in groups}
    absent = sorted(wait for wait in waits if not cpus.can(wait))
    if absent and tell:
        log.warning("this pair cannot wait so", waits=", ".join(absent))
    if set(absent) == waits:
        raise ExperimentError(
            "these hosts cannot wait as asked",
            hint="one-cpu needs both on one machine, spin a CPU for each",
        )
    return [group for group in groups if group.wait not in absent]


def _recorded(settings: Settings, going: Course) -> dict[str, Any]:
    """The settings as a run records them, with the series that were left out."""
    values = msgspec.to_builtins(settings) | {"left_out": list(going.left_out) or None}
    return {key: value for key, value in values.items() if value is not None}
