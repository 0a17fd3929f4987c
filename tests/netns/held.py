# SPDX-License-Identifier: Apache-2.0
"""What a process holds in the kernel, by its ids: which of them are still there after its end."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path
from typing import NamedTuple

from carom.kernel import libbpf
from netns.process import until


class Held(NamedTuple):
    """One program, map or link of BPF. Ids go up, so none is given again for a long time."""

    kind: str
    id: int

    def is_there(self) -> bool:
        """Whether anything holds it still: a process, an attachment, or a file of bpffs.

        It is not opened for that: Linux 6.18 keeps a map of programs that is opened while it is
        emptied.
        """
        found = ctypes.c_uint32()
        next_id = getattr(libbpf.library(), f"bpf_{self.kind}_get_next_id")
        return next_id(self.id - 1, ctypes.byref(found)) == 0 and found.value == self.id


def held(pid: int) -> set[Held]:
    """Everything of BPF that a process has open."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since then
            found |= {
                Held(kind, int(id))
                for kind, id in re.findall(r"^(prog|map|link)_id:\t(\d+)", info.read_text(), re.M)
            }
    return found


def until_gone(all: set[Held]) -> None:
    """Wait until none of these is there: the kernel frees them a little later."""
    until(lambda: not any(one.is_there() for one in all), "what was held to be freed")
