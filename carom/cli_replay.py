# SPDX-License-Identifier: Apache-2.0
"""`carom replay`: what a cache would have done with a capture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carom.cli_cache import print_json
from carom.cli_options import App, Json, Programs, missing, new_table, show_table
from carom.errors import UsageError
from carom.frames import captured_at
from carom.settings import seconds

if TYPE_CHECKING:
    from carom.protocols.spec import Spec

app = App()

_CAPACITY_MAX = 10_000_000


@app.command()
def replay(
    capture: Annotated[
        Path, typer.Argument(help="A capture of the server's traffic: pcap, pcapng.")
    ],
    protocol: Annotated[
        str | None, typer.Option(help="The language of requests; default: the whole payload.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", help="The server's UDP port, if not the usual one."),
    ] = None,
    capacity: Annotated[str, typer.Option(help="Sizes to try, in entries.")] = "100,1000,10000",
    ttl: Annotated[
        str, typer.Option(help="Times to try that a reply lives at most.")
    ] = "10s,1m,10m",
    amplify: Annotated[
        int, typer.Option(min=0, help="Longest reply, in payloads of its request; 0: any.")
    ] = 16,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Tell what a cache would have done with a capture, by its size and its TTL.

    The capture has a server's requests and replies. Each request runs on the fast path's own
    programs, at the capture's time; nothing is attached or sent.
    """
    spec, port = _spoken(protocol, port)
    sizes = _numbers(capacity)
    lives = [max(1, round(seconds(one))) for one in ttl.split(",")]
    try:
        from rich.console import Console

        from carom.exchanges import exchanges
        from carom.lab.tools.replay import replay as run
    except ImportError as error:
        missing(error)
    asked = exchanges(captured_at(capture), port, spec.id)
    rows = []
    with Console(stderr=True).status("") as status:
        for size in sizes:
            for life in lives:
                status.update(f"{size:,} entries, {life} s")
                rows.append(run(asked, spec, size, life, amplify=amplify))
    replied = sum(one.reply is not None for one in asked)
    if json:
        print_json({"requests": len(asked), "replied": replied, "caches": rows})
        return
    print(f"{len(asked):,} requests in {asked[-1].at:,.0f} s, {replied:,} of them with a reply")
    heads = ("hits", "hit ratio", "expired", "entries", "KiB", "ns a hit", "ns a miss")
    table = new_table("capacity", "TTL s", *heads)
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(
            f"{row.capacity:,}",
            f"{row.ttl:,}",
            f"{row.hits:,}",
            f"{row.hit_ratio:.1%}",
            f"{row.verdicts.get('miss_expired', 0):,}",
            f"{row.entries:,}",
            f"{row.memory >> 10:,}",
            f"{row.hit_ns:,.0f}",
            f"{row.miss_ns:,.0f}",
        )
    show_table(table)
    verdicts = sorted(rows[-1].verdicts.items(), key=lambda one: -one[1])
    print("the last one: " + ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in verdicts))


def _spoken(name: str | None, port: int | None) -> tuple[Spec, int]:
    """A protocol, and the port that it is looked for at."""
    from carom.protocols import default, spec
    from carom.protocols.spec import Filled

    one = spec(name) if name else default(Filled.DAEMON)
    port = one.port if port is None else port
    if port is None:
        raise UsageError(f"{one.name} has no usual port", hint="-p says which the server has")
    if not 1 <= port <= 65_535:
        raise UsageError(f"there is no UDP port {port}", hint="-p 1 to 65535")
    return one, port


def _numbers(text: str) -> list[int]:
    """Numbers of entries. Raises UsageError that names the first wrong one."""
    found = []
    for one in text.split(","):
        if not one.strip().isdecimal() or not 1 <= int(one) <= _CAPACITY_MAX:
            raise UsageError(
                f"{one.strip()!r} is no number of entries",
                hint=f"--capacity 1000,10000: 1 to {_CAPACITY_MAX}",
            )
        found.append(int(one))
    return found
