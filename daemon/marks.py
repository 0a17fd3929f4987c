# SPDX-License-Identifier: Apache-2.0
"""Tells the programs at the socket's edge which sockets are a server's (cgroup/marks.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from carom.daemon.edge import Edge
from carom.kernel import libbpf
from carom.kernel.abi import DOOR, MARK, MarkKind, packed_address
from carom.kernel.netlink import Address

_COOKIE = struct.Struct("=Q")
_PID = struct.Struct("=I")
_NOWHERE = bytes(16)


class Kind(NamedTuple):
    """What a socket is. `view` is the number of the server's address: each answers for itself."""

    kind: MarkKind
    view: int = 0


OPEN, UNVOIDED, CONNECTION = (Kind(MarkKind.DOOR, number) for number in range(3))
"""Sockets by which a server is written to: the same to programs, but not to who takes over.

What is cached may be older than an unvoided one, as the service was not voided since it is marked.
A connection is marked once, and no look finds it again.
"""


class Door(NamedTuple):
    """What a server is bound to, in the network namespace with this cookie; `stream` for TCP."""

    netns: int
    address: Address
    port: int
    stream: bool

    def packed(self) -> bytes:
        """A struct door: an unspecified address is zero, of either family."""
        address = _NOWHERE if self.address.is_unspecified else packed_address(self.address)
        return DOOR.pack(address, self.netns, self.port, self.stream, 0)


ANYWHERE = 0
"""No namespace's cookie: such a door stands for a port in any network namespace."""


class Marks:
    """The marks of one service's server."""

    def __init__(self, edge: Edge, service: int):
        self._edge = edge
        self._service = service
        self._doors: dict[bytes, bytes] = {}
        self._pids: dict[bytes, bytes] = {}

    def take_over(self) -> dict[int, Kind]:
        """Go on with what the maps say, from a daemon before; returns the sockets' kinds.

        Connections, which keep their marks, are not among them.
        """
        self._edge.take_over_ports(self._service)
        self._doors = {
            door: mark
            for door, mark in self._elements("doors", DOOR.size, MARK.size)
            if MARK.unpack(mark)[0] == self._service
        }
        own = _PID.pack(self._service)
        pids = self._elements("servers", _PID.size, _PID.size)
        self._pids = {pid: value for pid, value in pids if value == own}
        kinds = {}
        for cookie, mark in self._elements("sockets", _COOKIE.size, MARK.size):
            service, view, kind = MARK.unpack(mark)
            if service == self._service and (kind, view) != CONNECTION:
                kinds[_COOKIE.unpack(cookie)[0]] = Kind(MarkKind(kind), view)
        return kinds

    def _elements(self, name: str, key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
        """A map's keys and values of so many bytes."""
        for count, keys, values in libbpf.batches(self._edge.map(name), key, value):
            for n in range(count):
                yield bytes(keys[n * key :][:key]), bytes(values[n * value :][:value])

    def sockets(self, kinds: Mapping[int, Kind]) -> None:
        """Mark sockets by their cookies; the mark takes effect with their next packet."""
        for cookie, (kind, view) in kinds.items():
            value = MARK.pack(self._service, view, kind)
            libbpf.update(self._edge.map("sockets"), _COOKIE.pack(cookie), value)

    def forget(self, cookies: Iterable[int]) -> None:
        """Forget sockets that are gone; the kernel itself forgets those whose release it saw."""
        for cookie in cookies:
            libbpf.delete(self._edge.map("sockets"), _COOKIE.pack(cookie))

    def doors(self, doors: Iterable[Door]) -> None:
        """Set where the server is bound; a socket that is bound there later is marked as new."""
        doors = list(doors)
        self._edge.open_ports(self._service, {door.port for door in doors})
        new = MARK.pack(self._service, 0, MarkKind.NEW)
        wanted = {door.packed(): new for door in doors}
        libbpf.replace(self._edge.map("doors"), self._doors, wanted)

    def pids(self, pids: Iterable[int]) -> int | None:
        """Set the server's processes: whatever they bind from now on is watched for writes.

        Where one is another service's already, changes nothing and returns its pid.
        """
        value = _PID.pack(self._service)
        wanted = {_PID.pack(pid): value for pid in pids}
        known = self._edge.map("servers")
        with self._edge.marking:  # two services may meet a new process at once
            for pid in wanted:
                if libbpf.lookup(known, pid, _PID.size) not in (None, value):
                    return int(_PID.unpack(pid)[0])
            libbpf.replace(known, self._pids, wanted)
        return None
