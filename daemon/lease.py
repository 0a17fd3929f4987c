# SPDX-License-Identifier: Apache-2.0
"""The lease: the fast path answers only while the daemon renews it."""

from __future__ import annotations

from collections.abc import Callable

from carom.daemon.clock import JiffiesClock
from carom.daemon.fastpath import FastPath
from carom.daemon.thread import Thread

LEASE = 2.0
"""Seconds that the fast path goes on answering after the last renewal."""

RENEWAL = 0.25
"""Seconds between renewals."""


class LeaseKeeper:
    """Renews the lease of a fast path, if there is one, and keeps the clock right.

    Its thread does nothing else: whatever takes long there would stop all answers.
    """

    def __init__(
        self,
        fastpath: FastPath | None,
        clock: JiffiesClock,
        alive: Callable[[], object] = lambda: None,
    ):
        """`alive` is called after each renewal."""
        self._fastpath = fastpath
        self._clock = clock
        self._alive = alive
        self.renew()
        self._thread = Thread("lease", self._step)

    def renew(self) -> None:
        """Let the fast path answer for another LEASE seconds."""
        self._clock.sync()
        if self._fastpath:
            self._fastpath.lease[0] = self._clock.now() + self._clock.ticks(LEASE)

    def age(self) -> float | None:
        """Seconds since the kernel's lease was renewed last; None without a fast path."""
        if not self._fastpath:
            return None
        return LEASE - self._clock.seconds(self._fastpath.lease[0] - self._clock.now())

    def _step(self) -> float:
        self.renew()
        self._alive()
        return RENEWAL

    def close(self) -> None:
        """End the lease."""
        self._thread.close()
        if self._fastpath:
            self._fastpath.lease[0] = 0
