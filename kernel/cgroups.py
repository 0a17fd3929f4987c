# SPDX-License-Identifier: Apache-2.0
"""The root of control groups (version 2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from carom.kernel import libbpf

# Of linux/unistd.h, the same on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6


def _syscall(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def open_root() -> int:
    """A descriptor of the root of control groups (version 2), which need not be mounted here.

    In a network namespace that ip(8) made it is not: /sys is mounted anew there. To mount it takes
    CAP_SYS_ADMIN. Raises OSError.
    """
    for point, device in mounted():
        with contextlib.suppress(OSError):  # it is not seen from here
            found = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
            if os.fstat(found).st_dev == device:
                return found
            os.close(found)  # something else is mounted over it
    made = _syscall(_FSOPEN, b"cgroup2", 0)
    try:
        _syscall(_FSCONFIG, made, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _syscall(_FSMOUNT, made, 0, 0)
    finally:
        os.close(made)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    finally:
        os.close(mount)


def link_at_root(program: int, kind: int) -> int:
    """Attach a program there, beside others, by a link, whose descriptor this is: it sees all of
    this host. Raises OSError."""
    root = open_root()
    try:
        return libbpf.link_cgroup(program, root, kind)
    finally:
        os.close(root)


def mounted() -> Iterator[tuple[str, int]]:
    """Where the root of control groups is mounted, and its device (proc(5), mountinfo)."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        _, _, device, root, point, *rest = line.split()
        if root == "/" and rest[rest.index("-") + 1] == "cgroup2" and "\\" not in point:
            yield point, os.makedev(*map(int, device.split(":")))
