# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, and which sockets a process holds there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h; Linux 5.14
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


def own_cookie() -> int:
    """The number of this thread's network namespace, which no other has until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(cookie, sys.byteorder)


def descriptors(process: Path) -> Iterator[tuple[int, int]]:
    """The descriptors of a process that are sockets, with their inodes.

    Raises OSError where it has ended.
    """
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            match = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
            if match:
                yield int(descriptor.name), int(match[1])


def inodes(process: Path) -> set[int]:
    """Inodes of the sockets that a process holds. Raises OSError where it has ended."""
    return {inode for _, inode in descriptors(process)}
