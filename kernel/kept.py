# SPDX-License-Identifier: Apache-2.0
"""Object files, kept by root until the next boot: clang would take seconds at each start.

They lie in the run directory, in a folder that only root may write to, each under the name of its
source (compiler.Source), which begins with the digest. Whoever may load programs takes them from
there. If anything is wrong with the folder or a file, the program is compiled anew. The kernel
checks every program in any case.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from carom.kernel import elf

_FOLDER_MODE, _FILE_MODE, _OTHERS_WRITE = 0o755, 0o644, 0o022
_FILES = 128
"""How many are kept, at some 200 kB each; the one that was not used for longest goes first."""


def folder() -> Path:
    """The folder with the kept files."""
    run = os.environ.get("CAROM_RUN") or "/run/carom"
    return Path(os.environ.get("CAROM_CACHE") or f"{run}/compiled")


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    """The folder's descriptor. Raises OSError if anybody but root may write there.

    That holds for any user's own: a process of theirs without privileges must not say what one with
    them loads.
    """
    root = os.geteuid() == 0
    if root:
        folder().mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    descriptor = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid or stat.S_IMODE(status.st_mode) & _OTHERS_WRITE:
            raise PermissionError("others than root may write to the folder")
        if root:
            os.fchmod(descriptor, _FOLDER_MODE)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Inside, no other process compiles what has this name: who waited takes what is kept."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError), _opened():
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(f"{folder()}.lock", flags, 0o600)
            stack.callback(os.close, lock)
            fcntl.lockf(lock, fcntl.LOCK_EX, 1, int(name[:15], 16))  # a byte for each digest
        yield


def take(name: str) -> tuple[bytes, elf.Label] | None:
    """The file that was kept under a name; None if none was, or it is no such object."""
    with contextlib.suppress(OSError, elf.Foreign), _opened() as where:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
        with open(descriptor, "rb") as opened:
            file = opened.read()
            with contextlib.suppress(PermissionError):  # it is root's
                os.utime(opened.fileno())
        label = elf.label(file)
        return (file, label) if label.source == name.partition(".")[0] else None
    return None


def keep(name: str, file: bytes) -> None:
    """Keep an object file under a name; does nothing where that is impossible, or not as root."""
    if os.geteuid():
        return
    with contextlib.suppress(OSError), _opened() as where:
        new = f"{name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(new, flags, _FILE_MODE, dir_fd=where), "wb") as kept:
                os.fchmod(kept.fileno(), _FILE_MODE)
                kept.write(file)
            os.rename(new, name, src_dir_fd=where, dst_dir_fd=where)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=where)
            raise
        _forget_the_oldest(where)


def _forget_the_oldest(where: int) -> None:
    files = {}
    for file in os.listdir(where):
        with contextlib.suppress(OSError):  # somebody else has removed it
            files[file] = os.stat(file, dir_fd=where, follow_symlinks=False).st_mtime_ns
    for file in sorted(files, key=lambda file: files[file])[:-_FILES]:
        with contextlib.suppress(OSError):
            os.unlink(file, dir_fd=where)
