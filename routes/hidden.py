# SPDX-License-Identifier: Apache-2.0
"""Resolvers behind Unix sockets, hidden from a program: they ask from outside of its route."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

_CLONE_NEWNS = 0x20000  # linux/sched.h
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 1 << 18  # MS_*, linux/mount.h
_SOCKETS = (
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/dbus/system_bus_socket",
    "/run/avahi-daemon/socket",
)
"""Of nscd, systemd-resolved (Varlink, and D-Bus by which older ones are asked), and Avahi."""

_CONFIGURATION = Path("/etc/resolv.conf")


def hide(resolvers: tuple[str, ...]) -> None:
    """Hide them from this process and all that it starts.

    With `resolvers`, those are all that resolv.conf names. Takes CAP_SYS_ADMIN, which may be given
    up afterwards. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _check(libc.mount(None, b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None))
    for path in filter(os.path.exists, _SOCKETS):
        _put(libc, "/dev/null", path)
    if resolvers and _CONFIGURATION.exists():
        with tempfile.NamedTemporaryFile("w", prefix="carom-resolv-") as file:
            file.write("".join(f"nameserver {one}\n" for one in resolvers))
            file.flush()
            os.chmod(file.name, 0o644)
            _put(libc, file.name, str(_CONFIGURATION.resolve()))


def _put(libc: ctypes.CDLL, what: str, where: str) -> None:
    """Have one file in another's place."""
    _check(libc.mount(what.encode(), where.encode(), None, ctypes.c_ulong(_BIND), None))


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
