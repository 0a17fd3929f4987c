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

from carom.cli_options import Json, missing, numbers
from carom.errors import ExperimentError, UsageError
from carom.kernel import signals

_WIDTH = 120
"""Columns of a table that is written to a file, at least."""


def lab_run(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See `carom lab list`.")],
    short: Annotated[bool, typer.Option("--short", help="Half a minute each, or so.")] = False,
    seconds: Annotated[
        str | None, typer.Option(help="How long a repetition measures; bounce takes several.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(help="How often each cell.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which random draws and order.")] = None,
    waits: Annotated[str | None, typer.Option(help="Of blocking,one-cpu,spin.")] = None,
    keys: Annotated[int | None, typer.Option(help="How many different requests.")] = None,
    mode: Annotated[str | None, typer.Option(help="auto | native | generic")] = None,
    size: Annotated[int | None, typer.Option(help="Bounce, cache: bytes of a request.")] = None,
    hit_rates: Annotated[
        str | None, typer.Option(help="Cache: 0,0.25,0.375,0.5,0.75,1 or others.")
    ] = None,
    work: Annotated[str | None, typer.Option(help="Cache: what a miss costs, 2ms.")] = None,
    loops: Annotated[
        str | None, typer.Option(help="Concurrency: of each port, 1400,1000,10,500.")
    ] = None,
    sleeps: Annotated[
        str | None, typer.Option(help="Demux: of each port in seconds, 0.02,0.01,0.002,0.0045.")
    ] = None,
    queue: Annotated[int | None, typer.Option(help="Demux: entries of a queue, 10200.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Sweeps: of userspace,tc,xdp_generic,xdp_native.")
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes: bytes, 1 to 1232.")] = None,
    clients: Annotated[str | None, typer.Option(help="Clients: how many at once.")] = None,
    rates: Annotated[
        str | None, typer.Option(help="Knee, filter-loss: requests or packets a second, rising.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Minutes: how many of --seconds each.")
    ] = None,
    packets: Annotated[
        str | None, typer.Option(help="Filters: how many, 100,1000 to 1000000 or others.")
    ] = None,
    percents: Annotated[
        str | None, typer.Option(help="Filters: how many are invalid, 0,1,25,50,75,99,100.")
    ] = None,
    filter: Annotated[str | None, typer.Option(help="Filters: which one.")] = None,
    behaviour: Annotated[str | None, typer.Option(help="Filters: frigg | frey")] = None,
    equal_length: Annotated[
        bool, typer.Option("--equal-length", help="Filters: invalid packets as long as PUTs.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Filters: up to 10,000,000 packets, as published.")
    ] = False,
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
    """Run experiments on a pair, and write results and plots."""
    try:
        from carom.lab import kinds, needs, results
        from carom.lab.experiments.filters import grid as filter_grid
    except ImportError as error:
        missing(error)
    from carom.daemon.options import seconds as duration
    from carom.vm import pairs

    make_pair = pairs.make(on)
    given = {
        "hit_rates": numbers(hit_rates, "hit rates") if hit_rates else None,
        "waits": _words(waits),
        "seconds": numbers(seconds, "seconds") if seconds else None,
        "repetitions": repetitions,
        "keys": keys,
        "work": duration(work) if work is not None else None,
        "size": size,
        "mode": mode,
        "seed": seed,
        "loops": _whole(loops, "loops"),
        "sleeps": numbers(sleeps, "sleeps") if sleeps else None,
        "queue": queue,
        "series": _words(series),
        "sizes": _whole(sizes, "sizes"),
        "clients": _whole(clients, "clients"),
        "rates": numbers(rates, "rates") if rates else None,
        "windows": windows,
        "packets": _whole(packets, "packets"),
        "percents": numbers(percents, "percents") if percents else None,
        "filter": filter,
        "behaviour": behaviour,
        "equal_length": equal_length or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if full:
        if not any("packets" in kinds.named(name).options(name) for name in names):
            raise UsageError(f"{names[0]} has no --full", hint="the filter experiments have it")
        given["packets"] = filter_grid.FULL
    plans = kinds.settings(filter_grid.together(names), given, short=short)
    steps = {name: kinds.named(name).steps(name, settings) for name, settings in plans.items()}
    results.check(output)  # now, and not after hours
    needs.check(kinds.needs(plans), make_pair)
    with signals.interruptible() as again:
        for name, settings in plans.items():
            bar = _progress_bar(name, steps[name])
            if not _run(name, settings, bar, again, output, make_pair, json=json):
                raise typer.Exit(1)


def _words(text: str | None) -> tuple[str, ...] | None:
    return tuple(text.split(",")) if text else None


def _whole(text: str | None, name: str) -> tuple[int, ...] | None:
    """Whole numbers, which `1e3` is one of. Raises UsageError."""
    found = numbers(text, name) if text else ()
    if not all(one.is_integer() for one in found):
        raise UsageError(f"{name} {text!r} are not whole numbers", hint="for example 1,10,100")
    return tuple(int(one) for one in found) or None


def _run(
    name: str,
    settings: Any,
    bar: Progress,
    again: Callable[[], None],
    output: Path,
    make_pair: Any,
    *,
    json: bool,
) -> bool:
    """Run, write, plot and show one; False when it was interrupted."""
    from carom.lab import kinds, results

    kind = kinds.named(name)
    with bar:

        def progress(what: str, index: int) -> None:
            again()
            said = f"{name} {index + 1}/{settings.repetitions} {what}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = kind.run(name, settings, progress, make_pair)
    if not any(getattr(found, one, ()) for one in ("repetitions", "measurements", "runs")):
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write(found, output)
    if not json:
        kind.show(found, wide_console())
    pictures = kind.plot(found, folder)
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
