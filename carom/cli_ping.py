# SPDX-License-Identifier: Apache-2.0
"""`carom ping`: measure a service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_options import App, Json, missing, new_table, show_table
from carom.cli_settings import GIVEN, command
from carom.converted import converted
from carom.errors import UsageError
from carom.settings import Field, fields, read, seconds

app = App()


def ping_fields(_: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The options of a ping: how requests are sent, and which."""
    try:
        from carom.lab.clients.ping import Options
        from carom.lab.clients.requests import Plan
    except ImportError as error:
        missing(error)
    known = fields(Options) | fields(Plan)
    return {name: (field, "") for name, field in known.items()}


@app.command(cls=command(ping_fields))
def ping(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="Address of the service.")],
    port: Annotated[int, typer.Argument(min=1, max=65_535, help="Its UDP port.")],
    interval: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Between requests, in place of a rate: 10ms."),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            "--app", metavar="MODULE:SERVICE", help="Whose replies they are compared with."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a service's round-trip times: one request at a time, every reply accounted for."""
    from carom import apps
    from carom.lab.clients.ping import Broken, Options
    from carom.lab.clients.ping import ping as measure
    from carom.lab.clients.requests import Plan

    given = context.meta[GIVEN]
    if "rate" in given and interval is not None:
        raise UsageError("--rate and --interval say the same thing", hint="give one of them")
    if "seconds" in given:
        given = {"count": None, **given}
    chosen = read(Options, given)
    if interval is not None:
        chosen["rate"] = 1 / max(seconds(interval), 1e-9)
    options = converted(chosen, Options).checked()
    plan = converted(read(Plan, given), Plan)
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
    table = new_table("µs", *figures)
    for name, record in rows.items():
        table.add_row(name, *(f"{getattr(record, figure) / 1e3:,.1f}" for figure in figures))
    for column in table.columns[1:]:
        column.justify = "right"
    show_table(table)
