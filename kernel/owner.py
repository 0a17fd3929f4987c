# SPDX-License-Identifier: Apache-2.0
"""The owners of a loaded BPF program: the processes that hold it, or a link of it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def owners(program_id: int) -> list[str]:
    """Name and pid of each process that holds a program, of those that this one may look into."""
    wanted = f"prog_id:\t{program_id}\n"  # fdinfo of programs and links, Documentation/bpf
    holders = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(wanted in _text(info) for info in (process / "fdinfo").iterdir()):
                comm = (process / "comm").read_text(errors="replace").strip()
                holders.append(f"{comm} (pid {process.name})")
    return holders


def _text(info: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return info.read_text(errors="replace")
    return ""
