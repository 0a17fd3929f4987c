# SPDX-License-Identifier: Apache-2.0
"""What this host's processes are called, and since when they are there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from carom.kernel import values


def name_of(pid: int) -> str:
    """The name that a process has given itself, so that it commands no terminal (values.text); `?`
    where it has ended, or is not to be looked at."""
    with contextlib.suppress(OSError):
        return values.text(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
    return "?"


_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STARTED = 19  # of the fields behind the name (proc(5), "starttime", is the 22nd of all)


def started(pid: int) -> int | None:
    """When a process started, in nanoseconds since the boot (steps of 10 ms); None where it has
    ended.

    With its pid that names one process: a pid alone is another's later.
    """
    with contextlib.suppress(OSError):
        behind_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
        return int(behind_name.split()[_STARTED]) * _TICK
    return None
