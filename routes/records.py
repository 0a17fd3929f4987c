# SPDX-License-Identifier: Apache-2.0
"""Which routes there are: a file for each.

What leads packets is in the kernel. The files say what cannot be read there: what was asked for,
and which interfaces a route has left, whose rules by source stay until it stops. Whoever changes a
route holds the lock of all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from carom.errors import CaromError, UsageError
from carom.kernel import forked, netns
from carom.routes.route import Mark, Route, check_name


class Record(msgspec.Struct, frozen=True):
    """A route that is up: the cookie of its network namespace, the process that brought it up, its
    number, and the interfaces that it has used, with their routers."""

    name: str
    netns: int
    keeper: int
    number: int
    mask: int
    route: Route
    used: dict[str, tuple[str, ...]]

    @property
    def mark(self) -> int:
        """What its packets are marked with."""
        return Mark(self.mask).of(self.number)


def folder() -> Path:
    """Where the files are. Raises CaromError where it cannot be made."""
    path = Path(os.environ.get("CAROM_RUN") or "/run/carom") / "routes"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise CaromError(
            f"{path} cannot be made: {error.strerror}", hint="run it as root"
        ) from error
    return path


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Be the only one who changes routes. Raises CaromError."""
    path = folder() / ".lock"
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = forked.made(lambda: os.open(path, flags, 0o600))
    except OSError as error:
        raise CaromError(
            f"{path} cannot be opened: {error.strerror}", hint="run it as root"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        forked.close(descriptor)


def _file(name: str) -> Path:
    return folder() / f"{check_name(name)}.json"


def find(name: str) -> Record | None:
    """The record of a route; None where there is none. Raises CaromError for a damaged one."""
    path = _file(name)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise CaromError(f"{path} cannot be read: {error}", hint="remove it") from error


def all_of_them() -> list[Record]:
    """The records of all routes, by name. Raises CaromError."""
    names = sorted(path.stem for path in folder().glob("*.json"))
    return [record for name in names if (record := find(name))]


def here() -> list[Record]:
    """Those of this network namespace. Raises CaromError."""
    mine = netns.own_cookie()
    return [record for record in all_of_them() if record.netns == mine]


def write(record: Record) -> None:
    """Put a record in the place of the one before. Raises CaromError."""
    path = _file(record.name)
    new = path.with_suffix(".new")
    try:
        new.write_bytes(msgspec.json.encode(record) + b"\n")
        new.replace(path)
    except OSError as error:
        raise CaromError(f"{path} cannot be written: {error.strerror}") from error


def remove(name: str) -> None:
    """Forget a route."""
    _file(name).unlink(missing_ok=True)


def free_number(mark: Mark) -> int:
    """A number that no route has. Raises UsageError where all are taken."""
    taken = {record.number for record in all_of_them()}
    free = next((number for number in range(1, mark.numbers + 1) if number not in taken), 0)
    if not free:
        raise UsageError(
            f"all {mark.numbers} marks of routes are taken",
            hint="stop a route, or give them more bits: mask in [marks] of the policy file",
        )
    return free
