# SPDX-License-Identifier: Apache-2.0
"""The server's UDP socket: a reply leaves from the address that its request was sent to."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from carom.errors import PrivilegeError, ServerError

Receive = Callable[[int], tuple[bytes, Any]]
"""From the most bytes to take to a request's payload and its origin."""

Send = Callable[[bytes, Any], object]
"""Takes a reply's payload and the origin of its request."""

_IP_PKTINFO = 8  # linux/in.h
_PKTINFO = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, local address, destination
_ANY = "0.0.0.0"


def bind(address: str, port: int) -> socket.socket:
    """A UDP socket. Raises ServerError, or PrivilegeError for a port that needs root."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if address == _ANY:
        udp.setsockopt(socket.SOL_IP, _IP_PKTINFO, 1)
    try:
        udp.bind((address, port))
    except OSError as error:
        udp.close()
        hints = {
            errno.EADDRINUSE: f"another process has it: `ss -lunp sport = :{port}` names it",
            errno.EADDRNOTAVAIL: "it is not an address of this host: see `ip address`",
        }
        if error.errno == errno.EACCES:
            raise PrivilegeError(
                f"not allowed to bind UDP port {port}", hint="ports below 1024 need root"
            ) from error
        raise ServerError(
            f"cannot bind UDP {address}:{port}: {error.strerror}",
            hint=hints.get(error.errno or 0),
        ) from error
    return udp


def transport(udp: socket.socket) -> tuple[Receive, Send]:
    """How to receive and how to answer on a socket, as fast as its address allows.

    A socket bound to all addresses asks which one each request was sent to (ip(7), IP_PKTINFO):
    left to routing, its replies would all leave from one, and other clients refuse them.
    """
    if udp.getsockname()[0] != _ANY:
        return udp.recvfrom, udp.sendto
    recvmsg, sendmsg, room = udp.recvmsg, udp.sendmsg, socket.CMSG_SPACE(_PKTINFO.size)

    def receive(size: int) -> tuple[bytes, Any]:
        request, ((_, _, info),), _, client = recvmsg(size, room)
        return request, (info, client)

    def send(reply: bytes, origin: Any) -> None:
        info, client = origin
        local = _PKTINFO.pack(0, info[4:8], b"")  # by any interface, from this address
        sendmsg((reply,), ((socket.SOL_IP, _IP_PKTINFO, local),), 0, client)

    return receive, send
