# SPDX-License-Identifier: Apache-2.0
"""`carom ping` and `carom lab`: measure a service, run experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from carom.errors import CaromError, ExperimentError, UsageError

lab_app = typer.Typer(
    help="Experiments on a pair of hosts.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def missing(error: ImportError) -> NoReturn:
    """Say which package the lab wants."""
    raise CaromError(
        f"the lab needs the Python package {error.name}",
        hint="install carom with its lab: pip install 'carom[lab]'",
    ) from error


def sizes(text: str) -> tuple[int, int]:
    """The shortest and the longest of `32` or `4-256`. Raises UsageError."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a size", hint="for example 32, or 1-256") from error


def _numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{name} {text!r} are not numbers", hint="for example 0,0.5,1") from error


def ping(
    address: Annotated[str, typer.Argument(help="IPv4 address of the service.")],
    port: Annotated[int, typer.Argument(min=1, max=65_535, help="Its UDP port.")],
    count: Annotated[
        int | None, typer.Option("--count", "-c", help="Requests; default 1000.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Go on so long instead.")] = None,
    size: Annotated[str, typer.Option(help="Bytes of a request, or LOW-HIGH.")] = "32",
    keys: Annotated[int, typer.Option(help="How many different requests.")] = 1,
    draw: Annotated[str, typer.Option(help="uniform | sequential | unique")] = "uniform",
    hot: Annotated[int, typer.Option(help="How many of the keys are hot.")] = 0,
    hot_share: Annotated[
        float | None, typer.Option(help="The exact share of requests that hot keys get, 0 to 1.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second.")] = None,
    interval: Annotated[str | None, typer.Option(help="Time between requests: 10ms.")] = None,
    timeout: Annotated[str, typer.Option(help="When a request is given up.")] = "1s",
    wait: Annotated[str, typer.Option(help="block | spin (burns a CPU)")] = "block",
    cpu: Annotated[int | None, typer.Option(help="Run on this CPU only.")] = None,
    seed: Annotated[int, typer.Option(help="Which random draws.")] = 1,
    app: Annotated[
        str | None, typer.Option("--app", help="Compare replies with those of MODULE:SERVICE.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a service's round-trip times: one request at a time, every reply accounted for."""
    try:
        from carom.lab.ping import Options
        from carom.lab.ping import ping as measure
        from carom.lab.requests import Plan
    except ImportError as error:
        missing(error)
    from carom import apps
    from carom.daemon.options import seconds as duration

    if rate is not None and interval is not None:
        raise UsageError("--rate and --interval say the same thing", hint="give one of them")
    if interval is not None:
        rate = 1 / max(duration(interval), 1e-9)
    if count is None and seconds is None:
        count = 1000
    try:
        plan = msgspec.convert(
            {
                "size": sizes(size),
                "keys": keys,
                "draw": draw,
                "hot": hot,
                "hot_share": hot_share,
                "seed": seed,
            },
            Plan,
        )
        options = msgspec.convert(
            {
                "count": count,
                "seconds": seconds,
                "rate": rate or 0.0,
                "timeout": duration(timeout),
                "wait": wait,
                "cpu": cpu,
            },
            Options,
        )
    except msgspec.ValidationError as error:
        raise UsageError(f"wrong option: {error}") from error
    result = measure(address, port, plan, options, apps.expectation(app) if app else None)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        _show_ping(result)
    if not result.round_trips.count or not result.complete:
        raise typer.Exit(1)


def _show_ping(result: Any) -> None:
    trips = result.round_trips
    print(
        f"{result.sent} sent, {trips.count} answered, {trips.lost} lost, "
        f"{trips.duplicated} duplicated, {trips.reordered} reordered, {trips.wrong} wrong, "
        f"{trips.rate:,.0f} replies/s"
    )
    if not trips.count:
        return
    rows = {"rtt": trips}
    if trips.corrected:
        rows["from when due"] = trips.corrected
    show_times(rows)


def show_times(rows: dict[str, Any]) -> None:
    """Print a table of round trips: a row for each record, microseconds."""
    figures = ("minimum", "p50", "p90", "p99", "p999", "maximum", "mean", "stddev")
    table = Table("µs", *figures, box=None, pad_edge=False)
    for name, one in rows.items():
        table.add_row(name, *(f"{getattr(one, figure) / 1e3:,.1f}" for figure in figures))
    for column in table.columns[1:]:
        column.justify = "right"
    Console().print(table)


def _descriptions() -> dict[str, str]:
    from carom.lab import filter_grid
    from carom.lab.contests import CONTESTS
    from carom.lab.grid import DESCRIPTIONS

    contests = {name: event.description for name, event in CONTESTS.items()}
    return {**DESCRIPTIONS, **contests, **filter_grid.DESCRIPTIONS}


@lab_app.command("list")
def lab_list(json: Json = False) -> None:
    """List the experiments."""
    try:
        descriptions = _descriptions()
    except ImportError as error:
        missing(error)
    if json:
        print(msgspec.json.encode(descriptions).decode())
        return
    for name, description in descriptions.items():
        print(f"{name:17} {description}")


@lab_app.command("run")
def lab_run(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See `carom lab list`.")],
    short: Annotated[bool, typer.Option("--short", help="Half a minute each.")] = False,
    hit_rates: Annotated[
        str | None, typer.Option(help="0,0.25,0.375,0.5,0.75,1 or others.")
    ] = None,
    waits: Annotated[str | None, typer.Option(help="Of blocking,one-cpu,spin.")] = None,
    seconds: Annotated[
        str | None, typer.Option(help="How long a repetition measures; bounce takes several.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(help="How often each cell.")] = None,
    keys: Annotated[int | None, typer.Option(help="How many different requests.")] = None,
    work: Annotated[str | None, typer.Option(help="What a miss costs: 2ms.")] = None,
    size: Annotated[int | None, typer.Option(help="Bytes of a request.")] = None,
    mode: Annotated[str | None, typer.Option(help="auto | native | generic")] = None,
    seed: Annotated[int | None, typer.Option(help="Which random draws and order.")] = None,
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
    on: Annotated[str, typer.Option(help="The pair: netns.")] = "netns",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("results"),
    json: Json = False,
) -> None:
    """Run experiments on a pair, and write results and plots."""
    try:
        from carom.lab import grid
        from carom.lab.contests import CONTESTS
        from carom.lab.filter_grid import NAMES_OF_BOTH
    except ImportError as error:
        missing(error)
    from carom.daemon.options import seconds as duration

    if on != "netns":
        raise UsageError(f"there is no pair {on!r}", hint="there is netns")
    given = {
        "hit_rates": _numbers(hit_rates, "hit rates") if hit_rates else None,
        "waits": tuple(waits.split(",")) if waits else None,
        "seconds": _numbers(seconds, "seconds") if seconds else None,
        "repetitions": repetitions,
        "keys": keys,
        "work": duration(work) if work is not None else None,
        "size": size,
        "mode": mode,
        "seed": seed,
        "packets": tuple(int(one) for one in _numbers(packets, "packets")) if packets else None,
        "percents": _numbers(percents, "percents") if percents else None,
        "filter": filter,
        "behaviour": behaviour,
        "equal_length": equal_length or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    base = grid.short(names) if short else {}
    plans = {}
    unknown = [name for name in names if name not in _descriptions()]
    if unknown:
        raise UsageError(
            f"there is no experiment {unknown[0]!r}",
            hint="there are " + ", ".join(_descriptions()),
        )
    filters = [name for name in names if name in NAMES_OF_BOTH]
    both = _filter_settings(filters, given, short=short, full=full) if filters else None
    theirs = [name for name in _OF_FILTERS if given.pop(name, None) is not None]
    if not filters and (theirs or full):
        option = [*theirs, "full"][0].replace("_", "-")
        raise UsageError(f"{names[0]} has no --{option}", hint="the filter experiments have it")
    names = [name for name in names if name not in filters[1:]]
    contests = {
        name: _contest_settings(name, given, short=short) for name in names if name in CONTESTS
    }
    for name in names:
        if name in CONTESTS or name in filters:
            continue
        values = msgspec.to_builtins(base.get(name, grid.Settings()))
        try:
            settings = msgspec.convert({**values, **given}, grid.Settings).checked()
        except msgspec.ValidationError as error:
            raise UsageError(f"wrong option: {error}") from error
        plans[name] = settings, grid.trials(name, settings)
    for name in names:
        if name in filters:
            whole = _run_filters(filters, both, output, json)
        elif name in contests:
            whole = _run_contest(name, contests[name], output, json)
        else:
            whole = _run_one(name, *plans[name], output, json)
        if not whole:
            raise typer.Exit(1)


_OF_FILTERS = ("packets", "percents", "filter", "behaviour", "equal_length")


def _filter_settings(names: list[str], given: dict[str, Any], *, short: bool, full: bool) -> Any:
    from carom.cli_lab_filters import settings_of

    return settings_of(names[0], given, short=short, full=full)


def _run_filters(names: list[str], settings: Any, output: Path, json: bool) -> bool:
    from carom.cli_lab_filters import name_of, run_filters
    from carom.lab.filter_grid import total

    name = name_of(names)
    bar = _progress(name, total(settings, knee="filter-loss" in names))
    return run_filters(name, settings, output, bar, json=json)


def _contest_settings(name: str, given: dict[str, Any], *, short: bool) -> Any:
    from carom.lab.contest import Settings

    values = {"repetitions": 3, "seconds": 1.0} if short else {}
    seconds = given.get("seconds", ())
    if len(seconds) > 1:
        raise UsageError(f"{name} measures for one time, not several", hint="--seconds 2")
    values.update(given, **({"seconds": seconds[0]} if seconds else {}))
    strange = sorted(values.keys() - set(Settings.__struct_fields__))
    if strange:
        raise UsageError(
            f"{name} has no --{strange[0].replace('_', '-')}",
            hint="it has --repetitions, --seconds, --keys and --seed",
        )
    try:
        return msgspec.convert(values, Settings).checked()
    except msgspec.ValidationError as error:
        raise UsageError(f"wrong option: {error}") from error


def _progress(name: str, total: int) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=total, completed=-1)  # the first step only begins
    return bar


def _run_contest(name: str, settings: Any, output: Path, json: bool) -> bool:
    """Run, write and show one contest; False when it was interrupted."""
    from carom.lab import contest_tables, results
    from carom.lab.contest import run
    from carom.lab.contests import CONTESTS

    event = CONTESTS[name]
    with _progress(name, len(event.subjects) * settings.repetitions) as bar:

        def progress(subject: str, index: int) -> None:
            said = f"{name} {index + 1}/{settings.repetitions} {subject}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, event, settings, progress)
    if not found.measurements:
        raise ExperimentError("interrupted before anything was measured")
    folder = results.write_contest(found, output)
    if not json:
        contest_tables.show(found, event.bars, Console())
    tell_files("results", folder, (), complete=found.complete, json=json)
    return found.complete


def tell_files(
    what: str, folder: Path, pictures: Sequence[Path], *, complete: bool, json: bool
) -> None:
    """Say, behind the tables, where a run's files are, and whether it was done whole."""
    if json:
        print(msgspec.json.encode({"folder": str(folder), "complete": complete}).decode())
        return
    print(f"{what}: {folder}")
    for picture in pictures:
        print(f"  {picture.name}")
    if not complete:
        print("interrupted: this is what was done", file=sys.stderr)


def _run_one(name: str, settings: Any, trials: list[Any], output: Path, json: bool) -> bool:
    """Run, write and show one experiment; False when it was interrupted."""
    from carom.lab import plots, results, tables
    from carom.lab.run import run
    from carom.vm.netns import NamespacePair

    with _progress(name, len(trials) * settings.repetitions) as bar:

        def progress(trial: Any, index: int) -> None:
            cell = trial.cell
            rate = "" if cell.hit_rate is None else f" {cell.hit_rate:.1%}"
            said = f"{name} {index + 1}/{settings.repetitions} {cell.series} {cell.wait}{rate}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, trials, settings, NamespacePair, progress)
    if not found.repetitions:
        raise ExperimentError("interrupted before anything was measured")
    folder = results.write(found, output)
    pictures = plots.plot(found, folder)
    if not json:
        tables.show(found, Console())
    what = "results, histograms and plots"
    tell_files(what, folder, pictures, complete=found.complete, json=json)
    return found.complete


@lab_app.command("bench")
def lab_bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 20,
    entries: Annotated[
        str | None, typer.Option(help="Measure hits among so many entries: 1000,1000000.")
    ] = None,
    json: Json = False,
) -> None:
    """Nanoseconds a packet by BPF_PROG_TEST_RUN, beside a bare MAC swap."""
    from carom.lab.bench import bench

    counts = [int(count) for count in _numbers(entries, "entries")] if entries else []

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bench", total=rounds)
        figures = bench(
            rounds, progress=lambda done: bar.update(task, completed=done), entries=counts
        )
    if json:
        print(msgspec.json.encode([figure._asdict() for figure in figures]).decode())
        return
    heads = ("way", "ns a packet", "lowest", "highest", "ratio", "above MAC swap")
    table = Table("case", *heads, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in figures:
        values = (one.nanoseconds, one.low, one.high)
        table.add_row(
            one.name,
            one.way,
            *(f"{value:,.0f}" for value in values),
            f"{one.ratio:.2f}",
            f"{one.above:,.0f}",
        )
    Console().print(table)
    print("repeated: one packet many times; single: a fresh one a call, caches colder.")


@lab_app.command("admission")
def lab_admission(
    keys: Annotated[int, typer.Option(help="How many hot keys.")] = 100_000,
    capacity: Annotated[int, typer.Option(help="Entries in the cache.")] = 10_000,
    exponent: Annotated[float, typer.Option(help="Of Zipf's law for the hot keys.")] = 0.99,
    requests: Annotated[int, typer.Option(help="Hot ones; the first third warms up.")] = 300_000,
    scan: Annotated[str, typer.Option(help="Shares of all requests that are a scan's.")] = "0,0.5",
    seed: Annotated[int, typer.Option(help="Which random draws.")] = 1,
    json: Json = False,
) -> None:
    """Hit rate of hot keys under a scan, with each `--admit`, by BPF_PROG_TEST_RUN."""
    try:
        from carom.lab.admission import Scan, measure
    except ImportError as error:
        missing(error)

    plan = Scan(
        keys=keys,
        capacity=capacity,
        exponent=exponent,
        hot=requests,
        scans=_numbers(scan, "scan"),
        seed=seed,
    )
    with Console(stderr=True).status("") as status:
        rows = list(measure(plan, status.update))
    if json:
        print(msgspec.json.encode(rows).decode())
        return
    heads = ("hot requests", "hits", "hit rate", "fills", "not admitted")
    table = Table("scan", "admit", *heads, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.scan,
            row.admit,
            f"{row.requests:,}",
            f"{row.hits:,}",
            f"{row.hit_rate:.1%}",
            f"{row.fills:,}",
            f"{row.not_admitted:,}",
        )
    Console().print(table)


@lab_app.command("clean")
def lab_clean() -> None:
    """Remove what a killed run left: namespaces, the processes in them, dead control sockets."""
    from carom.daemon import control
    from carom.vm.namespace import clean

    control.running()  # forgets the sockets that nobody answers on
    for name in clean():
        print(f"removed {name}")
