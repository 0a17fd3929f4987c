# SPDX-License-Identifier: Apache-2.0
"""The processes that sockets are of: each is known by its pid and by when it started."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import NamedTuple

from carom.kernel import processes


class Process(NamedTuple):
    """A process: its pid, and when it started, in nanoseconds since the boot; 0 for one that had
    ended before it was looked at."""

    pid: int
    started: int


NO_PROCESS, ENDED = Process(0, 0), Process(0, 1)
"""What no process sent, and what those did that are known no more."""


class Makers:
    """Processes, with their names and users, also when they have ended.

    What proc(5) says of a pid is asked once a look.
    """

    def __init__(self) -> None:
        self._facts = {NO_PROCESS: ("no process", 0), ENDED: ("others that have ended", 0)}
        self._starts: dict[int, list[int]] = {}
        self.look()

    def look(self) -> None:
        """Ask anew from here on."""
        self._started = functools.cache(processes.started)

    def maker(self, pid: int, made: int, name: str, uid: int) -> Process:
        """Who made a socket at a time since the boot, under a name, as a user."""
        started = self._started(pid)
        if started is None or started > made:  # it has ended; another may have its pid
            earlier = (known for known in self._starts.get(pid, ()) if known <= made)
            started = max(earlier, default=0)
        return self._note(Process(pid, started), name, uid)

    def holder(self, pid: int) -> Process:
        """The process that has a pid now; NO_PROCESS where it has just ended."""
        started = self._started(pid)
        with contextlib.suppress(OSError):
            uid = Path(f"/proc/{pid}").stat().st_uid
            if started is not None:
                return self._note(Process(pid, started), processes.name_of(pid), uid)
        return NO_PROCESS

    def _note(self, process: Process, name: str, uid: int) -> Process:
        if process not in self._facts:
            self._facts[process] = name, uid
            self._starts.setdefault(process.pid, []).append(process.started)
        return process

    def lives(self, process: Process) -> bool:
        """Whether it has not ended."""
        return bool(process.pid) and self._started(process.pid) == process.started

    def facts(self, process: Process) -> tuple[str, int]:
        """The name and the user of one that is known: its own name, and not that of a thread."""
        name, uid = self._facts[process]
        if self.lives(process):
            name = processes.name_of(process.pid)
            self._facts[process] = name, uid
        return name, uid

    def forget(self, process: Process) -> None:
        """Know one no more."""
        del self._facts[process]
        starts = self._starts[process.pid]
        starts.remove(process.started)
        if not starts:
            del self._starts[process.pid]
