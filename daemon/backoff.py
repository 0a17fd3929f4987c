# SPDX-License-Identifier: Apache-2.0
"""When to try something again: later each time."""

from __future__ import annotations

import time


class Backoff:
    """Due after `least` seconds, then after twice as many each time, up to `most`."""

    def __init__(self, least: float, most: float):
        self._least, self._most = least, most
        self.reset()

    def reset(self) -> None:
        """Begin with the shortest pause, now."""
        self._pause = self._least
        self._at = time.monotonic() + self._pause

    def due(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._at

    def later(self, at_least: float = 0.0) -> None:
        """It was tried: begin the next pause, of at least that many seconds."""
        self._at = time.monotonic() + max(self._pause, at_least)
        self._pause = min(2 * self._pause, self._most)
