# SPDX-License-Identifier: Apache-2.0
"""A route's control group: what is in it is led, and what it starts is too.

Who keeps a route holds a lock of the group's own folder, so every carom of this host sees it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from carom.errors import BPFError, BusyError, PrivilegeError
from carom.kernel import forked
from carom.kernel.cgroups import open_root
from carom.kernel.resource import Resource

PREFIX = "carom-route-"
"""What the names of routes' groups begin with."""

_PATIENCE = 5.0  # seconds for processes that are killed to be gone


def names() -> list[str]:
    """The routes whose groups are there."""
    root = _root()
    try:
        return sorted(
            name.removeprefix(PREFIX) for name in os.listdir(root) if name.startswith(PREFIX)
        )
    finally:
        os.close(root)


def _root() -> int:
    try:
        return open_root()
    except PermissionError as error:
        raise PrivilegeError(
            "not allowed to see this host's control groups", hint="run it as root"
        ) from error
    except OSError as error:
        raise BPFError(
            f"there are no control groups (version 2) here: {error.strerror}",
            hint="mount them: mount -t cgroup2 none /sys/fs/cgroup",
        ) from error


class Group(Resource):
    """The group of a name, at the root of all groups; it stays when this is closed."""

    def __init__(self, name: str):
        """Raises FileNotFoundError where there is none, BPFError, PrivilegeError."""
        self.name = name
        self._folder = PREFIX + name
        self._root = forked.keep(_root())
        try:
            self.descriptor = forked.made(self._opened)
        except BaseException:
            forked.close(self._root)
            raise

    def _opened(self) -> int:
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)

    @property
    def number(self) -> int:
        """Its number, by which the kernel names it where it lists sockets."""
        return os.fstat(self.descriptor).st_ino

    def lock(self) -> bool:
        """Keep it for as long as this is open; False where another process does."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_there(self) -> bool:
        """Whether the group that this is still has its name."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self._folder, dir_fd=self._root)
            return os.path.samestat(found, os.fstat(self.descriptor))
        return False

    def pids(self) -> list[int]:
        """The processes in it. Raises OSError."""
        return [int(line) for line in self._read("cgroup.procs").split()]

    def is_empty(self) -> bool:
        """Whether nothing runs in it, or in groups that its programs made in it. Raises OSError."""
        return "populated 0" in self._read("cgroup.events").splitlines()

    def enter(self, pid: int = 0) -> None:
        """Move a process into it; 0 is this one. Raises OSError."""
        self._write("cgroup.procs", str(pid))

    def kill(self) -> None:
        """End all that runs in it, at once. Raises OSError."""
        self._write("cgroup.kill", "1")
        until = time.monotonic() + _PATIENCE
        while not self.is_empty() and time.monotonic() < until:
            time.sleep(0.01)

    def remove(self) -> bool:
        """Remove it, if nothing runs in it; whether it is gone. Groups in it go too."""
        for _, folders, _, at in os.fwalk(".", topdown=False, dir_fd=self.descriptor):
            for folder in folders:
                with contextlib.suppress(OSError):
                    os.rmdir(folder, dir_fd=at)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                os.rmdir(self._folder, dir_fd=self._root)
            except FileNotFoundError:
                return True
            except OSError:  # EBUSY: what has ended is not quite gone yet
                if not self._ends_soon() or time.monotonic() > until:
                    return False
                time.sleep(0.01)
            else:
                return True

    def _ends_soon(self) -> bool:
        with contextlib.suppress(OSError):
            return self.is_empty()
        return True

    def _read(self, file: str) -> str:
        with open(os.open(file, os.O_RDONLY, dir_fd=self.descriptor)) as opened:
            return opened.read()

    def _write(self, file: str, text: str) -> None:
        descriptor = os.open(file, os.O_WRONLY, dir_fd=self.descriptor)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close its descriptors."""
        forked.close(self.descriptor)
        forked.close(self._root)


def make(name: str) -> Group:
    """A new group, which this process keeps. One of an earlier route is removed, if it is empty.

    Raises BusyError where another process keeps it or programs run in it, BPFError, PrivilegeError.
    """
    while True:
        is_new = _made(name)
        try:
            group = Group(name)
        except FileNotFoundError:
            continue  # somebody has removed it
        if not group.lock():
            group.close()
            if is_new:  # somebody has just looked whether it is kept
                continue
            raise BusyError(
                f"route {name} is kept by another carom",
                hint=f"end that one, or use it: carom route run {name} -- COMMAND",
            )
        if is_new and group.is_there():
            return group
        try:
            if not group.is_empty() or not group.remove():
                raise BusyError(
                    f"programs of an earlier route {name} still run",
                    hint=f"end them: carom route stop {name} --kill",
                )
        finally:
            group.close()


def _made(name: str) -> bool:
    """Make the folder; False where it is there."""
    root = _root()
    try:
        os.mkdir(PREFIX + name, 0o755, dir_fd=root)
    except FileExistsError:
        return False
    except OSError as error:
        raise BPFError(
            f"the control group of {name} cannot be made: {error.strerror}",
            hint="that needs root, and control groups (version 2) that may be written to",
        ) from error
    finally:
        os.close(root)
    return True


def is_kept(name: str) -> bool:
    """Whether a living process keeps a route."""
    try:
        with Group(name) as group:
            return not group.lock()
    except FileNotFoundError:
        return False
