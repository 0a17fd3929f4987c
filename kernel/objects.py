# SPDX-License-Identifier: Apache-2.0
"""Object files: those that the user says, and those that come with carom."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from carom import __version__
from carom.errors import ObjectError
from carom.kernel import elf
from carom.kernel.compiled import Compiled
from carom.kernel.recipe import INCLUDE

SUFFIX = ".o"
PACKAGED = Path(__file__).resolve().parent / "programs"
"""Where the files are that come with carom."""

CHOSEN = "CAROM_PROGRAMS"
"""The environment variable that `--programs` sets, for this process and those that it starts."""

TESTED = ["6.1", "6.12", "6.18"]
"""The kernels that these sources' tests pass on (`./run test`, `./run test-vm guest`)."""


log = structlog.get_logger()


@functools.cache
def abi() -> str:
    """The digest of what userspace and programs share: layouts, numbers, parameters."""
    shared = (INCLUDE / name for name in ("abi.h", "parameter.h"))
    return hashlib.sha256(b"".join(one.read_bytes() for one in shared)).hexdigest()


def made(compiled: Compiled, name: str, source: str) -> bytes:
    """The object file of what was compiled from the source with this digest."""
    label = elf.Label(name, source, abi(), __version__, compiled.compiler, TESTED)
    return elf.write(compiled, label)


def read(path: Path) -> tuple[Compiled, elf.Label]:
    """What an object file holds. Raises ObjectError for one that this carom cannot load."""
    try:
        compiled, label = elf.read(path.read_bytes())
    except OSError as error:
        raise ObjectError(f"{path} cannot be read: {error.strerror}") from error
    except elf.Foreign as error:
        raise ObjectError(
            f"{path} cannot be loaded: {error}", hint="`carom build` makes another"
        ) from error
    if label.abi != abi():
        raise ObjectError(
            f"{path} is of carom {label.version} with the ABI {label.abi[:12]}; this is carom "
            f"{__version__} with {abi()[:12]}",
            hint="`carom build` makes one that fits",
        )
    return compiled, label


def labels(paths: Iterable[Path]) -> Iterator[tuple[Path, elf.Label]]:
    """What object files say of themselves, in files and in folders. Raises ObjectError."""
    for path in paths:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files:
            raise ObjectError(f"there is no object file (*{SUFFIX}) in {path}")
        for file in files:
            try:
                yield file, elf.label(file.read_bytes())
            except OSError as error:
                raise ObjectError(f"{file} cannot be read: {error.strerror}") from error
            except elf.Foreign as error:
                raise ObjectError(f"{file} cannot be loaded: {error}") from error


def chosen(name: str) -> Compiled | None:
    """What `--programs` says for this name; None where it says nothing. Raises ObjectError."""
    said = os.environ.get(CHOSEN)
    for path, label in labels([Path(said)]) if said else ():
        if label.name == name:
            log.info("loading programs of a file", name=name, file=str(path))
            return read(path)[0]
    return None


def packaged(name: str, source: str) -> Compiled | None:
    """What comes with carom under a name, if it was made from the source with this digest.

    Raises ObjectError for a damaged file.
    """
    path = PACKAGED / (name + SUFFIX)
    if not path.exists():
        return None
    ((_, label),) = labels([path])
    return read(path)[0] if label.source == source else None
