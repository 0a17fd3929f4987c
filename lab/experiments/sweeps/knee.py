# SPDX-License-Identifier: Apache-2.0
"""Knee: replies and losses against the requests a second that are offered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from carom.lab.cells import RATE
from carom.lab.experiments.sweeps import tables
from carom.lab.experiments.sweeps.plots import LOG_TIMES, LOSS, REPLIES
from carom.lab.experiments.sweeps.series import BASE
from carom.lab.experiments.sweeps.stats import Knee, Measured, Row, offered, unanswered
from carom.lab.experiments.sweeps.sweep import Settings as Common
from carom.lab.experiments.sweeps.sweep import Sweep, trial
from carom.lab.record import Cell, Task, Wait
from carom.lab.show import words
from carom.lab.show.sheets import Row as Line
from carom.lab.show.sheets import Sheet
from carom.lab.trial import Trial
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of knee; by default the server blocks, as services do."""

    rates: Annotated[
        tuple[float, ...],
        Option("Requests a second.", 1, 1e8, "10000,100000", order="rising"),
    ] = (10e3, 20e3, 40e3, 60e3, 80e3, 120e3, 160e3, 240e3, 320e3, 480e3, 640e3, 960e3, 1.28e6)


class Knees(Sweep[Settings]):
    """A generator sends at a rate, whether replies come or not."""

    name = "knee"
    description = "replies and losses against the requests a second that are offered"
    axis = RATE
    bare = True  # a generator attaches a program of its own at the client's end
    panels = (REPLIES, LOSS, *LOG_TIMES)
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5, rates=(20e3, 80e3, 160e3, 480e3, 960e3))

    def cells(self, settings: Settings, series: str, wait: Wait) -> Iterator[Trial]:
        """A trial for each rate."""
        for rate in settings.rates:
            yield trial(settings, Cell(series=series, wait=wait, task="hit", rate=rate), rate=rate)

    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """The knee of each series, and its most replies a second."""
        for series in measured.series:
            knee = measured.knee(series, rows)
            if knee is None:
                continue
            lossy = "" if knee.lossy is None else f" (not at {words.amount(knee.lossy)})"
            reach = f"up to {_reach(knee)} a second" if knee.rate else f"at {_reach(knee)}"
            sentence = (
                f"{self.series.words(series)} ({wait}) answers 99.9 % of requests {reach}{lossy}, "
                f"and at most {words.amount(knee.most.value)} a second"
            )
            more = measured.most_ratio(series, BASE, rows)
            if series != BASE and more:
                sentence += f": {words.bracket(more)} times as many as userspace"
            yield sentence + "."

    def sheets(self, measured: Measured) -> list[Sheet]:
        """The knees first."""
        lost = "Requests without a reply in time"
        asked = "Requests a second that were sent or skipped"
        return [
            self._knees(measured),
            tables.rates(measured),
            tables.sheet(measured, lost, unanswered, tables.percent),
            tables.sheet(measured, asked, offered, tables.amount),
            *tables.times(measured),
        ]

    def _knees(self, measured: Measured) -> Sheet:
        lines: list[Line] = []
        for (_, wait), rows in measured.groups().items():
            for series in measured.series:
                knee = measured.knee(series, rows)
                if knee is None:
                    continue
                more = measured.most_ratio(series, BASE, rows)
                lines.append(
                    {
                        "series": self.series.words(series),
                        "wait": wait,
                        "99.9 % answered up to, /s": _reach(knee),
                        "most replies/s": tables.amount(knee.most),
                        "by userspace's": "" if series == BASE else words.bracket(more),
                    }
                )
        return Sheet("Knees", lines, names=2)


def _reach(knee: Knee) -> str:
    """The rate up to which a series answered, in words."""
    if knee.rate is None:
        return "none of the rates"
    return f"{words.amount(knee.rate)}{' or more' if knee.lossy is None else ''}"


EXPERIMENT = Knees()
