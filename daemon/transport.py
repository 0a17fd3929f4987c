# SPDX-License-Identifier: Apache-2.0
"""The server's UDP socket: a reply leaves from the address that its request was sent to."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import Any

from carom.errors import PrivilegeError, ServerError
from carom.kernel.local_routes import is_local

Receive = Callable[[memoryview], tuple[int, Any]]
"""Puts a request's payload there; gives its length and its origin."""

Send = Callable[[bytes, Any], object]
"""Takes a reply's payload and the origin of its request."""

_IP_PKTINFO = 8  # linux/in.h
_PKTINFO = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, local address, destination
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_STEP = struct.Struct("=HBBI")  # struct sock_filter
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog
_NET_OFFSET = 0xFFF00000  # SKF_NET_OFF: from the IP header on
_IPV6_FREEBIND = 78  # linux/in6.h
_PKTINFO6 = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface


def bind(address: str, port: int, device: str = "", zone: int = 0) -> socket.socket:
    """A bound UDP socket; `::` takes IPv4 too.

    With a `device`, which may be a VRF, it gets only what comes in by that. `zone` is the ifindex
    of the link that has a link-local address. Raises ServerError; PrivilegeError for a low port.
    """
    bound = ipaddress.ip_address(address)
    udp = socket.socket(
        socket.AF_INET6 if bound.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
    )
    try:
        if device:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        if bound.version == 6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if bound.is_unspecified or is_local(bound):
                # For addresses that only a local route makes the host's; IPv4 needs no option.
                udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        if bound.is_unspecified:
            if bound.version == 6:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                udp.setsockopt(socket.SOL_IP, _IP_PKTINFO, 1)
        udp.bind((address, port, 0, zone) if bound.version == 6 else (address, port))
    except OSError as error:
        udp.close()
        hints = {
            errno.EADDRINUSE: f"another process has it: `ss -lunp sport = :{port}` names it",
            errno.EADDRNOTAVAIL: "it is not an address of this host: see `ip address`",
        }
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PrivilegeError(
                f"not allowed to bind UDP port {port}",
                hint="ports below 1024 need root, or CAP_NET_BIND_SERVICE",
            ) from error
        raise ServerError(
            f"cannot bind UDP {address} port {port}: {error.strerror}",
            hint=hints.get(error.errno or 0, "`ss -lun` shows what is bound; -v shows more"),
        ) from error
    return udp


def device_of(udp: socket.socket) -> int:
    """The ifindex of the device that a socket is bound to; 0 for none."""
    name = udp.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
    return socket.if_nametoindex(name) if name else 0


def refuse_below(udp: socket.socket, ttl: int) -> None:
    """Let the kernel drop datagrams whose TTL or hop limit is below `ttl`, before they are read.

    The fast path's replies have their request's TTL less one, so that a loop between two hosts
    ends; a server's reply, with a fresh TTL, would start it again. socket(7), SO_ATTACH_FILTER.
    """
    load, mask, equal, at_least, give = 0x30, 0x54, 0x15, 0x35, 0x06  # BPF_* of linux/filter.h
    steps = (
        (load, 0, 0, _NET_OFFSET),
        (mask, 0, 0, 0xF0),
        (equal, 2, 0, 0x60),
        (load, 0, 0, _NET_OFFSET + 8),  # IPv4's TTL
        (at_least, 2, 3, ttl),
        (load, 0, 0, _NET_OFFSET + 7),  # IPv6's hop limit
        (at_least, 0, 1, ttl),
        (give, 0, 0, 0xFFFFFFFF),
        (give, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in steps))
    program = _PROGRAM.pack(len(steps), ctypes.addressof(code))
    udp.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def transport(udp: socket.socket) -> tuple[Receive, Send]:
    """Functions to receive and to answer on a socket, as fast as its address allows.

    A socket bound to all addresses asks which one each request was sent to (ip(7), IP_PKTINFO;
    RFC 3542). Routing would choose one address for all replies, and clients would refuse them.
    """
    if not ipaddress.ip_address(udp.getsockname()[0]).is_unspecified:
        return udp.recvfrom_into, udp.sendto
    ipv6 = udp.family == socket.AF_INET6
    packed = _PKTINFO6 if ipv6 else _PKTINFO
    level, kind = (
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if ipv6 else (socket.SOL_IP, _IP_PKTINFO)
    )
    receive_into, sendmsg, room = udp.recvmsg_into, udp.sendmsg, socket.CMSG_SPACE(packed.size)

    def receive(buffer: memoryview) -> tuple[int, Any]:
        length, ((_, _, info),), _, client = receive_into((buffer,), room)
        return length, (info, client)

    def send(reply: bytes, origin: Any) -> None:
        info, client = origin
        # From this address, by any interface; a link-local client's address names its own.
        local = packed.pack(info[:16], 0) if ipv6 else packed.pack(0, info[4:8], b"")
        sendmsg((reply,), ((level, kind, local),), 0, client)

    return receive, send
