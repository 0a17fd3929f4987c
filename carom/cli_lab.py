# SPDX-License-Identifier: Apache-2.0
"""`carom lab`: experiments on a pair of hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_lab_bench import admission, bench
from carom.cli_lab_report import compare, report
from carom.cli_lab_run import progress_bar, run_contest, run_grid
from carom.cli_options import Json, missing, numbers
from carom.errors import UsageError

lab_app = typer.Typer(
    help="Experiments on a pair of hosts.", no_args_is_help=True, rich_markup_mode=None
)


def _descriptions() -> dict[str, str]:
    from carom.lab import filter_grid, port_grid
    from carom.lab.contests import CONTESTS
    from carom.lab.grid import DESCRIPTIONS

    contests = {name: event.description for name, event in CONTESTS.items()}
    return {**DESCRIPTIONS, **contests, **filter_grid.DESCRIPTIONS, **port_grid.DESCRIPTIONS}


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
    loops: Annotated[
        str | None, typer.Option(help="Concurrency: of each port, 1400,1000,10,500.")
    ] = None,
    sleeps: Annotated[
        str | None, typer.Option(help="Demux: of each port in seconds, 0.02,0.01,0.002,0.0045.")
    ] = None,
    queue: Annotated[int | None, typer.Option(help="Demux: entries of a queue, 10200.")] = None,
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
        from carom.lab import grid
        from carom.lab.contests import CONTESTS
        from carom.lab.filter_grid import NAMES_OF_BOTH
        from carom.lab.ports import NAMES as PORT_NAMES
    except ImportError as error:
        missing(error)
    from carom.daemon.options import seconds as duration
    from carom.vm import pairs

    make_pair = pairs.make(on)
    given = {
        "hit_rates": numbers(hit_rates, "hit rates") if hit_rates else None,
        "waits": tuple(waits.split(",")) if waits else None,
        "seconds": numbers(seconds, "seconds") if seconds else None,
        "repetitions": repetitions,
        "keys": keys,
        "work": duration(work) if work is not None else None,
        "size": size,
        "mode": mode,
        "seed": seed,
        "packets": tuple(int(one) for one in numbers(packets, "packets")) if packets else None,
        "percents": numbers(percents, "percents") if percents else None,
        "filter": filter,
        "behaviour": behaviour,
        "equal_length": equal_length or None,
        "loops": tuple(int(one) for one in numbers(loops, "loops")) if loops else None,
        "sleeps": numbers(sleeps, "sleeps") if sleeps else None,
        "queue": queue,
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
    for option, owner in _OF_PORTS.items():
        if option in given and owner not in names:
            raise UsageError(f"{names[0]} has no --{option}", hint=f"{owner} has it")
    ports = {name: _port_settings(name, given, short=short) for name in names if name in PORT_NAMES}
    given = {name: value for name, value in given.items() if name not in _OF_PORTS}
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
        if name in CONTESTS or name in filters or name in ports:
            continue
        values = msgspec.to_builtins(base.get(name, grid.Settings()))
        try:
            settings = msgspec.convert({**values, **given}, grid.Settings).checked()
        except msgspec.ValidationError as error:
            raise UsageError(f"wrong option: {error}") from error
        plans[name] = settings, grid.trials(name, settings)
    for name in names:
        if name in filters:
            whole = _run_filters(filters, both, output, json, make_pair)
        elif name in contests:
            whole = run_contest(name, contests[name], output, json, make_pair)
        elif name in ports:
            whole = _run_ports(name, ports[name], output, json, make_pair)
        else:
            whole = run_grid(name, *plans[name], output, json, make_pair)
        if not whole:
            raise typer.Exit(1)


_OF_FILTERS = ("packets", "percents", "filter", "behaviour", "equal_length")
_OF_PORTS = {"loops": "concurrency", "sleeps": "demux", "queue": "demux"}


def _port_settings(name: Any, given: dict[str, Any], *, short: bool) -> Any:
    from carom.cli_lab_ports import settings_of

    return settings_of(name, given, short=short)


def _run_ports(name: Any, settings: Any, output: Path, json: bool, make_pair: Any) -> bool:
    from carom.cli_lab_ports import run_ports
    from carom.lab.port_grid import steps

    bar = progress_bar(name, steps(name, settings))
    return run_ports(name, settings, output, bar, make_pair, json=json)


def _filter_settings(names: list[str], given: dict[str, Any], *, short: bool, full: bool) -> Any:
    from carom.cli_lab_filters import settings_of

    return settings_of(names[0], given, short=short, full=full)


def _run_filters(names: list[str], settings: Any, output: Path, json: bool, make_pair: Any) -> bool:
    from carom.cli_lab_filters import name_of, run_filters
    from carom.lab.filter_grid import total

    name = name_of(names)
    bar = progress_bar(name, total(settings, knee="filter-loss" in names))
    return run_filters(name, settings, output, bar, make_pair, json=json)


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


@lab_app.command("clean")
def lab_clean() -> None:
    """Remove what a killed run left: namespaces, the processes in them, dead control sockets."""
    from carom.daemon import control
    from carom.vm.namespace import clean

    control.running()  # forgets the sockets that nobody answers on
    for name in clean():
        print(f"removed {name}")


lab_app.command()(bench)
lab_app.command()(admission)
lab_app.command()(report)
lab_app.command()(compare)
