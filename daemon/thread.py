# SPDX-License-Identifier: Apache-2.0
"""A thread beside the server that does one thing over and over, whatever fails."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

from carom import log
from carom.kernel import capabilities

_PR_SET_NAME = 15  # linux/prctl.h
_libc = ctypes.CDLL(None)

FAILED_PAUSE = 0.25
"""Seconds until a step that failed is tried again."""


class Thread:
    """A daemon thread that runs `step` until it is closed, even if a step fails.

    `step` returns the seconds to pause. Where renewals fail, the lease runs out by itself.
    """

    def __init__(self, name: str, step: Callable[[], float]):
        self._stopping = threading.Event()
        self._step = step
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        capabilities.shed()
        _libc.prctl(_PR_SET_NAME, self._thread.name.encode())  # as `top -H` shows it
        while not self._stopping.is_set():
            try:
                pause = self._step()
            except Exception as error:
                log.error(
                    "a thread of the daemon failed; it goes on",
                    thread=self._thread.name,
                    failure=error,
                )
                pause = FAILED_PAUSE
            self._stopping.wait(pause)

    def close(self) -> None:
        """Stop, and wait for the step under way."""
        self._stopping.set()
        self._thread.join()
