# SPDX-License-Identifier: Apache-2.0
"""`carom top`: watch a running carom."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from carom.cli_cache import Pid, Port, print_json
from carom.cli_filter_maps import with_maps
from carom.cli_options import App, Json
from carom.daemon import control
from carom.errors import ControlError, PrivilegeError, UsageError
from carom.top_maps import ENTRIES

app = App()

_PATIENCE = 5.0
"""Seconds for a carom to answer."""

_SLICE = 0.2
"""Seconds until a terminal's new size is noticed."""

_LINES = 48
"""Of a look that no terminal shows."""

Look = dict[str, Any]


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show one interval, and end.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="Have the kernel time programs while this runs: all of this host's, each run of "
            "which takes some 50 ns longer then.",
        ),
    ] = False,
    keys: Annotated[
        int, typer.Option(min=0, max=1000, help="How many of the keys that are hit most to show.")
    ] = 0,
    port: Port = None,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Watch a running carom until Ctrl-C: packets, hits, what they cost, and what was lost.

    With --json each look is a line.
    """
    from carom.kernel.signals import interruptible

    looks = _Looks(pid, port, keys)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        stack.enter_context(interruptible())
        if cost:
            _time_programs(stack)
        if json:
            _run(looks, interval, print_json, time.sleep, once=once)
        else:
            _show(looks, interval, once=once)


def _time_programs(stack: contextlib.ExitStack) -> None:
    from carom.kernel import libbpf

    try:
        stack.callback(os.close, libbpf.enable_stats())
    except PermissionError as error:
        raise PrivilegeError("not allowed to time programs", hint="run it as root") from error


class _Looks:
    """Looks at a carom, each compared with the one before; it may end, and another one begin."""

    def __init__(self, pid: int | None, port: int | None, keys: int):
        """Raises ControlError where none answers, UsageError where it has no such service."""
        self._pid, self._port, self._keys = pid, port, keys
        self._at, self._before = time.monotonic(), self._status()
        ports = [service["port"] for service in self._before["services"]]
        if port is not None and port not in ports:
            raise UsageError(
                f"no service on port {port}", hint=f"--port takes one of {_words(ports)}"
            )

    def _status(self) -> Look:
        return with_maps(self._pid, _PATIENCE, ENTRIES)

    def next(self) -> Look:
        """What was since the last one."""
        from carom.top import compare

        at = {"at_seconds": time.time()}
        try:
            now, clock = self._status(), time.monotonic()
            keys = self._hot() if self._keys else {}
        except ControlError as error:
            return {"up": False, "why": str(error), **at}
        before, self._before = self._before, now
        seconds, self._at = clock - self._at, clock
        look = compare(before, now, seconds)
        if self._port is not None:
            look["services"] = [one for one in look["services"] if one["port"] == self._port]
        return {**look, **keys, **at}

    def _hot(self) -> Look:
        """The keys that are hit most; of no service, where one that began meanwhile has it not."""
        with contextlib.suppress(ControlError):
            asked = {"most": self._keys, "port": self._port}
            return {"keys": control.call("hot", self._pid, _PATIENCE, **asked)}
        return {"keys": []}


def _words(ports: list[int]) -> str:
    return ", ".join(map(str, ports))


def _run(
    looks: _Looks,
    interval: float,
    show: Callable[[Look], object],
    wait: Callable[[float], object],
    *,
    once: bool,
) -> None:
    """Look at each interval, and show it."""
    due = time.monotonic()
    while True:
        due = max(due + interval, time.monotonic())
        wait(max(0.0, due - time.monotonic()))
        show(looks.next())
        if once:
            return


def _show(looks: _Looks, interval: float, *, once: bool) -> None:
    """On a terminal, in place of what was there; elsewhere one look after the other."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if once or not console.is_terminal or console.is_dumb_terminal:
        _run(looks, interval, lambda look: _print(console, look), time.sleep, once=once)
        return
    with _screen(console) as (show, wait):
        _run(looks, interval, show, wait, once=False)


def _print(console: Any, look: Look) -> None:
    from carom.top_view import view

    console.print(view(look, _LINES))
    console.print()
    console.file.flush()


@contextlib.contextmanager
def _screen(console: Any) -> Iterator[tuple[Callable[[Look], None], Callable[[float], None]]]:
    """How to show a look on all of a terminal, and how to wait: a new size counts at once."""
    from rich.live import Live

    from carom.top_view import view

    shown: Look = {"up": False, "why": "one moment"}
    size = console.size
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(look: Look) -> None:
            nonlocal shown, size
            shown, size = look, console.size
            live.update(view(shown, console.height), refresh=True)

        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _SLICE))
                if console.size != size:
                    show(shown)

        show(shown)
        yield show, wait
