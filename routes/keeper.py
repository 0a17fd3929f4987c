# SPDX-License-Identifier: Apache-2.0
"""Who keeps a route: it has it follow its interface, and says what gets out."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from carom import log
from carom.errors import CaromError
from carom.kernel.netlink import Changes
from carom.routes import leading, report
from carom.routes.leading import Leading
from carom.routes.tables import GONE, Link

TICK = 1.0
"""Seconds between two looks at who has left a route's group."""


class Keeper:
    """Has a route follow its interface, for as long as it is asked to."""

    def __init__(self, name: str):
        self._name = name
        self._link: Link = GONE
        self._said: frozenset[str] = frozenset()
        self._looked = 0.0

    def keep(self, over: Callable[[], bool]) -> None:
        """Follow it until `over` says so; that is asked each TICK, and when a signal comes.

        Raises CaromError, OSError.
        """
        with contextlib.closing(Changes()) as changes, _woken(changes):
            while True:
                self._follow()
                self._report()
                if over():
                    return
                changes.wait(TICK)

    def _follow(self) -> None:
        link = leading.refresh(self._name)
        was, self._link = self._link, link
        if link == was:
            return
        if not link.ifindex or not link.up:
            log.warning("a route is cut: its interface is gone or down", route=self._name)
        else:
            log.info("a route leads", route=self._name, interface=link.ifindex)

    def _report(self) -> None:
        """Say once of each thing that it gets out."""
        if time.monotonic() - self._looked < TICK:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(CaromError, OSError), Leading(self._name) as led:
            said = frozenset(map(str, report.strangers(led)))
            for one in said - self._said:
                log.warning("this is not led", route=self._name, what=one)
            self._said = said


@contextlib.contextmanager
def _woken(changes: Changes) -> Iterator[None]:
    """SIGCHLD ends a wait."""

    def wake(number: int, frame: FrameType | None) -> None:
        changes.poke()

    before = signal.signal(signal.SIGCHLD, wake)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def ended(pid: int) -> int | None:
    """The exit status of a child that has ended, as a shell has it; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    if not found:
        return None
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
