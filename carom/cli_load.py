# SPDX-License-Identifier: Apache-2.0
"""`carom load`: measure a service under a load that does not wait for its replies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_options import App, Json, missing
from carom.cli_ping import show_times
from carom.cli_settings import GIVEN, command
from carom.converted import converted
from carom.settings import Field, fields, read

app = App()


def load_fields(_: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The options of a load: how requests are sent, and which."""
    try:
        from carom.lab.clients.load import Options
        from carom.lab.clients.mix import Choice
        from carom.lab.clients.requests import Plan
    except ImportError as error:
        missing(error)
    plan = fields(Plan)
    known = {**fields(Options), "size": plan["size"], "keys": plan["keys"], **fields(Choice)}
    return {name: (field, "") for name, field in known.items()}


@app.command(cls=command(load_fields))
def load(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="IPv4 address of the service, a neighbour.")],
    port: Annotated[int, typer.Argument(min=1, max=65_535, help="Its UDP port.")],
    interface: Annotated[
        str,
        typer.Option(
            "--interface", "-i", metavar="NAME", help="To send by: it must be free of XDP."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the requests from it: one a line, as text, or as hex after 0x.",
        ),
    ] = None,
    write_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Requests, as in --file, whose replies may be any."),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            "--app", metavar="MODULE:SERVICE", help="Whose replies they are compared with."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Send requests from XDP at a rate of their own, and account for every one in XDP."""
    from carom import apps
    from carom.lab.clients import mix
    from carom.lab.clients.load import Options, target
    from carom.lab.clients.load import load as measure
    from carom.lab.clients.requests import Plan

    given = context.meta[GIVEN]
    if "count" in given:
        given = {"seconds": None, **given}
    if file:
        given = {"draw": "sequential", **given}
    choice = converted(read(mix.Choice, given), mix.Choice)
    plan = converted({**read(Plan, given), "draw": "uniform"}, Plan)
    options = converted(read(Options, given), Options).checked()
    reads = mix.read(file) if file else mix.planned(plan)
    requests = mix.Mix(reads, mix.read(write_file) if write_file else [], choice)
    expect = apps.expectation(app) if app else None
    result = measure(target(interface, address, port), requests, options, expect)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        _show(result)
    trips = result.round_trips
    if trips.wrong:
        print(f"carom: {trips.wrong} replies were wrong", file=sys.stderr)
    elif not trips.count + trips.reordered + result.writes.answered:
        print(
            "carom: nothing was answered\n  hint: does something listen there? A veth takes such "
            "frames only when its other end has GRO on, or native XDP",
            file=sys.stderr,
        )
    if trips.wrong or not trips.count + result.writes.answered or not result.complete:
        raise typer.Exit(1)


def _show(result: Any) -> None:
    trips, writes = result.round_trips, result.writes
    print(
        f"{result.sent} sent, {trips.count} answered, {trips.lost} lost, "
        f"{trips.duplicated} duplicated, {trips.reordered} reordered, {trips.wrong} wrong, "
        f"{result.outstanding} outstanding, {trips.rate:,.0f} replies/s"
    )
    if writes.sent:
        print(
            f"{writes.sent} writes sent, {writes.answered} answered, {writes.lost} lost, "
            f"{writes.outstanding} outstanding"
        )
    asked = (
        f"asked for {result.asked:,.0f}, offered {result.offered:,.0f}, " if result.asked else ""
    )
    sent = (result.sent + writes.sent) / trips.seconds
    print(
        f"{asked}sent {sent:,.0f} requests/s in {trips.seconds:.2f} s by {result.mode} XDP; "
        f"{result.skipped} slots skipped, every port being taken"
    )
    if trips.count:
        show_times({"rtt": trips})
