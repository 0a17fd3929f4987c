# SPDX-License-Identifier: Apache-2.0
"""`carom ping`: measure a service."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from carom.cli_options import Json, missing, sizes
from carom.converted import converted
from carom.errors import UsageError


def ping(
    address: Annotated[str, typer.Argument(help="Address of the service.")],
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
        from carom.lab.clients.ping import Broken, Options
        from carom.lab.clients.ping import ping as measure
        from carom.lab.clients.requests import Plan
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
    plan = converted(
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
    options = converted(
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
    expect = apps.expectation(app) if app else None
    try:
        result = measure(address, port, plan, options, expect)
    except Broken as broken:
        _show(broken.result, json)
        raise
    _show(result, json)
    if not result.round_trips.count or not result.complete:
        raise typer.Exit(1)


def _show(result: Any, json: bool) -> None:
    if json:
        print(msgspec.json.encode(result).decode())
        return
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
