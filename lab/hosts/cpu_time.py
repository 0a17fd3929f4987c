# SPDX-License-Identifier: Apache-2.0
"""CPU time: of a process, and of the whole machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

_RUN_TIME = 2  # the scheduler's clock among a process' clocks (clock_getcpuclockid(3))
_IDLE = (3, 4)  # idle and iowait among /proc/stat's columns
_COUNTED = 8  # guest time is in user time already


def of_process(pid: int) -> float:
    """Seconds that a process' threads have run, including those that have ended."""
    return time.clock_gettime(~pid << 3 | _RUN_TIME)


def of_machine() -> float:
    """Seconds that all CPUs were busy, interrupts included, in steps of a tick (proc(5), stat)."""
    return busy(Path("/proc/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def busy(stat: str) -> int:
    """The busy ticks of all CPUs in the text of /proc/stat."""
    columns = [int(text) for text in stat.split("\n", 1)[0].split()[1 : 1 + _COUNTED]]
    return sum(columns) - sum(columns[column] for column in _IDLE)
