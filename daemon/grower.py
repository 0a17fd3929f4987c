# SPDX-License-Identifier: Apache-2.0
"""A thread that gives the store more memory before it runs out, where programs fill it."""

from __future__ import annotations

import contextlib

from carom.daemon.store import Store
from carom.daemon.thread import Thread

WAIT = 0.25
"""Seconds to wait for a program that says how few pages are left, before the thread may end."""


class Grower:
    """Adds pages whenever few are left: a program cannot wait for them, and stores nothing then."""

    def __init__(self, store: Store):
        self._store = store
        self._needs = store.needs()
        with contextlib.ExitStack() as stack:
            stack.callback(self._needs.close)
            store.grow_ahead()
            self._thread = Thread("grower", self._step)
            stack.pop_all()

    def _step(self) -> float:
        self._needs.wait(round(1000 * WAIT))
        self._store.grow_ahead()
        return 0.0

    def close(self) -> None:
        """Stop growing."""
        self._thread.close()
        self._needs.close()
