# SPDX-License-Identifier: Apache-2.0
"""`carom lab run`: run experiments under a progress bar; write, plot and show what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from carom.cli_options import Json, Programs, missing
from carom.cli_settings import GIVEN
from carom.errors import ExperimentError
from carom.kernel import signals
from carom.settings import Field

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_WIDTH = 120
"""How wide a table that is written to a file may be at least, in columns."""


def lab_fields(arguments: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The settings of the named experiments, or of all, each with the experiments' names."""
    try:
        from carom.lab import registry
    except ImportError as error:
        missing(error)
    known = registry.experiments()
    chosen = [known[name] for name in arguments if name in known] or list(known.values())
    options = registry.options(chosen)
    return {name: (field, registry.owners(name, chosen)) for name, field in options.items()}


def lab_run(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See `carom lab list`.")],
    short: Annotated[
        bool, typer.Option("--short", help="Half a minute to four minutes each.")
    ] = False,
    on: Annotated[
        str,
        typer.Option(
            metavar="netns|vagrant|FILE.toml",
            help="The pair: two network namespaces, or the two machines of a file, by ssh.",
        ),
    ] = "netns",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Run experiments on a pair, and write results and plots.

    `carom lab run NAME --help` shows the options of one, with what stands for it.
    """
    try:
        from carom.lab import experiment as runner
        from carom.lab import registry, results
    except ImportError as error:
        missing(error)
    from carom.vm import pairs

    make_pair = pairs.make(on)
    chosen = registry.together(names)
    plans = registry.settings(chosen, context.meta[GIVEN], short=short)
    steps = {experiment.name: experiment.steps(plans[experiment.name]) for experiment in chosen}
    results.check(output)  # now, and not after hours
    runner.check(chosen, make_pair)
    with signals.interruptible() as again:
        for experiment in chosen:
            bar = _progress_bar(experiment.name, steps[experiment.name])
            if not _run(
                experiment, plans[experiment.name], bar, again, output, make_pair, json=json
            ):
                raise typer.Exit(1)


def _run(
    experiment: Any,
    settings: Any,
    bar: Progress,
    again: Callable[[], None],
    output: Path,
    make_pair: Any,
    *,
    json: bool,
) -> bool:
    """Run an experiment, write, plot and show its results; False if it was interrupted."""
    from carom.lab import experiment as runner
    from carom.lab import results, shown

    with bar:

        def progress(step: str, index: int) -> None:
            again()
            description = f"{experiment.name} {index + 1}/{settings.repetitions} {step}"
            bar.update(bar.task_ids[0], advance=1, description=description)

        result = runner.run(experiment, settings, progress, make_pair)
    if not result.measurements:
        raise ExperimentError(result.stopped or "interrupted before anything was measured")
    folder = results.write(result, output)
    if not json:
        shown.show(experiment, result, wide_console())
    pictures = experiment.plots(result, folder)
    _tell_files(folder, pictures, result, json=json)
    return bool(result.complete)


def _progress_bar(name: str, total: int) -> Progress:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=total, completed=-1)  # the first step only begins
    return bar


def wide_console() -> Console:
    """A console with room for wide tables if the output goes to a file."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console


def _tell_files(folder: Path, pictures: Sequence[Path], result: Any, *, json: bool) -> None:
    """Say, after the tables, where a run's files are, and whether the run is complete."""
    if json:
        summary = {"folder": str(folder), "complete": result.complete}
        print(msgspec.json.encode(summary).decode())
    else:
        print(f"results and plots: {folder}")
        for picture in pictures:
            print(f"  {picture.name}")
    if result.stopped:
        print(f"carom: {result.stopped}; above is what was done", file=sys.stderr)
    elif not result.complete and not json:
        print("interrupted: this is what was done", file=sys.stderr)
