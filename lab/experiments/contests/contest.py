# SPDX-License-Identifier: Apache-2.0
"""Contests: several subjects measured at the same task, in interleaved rounds, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from carom.lab.experiment import Experiment, Group, Needs
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.contests import plots, tables
from carom.lab.experiments.contests.judging import Bar, Subject, larger_is_better
from carom.lab.record import Figures, Run
from carom.lab.show.sheets import Sheet
from carom.lab.shown import Shown
from carom.lab.stats.cases import Case
from carom.lab.testbed import Bed
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """How a contest is run."""

    repetitions: Annotated[int, Option("How often each subject is measured.", low=1)] = 7
    seconds: Annotated[float, Option("How long each measurement lasts.", 1e-3, 86_400)] = 2.0


class KeySettings(Settings, frozen=True, kw_only=True):
    """The same, where requests are for keys."""

    keys: Annotated[int, Option("How many different requests.", 1, 10_000)] = 1000


class ShownContest(Shown[Figures]):
    """Any run of subjects whose figures are compared."""

    measures = Figures
    tells = False
    bars: tuple[Bar, ...] = ()
    """What is asked of the figures."""

    def sentences(self, run: Run[Figures]) -> list[str]:
        """What came of each comparison."""
        return tables.sentences(run, self.bars)

    def tables(self, run: Run[Figures], width: int | None = None) -> list[Sheet]:
        """What was measured, and what came of each comparison."""
        return tables.sheets(run, self.bars)

    def notes(self, run: Run[Figures], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return [tables.about(run)]

    def plots(self, run: Run[Figures], folder: Path) -> list[Path]:
        """`figures.png`."""
        return plots.plot(run, folder)

    def rows(self, run: Run[Figures]) -> Iterator[dict[str, object]]:
        """A line a figure."""
        for measurement in run.measurements:
            at = {
                "experiment": run.experiment,
                "subject": measurement.subject,
                "repetition": measurement.index,
            }
            for name, value in measurement.figures.items():
                yield {**at, "figure": name, "value": value}

    def cases(self, run: Run[Figures]) -> Iterator[tuple[Case, float]]:
        """Every figure."""
        for measurement in sorted(run.measurements, key=lambda measurement: measurement.subject):
            for name, value in measurement.figures.items():
                yield Case(measurement.subject, name, larger_is_better(name)), value


class Contest(ShownContest, Experiment[Settings, Figures]):
    """Subjects, each of which sets itself up."""

    needs = Needs(apart=True)
    bare = True
    subjects: tuple[Subject, ...] = ()
    full: Settings = KeySettings()
    short: Settings = KeySettings(repetitions=3, seconds=1.0)

    def groups(self, settings: Settings, index: int) -> list[Group]:
        """A subject each."""
        return [Group(subject.name, (subject,)) for subject in self.subjects]

    def says(self, cell: Subject) -> str:
        """Its name."""
        return cell.name

    def measure(
        self, bed: Bed[Settings], server: object, cell: Subject, index: int
    ) -> Iterator[Figures]:
        """The figures of one subject."""
        yield Figures(subject=cell.name, index=index, figures=cell.measure(bed))
