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
from carom.kernel import forked, libbpf, netns, values
from carom.kernel.bpf import Module
from carom.kernel.cgroups import link_at_root
from carom.kernel.compiled import Hook
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.routes.holders import holders
from carom.routes.makers import ENDED, NO_PROCESS, Makers, Process
from carom.routes.report import route_of

_KEPT = 4096  # processes: of more, those that have ended become one row
_HERE = Path(__file__).resolve().parent
_HOOKS: dict[str, Hook] = {
    "account_made": "create",
    "account_at_tc": "tc",
    "account_at_group": "cgroup",
}
_SENT = struct.Struct("=16sIIQQQQ")
_INTERFACE = struct.Struct("=QI4x")
_NO_LINKS = (errno.EINVAL, errno.EOPNOTSUPP)  # of a kernel whose TC has none


class Sender(NamedTuple):
    """A process that sent something by the interface, all of its sockets together; `sockets` are
    those that the kernel counts now. `pid` is 0 for what no process sent, and for what those did of
    which no row is kept. `route` is the one that the process is in, or empty."""

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


_NONE = _Count(0, 0)


def recipe() -> Recipe:
    """The programs, as they come with carom."""
    return Recipe(_HERE / "account.c", hooks=_HOOKS, packaged="account")


class Account(Resource):
    """Counts what leaves by an interface until it is closed, or its process ends."""

    def __init__(self, interface: str):
        """Raises InterfaceError where there is none, BPFError, PrivilegeError."""
        self._interface, self._links = interface, list[int]()
        self._in_groups = False
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
        self._counts: dict[int, _Count] = {}  # by cookie, as processes are
        self._processes: dict[int, Process] = {}
        self._sums: dict[Process, _Count] = {}
        self._makers = Makers()
        self._time = time.monotonic()

    def _found(self) -> int:
        with contextlib.suppress(OSError):
            return socket.if_nametoindex(self._interface)
        return 0

    def _attach(self) -> None:
        what = _INTERFACE.pack(netns.own_cookie(), self._index)
        libbpf.update(self._module.map("counted"), bytes(4), what)
        try:
            self._link(link_at_root, "account_made", libbpf.CGROUP["create"])
            try:
                self._link(libbpf.link_tcx_egress, "account_at_tc", self._index)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._link(link_at_root, "account_at_group", libbpf.CGROUP["egress"])
                self._in_groups = True
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
        self._makers.look()
        more = self._more()
        for process, count in more.items():
            self._sums[process] = self._sums.get(process, _NONE).plus(count)
        self._fold(more)
        held = Counter(process for cookie, process in self._processes.items() if cookie)
        rows = [
            self._row(process, held[process], whole, more.get(process, _NONE), seconds)
            for process, whole in self._sums.items()
        ]
        return sorted(rows, key=lambda row: (-row.out_bytes_s, -row.out_bytes))

    def _more(self) -> dict[Process, _Count]:
        """What each process has sent since the last look."""
        before, known = self._counts, self._processes
        self._counts, self._processes = {}, {}
        for count, keys, packed in libbpf.batches(self._module.map("sent_by"), 8, _SENT.size):
            for n, cookie in enumerate(keys.cast("Q")[:count]):
                name, pid, uid, made, _, packets, size = _SENT.unpack_from(packed, n * _SENT.size)
                process = known.get(cookie, NO_PROCESS)
                if process == NO_PROCESS and pid:
                    process = self._makers.maker(pid, made, values.text(name), uid)
                self._counts[cookie], self._processes[cookie] = _Count(packets, size), process
        above = (
            (cookie, count.above(before.get(cookie, _NONE)))
            for cookie, count in self._counts.items()
        )
        grown = {cookie: more for cookie, more in above if more.packets}
        unknown = {one for one in grown if one and self._processes[one] == NO_PROCESS}
        for cookie, pid in holders(unknown).items():
            self._processes[cookie] = self._makers.holder(pid)
        summed: dict[Process, _Count] = {}
        for cookie, more in grown.items():
            process = self._processes[cookie]
            # A group sees all network namespaces, and nobody has said where such a socket is.
            if process != NO_PROCESS or not self._in_groups:
                summed[process] = summed.get(process, _NONE).plus(more)
        return summed

    def _fold(self, more: dict[Process, _Count]) -> None:
        """Of too many processes, make one of those that have ended and have sent the least."""
        many = sum(1 for one in self._sums if one.pid) - _KEPT
        if many <= 0:
            return
        ended = [one for one in self._sums if one.pid and not self._makers.lives(one)]
        least = set(sorted(ended, key=lambda one: self._sums[one].bytes)[:many])
        for process in least:
            for counts in (self._sums, more):
                counts[ENDED] = counts.get(ENDED, _NONE).plus(counts.pop(process, _NONE))
            self._makers.forget(process)
        for cookie, process in self._processes.items():
            if process in least:
                self._processes[cookie] = ENDED

    def _row(
        self, process: Process, held: int, whole: _Count, more: _Count, seconds: float
    ) -> Sender:
        alive, route = self._makers.lives(process), None
        program, uid = self._makers.facts(process)
        with contextlib.suppress(OSError):
            route = route_of(process.pid) if alive else None
        return Sender(
            pid=process.pid,
            program=program,
            uid=uid,
            alive=alive,
            route=route or "",
            sockets=held,
            out_packets_s=more.packets / seconds,
            out_bytes_s=more.bytes / seconds,
            out_packets=whole.packets,
            out_bytes=whole.bytes,
        )

    def close(self) -> None:
        """Detach."""
        while self._links:
            forked.close(self._links.pop())
        self._module.close()
