# SPDX-License-Identifier: Apache-2.0
"""A thread that sweeps the store."""

from __future__ import annotations

import time

from carom.daemon.store import Store
from carom.daemon.thread import Thread
from carom.protocols.spec import Clock

PERIOD = 1.0
"""Seconds between two sweeps, at least."""

SHARE = 0.05
"""The share of one CPU that sweeps may take: long sweeps come less often."""


class Sweeper:
    """Removes dead entries now and then."""

    def __init__(self, store: Store, clock: Clock):
        self._store = store
        self._clock = clock
        self.swept = 0
        self._thread = Thread("sweeper", self._step)

    def _step(self) -> float:
        start = time.monotonic()
        self.swept += self._store.sweep(self._clock.now())
        return max(PERIOD, (time.monotonic() - start) / SHARE)

    def close(self) -> None:
        """Stop sweeping."""
        self._thread.close()
