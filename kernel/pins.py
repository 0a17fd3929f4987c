# SPDX-License-Identifier: Apache-2.0
"""What outlives its owner in the kernel: maps and links, by names in a BPF file system.

Links that are pinned stay attached when their owner ends, `kill -9` or not; whoever opens
the folder next puts its own programs into their places, between two packets (bpf_obj_pin and
BPF_LINK_UPDATE, bpf(2)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from carom.errors import BPFError, BusyError, PrivilegeError
from carom.kernel import forked, libbpf
from carom.kernel.attached import Links
from carom.kernel.resource import Resource

_NEW = "-new"  # the end of a name until `publish`
_OTHERS = 0o077


def _is_bpf(folder: Path) -> bool:
    """Whether a folder is in a BPF file system (proc(5), mountinfo)."""
    device = folder.stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        _, _, number, *rest = line.split()
        if os.makedev(*map(int, number.split(":"))) == device:
            return rest[rest.index("-") + 1] == "bpf"
    return False


class Pins(Resource):
    """A folder with pinned maps and links, for one process at a time; closing leaves all there.

    Names are of letters, digits, - and _. What is `put` replaces what has its name only with
    `publish`; from then on it does at once.
    """

    def __init__(self, folder: Path, *, anybodys: bool = False):
        """Open or make the folder. One of another user's is only taken if it may be `anybodys`.

        Raises BusyError, BPFError, PrivilegeError.
        """
        self.folder = folder
        self._fresh: list[str] = []
        self._published = False
        with contextlib.ExitStack() as stack:
            with self._explained():
                self.made = self._make()
                self._descriptor = os.open(
                    folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                )
            forked.keep(self._descriptor)
            stack.callback(forked.close, self._descriptor)
            status = os.fstat(self._descriptor)
            own = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & _OTHERS
            if not own and not anybodys:
                raise PrivilegeError(
                    f"{folder} is somebody else's, or others may write to it",
                    hint="remove it; or CAROM_PINS names another folder",
                )
            self._tag = f"-{os.getpid()}-{time.monotonic_ns()}{_NEW}"
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"another carom runs with what is pinned in {folder}",
                    hint="stop it first; or give this one a folder of its own: CAROM_PINS",
                ) from None
            for name in self._all():
                if is_link(name) and name.endswith(_NEW):  # of one killed before it published
                    self._unlink(name)
            self._stack = stack.pop_all()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, PermissionError):
                raise PrivilegeError(
                    f"not allowed to pin anything in {self.folder}",
                    hint="run it as root; or CAROM_PINS names a folder of this user's in a BPF "
                    "file system",
                ) from error
            raise BPFError(
                f"nothing can be pinned in {self.folder}: {error.strerror or error}",
                hint="mount a BPF file system, `mount -t bpf bpf /sys/fs/bpf`, or name a folder in "
                "one by CAROM_PINS",
            ) from error

    def _make(self) -> bool:
        """Make the folder, and those above it, for this user alone; False where it is there."""
        there = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        if not _is_bpf(there):
            raise OSError(errno.EINVAL, f"{there} is in no BPF file system")
        if there == self.folder:
            return False
        for one in (*reversed(self.folder.parents), self.folder):
            if one != there and one.is_relative_to(there):
                one.mkdir(mode=0o700)
        return True

    def _all(self) -> list[str]:
        return sorted(os.listdir(self._descriptor))

    def _path(self, name: str) -> Path:
        """The way to a name that takes no rights to the folders above, which carom may give up."""
        return Path(f"/proc/self/fd/{self._descriptor}") / name

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def _settle(self, name: str) -> None:
        at = self._descriptor
        os.rename(name + self._tag, name, src_dir_fd=at, dst_dir_fd=at)

    def names(self) -> list[str]:
        """The names of what is pinned, in order; without what was put and never published."""
        return [name for name in self._all() if not name.endswith(_NEW)]

    def take(self, name: str) -> int | None:
        """A descriptor of what has this name, which the caller closes by `forked.close`; or None.

        Raises BPFError, PrivilegeError.
        """
        with self._explained():
            try:
                return forked.made(lambda: libbpf.pinned(self._path(name)))
            except FileNotFoundError:
                return None

    def put(self, name: str, descriptor: int, *, later: bool = False) -> None:
        """Pin this; it has its name from `publish` on, or, once all was published, at once, but
        not if it is for `later`. Any thread may call it. Raises BPFError, PrivilegeError."""
        with self._explained():
            self._unlink(name + self._tag)
            libbpf.pin(descriptor, self._path(name + self._tag))
            if self._published and not later:
                self._settle(name)
            else:
                self._fresh.append(name)

    def publish(self) -> None:
        """Have all that was put be what has its name, in the order in which it was put.

        What others put and never published goes: until now it may have been in use. Raises
        BPFError, PrivilegeError.
        """
        self._published = True
        with self._explained():
            while self._fresh:
                self._settle(self._fresh[0])
                del self._fresh[0]
            for name in self._all():
                if name.endswith(_NEW) and not name.endswith(self._tag):
                    self._unlink(name)

    def remove(self, name: str) -> None:
        """Unpin what has this name, or was put under it; a link is attached no more then, if no
        descriptor of it is left."""
        self._unlink(name)
        self._unlink(name + self._tag)
        self._fresh = [fresh for fresh in self._fresh if fresh != name]

    def forget(self) -> None:
        """Unpin what was put and never published."""
        while self._fresh:
            self._unlink(self._fresh.pop() + self._tag)

    def clear(self) -> None:
        """Unpin everything, links first, and remove the folder."""
        self._fresh.clear()
        for name in sorted(self._all(), key=lambda name: not is_link(name)):
            self._unlink(name)
        with contextlib.suppress(OSError):  # it may be another user's to remove, or others' too
            self.folder.rmdir()
            self.folder.parent.rmdir()

    def close(self) -> None:
        """Leave the folder to the next."""
        self._stack.close()


LINK = "link-"
"""What the names of links begin with."""


def is_part(name: str) -> bool:
    """Whether this is no map by a name of its own, but a link, or a part of something."""
    return "-" in name


def is_link(name: str) -> bool:
    """Whether this is the name of a pinned link."""
    return name.startswith(LINK)


class PinnedLinks(Links):
    """Makes links that outlive their owner, and takes over those that did."""

    def __init__(self, pins: Pins):
        self._pins = pins
        self._there = {name for name in pins.names() if is_link(name)}
        self.used = set[str]()
        """The pins of those that this process has made or taken over."""
        self.took_over = False
        """Whether it has put programs into links of another's."""

    def there(self, name: str) -> bool:
        """Whether there is one to take over, as its owner has ended."""
        return LINK + name in self._there

    def live(self, name: str) -> bool:
        """Whether there is one to take over, and it is attached."""
        descriptor = self._pins.take(LINK + name) if self.there(name) else None
        if descriptor is None:
            return False
        try:
            return bool(libbpf.link_ifindex(descriptor))
        finally:
            forked.close(descriptor)

    def made(self, name: str, program: int, make: Callable[[], int]) -> int:
        """As in Links; one that is there gets the program, between two packets."""
        name = LINK + name
        descriptor = self._taken_over(name, program) if name in self._there else None
        if descriptor is None:
            descriptor = forked.made(make)
            try:
                self._pins.put(name, descriptor)
            except BaseException:
                libbpf.close_link(descriptor)
                raise
        self.used.add(name)
        return descriptor

    def _taken_over(self, name: str, program: int) -> int | None:
        self._there.discard(name)
        descriptor = self._pins.take(name)
        if descriptor is None:
            return None
        if libbpf.link_ifindex(descriptor):
            libbpf.update_link(descriptor, program)
            self.took_over = True
            return descriptor
        forked.close(descriptor)  # its interface is gone
        self._pins.remove(name)
        return None

    def end(self, name: str) -> None:
        """Detach one that is there, and is not to be taken over."""
        descriptor = self._pins.take(LINK + name)
        if descriptor is not None:
            self.detach(name, descriptor)

    def detach(self, name: str, descriptor: int) -> None:
        """As in Links."""
        self._there.discard(LINK + name)
        self.used.discard(LINK + name)
        self._pins.remove(LINK + name)
        libbpf.close_link(descriptor)

    def close(self, name: str, descriptor: int) -> None:
        """Leave it attached to the next."""
        forked.close(descriptor)
