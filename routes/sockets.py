# SPDX-License-Identifier: Apache-2.0
"""Sockets of a route's programs: how each is led, and those that were open before brought in.

The kernel lists sockets with their marks and their control groups (sock_diag(7)); who holds them is
read from proc(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from carom.errors import BPFError
from carom.kernel import netlink, netns
from carom.routes.leading import Leading

_NETLINK_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21  # linux/netlink.h, linux/sock_diag.h
_REQUEST = struct.Struct("=BBxxI2s2s16s16sIII")  # struct inet_diag_req_v2
_LISTED = struct.Struct("=BBxx2s2s16s16sIII12xII")  # struct inet_diag_msg
_MARK, _CGROUP = 15, 21  # INET_DIAG_MARK, INET_DIAG_CGROUP_ID, linux/inet_diag.h
_ALL_STATES, _NO_COOKIE = 0xFFF, 0xFFFFFFFF
_SO_COOKIE = 57  # asm-generic/socket.h
_PIDFD_GETFD = 438  # linux/unistd.h, the same on every architecture

Led = Literal["led", "mark only", "direct", "taken along"]
"""`led`: by mark and switch. `mark only`: adopted, so that no switch sees it. `direct`: not led, as
it was open before or came from outside. `taken along`: led, but its holder is not in the group."""


class Socket(NamedTuple):
    """An internet socket; `held` are the pids of those that hold it, of the processes looked at."""

    protocol: int
    family: int
    state: int
    local: tuple[str, int]
    peer: tuple[str, int]
    ifindex: int
    cookie: int
    inode: int
    mark: int
    group: int
    held: tuple[int, ...] = ()

    @property
    def connected(self) -> bool:
        """Whether it has a peer, and so a source that stays."""
        return bool(self.peer[1])

    def __str__(self) -> str:
        kind = "tcp" if self.protocol == socket.IPPROTO_TCP else "udp"
        ends = f" to {shown(self.peer)}" if self.connected else ""
        return f"{kind} {shown(self.local)}{ends}"


def shown(end: tuple[str, int]) -> str:
    """An end as text: ADDRESS:PORT, or [ADDRESS]:PORT."""
    address, port = end
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def listed() -> list[Socket]:
    """All TCP and UDP sockets of this network namespace. Raises BPFError, OSError."""
    found = []
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for family in (socket.AF_INET, socket.AF_INET6):
            asked = _REQUEST.pack(
                *(family, protocol, _ALL_STATES, bytes(2), bytes(2), bytes(16), bytes(16)),
                *(0, _NO_COOKIE, _NO_COOKIE),
            )
            try:
                messages = netlink.dump(_BY_FAMILY, asked, _NETLINK_SOCK_DIAG)
            except OSError as error:
                raise BPFError(
                    f"sockets cannot be listed: {error.strerror}",
                    hint="that needs root, and the kernel's inet_diag, tcp_diag and udp_diag",
                ) from error
            found += [_socket(message, protocol) for message in messages]
    return found


def _socket(message: memoryview, protocol: int) -> Socket:
    family, state, port, peer_port, local, peer, device, low, high, _, inode = _LISTED.unpack_from(
        message
    )
    told = dict(netlink.attributes(message[_LISTED.size :]))
    return Socket(
        protocol,
        family,
        state,
        _end(family, local, port),
        _end(family, peer, peer_port),
        device,
        high << 32 | low,
        inode,
        int.from_bytes(told.get(_MARK, b""), "little"),
        int.from_bytes(told.get(_CGROUP, b""), "little"),
    )


def _end(family: int, address: bytes, port: bytes) -> tuple[str, int]:
    packed = address if family == socket.AF_INET6 else address[:4]
    return str(ipaddress.ip_address(packed)), int.from_bytes(port, "big")


def processes() -> Iterator[int]:
    """The pids of this host's processes."""
    yield from (int(path.name) for path in Path("/proc").glob("[0-9]*"))


def held_by(pids: Iterable[int]) -> dict[int, list[int]]:
    """By inode: the pids that hold a socket, of these."""
    held: dict[int, list[int]] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for inode in netns.inodes(Path(f"/proc/{pid}")):
                held.setdefault(inode, []).append(pid)
    return held


def of_route(led: Leading) -> list[tuple[Socket, Led]]:
    """The sockets that are led, and those of its programs that are not.

    What the kernel alone has of a connection (TIME_WAIT) is left out: it is nobody's, and its mark
    may be that of an earlier route. Raises BPFError, OSError.
    """
    mark, number = led.maps.policy().mark, led.group.number
    held = held_by(led.group.pids())
    found = [one for one in listed() if one.inode and (one.mark == mark or one.inode in held)]
    strange = any(one.inode not in held for one in found)  # somebody else's, or nobody's
    others = held_by(processes()) if strange else {}
    rows = []
    for one in found:
        pids = held.get(one.inode) or others.get(one.inode, [])
        inside = one.inode in held or not pids
        rows.append((one._replace(held=tuple(pids)), _how(one, mark, number, inside)))
    return rows


def _how(one: Socket, mark: int, number: int, is_inside: bool) -> Led:
    if one.mark != mark:
        return "direct"
    if not is_inside:
        return "taken along"
    return "led" if one.group == number else "mark only"


class Adopted(NamedTuple):
    """What became of a socket that was open before."""

    socket: str
    how: Literal["led by its mark", "destroyed", "still direct"]


def adopt(led: Leading, pid: int, *, destroy: bool) -> list[Adopted]:
    """Bring a process into a route, with its open sockets as far as that goes.

    One without a peer is marked. One with a peer keeps its source, so it cannot go another way:
    with `destroy` it is ended, and its program sees an error. Raises BPFError, OSError.
    """
    led.group.enter(pid)
    by_inode = {one.inode: one for one in listed()}
    done = []
    process = os.pidfd_open(pid)
    try:
        for number, inode in netns.descriptors(Path(f"/proc/{pid}")):
            with _taken(process, number) as taken:
                if taken.family in (socket.AF_INET, socket.AF_INET6):
                    one = by_inode.get(inode)
                    how = _adopted(led, taken, one, pid, destroy)
                    done.append(Adopted(str(one or "a socket without a port"), how))
    finally:
        os.close(process)
    return done


def _adopted(
    led: Leading, taken: socket.socket, one: Socket | None, pid: int, destroy: bool
) -> Literal["led by its mark", "destroyed", "still direct"]:
    if one and one.connected:
        return "destroyed" if destroy and _destroyed(one) else "still direct"
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, led.maps.policy().mark)
    led.maps.adopt(taken.fileno(), _cookie(taken), pid)
    return "led by its mark"


def cookie_of(pid: int, number: int) -> int:
    """The cookie of the socket that a descriptor of a process is. Raises OSError."""
    process = os.pidfd_open(pid)
    try:
        with _taken(process, number) as taken:
            return _cookie(taken)
    finally:
        os.close(process)


def _cookie(taken: socket.socket) -> int:
    cookie = taken.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    return int.from_bytes(cookie, sys.byteorder)


@contextlib.contextmanager
def _taken(process: int, number: int) -> Iterator[socket.socket]:
    """Another process' socket. Raises OSError."""
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(fileno=descriptor) as taken:
        yield taken


def _destroyed(one: Socket) -> bool:
    """Whether the kernel has ended a socket (SOCK_DESTROY)."""
    ends = (
        (end[1].to_bytes(2, "big"), socket.inet_pton(one.family, end[0]).ljust(16, b"\0"))
        for end in (one.local, one.peer)
    )
    (port, local), (peer_port, peer) = ends
    asked = _REQUEST.pack(
        *(one.family, one.protocol, _ALL_STATES, port, peer_port, local, peer, one.ifindex),
        *(one.cookie & 0xFFFFFFFF, one.cookie >> 32),
    )
    try:
        netlink.command(_DESTROY, asked, _NETLINK_SOCK_DIAG)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT):
            return False
        raise
    return True
