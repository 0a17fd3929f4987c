# SPDX-License-Identifier: Apache-2.0
"""How runs are shown: what they say, tables, plots, files, and what they are compared by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

from rich.console import Console

from carom.lab.record import M, Run
from carom.lab.show.sheets import Sheet, drawn, text
from carom.lab.stats.cases import Case


class Shown(ABC, Generic[M]):
    """What there is to be said of a run, whichever carom made it."""

    measures: type[Any]
    """The record of a measurement."""
    tells: bool = True
    """Whether a terminal has the sentences below the tables, which do not say the same."""

    @abstractmethod
    def sentences(self, run: Run[M]) -> list[str]:
        """What the run says, in words; lines that are indented are details of the one above."""

    @abstractmethod
    def tables(self, run: Run[M], width: int | None = None) -> list[Sheet]:
        """The tables, those only that have rows; for a terminal of so many columns."""

    @abstractmethod
    def notes(self, run: Run[M], width: int | None = None) -> list[str]:
        """What has to be known to read them."""

    @abstractmethod
    def plots(self, run: Run[M], folder: Path) -> list[Path]:
        """Draw the run; returns the files written."""

    @abstractmethod
    def rows(self, run: Run[M]) -> Iterator[dict[str, object]]:
        """The lines of results.csv: a line a measurement, or a figure."""

    @abstractmethod
    def cases(self, run: Run[M]) -> Iterator[tuple[Case, float]]:
        """The figures by which two runs are compared, in order of display."""

    def files(self, run: Run[M]) -> Iterator[tuple[str, bytes]]:
        """Other files of the run, by their path in its folder."""
        return iter(())

    def published(self, run: Run[M]) -> list[Sheet]:
        """The published figures beside the run's; none where nothing was published."""
        return []

    def where(self, run: Run[M]) -> Sheet | None:
        """How and on what the published figures were measured, beside the run."""
        return None


def show(shown: Shown[M], run: Run[M], console: Console) -> None:
    """Print a run's tables, how to read them, and what they say."""
    for sheet in shown.tables(run, console.width):
        if sheet.title:
            console.print(text(sheet.title), style="bold")
        console.print(drawn(sheet, console.width), "")
    for note in shown.notes(run, console.width):
        console.print(text(note), style="dim")
    if shown.tells:
        console.print()
        for line in shown.sentences(run):
            console.print(text(line), style="bold")
