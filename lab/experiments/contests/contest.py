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
    """The settings of a contest."""

    repetitions: Annotated[int, Option("How often each subject is measured.", low=1)] = 7
    seconds: Annotated[float, Option("How long each measurement lasts.", 1e-3, 86_400)] = 2.0


class KeySettings(Settings, frozen=True, kw_only=True):
    """The settings of a contest whose requests are for keys."""

    keys: Annotated[int, Option("How many different requests.", 1, 10_000)] = 1000


class ShownContest(Shown[Figures]):
    """How any run with subjects and figures is shown."""

    measures = Figures
    tells = False
    bars: tuple[Bar, ...] = ()
    """The comparisons that are made of the figures."""

    def sentences(self, run: Run[Figures]) -> list[str]:
        """The result of each comparison."""
        return tables.sentences(run, self.bars)

    def tables(self, run: Run[Figures], width: int | None = None) -> list[Sheet]:
        """The figures, and the result of each comparison."""
        return tables.sheets(run, self.bars)

    def notes(self, run: Run[Figures], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return [tables.about(run)]

    def plots(self, run: Run[Figures], folder: Path) -> list[Path]:
        """Draw `figures.png`."""
        return plots.plot(run, folder)

    def rows(self, run: Run[Figures]) -> Iterator[dict[str, object]]:
        """A line for each figure."""
        for measurement in run.measurements:
            at = {
                "experiment": run.experiment,
                "subject": measurement.subject,
                "repetition": measurement.index,
            }
            for name, value in measurement.figures.items():
                yield {**at, "figure": name, "value": value}

    def cases(self, run: Run[Figures]) -> Iterator[tuple[Case, float]]:
        """Every figure of every subject."""
        for measurement in sorted(run.measurements, key=lambda measurement: measurement.subject):
            for name, value in measurement.figures.items():
                yield Case(measurement.subject, name, larger_is_better(name)), value


class Contest(ShownContest, Experiment[Settings, Figures]):
    """A contest: each subject sets itself up."""

    needs = Needs(apart=True)
    bare = True
    subjects: tuple[Subject, ...] = ()
    full: Settings = KeySettings()
    short: Settings = KeySettings(repetitions=3, seconds=1.0)

    def groups(self, settings: Settings, index: int) -> list[Group]:
        """A group for each subject."""
        return [Group(subject.name, (subject,)) for subject in self.subjects]

    def says(self, cell: Subject) -> str:
        """The subject's name."""
        return cell.name

    def measure(
        self, bed: Bed[Settings], server: object, cell: Subject, index: int
    ) -> Iterator[Figures]:
        """The figures of one subject."""
        yield Figures(subject=cell.name, index=index, figures=cell.measure(bed))
