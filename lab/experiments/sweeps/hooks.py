# SPDX-License-Identifier: Apache-2.0
"""Hooks: a bounce, a hit and a miss, in userspace and at every hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from carom.lab.cells import TASKS
from carom.lab.experiment import Waits
from carom.lab.experiments.sweeps import plots
from carom.lab.experiments.sweeps.series import BASE
from carom.lab.experiments.sweeps.stats import Measured, Row, p50
from carom.lab.experiments.sweeps.sweep import Settings as Common
from carom.lab.experiments.sweeps.sweep import Sweep, trial
from carom.lab.experiments.sweeps.verdict import TITLES
from carom.lab.record import Cell, Repetition, Run, Task, Wait
from carom.lab.show import words
from carom.lab.show.verdicts import judgement
from carom.lab.trial import Trial


class Settings(Common, frozen=True, kw_only=True):
    """The settings of hooks."""

    waits: Waits = ("blocking", "spin")


class Hooks(Sweep[Settings]):
    """Only the task is varied."""

    name = "hooks"
    description = "RTT of a bounce, a hit and a miss: userspace, TC, generic and native XDP"
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5)

    def cells(self, settings: Settings, series: str, wait: Wait) -> Iterator[Trial]:
        """A trial for each task."""
        for task in TASKS:
            yield trial(settings, Cell(series=series, wait=wait, task=task))

    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """How long the task takes, series by series."""

        def takes(series: str) -> str:
            value = measured.mean(p50, series, rows[0]).value
            return f"{self.series.words(series)} {words.micro(value)} µs"

        gains = {series: self.gain(measured, series, rows[0]) for series in measured.others()}
        judgements = "; ".join(
            f"{takes(series)}, {judgement(gain)}" for series, gain in gains.items() if gain
        )
        if judgements:
            yield f"{TITLES[task]} (p50, {wait}): {takes(BASE)}; {judgements}."

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """`hooks.png`: a line for each task and wait, a dot on it for each series."""
        measured = self.measured(run)
        return [plots.dots(measured, folder / "hooks.png")] if measured.rows else []


EXPERIMENT = Hooks()
