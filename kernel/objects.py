# SPDX-License-Identifier: Apache-2.0
"""Object files: those that the user says, and those that come with carom."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from carom import __version__, log
from carom.errors import ObjectError
from carom.kernel import elf
from carom.kernel.compiled import Compiled
from carom.kernel.recipe import INCLUDE

SUFFIX = ".o"
PACKAGED = Path(__file__).resolve().parent / "programs"
"""Where the files are that come with carom."""

_LAYOUT = ("oci-layout", "index.json")
"""The files that a folder with an image layout has: one alone makes a damaged one."""

CHOSEN = "CAROM_PROGRAMS"
"""The environment variable that `--programs` sets, for this process and those that it starts."""

TESTED = ["6.1", "6.12", "6.18"]
"""The kernels that these sources' tests pass on (`./run test`, `./run test-vm guest`)."""


@functools.cache
def abi() -> str:
    """The digest of what userspace and programs share: layouts, numbers, parameters."""
    shared = (INCLUDE / name for name in ("abi.h", "parameter.h"))
    return hashlib.sha256(b"".join(one.read_bytes() for one in shared)).hexdigest()


def made(compiled: Compiled, name: str, source: str) -> bytes:
    """The object file of what was compiled from the source with this digest."""
    label = elf.Label(name, source, abi(), __version__, compiled.compiler, TESTED)
    return elf.write(compiled, label)


class Object(NamedTuple):
    """An object file, and where it was: in a file of its own, or in an image layout (oci.py)."""

    where: str
    file: bytes
    label: elf.Label

    def __str__(self) -> str:
        return self.where

    def compiled(self) -> Compiled:
        """What it holds. Raises ObjectError."""
        with _named(self.where):
            return elf.contents(self.file, self.label)

    def loadable(self) -> Compiled:
        """What it holds. Raises ObjectError, also for what this carom cannot load."""
        if self.label.abi != abi():
            raise ObjectError(
                f"{self.where} is of carom {self.label.version} with the ABI "
                f"{self.label.abi[:12]}; this is carom {__version__} with {abi()[:12]}",
                hint="`carom build` makes one that fits",
            )
        return self.compiled()


@contextlib.contextmanager
def _named(where: str | Path) -> Iterator[None]:
    """Errors of what is read inside say where that is. Raises ObjectError."""
    try:
        yield
    except OSError as error:
        raise ObjectError(f"{where} cannot be read: {error.strerror}") from error
    except elf.Foreign as error:
        raise ObjectError(
            f"{where} cannot be loaded: {error}", hint="`carom build` makes another"
        ) from error


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The object files behind a path, each with where it is. Raises ObjectError."""
    with _named(path):
        layout = any((path / name).exists() for name in _LAYOUT)
    if layout:
        from carom.kernel import images  # which takes 10 ms, and most starts need none

        with _named(path):
            held = images.read(path)
        yield from ((f"{path}: {image.name}", image.file) for image in held)
        return
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise ObjectError(f"there is no object file (*{SUFFIX}) in {path}, and no image layout")
    for file in files:
        with _named(file):
            data = file.read_bytes()
        yield str(file), data


def found(paths: Iterable[Path]) -> Iterator[Object]:
    """The objects in files, in folders of such, and in image layouts. Raises ObjectError."""
    for path in paths:
        for where, file in _files(path):
            with _named(where):
                label = elf.label(file)
            yield Object(where, file, label)


def chosen(name: str) -> Compiled | None:
    """What `--programs` says for this name; None where it says nothing.

    Raises ObjectError, also where it says two things.
    """
    said = os.environ.get(CHOSEN)
    own = [one for one in found([Path(said)]) if one.label.name == name] if said else []
    if len({one.file for one in own}) > 1:
        raise ObjectError(
            f"there are several objects called {name}: {', '.join(one.where for one in own)}",
            hint="leave one in that folder, or name its file",
        )
    for one in own[:1]:
        log.info("loading programs of a file", name=name, file=one.where)
        return one.loadable()
    return None


def packaged(name: str, source: str) -> Object | None:
    """What comes with carom under a name, if it was made from the source with this digest.

    Raises ObjectError for a damaged file.
    """
    path = PACKAGED / (name + SUFFIX)
    if not path.exists():
        return None
    (one,) = found([path])
    return one if one.label.source == source else None
