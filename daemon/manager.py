# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager how this process is: sd_notify(3), a datagram to a Unix socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from carom import log

_SHARE = 4
"""So many pings come in the time after which the manager takes this process for hung."""


class Manager:
    """The manager that started this process, if there is one that wants to be told.

    What it said in the environment is taken out: it is for no other process.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ):
        where = environment.pop("NOTIFY_SOCKET", "")
        patience, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self._address = f"\0{where[1:]}" if where.startswith("@") else where
        mine = patience.isdecimal() and pid in ("", str(os.getpid()))
        self._every = int(patience) / 1e6 / _SHARE if mine and where else 0.0
        self._last = 0.0
        self._failed = False

    @property
    def watches(self) -> bool:
        """Whether it wants `alive` to be called, four times in the time that it waits."""
        return self._every > 0

    def tell(self, *facts: str) -> None:
        """Tell it: `READY=1`, `STATUS=...`. It is never waited for, nor is its absence an error."""
        if not self._address:
            return
        text = "\n".join(fact.replace("\n", " ") for fact in facts)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
                unix.setblocking(False)
                unix.sendto(text.encode(errors="replace"), self._address)
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("the service manager cannot be told", error=str(error))
            self._failed = True

    def alive(self) -> None:
        """Say that the thread that calls this does its work; no more often than it has to."""
        now = time.monotonic()
        if self.watches and now - self._last >= self._every:
            self._last = now
            self.tell("WATCHDOG=1")


def reloading() -> tuple[str, str]:
    """The facts that a reload has begun; READY=1 ends it."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
