# SPDX-License-Identifier: Apache-2.0
"""How programs tell the time: the parameters of clock.h."""

from __future__ import annotations


def timing(ticks: int, *, test_clock: bool = False) -> dict[str, int]:
    """The parameters for a kernel with so many jiffies a second.

    With `test_clock` time is what the map `clock` says, in seconds.
    """
    ticks = 1 if test_clock else ticks
    return {"ticks": ticks, "second": -(-(2**32) // ticks), "test_clock": test_clock}
