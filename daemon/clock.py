# SPDX-License-Identifier: Apache-2.0
"""Jiffies in userspace. The fast path reads them cheaply; userspace has to ask a BPF program."""

from __future__ import annotations

import time
from collections.abc import Callable

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h


def jiffies_per_second() -> int:
    """HZ of this kernel: CLOCK_MONOTONIC_COARSE is advanced by the same tick."""
    return round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))


class JiffiesClock:
    """The kernel's jiffies, carried on between readings by CLOCK_MONOTONIC_COARSE.

    That clock's resolution is the tick, which gives HZ. It is slewed to the time outside, and
    jiffies are not: call `sync` now and then.
    """

    def __init__(self, read: Callable[[], int]):
        """`read` gives the kernel's jiffies now."""
        self._read = read
        self._tick = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
        self.sync()

    def sync(self) -> None:
        """Read the kernel's jiffies again."""
        self._base = (
            self._read(),
            time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE),
        )

    def now(self) -> int:
        """Jiffies now."""
        jiffies, at = self._base
        return jiffies + (time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) - at) // self._tick

    def ticks(self, seconds: float) -> int:
        """Jiffies in that many seconds, at least one."""
        return max(1, round(seconds * 1e9 / self._tick))

    def seconds(self, ticks: int) -> float:
        """Seconds in that many jiffies."""
        return ticks * self._tick / 1e9
