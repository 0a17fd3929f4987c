# SPDX-License-Identifier: Apache-2.0
"""Who the server is, by its sockets: whose they are, where they are bound, and who holds them.

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
        """Whether it gets what comes to its host in any of some ways."""
        return any(one.receives_at(at) for one in self.sockets for at in where)


def servers(
    sockets: Iterable[Socket],
    holders: Mapping[int, set[int]],
    parent: Callable[[int], int],
    program: Callable[[int], object],
) -> list[Server]:
    """The servers that sockets at one port belong to: those of one user are one.

    Each of its addresses answers for itself, so several servers of one user do no harm. A process
    that holds a socket for a descendant which runs another program is a supervisor, and no part of
    the server.
    """
    groups: dict[int, list[Socket]] = {}
    for one in sockets:
        groups.setdefault(one.uid, []).append(one)
    found = []
    for group in groups.values():
        pids = set[int]().union(*(holders.get(one.inode, set()) for one in group))
        kept = frozenset(_without_supervisors(pids, parent, program))
        unheld = frozenset(one.inode for one in group if not holders.get(one.inode))
        found.append(Server(tuple(group), kept, unheld))
    return found


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
    """Which of a host's sockets at a port gets what is translated to that host, of this IP.

    None where it depends on the address that it is translated to. From outside, none is translated
    to a loopback or link-local address. A host without sockets of this IP may be reached by the
    other one.
    """
    far = [one for one in sockets if not (one.address.is_loopback or one.address.is_link_local)]
    mine = [one for one in far if one.address.version == version or one.receives(_ANY[version])]
    found = mine or far
    if len({one.address for one in found}) > 1 and not all(
        one.address.is_unspecified for one in found
    ):
        return None
    return max(found, key=lambda one: one.address.version == version, default=None)


def receiver(sockets: Iterable[Socket], at: At) -> Socket | None:
    """Which of a host's sockets at a port gets what comes so (udp_lib_lookup in the kernel)."""
    return nearest([one for one in sockets if one.receives_at(at)], at.address)


def nearest(sockets: Iterable[Socket], address: Address) -> Socket | None:
    """Of those that receive at an address, the one that gets it."""

    def nearness(one: Socket) -> tuple[bool, bool, bool]:
        same = one.address.version == address.version
        return not one.address.is_unspecified, bool(one.device), same

    return max(sockets, key=nearness, default=None)
