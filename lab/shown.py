# SPDX-License-Identifier: Apache-2.0
"""How runs are shown: sentences, tables, plots, files, and the figures that are compared."""

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
    """How a kind of run is shown, also a run that another version of carom made."""

    measures: type[Any]
    """The record of a measurement."""
    tells: bool = True
    """Whether a terminal shows the sentences too; False where the tables say the same."""

    @abstractmethod
    def sentences(self, run: Run[M]) -> list[str]:
        """What the run says, in words; indented lines are details of the line above."""

    @abstractmethod
    def tables(self, run: Run[M], width: int | None = None) -> list[Sheet]:
        """The tables that have rows; `width` is the terminal's, in columns."""

    @abstractmethod
    def notes(self, run: Run[M], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""

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
        """Other files of the run: path in its folder, and content."""
        return iter(())

    def published(self, run: Run[M]) -> list[Sheet]:
        """The published figures beside the run's; empty where nothing was published."""
        return []

    def where(self, run: Run[M]) -> Sheet | None:
        """How and on what the published figures were measured, beside this run."""
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
