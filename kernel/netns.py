# SPDX-License-Identifier: Apache-2.0
"""Other network namespaces."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # linux/sched.h


def enter(process: Path) -> None:
    """Move this thread to the network namespace of a process (`/proc/PID`), for good.

    Raises OSError: FileNotFoundError where the process has ended.
    """
    if os.readlink(process / "ns/net") == os.readlink("/proc/thread-self/ns/net"):
        return  # moving takes CAP_SYS_ADMIN, even there
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
    namespace = os.open(process / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, _CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(namespace)
