# SPDX-License-Identifier: Apache-2.0
"""`carom status` and `carom cache`: talk to a running carom."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_options import App, Json, new_table, show_table
from carom.daemon import control
from carom.daemon.key_text import key_text
from carom.errors import UsageError

app = App()
cache_app = App(
    help="Look into a running carom's cache, or take something out of it.",
)
app.add_typer(cache_app, name="cache")

Pid = Annotated[int | None, typer.Option(help="Which carom, where several run.")]
Port = Annotated[int | None, typer.Option("--port", "-p", help="Which service, where several run.")]
File = Annotated[Path, typer.Argument(help="The file.", dir_okay=False)]
Key = Annotated[str, typer.Argument(help="The request as text, or as hex after 0x.")]


def _hex(key: str) -> str:
    if not key.startswith("0x"):
        return key.encode().hex()
    try:
        return bytes.fromhex(key[2:]).hex()
    except ValueError as error:
        raise UsageError(f"{key!r} is not hexadecimal", hint="for example 0x0a1b") from error


def print_json(value: Any) -> None:
    """Print a value as a line of JSON, at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


@app.command()
def status(pid: Pid = None, json: Json = False) -> None:
    """Show what a running carom answers, and its counters."""
    from carom.daemon.ready import Ready

    result = control.call("status", pid)
    if json:
        print_json(result)
        return
    ready = msgspec.convert(result["ready"], Ready)
    print(f"{ready}, up {result['uptime_seconds']:.0f} s")
    most = result["options"]["max_hits_per_cpu"]
    if most:
        print(f"each CPU gives at most {most:,} replies a second; the rest is the server's")
    for interface in result["interfaces"]:
        if interface["lost"]:
            print(
                f"{interface['lost']:,} replies were lost after the verdict: the driver of "
                f"{interface['name']} ({interface['driver']}) did not send them"
            )
    for subject, reason in result["not_followed"].items():
        print(f"not followed, and tried again: {subject}: {reason}")
    for service in result["services"]:
        for link in service["reach"]:
            if not link["answered"]:
                print(
                    f"port {service['port']} is not answered on {link['interface']}: {link['why']}"
                )
            elif link["but"]:
                print(
                    f"port {service['port']} is answered on {link['interface']}, but {link['but']}"
                )
        if service["shadow"]:
            print(f"port {service['port']}: {_shadow(service['shadow'])}")
        if service["silence"]:
            print(f"port {service['port']}: {_silence(service['silence'])}")
    table = new_table("counter", "value")
    table.columns[1].justify = "right"
    for part in ("cache", "userspace_cache", "server"):
        for name, value in (result[part] or {}).items():
            table.add_row(f"{part.replace('_', ' ')} {name.replace('_', ' ')}", f"{value:,}")
    tallies = result["filter"]["tallies"] if result["filter"] else {}
    seen = {name: sum(values) for name, values in tallies.items()}
    for hook, verdicts in {"filter": seen, **result["hooks"], "edge": result["edge"]}.items():
        for name, value in verdicts.items():
            if value:
                table.add_row(f"{hook} {name.replace('_', ' ')}", f"{value:,}")
    for service in result["services"]:
        for name, value in _server_of(service):
            table.add_row(f"port {service['port']} {name}", value)
    show_table(table)
    for service in result["services"]:
        cookies = service.get("cookies")
        if cookies:
            print(_cookies(cookies))


def _silence(silence: dict[str, Any]) -> str:
    """The line that says that a service has no hits, and why."""
    return (
        f"the kernel answers none of {silence['requests']} requests in {silence['seconds']:.0f} s, "
        f"most of all {silence['what'].replace('_', ' ')}: {silence['why']}"
    )


def _shadow(shadow: dict[str, Any]) -> str:
    """The line that says what came of comparing the cache with the server."""
    off = ", so its cache is off (--shadow-policy off)" if shadow["off"] else ""
    return (
        f"{shadow['compared']:,} replies compared with the server's, "
        f"{shadow['differing']:,} differed{off}"
    )


def _cookies(cookies: dict[str, Any]) -> str:
    """The line that says what is known of a name server's cookies, and what to do about it."""
    if cookies["advice"]:
        return f"cookies: {cookies['advice']}"
    if cookies["server"] == "none":
        return "cookies: the name server gives none"
    if cookies["secret"] == "right":
        return "cookies: hits return them, by the server's own secret"
    return (
        "cookies: queries that have one go up to the name server, for nothing is known of its own"
    )


def _server_of(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows on a fronted service: its server, and the clients that void all of it."""
    behind = service.get("behind")
    if behind:
        yield "server", f"pid {', '.join(map(str, behind['pids'])) or 'none'}"
        yield "server sockets", ", ".join(behind["sockets"]) or "none"
    for prefix, count in service.get("voiders", {}).items():
        yield f"voids by {prefix}", f"{count:,}"


@cache_app.command("ls")
def cache_list(
    limit: Annotated[int, typer.Option(min=1, help="How many entries at most.")] = 100,
    pid: Pid = None,
    port: Port = None,
    json: Json = False,
) -> None:
    """List entries, in no order."""
    result = control.call("list", pid, limit=limit, port=port)
    if json:
        print_json(result)
        return
    table = new_table("key", "reply bytes", "state", "ttl s")
    for entry in result["entries"]:
        ttl = f"{max(0.0, entry['ttl_seconds']):.1f}"
        table.add_row(
            key_text(bytes.fromhex(entry["key"])), str(entry["reply_bytes"]), entry["state"], ttl
        )
    show_table(table)
    if result["total"] > len(result["entries"]):
        print(f"{len(result['entries'])} of {result['total']}: --limit shows more", file=sys.stderr)


def _write(reply: bytes) -> None:
    """What a server says may be what a client chose: nothing of it commands a terminal."""
    if sys.stdout.isatty():
        print(key_text(reply))
        return
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()


@cache_app.command("get")
def cache_get(key: Key, pid: Pid = None, port: Port = None, json: Json = False) -> None:
    """Write the stored reply to a request to stdout: as it is, or a terminal's as text or hex."""
    entry = control.call("get", pid, key=_hex(key), port=port)
    if json:
        print_json(entry)
    elif entry:
        _write(base64.b64decode(entry["reply"]))
        print(f"{entry['state']}, {entry['ttl_seconds']:.1f} s left", file=sys.stderr)
    if not entry:
        print(f"carom: {key} is not in the cache", file=sys.stderr)
        raise typer.Exit(1)


@cache_app.command("save")
def cache_save(file: File, pid: Pid = None, port: Port = None, json: Json = False) -> None:
    """Write the replies that are given now to a file, for `carom cache load`.

    Of services of your own (`carom serve`). The file may be read by its owner alone.
    """
    from carom import cache_file

    _told(cache_file.save(file, lambda page: control.call("page", pid, page=page, port=port)), json)


@cache_app.command("load")
def cache_load(file: File, pid: Pid = None, port: Port = None, json: Json = False) -> None:
    """Put replies of a file back, for as long as they would still have held.

    Nothing is put back that was written or dropped since carom's start. Load what the server would
    still answer: nobody asks it.
    """
    from carom import cache_file

    def put(protocol: str, entries: list[Any]) -> dict[str, int]:
        became: dict[str, int] = control.call(
            "restore", pid, protocol=protocol, entries=entries, port=port
        )
        return became

    _told(cache_file.load(file, put), json)


def _told(counts: dict[str, int], json: bool) -> None:
    if json:
        print_json(counts)
    else:
        print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()))


@cache_app.command("drop")
def cache_drop(key: Key, pid: Pid = None, port: Port = None, json: Json = False) -> None:
    """Take the reply to a request back."""
    dropped = control.call("drop", pid, key=_hex(key), port=port)
    if json:
        print_json({"dropped": dropped})
    else:
        print("dropped" if dropped else "was not there; fills under way are void")


@cache_app.command("flush")
def cache_flush(pid: Pid = None, port: Port = None, json: Json = False) -> None:
    """Take everything back."""
    count = control.call("flush", pid, port=port)
    if json:
        print_json({"flushed": count})
    else:
        print(f"flushed {count}")
