# SPDX-License-Identifier: Apache-2.0
"""A sweep's run by series and by what was varied: figures, ratios, knees, and steadiness."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from carom.lab.cells import TASKS, WAITS, Axis
from carom.lab.experiments.sweeps.series import BASE, SERIES
from carom.lab.record import Cell, Repetition, Run, Task, Wait
from carom.lab.stats.estimates import Estimate, by_cell, mean, ratio

ANSWERED = 0.999
"""The share of requests that are answered up to the knee."""

Figure = Callable[[Repetition], float]
"""A figure of a repetition; NaN where it has none."""


def p50(repetition: Repetition) -> float:
    """The median round trip, ns."""
    return repetition.round_trips.p50 if repetition.round_trips.count else math.nan


def p99(repetition: Repetition) -> float:
    """The round trip that 99 % do not exceed, ns."""
    return repetition.round_trips.p99 if repetition.round_trips.count else math.nan


def replies(repetition: Repetition) -> float:
    """Replies a second."""
    return repetition.round_trips.rate


def offered(repetition: Repetition) -> float:
    """Requests a second that were sent, or skipped because too many were unanswered."""
    return math.nan if repetition.offered is None else repetition.offered


def unanswered(repetition: Repetition) -> float:
    """The share of due requests without a right reply in time, 0 to 1."""
    return 1 - repetition.round_trips.count / repetition.due if repetition.due else math.nan


def cpu(repetition: Repetition) -> float:
    """The server's CPU time per reply, ns, including that of receiving at its interface.

    NaN where it is unknown, and for a server that spins, which uses all of its CPU.
    """
    known = repetition.server_cpu_seconds is not None and repetition.cell.wait != "spin"
    if not known or not repetition.round_trips.count:
        return math.nan
    return 1e9 * (repetition.server_cpu_seconds or 0.0) / repetition.round_trips.count


class Row(NamedTuple):
    """What compared cells have in common: all but the series."""

    task: Task
    wait: Wait
    x: float | None
    """What was varied: bytes, clients, requests a second, or seconds since the start."""


class Knee(NamedTuple):
    """The knee of a series, over all repetitions.

    `rate` is the highest offered rate up to which 99.9 % were answered, `lossy` the first asked
    rate at which they were not (None where there is no such rate). `most` is the most replies a
    second at any rate.
    """

    rate: float | None
    lossy: float | None
    most: Estimate


class Steady(NamedTuple):
    """Ratios of a long measurement's p50s: last third to first, slowest part to the median."""

    drift: Estimate
    slowest: Estimate


class Measured:
    """All measurements of a run, by series and row."""

    def __init__(self, run: Run[Repetition], axis: Axis | None):
        self.axis = axis
        self._cells = {
            (cell.series, self._row(cell)): repetitions
            for cell, repetitions in by_cell(run.measurements).items()
            if cell.series in SERIES and cell.task
        }
        self.series = [name for name in SERIES if any(at[0] == name for at in self._cells)]
        """The series that were measured, in order of display."""
        self.rows = sorted(
            {row for _, row in self._cells},
            key=lambda row: (TASKS.index(row.task), WAITS.index(row.wait), row.x or 0),
        )

    def _row(self, cell: Cell) -> Row:
        return Row(cast(Task, cell.task), cell.wait, self.axis.of(cell) if self.axis else None)

    def others(self) -> list[str]:
        """The series that are compared with userspace."""
        return [series for series in self.series if series != BASE]

    def groups(self) -> dict[tuple[Task, Wait], list[Row]]:
        """The rows of each task and wait, in the order of what was varied."""
        groups: dict[tuple[Task, Wait], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.task, row.wait), []).append(row)
        return groups

    def at(self, series: str, row: Row) -> list[Repetition]:
        """The repetitions of one point."""
        return self._cells.get((series, row), [])

    def mean(self, figure: Figure, series: str, row: Row) -> Estimate:
        """A figure's mean over the repetitions; NaN where no repetition has it."""
        values = [figure(repetition) for repetition in self.at(series, row)]
        return mean([value for value in values if not math.isnan(value)])

    def ratio(self, figure: Figure, over: str, under: str, row: Row) -> Estimate | None:
        """One series' figure over another's, paired by repetition; None where none is paired."""
        return _ratio(
            *(
                {repetition.index: figure(repetition) for repetition in self.at(series, row)}
                for series in (over, under)
            )
        )

    def by_tc(self, series: str, row: Row) -> bool:
        """Whether XDP passed most requests to TC, as it had no room for their replies."""
        repetitions = self.at(series, row)
        passed = sum(repetition.verdicts.get("pass_to_tc", 0) for repetition in repetitions)
        return 2 * passed > sum(repetition.round_trips.count for repetition in repetitions)

    def knee(self, series: str, rows: Sequence[Row]) -> Knee | None:
        """The knee of a series; None where it was not measured."""
        measured = [row for row in rows if self.at(series, row)]
        if not measured:
            return None
        reached, lossy = None, None
        for row in measured:
            repetitions = self.at(series, row)
            due = sum(repetition.due for repetition in repetitions)
            if sum(repetition.round_trips.count for repetition in repetitions) < ANSWERED * due:
                lossy = row.x
                break
            reached = max(reached or 0.0, self.mean(offered, series, row).value)
        return Knee(reached, lossy, mean(list(self._most(series, rows).values())))

    def most_ratio(self, over: str, under: str, rows: Sequence[Row]) -> Estimate | None:
        """One series' most replies a second over another's, paired by repetition."""
        return _ratio(self._most(over, rows), self._most(under, rows))

    def _most(self, series: str, rows: Sequence[Row]) -> dict[int, float]:
        """The most replies a second of each repetition that has all rows."""
        runs = self._by_index(series, rows).items()
        return {index: max(replies(repetition) for repetition in run) for index, run in runs}

    def steady(self, series: str, rows: Sequence[Row]) -> Steady | None:
        """How steady the p50s of a long measurement's parts were; None with too few parts."""
        whole = [run for run in self._by_index(series, rows).values() if len(run) > 1]
        runs = [[p50(part) for part in run if part.round_trips.count] for run in whole]
        if not runs or any(len(run) < 2 for run in runs):
            return None
        third = max(1, min(len(run) for run in runs) // 3)
        firsts, lasts = (
            [sum(part) / third for part in parts]
            for parts in ([run[:third] for run in runs], [run[-third:] for run in runs])
        )
        slowest = [max(run) / statistics.median(run) for run in runs]
        return Steady(ratio(lasts, firsts), ratio(slowest, [1.0] * len(slowest)))

    def _by_index(self, series: str, rows: Sequence[Row]) -> dict[int, list[Repetition]]:
        """A series' records of each repetition that has all rows, in the order of the rows."""
        by_index: dict[int, list[Repetition]] = {}
        for row in rows:
            for repetition in self.at(series, row):
                by_index.setdefault(repetition.index, []).append(repetition)
        return {index: run for index, run in by_index.items() if len(run) == len(rows)}


def _ratio(over: dict[int, float], under: dict[int, float]) -> Estimate | None:
    common = sorted(
        index for index in over.keys() & under.keys() if over[index] > 0 and under[index] > 0
    )
    return (
        ratio([over[index] for index in common], [under[index] for index in common])
        if common
        else None
    )
