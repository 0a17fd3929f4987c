# SPDX-License-Identifier: Apache-2.0
"""What this host's processes are called."""

from __future__ import annotations

import contextlib
from pathlib import Path

from carom.kernel import values


def name_of(pid: int) -> str:
    """The name that a process has given itself, so that it commands no terminal (values.text); `?`
    where it has ended, or is not to be looked at."""
    with contextlib.suppress(OSError):
        return values.text(Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n"))
    return "?"
