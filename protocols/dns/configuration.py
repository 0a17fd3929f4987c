# SPDX-License-Identifier: Apache-2.0
"""The files of a server's configuration, and what was found in them.

They are a stranger's and may contain anything. Only regular files are opened, and only below the
server's own root directory.
"""

from __future__ import annotations

import ctypes
import fnmatch
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

DEEPEST = 5  # includes in included files
FILES_MAX = 1000
BYTES_MAX = 2 << 20

_OPENAT2 = 437  # of all architectures: openat2(2), Linux 5.6
_HOW = struct.Struct("=3Q")  # struct open_how: flags, mode, resolve
_NO_MAGICLINKS, _IN_ROOT = 0x02, 0x10
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PATH_MAX = 4096
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Unreadable(Exception):
    """A part of a configuration cannot be read, or there is too much of it."""


class Finding(NamedTuple):
    """A statement, or what holds because there is none, and the file that it is in."""

    said: str
    file: str


class Tree:
    """A server's files: its root directory, and the configuration files that it starts from.

    A missing file is skipped, unless another includes it by its whole name. A file that cannot be
    read raises Unreadable, and so does more than FILES_MAX files or BYTES_MAX bytes.
    """

    def __init__(self, root: Path, files: Iterable[str]):
        self.root = root
        self.files = tuple(files)
        self._files = FILES_MAX
        self._bytes = BYTES_MAX

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and text of each file that exists."""
        return self.texts_of(self.files)

    def texts_of(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The same for other names, or patterns of names."""
        for name in names:
            for file in self._matching(name) if _is_pattern(name) else [name]:
                text = self._read(file)
                if text is not None:
                    yield file, text

    def included(self, file: str, names: Iterable[str], depth: int) -> Iterator[tuple[str, str]]:
        """The files that a file includes, by names that may be relative to it.

        `depth` is how many files include that one, each the next: a file that includes itself is
        soon too deep. A server that reads such a file does not start either.
        """
        for name in names:
            if depth >= DEEPEST:
                raise Unreadable(f"{file} includes {name}, and more than {DEEPEST} include it")
            whole = str(PurePosixPath(file).parent / name)
            entry = None
            for entry in self.texts_of([whole]):
                yield entry
            if not entry and not _is_pattern(whole):
                raise Unreadable(f"{file} includes {whole}, which is no file")

    def _matching(self, name: str) -> list[str]:
        if len(name) > _PATH_MAX:
            raise Unreadable(f"a pattern of {len(name)} characters")
        paths = ["/"]
        for part in PurePosixPath("/", name).parts[1:]:
            paths = [
                str(PurePosixPath(folder, entry))
                for folder in paths
                for entry in (self._entries(folder, part) if _is_pattern(part) else [part])
            ]
            if len(paths) > FILES_MAX:
                raise Unreadable(f"{name} names more than {FILES_MAX} files")
        return paths

    def _entries(self, folder: str, pattern: str) -> list[str]:
        """The names in a folder that match; a hidden file only if the pattern starts with a dot."""
        try:
            descriptor = self._open(folder)
            try:
                names = os.listdir(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
        except _ABSENT:
            return []
        except OSError as error:
            raise Unreadable(f"{folder}: {error.strerror}") from error
        matching = fnmatch.filter(names, pattern)
        return sorted(entry for entry in matching if entry[0] != "." or pattern[0] == ".")

    def _read(self, name: str) -> str | None:
        """A file's text; None where there is none. Its kind is checked before it is opened."""
        try:
            descriptor = self._open(name)
            try:
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    return None
                if not _is_file(descriptor):
                    raise Unreadable(f"{name} is no regular file")
                with open(os.open(f"/proc/self/fd/{descriptor}", _READ), "rb") as opened:
                    data = opened.read(self._bytes + 1)
            finally:
                os.close(descriptor)
        except _ABSENT:
            return None
        except OSError as error:
            raise Unreadable(f"{name}: {error.strerror}") from error
        self._bytes -= len(data)
        if self._bytes < 0:
            raise Unreadable(f"more than {BYTES_MAX} bytes, with {name}")
        return data.decode(errors="replace")

    def _open(self, name: str) -> int:
        """Open a name within the root with O_PATH, which does nothing to the file itself."""
        if "\0" in name:
            raise Unreadable("a name with a NUL")
        self._files -= 1  # whether it is there or not
        if self._files < 0:
            raise Unreadable(f"more than {FILES_MAX} files, with {name}")
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            how = _HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _IN_ROOT)
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = libc.syscall(_OPENAT2, root, os.fsencode(name), how, len(how))
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
            return int(descriptor)
        finally:
            os.close(root)


def _is_pattern(name: str) -> bool:
    return bool(set(name) & set("*?["))


def _is_file(descriptor: int) -> bool:
    """Whether it is a regular file on some storage: reading those of /proc may do things."""
    status = os.fstat(descriptor)
    kept = bool(status.st_blocks or os.fstatvfs(descriptor).f_blocks)
    return stat.S_ISREG(status.st_mode) and kept
