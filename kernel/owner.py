# SPDX-License-Identifier: Apache-2.0
"""The owners of a loaded BPF program: the processes that hold it, or a link of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from carom.kernel import libbpf
from carom.kernel.processes import name_of


def owners(program_id: int) -> list[str]:
    """Name and pid of each process that holds a program, of those that this one may look into."""
    return [f"{name} (pid {pid})" for pid, name in holders(program_id).items()]


def holders(program_id: int) -> dict[int, str]:
    """The same as names by pid."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if any(_tells(program_id, info) for info in (process / "fdinfo").iterdir()):
                pid = int(process.name)
                found[pid] = name_of(pid)
    return found


def pins(program_id: int) -> list[str]:
    """The files of bpffs that keep a program, or a link of it."""
    found = []
    for path in Path("/sys/fs/bpf").rglob("*"):
        descriptor: int = libbpf.library().bpf_obj_get(str(path).encode())
        if descriptor >= 0:
            if _tells(program_id, Path(f"/proc/self/fdinfo/{descriptor}")):
                found.append(str(path))
            os.close(descriptor)
    return found


def _tells(program_id: int, info: Path) -> bool:
    """Whether the fdinfo of a program or a link (Documentation/bpf) is about this program."""
    return f"prog_id:\t{program_id}\n" in _text(info)


def _text(info: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return info.read_text(errors="replace")
    return ""
