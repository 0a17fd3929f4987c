# SPDX-License-Identifier: Apache-2.0
"""A sweep by series and by what was varied: figures, ratios, knees, and how steady it was."""

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
"""What is taken of a repetition: NaN where it has none of it."""


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
    """The share of the requests that were due to which no right reply came in time."""
    return 1 - repetition.round_trips.count / repetition.due if repetition.due else math.nan


def cpu(repetition: Repetition) -> float:
    """The server's CPU time for a reply, ns, with that of what its interface receives.

    NaN where it is not known, and for a server that spins, which takes all that there is.
    """
    known = repetition.server_cpu_seconds is not None and repetition.cell.wait != "spin"
    if not known or not repetition.round_trips.count:
        return math.nan
    return 1e9 * (repetition.server_cpu_seconds or 0.0) / repetition.round_trips.count


class Row(NamedTuple):
    """What is the same in all series that are compared."""

    task: Task
    wait: Wait
    x: float | None
    """What was varied: bytes, clients, requests a second, or seconds since the start."""


class Knee(NamedTuple):
    """How far a series came, over all repetitions.

    `rate` is the highest offered rate at and below which 99.9 % were answered (None: there is
    none), `lossy` the asked rate at which they were not (None: there is none). `most` is the most
    replies a second at any rate.
    """

    rate: float | None
    lossy: float | None
    most: Estimate


class Steady(NamedTuple):
    """A long measurement: its last third by its first, and its slowest part by its middle one."""

    drift: Estimate
    slowest: Estimate


class Measured:
    """Everything that a run measured, along an axis."""

    def __init__(self, run: Run[Repetition], axis: Axis | None):
        self.axis = axis
        self._cells = {
            (cell.series, self._row(cell)): repetitions
            for cell, repetitions in by_cell(run.measurements).items()
            if cell.series in SERIES and cell.task
        }
        self.series = [name for name in SERIES if any(at[0] == name for at in self._cells)]
        """Those that were measured, in order of display."""
        self.rows = sorted(
            {row for _, row in self._cells},
            key=lambda row: (TASKS.index(row.task), WAITS.index(row.wait), row.x or 0),
        )

    def _row(self, cell: Cell) -> Row:
        return Row(cast(Task, cell.task), cell.wait, self.axis.of(cell) if self.axis else None)

    def others(self) -> list[str]:
        """The series that userspace is compared with."""
        return [series for series in self.series if series != BASE]

    def groups(self) -> dict[tuple[Task, Wait], list[Row]]:
        """The rows of each task and wait, by what was varied."""
        groups: dict[tuple[Task, Wait], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.task, row.wait), []).append(row)
        return groups

    def at(self, series: str, row: Row) -> list[Repetition]:
        """The repetitions of one point."""
        return self._cells.get((series, row), [])

    def mean(self, figure: Figure, series: str, row: Row) -> Estimate:
        """A figure over the repetitions; NaN where there is none."""
        values = [figure(repetition) for repetition in self.at(series, row)]
        return mean([value for value in values if not math.isnan(value)])

    def ratio(self, figure: Figure, over: str, under: str, row: Row) -> Estimate | None:
        """One series' by another's, paired by repetition; None where they have none in common."""
        return _ratio(
            *(
                {repetition.index: figure(repetition) for repetition in self.at(s, row)}
                for s in (over, under)
            )
        )

    def by_tc(self, series: str, row: Row) -> bool:
        """Whether XDP passed most of its requests to TC: it had no room for their replies."""
        repetitions = self.at(series, row)
        passed = sum(repetition.verdicts.get("pass_to_tc", 0) for repetition in repetitions)
        return 2 * passed > sum(repetition.round_trips.count for repetition in repetitions)

    def knee(self, series: str, rows: Sequence[Row]) -> Knee | None:
        """How far a series came; None where nothing of it was measured."""
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
        """One series' most replies a second by another's, paired by repetition."""
        return _ratio(self._most(over, rows), self._most(under, rows))

    def _most(self, series: str, rows: Sequence[Row]) -> dict[int, float]:
        """The most replies a second of each repetition that has all of the rows."""
        runs = self._by_index(series, rows).items()
        return {index: max(replies(repetition) for repetition in run) for index, run in runs}

    def steady(self, series: str, rows: Sequence[Row]) -> Steady | None:
        """How even the p50s of a long measurement's parts were; None where there are too few."""
        found = [run for run in self._by_index(series, rows).values() if len(run) > 1]
        runs = [[p50(part) for part in run if part.round_trips.count] for run in found]
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
        """The repetitions of a series that have all of the rows: each one's in the rows' order."""
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
