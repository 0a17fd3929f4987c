# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, and how all of them are run: the same rounds, orders, refusals, record.

An experiment is one object: its settings, the groups of cells that it measures in a repetition,
how one cell is measured, and how a run of it is shown. `run` does the rest.
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
import structlog

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

log = structlog.get_logger()

Progress = Callable[[str, int], None]
"""Called with the name of what is measured next, and the index of its repetition."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every experiment is run with; an experiment adds fields of its own.

    A field with an `Option` is one of `carom lab run`.
    """

    repetitions: Annotated[int, Option("How often each cell is measured.", low=1)] = 10
    seed: Annotated[int, Option("Of the random draws, and of the order.")] = 1

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
    """Whose it is: where its server is refused, the whole series is left out."""
    cells: Sequence[Any]
    drawn: bool = False
    """Whether the cells are measured in an order that is drawn anew each time."""
    wait: Wait = "blocking"
    """How both ends wait for a packet; left out where the hosts cannot."""
    optional: bool = True
    """Whether the run goes on without its series where a driver refuses it, as native XDP."""


class Needs(NamedTuple):
    """What has to be there before anything is measured."""

    programs: Mapping[str, str] = {}
    """Programs on the server's host, and Debian's packages that have them."""
    apart: bool = False
    """Whether each host needs a CPU of its own."""


class Experiment(Shown[M], Generic[S, M]):
    """One experiment: what it measures, and how its runs are shown."""

    name: str
    description: str
    replaces: frozenset[str] = frozenset()
    """The experiments that it is all of at once, and that it stands for where all are asked for."""
    full: S
    """The settings that stand where nothing else is chosen."""
    short: S
    """Those of the short form, which takes half a minute or so."""
    needs: Needs = Needs()
    bare: bool = False
    """Whether the pair comes without a program on the client's end."""
    clients: int = 1
    """How many agents the client's host has."""

    # Measuring

    @abstractmethod
    def groups(self, settings: S, index: int) -> Sequence[Group]:
        """What is measured in one repetition. Raises UsageError for settings that cannot be."""

    @abstractmethod
    def measure(self, bed: Bed[S], server: Any, cell: Any, index: int) -> Iterable[M]:
        """Measure one cell, as often as belongs together. ExperimentError where counts are off."""

    def prepared(self, bed: Bed[S]) -> AbstractContextManager[Any]:
        """What is to be so on the hosts while the experiment runs."""
        return contextlib.nullcontext()

    def serving(self, bed: Bed[S], group: Group) -> AbstractContextManager[Any]:
        """A group's server, which `measure` is given."""
        return contextlib.nullcontext()

    def says(self, cell: Any) -> str:
        """What a cell is called while it is measured."""
        return str(cell)

    def steps(self, settings: S) -> int:
        """How many cells a run measures."""
        repetitions = range(settings.repetitions)
        return sum(
            len(group.cells) for index in repetitions for group in self.groups(settings, index)
        )


def check(experiments: Sequence[Experiment[Any, Any]], make_pair: Make) -> None:
    """Look at a pair for what experiments need. Raises ExperimentError for what is not there."""
    if not any(one.needs.programs or one.needs.apart for one in experiments):
        return
    packages = {name: of for one in experiments for name, of in one.needs.programs.items()}
    with make_pair() as pair, Agent(pair.client) as client, Agent(pair.server) as server:
        for program in server.call("lacking", programs=sorted(packages)):
            names = [one.name for one in experiments if program in one.needs.programs]
            raise ExperimentError(
                f"{program} is not installed on the server's host, and {' and '.join(names)} "
                f"{'needs' if len(names) == 1 else 'need'} it",
                hint=f"apt install {packages[program]}",
            )
        if any(one.needs.apart for one in experiments):
            CPUs.of(pair, client, server).apart()


def run(experiment: Experiment[S, M], settings: S, progress: Progress, make_pair: Make) -> Run[M]:
    """Measure every cell in every repetition, each repetition in an order of its own.

    Ctrl-C, or a host that is lost, keeps what was done: the run says that it is not complete.
    Raises CaromError.
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
                    for one in experiment.measure(bed, server, cell, index):
                        keep(one)
        if all(group.series in going.left_out for group in groups):
            raise ExperimentError("; ".join(going.left_out.values()))


def _possible(groups: Sequence[Group], cpus: CPUs, *, tell: bool) -> list[Group]:
    """Those that wait as the hosts can. ExperimentError if these are none."""
    waits = {group.wait for group in groups}
    absent = sorted(wait for wait in waits if not cpus.can(wait))
    if absent and tell:
        log.warning("not to be had on this pair", waits=", ".join(absent))
    if set(absent) == waits:
        raise ExperimentError(
            "these hosts cannot wait as asked",
            hint="one-cpu wants both on one machine, spin a CPU for each",
        )
    return [group for group in groups if group.wait not in absent]


def _recorded(settings: Settings, going: Course) -> dict[str, Any]:
    """The settings as a run's record has them, with what was left out."""
    values = msgspec.to_builtins(settings) | {"left_out": list(going.left_out) or None}
    return {key: value for key, value in values.items() if value is not None}
