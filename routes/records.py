# SPDX-License-Identifier: Apache-2.0
"""Which routes there are: a file for each, and who keeps it.

What leads packets is in the kernel. The files say what cannot be read there: what was asked for,
and which interfaces a route has left, whose rules by source stay until it stops. Whoever changes a
route holds the lock of all; whoever keeps one holds that one's lock for as long as he lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from carom.errors import BusyError, CaromError, UsageError
from carom.kernel import forked, netns
from carom.kernel.resource import Resource
from carom.routes.route import Mark, Route, check_name

_ALL = ".lock"


class Record(msgspec.Struct, frozen=True):
    """A route that is up: the cookie of its network namespace, its number, and the interfaces that
    it has used, with their routers."""

    name: str
    netns: int
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
    with Locked(folder() / _ALL):
        yield


class Locked(Resource):
    """A file that this process holds the lock of; it is removed with the lock, if that is asked."""

    def __init__(self, path: Path, *, wait: bool = True, removed: bool = False):
        """Raises BlockingIOError where another holds it and this does not `wait`, CaromError."""
        self._path, self._removed = path, removed
        while True:
            self._fd = forked.made(lambda: _opened(path, os.O_CREAT))
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if _is_there(self._fd, path):
                    return
            except BaseException:
                forked.close(self._fd)
                raise
            forked.close(self._fd)  # its last holder has removed it

    def close(self) -> None:
        """Let the lock go."""
        if self._removed:
            self._path.unlink(missing_ok=True)
        forked.close(self._fd)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CaromError(
            f"{path} cannot be opened: {error.strerror}", hint="run it as root"
        ) from error


def _is_there(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def keep(name: str) -> Locked:
    """Keep a route from now on. Raises BusyError where somebody does, CaromError."""
    try:
        held = Locked(_keeper(name), wait=False, removed=True)
    except BlockingIOError as error:
        pid = keeper(name)
        raise BusyError(
            f"route {name} is kept by another carom{f' (pid {pid})' if pid else ''}",
            hint=f"end that one, or use it: carom route run {name} -- COMMAND",
        ) from error
    _keeper(name).write_text(str(os.getpid()))
    return held


def is_kept(name: str) -> bool:
    """Whether a living process keeps a route. Raises CaromError."""
    try:
        descriptor = _opened(_keeper(name), 0)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def forget_keepers() -> None:
    """Remove what keepers that were killed have left."""
    for path in folder().glob("*.lock"):
        with contextlib.suppress(BlockingIOError, CaromError):
            if path.name != _ALL:
                Locked(path, wait=False, removed=True).close()


def keeper(name: str) -> int:
    """The process that keeps a route, or kept it last; 0 for none."""
    with contextlib.suppress(OSError, ValueError):
        return int(_keeper(name).read_text())
    return 0


def _keeper(name: str) -> Path:
    return folder() / f"{check_name(name)}.lock"


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
