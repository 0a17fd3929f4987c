# SPDX-License-Identifier: Apache-2.0
"""What the sweeps share: the series, how each is measured, and how runs are shown.

The sweeps measure what the authors of the published experiments named as missing: other hooks,
payload sizes, several clients, offered load, and runs of minutes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from carom.errors import UsageError
from carom.lab.cells import WAITS, Axis
from carom.lab.clients.requests import Plan
from carom.lab.experiment import Keys, Seconds, Waits
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.sweeps import plots, tables
from carom.lab.experiments.sweeps.plots import TIMES, Panel
from carom.lab.experiments.sweeps.series import BASE, NAMES, NATIVE, SERIES, Name
from carom.lab.experiments.sweeps.stats import Measured, Row, p50
from carom.lab.record import Cell, Repetition, Run, Task, Wait
from carom.lab.show import words
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Estimate
from carom.lab.trial import Counter, Trial, TrialExperiment
from carom.settings import Option

_AT: dict[Name, list[str]] = {
    "userspace": ["--hook", "none"],
    "tc": ["--hook", "tc"],
    "xdp_generic": ["--mode", "generic"],
    "xdp_native": ["--mode", "native"],
}
_REQUEST = 32
"""Bytes of a request, where the size is not varied."""


class Settings(Common, frozen=True, kw_only=True):
    """The settings of all sweeps."""

    series: Annotated[tuple[Name, ...], Option("The series to compare.", order="once")] = NAMES
    waits: Waits = ("blocking",)
    seconds: Seconds = 10.0
    keys: Keys = 1000


S = TypeVar("S", bound=Settings)


class Sweep(TrialExperiment[S]):
    """An experiment that compares userspace and every hook while one thing is varied."""

    series = SERIES
    axis: Axis | None = None
    """What is varied; None if only the task is."""
    gained = "p50"
    """The name of the figure that is compared with userspace's."""
    gains = "Userspace's p50 / each one's p50"
    """The title of the table of these comparisons."""
    panels: tuple[Panel, ...] = TIMES
    """The panels of its plots."""
    about = ""
    """A sentence that a reader of its tables has to know."""

    @abstractmethod
    def cells(self, settings: S, series: str, wait: Wait) -> Iterator[Trial]:
        """The trials of one series in one wait."""

    def trials(self, settings: S) -> list[Trial]:
        """The trials of each wait and series. Raises UsageError for an impossible wait."""
        if self.needs.apart and "one-cpu" in settings.waits:
            raise UsageError(
                f"{self.name} has no wait one-cpu: its client and its server need a CPU each",
                hint="--waits blocking,spin",
            )
        return [
            trial
            for wait in WAITS
            if wait in settings.waits
            for series in SERIES
            if series in settings.series
            for trial in self.cells(settings, series, wait)
        ]

    def gain(self, measured: Measured, series: str, row: Row) -> Estimate | None:
        """How many times as fast a series is as userspace."""
        return measured.ratio(p50, BASE, series, row)

    @abstractmethod
    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """The sentences about one task in one wait."""

    def sheets(self, measured: Measured) -> list[Sheet]:
        """The tables, the most important first."""
        return [tables.gains(self, measured), *tables.times(measured)]

    # A run

    def measured(self, run: Run[Repetition]) -> Measured:
        """A run's measurements by series and row."""
        return Measured(run, self.axis)

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """Each hook against userspace, with 95 % intervals."""
        measured = self.measured(run)
        sentences = [
            line
            for (task, wait), rows in measured.groups().items()
            for line in self.say(measured, task, wait, rows)
        ]
        if not sentences and measured.series and BASE not in measured.series:
            return ["Nothing is compared: userspace was not measured."]
        return sentences or [words.TOO_LITTLE]

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """The tables that have rows."""
        return [sheet for sheet in self.sheets(self.measured(run)) if sheet.rows]

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return tables.notes(self, self.measured(run), run)

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """`NAME-TASK.png` for each task."""
        measured = self.measured(run)
        tasks = list(dict.fromkeys(row.task for row in measured.rows))
        return [
            plots.lines(self, measured, task, folder / f"{self.name}-{task}.png") for task in tasks
        ]


def trial(settings: Settings, cell: Cell, **how: Any) -> Trial:
    """How a cell is measured: the same requests and the same service in every series."""
    plans = {
        "bounce": _bounced(settings, cell.size or _REQUEST),
        "hit": _every(settings, cell),
        "miss": Plan(size=(_REQUEST, _REQUEST), draw="unique"),
    }
    assert cell.task
    arguments, counter = _server(cell)
    return Trial(
        cell=cell,
        server=arguments,
        plan=plans[cell.task],
        seconds=settings.seconds,
        counter=counter,
        all_hit=counter == "bounce",
        warm=(_once(plans["hit"]),) if cell.task == "hit" else (),
        fills=cell.task == "miss" and counter == "hit",
        optional=cell.series == NATIVE,
        app=_app(cell),
        **how,
    )


def _server(cell: Cell) -> tuple[list[str], Counter]:
    """The options of a cell's server, and the counter of its hits."""
    arguments = [*_AT[cell.series], "--app", _app(cell)]  # type: ignore[index]
    if cell.series == "userspace":
        return arguments, "none"
    if cell.task == "bounce":
        return [*arguments, "--fast", "bounce"], "bounce"
    cached = ["--ttl", "24h", "--capacity", "16384", "--admit", "always", "--amplify", "0"]
    return [*arguments, *cached], "hit"


def _app(cell: Cell) -> str:
    """The server's handler: where the size is varied, a hit's reply is as long as asked for."""
    return "sized" if cell.task == "hit" and cell.size is not None else "kept"


def _bounced(settings: Settings, size: int) -> Plan:
    keys = min(settings.keys, 256 ** min(size, 8))
    return Plan(size=(size, size), keys=keys, seed=settings.seed)


def _every(settings: Settings, cell: Cell) -> Plan:
    """Requests that are all in the cache, in random order."""
    size = (_REQUEST, _REQUEST)
    first = 0 if cell.size is None else cell.size << _LENGTH_SHIFT
    keys = settings.keys
    return Plan(size=size, first=first, keys=keys, hot=keys, hot_share=1.0, seed=settings.seed)


def _once(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, draw="sequential", hot=0, hot_share=None)


_LENGTH_SHIFT = 48
"""A request's number is its first 8 bytes; its first 2 are the reply's length for `apps.sized`."""
