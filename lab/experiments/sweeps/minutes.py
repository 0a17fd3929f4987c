# SPDX-License-Identifier: Apache-2.0
"""Minutes: hits over minutes, part by part: are they as fast at the end as at the start?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from carom.lab.cells import SINCE
from carom.lab.experiments.sweeps.stats import Measured, Row
from carom.lab.experiments.sweeps.sweep import Settings as Common
from carom.lab.experiments.sweeps.sweep import Sweep, trial
from carom.lab.record import Cell, Task, Wait
from carom.lab.show import words
from carom.lab.show.sheets import Row as Line
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Estimate
from carom.lab.trial import Trial
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of minutes; by default both ends block, as services do."""

    repetitions: Annotated[int, Option("How often each cell is measured.", low=1)] = 3
    windows: Annotated[
        int, Option("How many parts of --seconds each, one after the other.", 2, 10_000)
    ] = 30


class Minutes(Sweep[Settings]):
    """Measurements that follow each other, of one running server."""

    name = "minutes"
    description = "RTT of a hit over minutes: does it change?"
    axis = SINCE
    full = Settings()
    short = Settings(seconds=0.5, windows=6)

    def cells(self, settings: Settings, series: str, wait: Wait) -> Iterator[Trial]:
        """One trial, in parts."""
        cell = Cell(series=series, wait=wait, task="hit")
        yield trial(settings, cell, windows=settings.windows)

    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """How steady each series was."""
        for series in measured.series:
            steady = measured.steady(series, rows)
            if steady:
                yield (
                    f"{self.series.words(series)} ({wait}): the last third's p50 is "
                    f"{words.bracket(steady.drift)} times the first's: {_drift(steady.drift)}; "
                    f"the slowest part took {words.bracket(steady.slowest)} times the middle one."
                )

    def sheets(self, measured: Measured) -> list[Sheet]:
        """How steady each series was, then the others."""
        return [self._steady(measured), *super().sheets(measured)]

    def _steady(self, measured: Measured) -> Sheet:
        lines: list[Line] = []
        for (_, wait), rows in measured.groups().items():
            for series in measured.series:
                steady = measured.steady(series, rows)
                if steady:
                    lines.append(
                        {
                            "series": self.series.words(series),
                            "wait": wait,
                            "last third / first": words.bracket(steady.drift),
                            "slowest part / middle": words.bracket(steady.slowest),
                        }
                    )
        return Sheet("How steady the p50 was", lines, names=2)


def _drift(drift: Estimate) -> str:
    if drift.low is None or drift.high is None:
        return "one repetition, no interval"
    if drift.low > 1:
        return "it became slower"
    return "it became faster" if drift.high < 1 else "no change shown"


EXPERIMENT = Minutes()
