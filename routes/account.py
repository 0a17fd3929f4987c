# SPDX-License-Identifier: Apache-2.0
"""What each process of this host sends by one interface, whether a route leads it or not.

It is counted for as long as somebody looks: account.c says where.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from carom.errors import BPFError, InterfaceError, PrivilegeError
from carom.kernel import forked, libbpf, values
from carom.kernel.bpf import Module
from carom.kernel.cgroups import link_at_root
from carom.kernel.compiled import Hook
from carom.kernel.processes import name_of
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.routes import sockets
from carom.routes.report import route_of

NOBODY = "no process"
"""Whose packets are that no socket sent, or one that no process held when it was looked for."""

_HERE = Path(__file__).resolve().parent
_HOOKS: dict[str, Hook] = {
    "account_made": "create",
    "account_at_tc": "tc",
    "account_at_group": "cgroup",
}
_SENT = struct.Struct("=16sIIQQ")
_WORD = struct.Struct("=I")
_NO_LINKS = (errno.EINVAL, errno.EOPNOTSUPP)  # of a kernel whose TC has none


class Sender(NamedTuple):
    """A process that sent something by the interface, all of its sockets together; `sockets` are
    those that the kernel counts now. `pid` is 0 for NOBODY. `route` is the one that the process is
    in, or empty."""

    pid: int
    program: str
    uid: int
    alive: bool
    route: str
    sockets: int
    out_packets_s: float
    out_bytes_s: float
    out_packets: int
    out_bytes: int


class _Who(NamedTuple):
    pid: int
    program: str
    uid: int


class _Count(NamedTuple):
    packets: int
    bytes: int

    def plus(self, more: _Count) -> _Count:
        return _Count(self.packets + more.packets, self.bytes + more.bytes)

    def above(self, before: _Count) -> _Count:
        """What is more than before; all of it, where the kernel has forgotten it meanwhile."""
        if self.packets < before.packets:
            return self
        return _Count(self.packets - before.packets, self.bytes - before.bytes)


_NONE, _NO_ONE = _Count(0, 0), _Who(0, NOBODY, 0)


def recipe() -> Recipe:
    """The programs, as they come with carom."""
    return Recipe(_HERE / "account.c", hooks=_HOOKS, packaged="account")


class Account(Resource):
    """Counts what leaves by an interface until it is closed, or its process ends."""

    def __init__(self, interface: str):
        """Raises InterfaceError where there is none, BPFError, PrivilegeError."""
        self._interface, self._links = interface, list[int]()
        self._index = self._found()
        if not self._index:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise InterfaceError(f"there is no interface {interface}", hint=f"there are: {names}")
        self._module = Module(recipe())
        try:
            self._attach()
        except BaseException:
            self.close()
            raise
        self._counts: dict[int, _Count] = {}  # by cookie, as makers are
        self._makers: dict[int, _Who] = {}
        self._sums: dict[_Who, _Count] = {}
        self._time = time.monotonic()

    def _found(self) -> int:
        with contextlib.suppress(OSError):
            return socket.if_nametoindex(self._interface)
        return 0

    def _attach(self) -> None:
        module = self._module
        libbpf.update(module.map("counted"), _WORD.pack(0), _WORD.pack(self._index))
        try:
            self._link(link_at_root, "account_made", libbpf.CGROUP["create"])
            try:
                self._link(libbpf.link_tcx_egress, "account_at_tc", self._index)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._link(link_at_root, "account_at_group", libbpf.CGROUP["egress"])
        except PermissionError as error:
            raise PrivilegeError(
                "not allowed to count what leaves by an interface", hint="run it as root"
            ) from error
        except OSError as error:
            raise BPFError(
                f"what leaves by {self._interface} cannot be counted: {error.strerror}",
                hint="that needs Linux 5.18 or newer with control groups (CONFIG_CGROUP_BPF)",
            ) from error

    def _link(self, link: Callable[[int, int], int], program: str, where: int) -> None:
        descriptor = self._module.program(program)
        self._links.append(forked.made(lambda: link(descriptor, where)))

    def look(self) -> list[Sender]:
        """What was sent since the last look and in all, the busiest first.

        Raises InterfaceError where the interface is gone, BPFError, OSError.
        """
        if self._found() != self._index:
            raise InterfaceError(
                f"{self._interface} is gone, and what was counted there with it",
                hint="start again once it is back",
            )
        seconds, self._time = time.monotonic() - self._time, time.monotonic()
        more = self._more()
        for who, count in more.items():
            self._sums[who] = self._sums.get(who, _NONE).plus(count)
        sockets = Counter(who for cookie, who in self._makers.items() if cookie)
        rows = [
            _row(who, sockets[who], whole, more.get(who, _NONE), seconds)
            for who, whole in self._sums.items()
        ]
        return sorted(rows, key=lambda row: (-row.out_bytes_s, -row.out_bytes))

    def _more(self) -> dict[_Who, _Count]:
        """What each process has sent since the last look."""
        before, known = self._counts, self._makers
        self._counts, self._makers = {}, {}
        for count, keys, packed in libbpf.batches(self._module.map("sent_by"), 8, _SENT.size):
            for n, cookie in enumerate(keys.cast("Q")[:count]):
                name, pid, uid, packets, size = _SENT.unpack_from(packed, n * _SENT.size)
                who = _Who(pid, values.text(name), uid) if pid else known.get(cookie, _NO_ONE)
                self._counts[cookie], self._makers[cookie] = _Count(packets, size), who
        above = (
            (cookie, count.above(before.get(cookie, _NONE)))
            for cookie, count in self._counts.items()
        )
        grown = {cookie: more for cookie, more in above if more.packets}
        unknown = {cookie for cookie in grown if cookie and self._makers[cookie] is _NO_ONE}
        self._makers |= _holders(unknown)
        summed: dict[_Who, _Count] = {}
        for cookie, more in grown.items():
            who = self._makers[cookie]
            summed[who] = summed.get(who, _NONE).plus(more)
        return summed

    def close(self) -> None:
        """Detach."""
        while self._links:
            forked.close(self._links.pop())
        self._module.close()


def _row(who: _Who, sockets: int, whole: _Count, more: _Count, seconds: float) -> Sender:
    route = None
    with contextlib.suppress(OSError):
        route = route_of(who.pid) if who.pid else None
    return Sender(
        pid=who.pid,
        program=who.program,
        uid=who.uid,
        alive=bool(who.pid) and Path(f"/proc/{who.pid}").exists(),
        route=route or "",
        sockets=sockets,
        out_packets_s=more.packets / seconds,
        out_bytes_s=more.bytes / seconds,
        out_packets=whole.packets,
        out_bytes=whole.bytes,
    )


def _holders(cookies: set[int]) -> dict[int, _Who]:
    """Who holds sockets that were made before, by their cookies."""
    if not cookies:
        return {}
    found = [one for one in sockets.listed() if one.cookie in cookies and one.inode]
    held = sockets.held_by(sockets.processes()) if found else {}
    holders = {}
    for one in found:
        for pid in held.get(one.inode, ())[:1]:
            with contextlib.suppress(OSError):
                uid = Path(f"/proc/{pid}").stat().st_uid
                holders[one.cookie] = _Who(pid, name_of(pid), uid)
    return holders
