# SPDX-License-Identifier: Apache-2.0
"""Which server it is, by its sockets: whose they are, where they are bound, and who holds them.

Policy alone: nothing here asks the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from carom.daemon.sockets import Socket
from carom.kernel.links import At
from carom.kernel.netlink import Address

_ANY = {4: ipaddress.ip_address("0.0.0.1"), 6: ipaddress.ip_address("::2")}
"""An address of each IP that no socket is bound to."""


class Server(NamedTuple):
    """One server: its sockets at the service's port, and the processes that hold them."""

    sockets: tuple[Socket, ...]
    pids: frozenset[int]
    unheld: frozenset[int] = frozenset()
    """Inodes of its sockets that no process is seen to hold."""

    @property
    def uid(self) -> int:
        """The user that its sockets belong to."""
        return self.sockets[0].uid

    def receives(self, where: Iterable[At]) -> bool:
        """Whether it gets packets that come to its host by any of these ways."""
        return any(socket.receives_at(at) for socket in self.sockets for at in where)


def servers(
    sockets: Iterable[Socket],
    holders: Mapping[int, set[int]],
    parent: Callable[[int], int],
    program: Callable[[int], object],
) -> list[Server]:
    """The servers that sockets at one port belong to: all sockets of one user are one server.

    Each address answers for itself, so several servers of one user do no harm. A process that holds
    a socket for a descendant with another program is a supervisor, and not part of the server.
    """
    groups: dict[int, list[Socket]] = {}
    for socket in sockets:
        groups.setdefault(socket.uid, []).append(socket)
    result = []
    for group in groups.values():
        pids = set[int]().union(*(holders.get(socket.inode, set()) for socket in group))
        kept = frozenset(_without_supervisors(pids, parent, program))
        unheld = frozenset(socket.inode for socket in group if not holders.get(socket.inode))
        result.append(Server(tuple(group), kept, unheld))
    return result


def _without_supervisors(
    pids: set[int], parent: Callable[[int], int], program: Callable[[int], object]
) -> set[int]:
    kept = set(pids)
    for pid in pids:
        above = parent(pid)
        while above > 0:
            if above in kept and program(above) != program(pid):
                kept.discard(above)
            above = parent(above)
    return kept


def translated(sockets: Iterable[Socket], version: int) -> Socket | None:
    """Which of a host's sockets at a port gets requests of this IP that are translated to the host.

    None where that depends on the address that they are translated to. From outside, nothing is
    translated to a loopback or link-local address. A host without sockets of this IP version may be
    reached by the other one.
    """
    far = [
        socket
        for socket in sockets
        if not (socket.address.is_loopback or socket.address.is_link_local)
    ]
    mine = [
        socket
        for socket in far
        if socket.address.version == version or socket.receives(_ANY[version])
    ]
    candidates = mine or far
    if len({socket.address for socket in candidates}) > 1 and not all(
        socket.address.is_unspecified for socket in candidates
    ):
        return None
    return max(candidates, key=lambda socket: socket.address.version == version, default=None)


def receiver(sockets: Iterable[Socket], at: At) -> Socket | None:
    """Which of a host's sockets at a port gets a packet (udp_lib_lookup in the kernel)."""
    return nearest([socket for socket in sockets if socket.receives_at(at)], at.address)


def nearest(sockets: Iterable[Socket], address: Address) -> Socket | None:
    """Of sockets that receive at an address, the one that gets its packets."""

    def nearness(socket: Socket) -> tuple[bool, bool, bool]:
        same = socket.address.version == address.version
        return not socket.address.is_unspecified, bool(socket.device), same

    return max(sockets, key=nearness, default=None)
