# SPDX-License-Identifier: Apache-2.0
"""`carom filter`: swap a running carom's filter, change it, and look at what it sees."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from carom.cli_cache import Pid, print_json
from carom.cli_filter_maps import counted, print_maps, shapes, show_map, to_print
from carom.cli_options import App, Json, new_table, show_table
from carom.daemon import control
from carom.errors import ControlError, PrivilegeError, UsageError
from carom.filters.capture import Capture
from carom.filters.names import PLACES, SAYS, Place

app = App()
filter_app = App(
    help="Look at the filter of a running carom, change it, or swap it for another.",
)
app.add_typer(filter_app, name="filter")

_POLL = 0.1  # seconds between looks for captures
_BATCH = 100
_VERIFYING = 60.0  # seconds for the verifier to look at a filter
_ENTRIES = 20
_SWITCH = {"on": 1, "off": 0}


@filter_app.command("ls")
def list_filters(json: Json = False) -> None:
    """List the filters that there are."""
    if json:
        print_json(SAYS)
        return
    table = new_table("filter", "accepts")
    for name, says in SAYS.items():
        table.add_row(name, says)
    show_table(table)


def _completed(incomplete: str) -> list[str]:
    from carom.filters import own

    return list(own.completions(incomplete))


@filter_app.command("build")
def build(
    file: Annotated[Path, typer.Argument(help="The filter's C.", metavar="FILE.c")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to, as NAME-PLACE.o.")
    ] = Path(),
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", metavar="PLACE", help="xdp, tc or socket; may be repeated. [default: all three]"
        ),
    ] = None,
    compiler: Annotated[
        str, typer.Option(envvar="CAROM_COMPILER", help="bcc, or the name of a clang.")
    ] = "bcc",
    json: Json = False,
) -> None:
    """Compile a filter of your own into object files, for hosts without a compiler."""
    from carom.cli_build import write
    from carom.filters import own

    if file.suffix != ".c":
        raise UsageError(f"{file} is no C file", hint="its name ends in .c")
    files = {}
    for place in map(_place, at or PLACES):
        made = own.made(file, place, compiler)
        files[place] = path = output / f"{made.name}-{place}.o"
        write(path, made.object.file)
    if json:
        print_json({place: str(path) for place, path in files.items()})
        return
    for path in files.values():
        print(f"{path}: {path.stat().st_size:,} bytes")


def _place(word: str) -> Place:
    for place in PLACES:
        if place == word:
            return place
    raise UsageError(f"there is no place {word!r}", hint=f"there are {', '.join(PLACES)}")


@filter_app.command("show")
def show(pid: Pid = None, json: Json = False) -> None:
    """Show the filter that runs, and its settings."""
    result = control.call("filter", pid)
    if json:
        print_json(result)
        return
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    print(f"{result['filter']} at {result['place']}: {settings}")
    for line in shapes(result["maps"]):
        print(line)


@filter_app.command("use")
def use(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A filter: `carom filter ls` has their names. Or one of your own: ./mine.c, or an "
            "object file by `carom filter build`.",
            autocompletion=_completed,
        ),
    ],
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Swap the filter for another, without losing a packet.

    A file is read and compiled here: the carom that runs need not be able to.
    """
    from carom.filters import own

    if own.is_path(name):
        own.check(name)
        place = _place(control.call("filter", pid)["place"])
        mine = own.made(Path(name), place)
        control.call("filter_use", pid, _VERIFYING, **mine.told())
        name = mine.name
    else:
        control.call("filter_use", pid, filter=name)
    if json:
        print_json({"filter": name})
    else:
        print(f"{name} from now on")


@filter_app.command("set")
def set_(
    settings: Annotated[
        list[str],
        typer.Argument(help="accept=on|off, rate=PUTS, client-rate=PUTS (a second; 0: any)."),
    ],
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Change settings of the filter that runs."""
    wanted = dict(map(_setting, settings))
    for name, value in wanted.items():
        control.call("filter_set", pid, setting=name, value=value)
    if json:
        print_json(wanted)
    else:
        print(", ".join(f"{name} {value}" for name, value in wanted.items()))


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if value in _SWITCH:
        return name, _SWITCH[value]
    if not value.isdigit():
        raise UsageError(
            f"{text!r} is no setting", hint="for example accept=off, rate=1000, client-rate=10"
        )
    return name, int(value)


@filter_app.command("count")
def count(
    entries: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many of a map's entries to show at most.")
    ] = _ENTRIES,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Count what the filter saw, CPU by CPU: valid is what the server would understand.

    Then the maps of a filter of your own whose names begin with counter_ or gauge_, those with the
    largest numbers first.
    """
    seen = control.call("filter", pid)
    maps = counted(pid, entries) if seen["maps"] else []
    if json:
        print_json({**seen["tallies"], **({"maps": maps} if seen["maps"] else {})})
        return
    _show_tallies(seen["tallies"])
    for one in maps:
        show_map(one)


def _show_tallies(tallies: dict[str, list[int]]) -> None:
    cpus = len(next(iter(tallies.values())))
    table = new_table("requests", *(f"cpu {n}" for n in range(cpus)), "all")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in tallies.items():
        shown = "captures lost" if name == "lost" else name.replace("_", " ")
        table.add_row(shown, *(f"{value:,}" for value in values), f"{sum(values):,}")
    show_table(table)


@filter_app.command("print")
def print_(
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="Stop after so many packets.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    rate: Annotated[
        int, typer.Option(help="Packets a second at most; others go uncaptured.")
    ] = 100,
    pcap: Annotated[
        Path | None, typer.Option(help="Write them to this file instead, for Wireshark.")
    ] = None,
    packets: Annotated[
        bool, typer.Option("--packets", help="Packets, though the filter has maps to print.")
    ] = False,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Print the packets that the filter sees, their first 500 bytes, until Ctrl-C.

    Of a filter of your own that has maps whose names begin with print_, print these: a ring
    buffer's records as they come, and what changes in others. --count counts them instead.
    """
    if not (packets or pcap) and _has_to_print(pid):
        print_maps(pid, count, seconds, json=json)
        return
    if not json:
        _need_scapy()
    captures = _captures(pid, rate, count, seconds)
    if pcap:
        _write(captures, pcap)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for capture in captures:
            if json:
                print_json(capture)
            else:
                print(_line(capture), flush=True)


def _has_to_print(pid: int | None) -> bool:
    """Whether the filter has maps to print; where none can be asked, who prints packets says so."""
    with contextlib.suppress(ControlError):
        return to_print(control.call("filter", pid)["maps"])
    return False


def _captures(
    pid: int | None, rate: int, count: int | None, seconds: float | None
) -> Iterator[Capture]:
    end = None if seconds is None else time.monotonic() + seconds
    left = count
    while left != 0:
        limit = _BATCH if left is None else min(_BATCH, left)
        batch = control.call("filter_captures", pid, rate=rate, limit=limit)
        yield from msgspec.convert(batch, list[Capture])
        left = None if left is None else left - len(batch)
        if end is not None and time.monotonic() >= end:
            return
        if len(batch) < limit and left != 0:
            time.sleep(_POLL)


def _need_scapy() -> None:
    """Raises UsageError where scapy is missing, which reads packets; nothing else here needs it."""
    try:
        import scapy.packet  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "scapy, which reads packets, is not installed",
            hint="python3-scapy, or pip install carom[lab]; --json prints them as they are",
        ) from error


def _line(seen: Capture) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(seen.seconds))
    judged = f"{'valid' if seen.valid else 'invalid'} {'accepted' if seen.accepted else 'rejected'}"
    summary = seen.packet().summary()
    micros = int(seen.seconds % 1 * 1e6)
    return f"{clock}.{micros:06} {seen.hook} {judged} {seen.length} bytes: {summary}"


def _write(captures: Iterator[Capture], path: Path) -> None:
    """Write a pcap file that is complete after every packet. A socket's have no Ethernet header."""
    from scapy.data import DLT_EN10MB, DLT_RAW
    from scapy.packet import Raw
    from scapy.utils import PcapWriter

    written, writer = 0, None
    try:
        with contextlib.suppress(KeyboardInterrupt):
            for capture in captures:
                if writer is None:
                    kind = DLT_RAW if capture.hook == "socket" else DLT_EN10MB
                    writer = PcapWriter(str(path), linktype=kind, sync=True)
                packet = Raw(capture.data)
                packet.time, packet.wirelen = capture.seconds, capture.length
                writer.write(packet)
                written += 1
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if writer:
            writer.close()
    print(f"{written} packets in {path}" if writer else f"no packet came; {path} was not written")


@filter_app.command("stats")
def stats(
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long to measure.")] = 1.0,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Measure what a run of the filter's program takes, and of the fast path if it calls that."""
    from carom.kernel import libbpf

    shown = control.call("filter", pid)
    with contextlib.ExitStack() as stack:
        try:
            stack.callback(os.close, libbpf.enable_stats())
            program = libbpf.program_by_id(shown["program"])
        except PermissionError as error:
            raise PrivilegeError("not allowed to time programs", hint="run it as root") from error
        except FileNotFoundError as error:
            raise UsageError("the filter is gone meanwhile", hint="try again") from error
        stack.callback(os.close, program)
        before = libbpf.runs(program)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(seconds)
        after = libbpf.runs(program)
    times, nanoseconds = after.times - before.times, after.nanoseconds - before.nanoseconds
    if json:
        print_json({"filter": shown["filter"], "run_cnt": times, "run_time_ns": nanoseconds})
    elif times:
        print(f"{shown['filter']}: {times:,} runs, {nanoseconds / times:.0f} ns each")
    else:
        print(f"{shown['filter']}: it did not run", file=sys.stderr)
