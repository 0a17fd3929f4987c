# SPDX-License-Identifier: Apache-2.0
"""`carom trace`: packets that come to a running carom, each with its verdict."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from carom.cli_cache import Pid, print_json
from carom.cli_options import App, Json
from carom.daemon import control
from carom.errors import CaromError, PrivilegeError, UsageError
from carom.kernel.abi import SNAP_MAX, Verdict

if TYPE_CHECKING:
    from carom.traced import Traced

app = App()

_LOADING = 60.0
"""Seconds for a carom to load its programs once more."""

_LOOK = 0.1
"""Seconds between two looks for samples."""

_SNAP_MIN = 64

Take = Callable[["Traced"], None]


def _verdicts(incomplete: str) -> list[str]:
    """The verdicts that begin like this, for a shell's completion."""
    names = (verdict.name.lower() for verdict in Verdict)
    return [name for name in names if name.startswith(incomplete)]


@app.command()
def trace(
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            "-w",
            metavar="FILE",
            help="Write packets and replies as pcapng, with verdicts as comments; - is stdout.",
            allow_dash=True,
        ),
    ] = None,
    verdict: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only packets with this verdict; may be repeated.",
            autocompletion=_verdicts,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", min=1, max=65_535, help="Only packets to this UDP port."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDRESS", help="Only packets from an address or prefix."),
    ] = None,
    one_in: Annotated[
        int, typer.Option(min=1, max=2**32 - 1, help="Of so many of these packets of a CPU, one.")
    ] = 1,
    count: Annotated[
        int | None, typer.Option("--count", "-c", min=1, help="End after so many packets.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="End after so many seconds.")
    ] = 60.0,
    snaplen: Annotated[
        int, typer.Option(min=_SNAP_MIN, max=SNAP_MAX, help="Bytes of each packet.")
    ] = SNAP_MAX,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Show packets that come to a running carom, each with its verdict.

    Meanwhile programs answer that hand out samples besides: each packet costs a little more. There
    are at most 1,000 samples of a CPU in a second; what is left out is counted. It ends after
    --seconds, or with Ctrl-C.
    """
    from carom.kernel.signals import interruptible

    if write and json:
        raise UsageError("a capture is no JSON", hint="--write or --json, not both")
    wanted = {
        "seconds": seconds,
        "one_in": one_in,
        "verdicts": verdict or [],
        "port": port,
        "source": source,
        "snap": snaplen,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        try:
            take = stack.enter_context(_captured(write, snaplen) if write else _shown(json))
            with control.borrow("trace", pid, _LOADING, wanted=wanted) as lent:
                seen, left_out = _look_on(lent, take, count, seconds)
        except KeyboardInterrupt:  # before there was anything
            return
    _say(seen, left_out)


def _look_on(
    lent: control.Borrowed, take: Take, count: int | None, seconds: float
) -> tuple[int, dict[str, int]]:
    """Take samples until it ends: how many there were, and what was left out.

    Raises ControlError where carom ends meanwhile.
    """
    end, seen = time.monotonic() + seconds, 0

    def take_all() -> None:
        nonlocal seen
        for one in samples.next(None if count is None else count - seen):
            take(one)
            seen += 1

    with contextlib.closing(_Samples(lent)) as samples:
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            while time.monotonic() < end and seen != count and not lent.over():
                time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))
                take_all()
        left_out: dict[str, int] = lent.give_back()
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            take_all()
    return seen, left_out


class _Samples:
    """The samples of a trace, as they come."""

    def __init__(self, lent: control.Borrowed):
        """Raises PrivilegeError."""
        from carom.kernel import libbpf
        from carom.traced import Reader, Service

        interfaces, services = lent.result["interfaces"], lent.result["services"]
        self._reader = Reader(
            {int(number): name for number, name in interfaces.items()},
            [Service(**service) for service in services],
        )
        self._came = list[bytes]()
        (ring,) = lent.descriptors
        try:
            self._ring = libbpf.Ring(ring, self._came.append)
        except OSError as error:
            raise PrivilegeError(
                f"this process may not read samples of packets: {error.strerror}",
                hint="run it as root",
            ) from error

    def next(self, most: int | None) -> Iterator[Traced]:
        """Those that have come since the last time, at most so many."""
        self._ring.drain()
        came, self._came[:] = list(self._came), []
        yield from map(self._reader.read, came[:most])

    def close(self) -> None:
        """Read no more."""
        self._ring.close()


@contextlib.contextmanager
def _shown(json: bool) -> Iterator[Take]:
    """Each packet is a line."""

    def show(one: Traced) -> None:
        if json:
            print_json(one.shown())
        else:
            print(one.line(), flush=True)

    yield show


@contextlib.contextmanager
def _captured(path: Path, snap: int) -> Iterator[Take]:
    """Each packet is written to a file, and its reply behind it. Raises CaromError."""
    from carom.pcapng import Way, Writer

    with _opened(path) as file, _written(path):
        writer = Writer(file, snap)
        file.flush()

        def capture(one: Traced) -> None:
            at = one.interface, one.nanoseconds
            with _written(path):
                writer.packet(*at, one.frame, one.length, Way.IN, _comment(one))
                if one.reply:
                    comment = f"the reply that was sent: {one.name}"
                    writer.packet(*at, one.reply, one.reply_length, Way.OUT, comment)
                file.flush()

        yield capture


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    with _written(path), path.open("wb") as file:
        yield file


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Raises CaromError where it cannot be written, but for a pipe that nobody reads any more."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CaromError(
            f"cannot write {path}: {error.strerror}", hint="--write takes a file that can be made"
        ) from error


def _comment(one: Traced) -> str:
    at = f"{one.hook.name.lower()}, {one.about()}"
    return f"{at}\nwhat would change it: {one.remedy.change}" if one.remedy.change else at


def _say(seen: int, left_out: dict[str, int]) -> None:
    """How many there were, and what is not among them."""
    words = [f"{seen:,} packet{'s' * (seen != 1)}"]
    if left_out["limited"]:
        words.append(f"{left_out['limited']:,} left out: 1,000 a second of each CPU are shown")
    if left_out["lost"]:
        words.append(f"{left_out['lost']:,} lost: they came faster than they were read")
    print("; ".join(words), file=sys.stderr)
