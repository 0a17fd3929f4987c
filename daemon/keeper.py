# SPDX-License-Identifier: Apache-2.0
"""The daemon's threads beside the server: one keeps the lease and the addresses, one sweeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock
from carom.daemon.fastpath import FastPath
from carom.include import netlink

LEASE = 2.0
"""Seconds that the fast path goes on answering after the last renewal."""

RENEWAL = 0.25
"""Seconds between renewals."""

SWEEP_PERIOD = 1.0
SWEEP_SHARE = 0.05
"""A sweep may take this share of one CPU: it comes less often where it takes long."""

log = structlog.get_logger()


class Thread:
    """A daemon thread that runs `step` until it is stopped, a failing one too.

    `step` returns the seconds to pause. Where renewals fail, the lease runs out by itself.
    """

    def __init__(self, name: str, step: Callable[[], float]):
        self._stopping = threading.Event()
        self._step = step
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self._step()
            except Exception:
                log.exception("a thread of the daemon failed; it goes on", thread=self._thread.name)
                pause = RENEWAL
            self._stopping.wait(pause)

    def close(self) -> None:
        """Stop, and wait for the step under way."""
        self._stopping.set()
        self._thread.join()


class Keeper:
    """Renews the lease of a fast path, where there is one, and keeps the clock right.

    Calls `changed` when a link or an address of this host changes.
    """

    def __init__(self, fastpath: FastPath | None, clock: JiffiesClock, changed: Callable[[], None]):
        self._fastpath = fastpath
        self._clock = clock
        self._changed = changed
        self._changes = netlink.Changes()
        self.renew()
        self._thread = Thread("keeper", self._step)

    def renew(self) -> None:
        """Let the fast path answer for another LEASE seconds."""
        self._clock.sync()
        if self._fastpath:
            self._fastpath.lease[0] = self._clock.now() + self._clock.ticks(LEASE)

    def _step(self) -> float:
        self.renew()
        if self._changes.wait(RENEWAL):
            self._changed()
        return 0.0

    def close(self) -> None:
        """End the lease."""
        self._thread.close()
        if self._fastpath:
            self._fastpath.lease[0] = 0
        self._changes.close()


class Sweeper:
    """Removes dead entries now and then."""

    def __init__(self, cache: Cache):
        self._cache = cache
        self.swept = 0
        self._thread = Thread("sweeper", self._step)

    def _step(self) -> float:
        start = time.monotonic()
        self.swept += self._cache.sweep()
        return max(SWEEP_PERIOD, (time.monotonic() - start) / SWEEP_SHARE)

    def close(self) -> None:
        """Stop sweeping."""
        self._thread.close()
