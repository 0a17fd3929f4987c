# SPDX-License-Identifier: Apache-2.0
"""`carom client`: the behaviours of the key-value experiments' client."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_options import App, Json, missing
from carom.settings import seconds

app = App()

PORT = 12345
"""The key-value protocol's, written again: help would wait for its import."""

_TOLD_MAX = 200  # steps that -v tells; frigg may have a million


@app.command()
def client(
    address: Annotated[str, typer.Argument(help="Address or name of the server.")],
    behaviour: Annotated[
        str,
        typer.Option(
            "--behaviour",
            "-b",
            help="thor | odin | loki | njord | sylvie | sif | frey | frigg | stop | getstop",
        ),
    ],
    port: Annotated[int, typer.Argument(min=1, max=65_535, help="Its UDP port.")] = PORT,
    percent: Annotated[
        float | None,
        typer.Option("--percent", "-p", help="Of frey's and frigg's packets, invalid; default 50."),
    ] = None,
    packets: Annotated[
        int | None,
        typer.Option(
            "--packets",
            "-n",
            help="Of loki, sylvie, frey or frigg; default 1000000, 10000000, 1000, 1000.",
        ),
    ] = None,
    rate: Annotated[str, typer.Option(help="Packets a second: 5000, 100k, 1.5M, max.")] = "max",
    equal_length: Annotated[
        bool, typer.Option("--equal-length", help="Make invalid packets as long as a PUT.")
    ] = False,
    patience: Annotated[str, typer.Option(help="How long a GET's reply is waited for.")] = "10ms",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell each step.")] = False,
    json: Json = False,
) -> None:
    """Send a key-value server what the published experiments' client sends."""
    try:
        from carom.lab.clients import mix
        from carom.lab.clients.behaviours import Choice
        from carom.lab.clients.keyvalue import Options, run
    except ImportError as error:
        missing(error)

    choice = Choice(name=behaviour, packets=packets, percent=percent, equal_length=equal_length)
    options = Options(rate=mix.rate(rate) or 0.0, patience=seconds(patience))
    result = run(address, port, choice, options, _Teller() if verbose else None)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        _show(result)
    if result.refused:
        print(
            f"carom: nothing listens on {address} port {port}: so it said {result.refused} times\n"
            "  hint: start it first: `carom serve --app kv`",
            file=sys.stderr,
        )
    if result.refused or not result.complete:
        raise typer.Exit(1)


class _Teller:
    """Prints what is sent, a line for equal packets in a row, and what is replied."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, step: Any, reply: bytes | None) -> None:
        self._told += 1
        if self._told > _TOLD_MAX and step.word != "GET":
            if self._told == _TOLD_MAX + 1:
                print("... and so on", file=sys.stderr)
            return
        line = _words(step.payload) + (f" x {step.times:,}" if step.times > 1 else "")
        if step.word == "GET":
            line += ": nothing came" if reply is None else f": {reply.decode(errors='replace')}"
        print(line, file=sys.stderr)


def _words(payload: bytes) -> str:
    """A packet in words: its command, key and value."""
    from carom.protocols.kv import decode

    command = decode(payload)
    if command is None:
        return f"BAD, {len(payload)} bytes"
    parts = (command.name.decode(), command.key, command.value)
    return " ".join(str(part) for part in parts if part is not None)


def _show(result: Any) -> None:
    sent = result.sent_valid + result.sent_invalid
    print(
        f"{result.behaviour}: {sent:,} sent, {result.sent_valid:,} valid, "
        f"{result.sent_invalid:,} invalid, {result.refused:,} refused, in {result.seconds:.3f} s, "
        f"{result.rate:,.0f} packets/s"
    )
    for value in result.values:
        print("GET: nothing came" if value is None else f"GET: {value}")
    if result.late:
        print(f"{result.late} replies came too late")
    if not result.complete:
        print("interrupted: this is what was done", file=sys.stderr)
