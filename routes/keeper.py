# SPDX-License-Identifier: Apache-2.0
"""Who keeps a route: it has it follow its interface, and says what gets out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from carom import log
from carom.errors import BusyError, CaromError
from carom.kernel import signals
from carom.kernel.netlink import Changes
from carom.routes import group as groups
from carom.routes import leading, records, report
from carom.routes.child import Child, Program
from carom.routes.leading import Leading
from carom.routes.lost import Lost
from carom.routes.route import Mark, Route
from carom.routes.tables import GONE, Link

TICK = 1.0
"""Seconds between two looks at who is in a route's group, and what is not led."""

AT_LEAST = 10.0
"""Seconds until rules and table are looked at once more, whatever has been heard of them."""

_STUB = "127.0.0.53"
"""Where systemd-resolved hears questions: it asks for everybody, from outside of any route."""


@contextlib.contextmanager
def up(name: str, route: Route, mark: Mark, *, leave: bool = False) -> Iterator[Leading]:
    """A route brought up and kept. At the end it is taken away, unless programs run in it, or it is
    to be left to them. Raises as leading.bring_up, and BusyError where another keeps it."""
    leading.sweep()
    with records.locked():
        group = groups.make(name)
    with group:
        try:
            leading.bring_up(group, route, mark)
        except BaseException:
            group.remove()
            raise
        _warn_of_stub(name, route)
        try:
            with Leading(name) as led:
                yield led
        finally:
            if not leave:
                _take_down(name)


def _take_down(name: str) -> None:
    try:
        leading.take_down(name)
    except BusyError as error:
        log.warning("a route stays up", route=name, why=str(error))


def _warn_of_stub(name: str, route: Route) -> None:
    with contextlib.suppress(OSError):
        if not route.dns and _STUB in Path("/etc/resolv.conf").read_text(errors="replace"):
            log.warning("names are asked outside a route", route=name, resolver=_STUB)


def run(led: Leading, program: Program, *, detach: bool) -> int:
    """Run a program in a route that this process keeps, and wait until all that it started has
    ended, or with `detach` only it; a signal ends that wait. Its exit status.

    Raises CaromError, OSError.
    """
    child = Child(led.group, program)
    keeper = Keeper(led.group.name)
    child.tell(keeper.look)

    def over() -> bool:
        return child.ended() is not None and (detach or led.group.is_empty())

    try:
        keeper.keep(over)
    except KeyboardInterrupt:
        if child.ended() is None:
            raise
    status = child.ended()
    assert status is not None
    return status


class Keeper:
    """Has a route follow its interface, for as long as it is asked to."""

    def __init__(self, name: str):
        self._name = name
        self._changes = Changes()
        self._link: Link = GONE
        self._lost = Lost()
        self._said: frozenset[str] = frozenset()
        self._reported = 0.0

    def look(self) -> None:
        """Have it look at once, from any thread."""
        self._changes.poke()

    def keep(self, over: Callable[[], bool] = lambda: False) -> None:
        """Follow it until `over` says so; that is asked each TICK, and when it is to look.

        Raises CaromError, OSError.
        """
        followed = 0.0
        changed = True
        with contextlib.closing(self._changes):
            while not over():
                if changed or time.monotonic() - followed > AT_LEAST:
                    followed = time.monotonic()
                    with signals.waiting():
                        self._follow()
                self._report()
                changed = self._changes.wait(TICK)

    def _follow(self) -> None:
        link = leading.refresh(self._name, self._lost)
        was, self._link = self._link, link
        if link == was:
            return
        if not link.ifindex or not link.up:
            log.warning("a route is cut", route=self._name, why="its interface is gone or down")
        else:
            log.info("a route leads", route=self._name, ifindex=link.ifindex)

    def _report(self) -> None:
        """Say once of each thing that it is not led."""
        if time.monotonic() - self._reported < TICK:
            return
        self._reported = time.monotonic()
        with contextlib.suppress(CaromError, OSError), Leading(self._name) as led:
            said = frozenset(map(str, report.strangers(led)))
            for one in sorted(said - self._said):
                log.warning("this is not led", route=self._name, what=one)
            self._said = said
