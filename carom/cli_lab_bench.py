# SPDX-License-Identifier: Apache-2.0
"""`carom lab bench` and `carom lab admission`: what is measured on one host alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec
import typer

from carom.cli_options import Json, Programs, missing, new_table, numbers, show_table


def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 50,
    entries: Annotated[
        str | None, typer.Option(help="Measure hits among so many entries: 1000,1000000.")
    ] = None,
    routes: Annotated[
        bool, typer.Option("--routes", help="Measure what it costs a sender to be led instead.")
    ] = False,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Nanoseconds a packet by BPF_PROG_TEST_RUN, beside a bare MAC swap."""
    if routes:
        _routes(rounds, json=json)
        return
    from carom.lab.tools.bench import bench as measure

    counts = [int(count) for count in numbers(entries, "entries")] if entries else []
    with _shown(rounds) as progress:
        figures = measure(rounds, progress=progress, entries=counts)
    if json:
        print(msgspec.json.encode([figure._asdict() for figure in figures]).decode())
        return
    heads = ("ns", "above MAC swap", "least")
    table = new_table("case", *heads)
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    table.columns[0].justify = "left"
    for figure in figures:
        table.add_row(figure.name, *(f"{value:,.0f}" for value in figure[1:]))
    show_table(table)


@contextlib.contextmanager
def _shown(rounds: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, which is told how many rounds are done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bench", total=rounds)
        yield lambda done: bar.update(task, completed=done)


def _routes(rounds: int, *, json: bool) -> None:
    """CPU time of a datagram that a led program sends, beside a plain one."""
    from carom.lab.tools.route_bench import bench as measure

    with _shown(rounds) as progress:
        costs, lacks = measure(rounds, progress=progress)
    if json:
        print(msgspec.json.encode([cost._asdict() for cost in costs]).decode())
        return
    table = new_table("way", "ns a datagram", "above plain", "its program, ns a run")
    for cost in costs:
        above = f"{cost.above:,.0f} ({cost.low:,.0f} to {cost.high:,.0f})"
        program = "-" if cost.program is None else f"{cost.program:,.0f}"
        table.add_row(cost.way, f"{cost.nanoseconds:,.0f}", above, program)
    show_table(table)
    for one in lacks:
        print(f"not measured: {one}")


def admission(
    keys: Annotated[int, typer.Option(help="How many hot keys.")] = 100_000,
    capacity: Annotated[int, typer.Option(help="Entries in the cache.")] = 10_000,
    exponent: Annotated[float, typer.Option(help="Of Zipf's law for the hot keys.")] = 0.99,
    requests: Annotated[int, typer.Option(help="Hot ones; the first third warms up.")] = 300_000,
    scan: Annotated[str, typer.Option(help="Shares of all requests that are a scan's.")] = "0,0.5",
    seed: Annotated[int, typer.Option(help="Which random draws.")] = 1,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Hit rate of hot keys under a scan, with each `--admit`, by BPF_PROG_TEST_RUN."""
    from rich.console import Console

    try:
        from carom.lab.tools.admission import Scan, measure
    except ImportError as error:
        missing(error)

    plan = Scan(
        keys=keys,
        capacity=capacity,
        exponent=exponent,
        hot=requests,
        scans=numbers(scan, "scan"),
        seed=seed,
    )
    with Console(stderr=True).status("") as status:
        rows = list(measure(plan, status.update))
    if json:
        print(msgspec.json.encode(rows).decode())
        return
    heads = ("hot requests", "hits", "hit rate", "fills", "not admitted")
    table = new_table("scan", "admit", *heads)
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
    show_table(table)
