# SPDX-License-Identifier: Apache-2.0
"""`carom lab run`: run experiments under a progress bar; write, plot and show what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from carom.cli_options import Json, missing
from carom.cli_settings import GIVEN
from carom.errors import ExperimentError
from carom.kernel import signals
from carom.settings import Field

_WIDTH = 120
"""Columns of a table that is written to a file, at least."""


def lab_fields(arguments: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The settings of the experiments that are named, or of all, and whose each is."""
    try:
        from carom.lab import registry
    except ImportError as error:
        missing(error)
    every = registry.experiments()
    chosen = [every[one] for one in arguments if one in every] or list(every.values())
    options = registry.options(chosen)
    return {name: (field, registry.owners(name, chosen)) for name, field in options.items()}


def lab_run(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See `carom lab list`.")],
    short: Annotated[bool, typer.Option("--short", help="Half a minute each, or so.")] = False,
    on: Annotated[
        str,
        typer.Option(
            metavar="netns|vagrant|FILE.toml",
            help="The pair: two network namespaces, or the two machines of a file, by ssh.",
        ),
    ] = "netns",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    json: Json = False,
) -> None:
    """Run experiments on a pair, and write results and plots.

    `carom lab run NAME --help` shows the options of one, with what stands for it.
    """
    try:
        from carom.lab import experiment, registry, results
    except ImportError as error:
        missing(error)
    from carom.vm import pairs

    make_pair = pairs.make(on)
    chosen = registry.together(names)
    plans = registry.settings(chosen, context.meta[GIVEN], short=short)
    steps = {one.name: one.steps(plans[one.name]) for one in chosen}
    results.check(output)  # now, and not after hours
    experiment.check(chosen, make_pair)
    with signals.interruptible() as again:
        for one in chosen:
            bar = _progress_bar(one.name, steps[one.name])
            if not _run(one, plans[one.name], bar, again, output, make_pair, json=json):
                raise typer.Exit(1)


def _run(
    one: Any,
    settings: Any,
    bar: Progress,
    again: Callable[[], None],
    output: Path,
    make_pair: Any,
    *,
    json: bool,
) -> bool:
    """Run, write, plot and show one; False when it was interrupted."""
    from carom.lab import experiment, results, shown

    with bar:

        def progress(what: str, index: int) -> None:
            again()
            said = f"{one.name} {index + 1}/{settings.repetitions} {what}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = experiment.run(one, settings, progress, make_pair)
    if not found.measurements:
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write(found, output)
    if not json:
        shown.show(one, found, wide_console())
    pictures = one.plots(found, folder)
    _tell_files(folder, pictures, found, json=json)
    return bool(found.complete)


def _progress_bar(name: str, total: int) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=total, completed=-1)  # the first step only begins
    return bar


def wide_console() -> Console:
    """Where wide tables go: a file has room for them."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def _tell_files(folder: Path, pictures: Sequence[Path], found: Any, *, json: bool) -> None:
    """Say, behind the tables, where a run's files are, and whether it was done whole."""
    if json:
        said = {"folder": str(folder), "complete": found.complete}
        print(msgspec.json.encode(said).decode())
    else:
        print(f"results and plots: {folder}")
        for picture in pictures:
            print(f"  {picture.name}")
    if found.stopped:
        print(f"carom: {found.stopped}; above is what was done", file=sys.stderr)
    elif not found.complete and not json:
        print("interrupted: this is what was done", file=sys.stderr)
