# SPDX-License-Identifier: Apache-2.0
"""Run an experiment under a progress bar; write, plot and show what it found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from carom.errors import ExperimentError

_WIDTH = 120
"""Columns of a table that is written to a file, at least."""


def progress_bar(name: str, total: int) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=total, completed=-1)  # the first step only begins
    return bar


def run_contest(name: str, settings: Any, output: Path, json: bool, make_pair: Any) -> bool:
    """Run, write and show one contest; False when it was interrupted."""
    from carom.lab import contest_tables, results
    from carom.lab.contest import run
    from carom.lab.contests import CONTESTS

    event = CONTESTS[name]
    with progress_bar(name, len(event.subjects) * settings.repetitions) as bar:

        def progress(subject: str, index: int) -> None:
            said = f"{name} {index + 1}/{settings.repetitions} {subject}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, event, settings, progress, make_pair)
    if not found.measurements:
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write_contest(found, output)
    if not json:
        contest_tables.show(found, event.bars, Console())
    tell_files("results", folder, (), found, json=json)
    return found.complete


def run_grid(
    name: str, settings: Any, trials: list[Any], output: Path, json: bool, make_pair: Any
) -> bool:
    """Run, write and show one experiment; False when it was interrupted."""
    from carom.lab import plots, results, tables
    from carom.lab.run import run

    with progress_bar(name, len(trials) * settings.repetitions) as bar:

        def progress(trial: Any, index: int) -> None:
            cell = trial.cell
            rate = "" if cell.hit_rate is None else f" {cell.hit_rate:.1%}"
            said = f"{name} {index + 1}/{settings.repetitions} {cell.series} {cell.wait}{rate}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, trials, settings, make_pair, progress)
    if not found.repetitions:
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write(found, output)
    pictures = plots.plot(found, folder)
    if not json:
        tables.show(found, Console())
    what = "results, histograms and plots"
    tell_files(what, folder, pictures, found, json=json)
    waits = {trial.cell.wait for trial in trials} - {one.cell.wait for one in found.repetitions}
    if found.complete and waits:
        print(f"not to be had on this pair: {', '.join(sorted(waits))}", file=sys.stderr)
    return found.complete


def wide_console() -> Console:
    """Where wide tables go: a file has room for them."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def tell_files(
    what: str, folder: Path, pictures: Sequence[Path], found: Any, *, json: bool
) -> None:
    """Say, behind the tables, where a run's files are, and whether it was done whole."""
    if json:
        said = {"folder": str(folder), "complete": found.complete}
        print(msgspec.json.encode(said).decode())
    else:
        print(f"{what}: {folder}")
        for picture in pictures:
            print(f"  {picture.name}")
    if found.stopped:
        print(f"carom: {found.stopped}; above is what was done", file=sys.stderr)
    elif not found.complete and not json:
        print("interrupted: this is what was done", file=sys.stderr)
