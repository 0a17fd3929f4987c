# SPDX-License-Identifier: Apache-2.0
"""`carom load`: measure a service under a load that does not wait for its replies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_options import Json, missing, sizes
from carom.cli_ping import show_times
from carom.converted import converted


def load(
    address: Annotated[str, typer.Argument(help="IPv4 address of the service, a neighbour.")],
    port: Annotated[int, typer.Argument(min=1, max=65_535, help="Its UDP port.")],
    interface: Annotated[
        str, typer.Option("--interface", "-i", help="Interface to send by: it must be free of XDP.")
    ],
    rate: Annotated[str, typer.Option(help="Requests a second: 5000, 100k, 1.5M, max.")] = "10k",
    count: Annotated[int | None, typer.Option("--count", "-c", help="Requests.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="How long; default 5, or until --count is reached.")
    ] = None,
    size: Annotated[str, typer.Option(help="Bytes of a request, or LOW-HIGH.")] = "32",
    keys: Annotated[int, typer.Option(help="How many different requests.")] = 1,
    file: Annotated[
        Path | None,
        typer.Option(help="Take the requests from it: one a line, as text, or as hex after 0x."),
    ] = None,
    draw: Annotated[
        str | None,
        typer.Option(
            help="uniform | zipf | sequential; default uniform, with --file sequential",
        ),
    ] = None,
    exponent: Annotated[float, typer.Option(help="Of zipf.")] = 1.0,
    writes: Annotated[
        float, typer.Option(help="The exact share of requests that are --write-file's, 0 to 1.")
    ] = 0.0,
    write_file: Annotated[
        Path | None, typer.Option(help="Requests, as in --file, whose replies may be any.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which random draws.")] = 1,
    source_ports: Annotated[
        int, typer.Option(help="As many requests can be outstanding at once.")
    ] = 4096,
    first_port: Annotated[int, typer.Option(help="The lowest of them.")] = 61_000,
    timeout: Annotated[
        str, typer.Option(help="When a reply is late; after twice that, it is lost.")
    ] = "100ms",
    burst: Annotated[int, typer.Option(help="Requests sent in one go at most, to 256.")] = 64,
    cpu: Annotated[int | None, typer.Option(help="Send from this CPU only.")] = None,
    mode: Annotated[
        str, typer.Option(help="How to meet replies: auto | native | generic")
    ] = "auto",
    app: Annotated[
        str | None, typer.Option("--app", help="Compare replies with those of MODULE:SERVICE.")
    ] = None,
    json: Json = False,
) -> None:
    """Send requests from XDP at a rate of their own, and account for every one in XDP."""
    try:
        from carom.lab.clients import mix
        from carom.lab.clients.load import Options, target
        from carom.lab.clients.load import load as measure
        from carom.lab.clients.requests import Plan
    except ImportError as error:
        missing(error)
    from carom import apps
    from carom.daemon.options import seconds as duration

    if count is None and seconds is None:
        seconds = 5.0
    choice = converted(
        {
            "draw": draw or ("sequential" if file else "uniform"),
            "exponent": exponent,
            "writes": writes,
            "seed": seed,
        },
        mix.Choice,
    )
    plan = converted({"size": sizes(size), "keys": keys, "seed": seed}, Plan)
    options = converted(
        {
            "count": count,
            "seconds": seconds,
            "rate": mix.rate(rate),
            "timeout": duration(timeout),
            "source_ports": source_ports,
            "first_port": first_port,
            "burst": burst,
            "cpu": cpu,
            "mode": mode,
        },
        Options,
    ).checked()
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
