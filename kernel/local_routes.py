# SPDX-License-Identifier: Apache-2.0
"""Prefixes that local routes make the host's own (AnyIP), and at which of their addresses to
answer.

The kernel delivers what comes to any of their addresses; the fast path needs each address by
itself.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection

from carom.kernel import netlink
from carom.kernel.netlink import Address, Changes

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Asked = Callable[[], Collection[Address]]
"""Gives the addresses that services are bound to; they need not be any interface's."""

SMALL = 256
"""A prefix with at most this many addresses is answered at each of them."""

_TABLE_LOCAL, _LOCAL, _KERNEL = 255, 2, 2  # RT_TABLE_LOCAL, RTN_LOCAL, RTPROT_KERNEL
_GETROUTE, _RTA_DST = 26, 1  # linux/rtnetlink.h
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ROUTE_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_AT_TYPE = 16 + 7  # offset of rtm_type in a route's message, after struct nlmsghdr


def prefixes() -> list[Network]:
    """The prefixes of this network namespace, without loopback's and interfaces' own addresses.

    Raises OSError.
    """
    networks = []
    for family, bits in _BITS.items():
        asked = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, _LOCAL, 0)
        for message in netlink.dump(_GETROUTE, asked):
            version, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(message)
            if (version, table, kind) != (family, _TABLE_LOCAL, _LOCAL):
                continue
            if protocol == _KERNEL and length == bits:  # an address of an interface
                continue
            to = dict(netlink.attributes(message[_ROUTE.size :])).get(_RTA_DST, bytes(bits // 8))
            network = ipaddress.ip_network((to, length))
            if not network.is_loopback:
                networks.append(network)
    return networks


def is_local(address: Address) -> bool:
    """Whether the kernel's routes deliver packets for an address to this host."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    to = struct.pack("=HH", 4 + len(address.packed), _RTA_DST) + address.packed
    asked = _ROUTE.pack(family, _BITS[family], 0, 0, 0, 0, 0, 0, 0) + to
    try:
        (message,) = netlink.ask(_GETROUTE, asked)
    except (OSError, ValueError):  # no route
        return False
    return bool(_ROUTE.unpack_from(message)[7] == _LOCAL)


def local(known: Collection[Address], asked: Asked) -> tuple[list[Address], list[Network]]:
    """Addresses that are the host's by local routes alone, and the large prefixes that have more.

    `known` are interfaces' own addresses, which are left out. Of a large prefix, or one of another
    routing table, only addresses that are `asked` for are there. Raises OSError.
    """
    networks = prefixes()
    small = [network for network in networks if network.num_addresses <= SMALL]
    hosts = dict.fromkeys(address for network in small for address in network)
    hosts |= dict.fromkeys(
        address for address in asked() if address not in known and is_local(address)
    )
    own = set(known)
    large = [network for network in networks if network.num_addresses > SMALL]
    return [address for address in hosts if address not in own], large


class LocalChanges(Changes):
    """As Changes, and for changes of local routes too; other routes change all the time."""

    def _listen(self) -> None:
        super()._listen()
        heard = self._hear(socket.NETLINK_ROUTE)
        _only_local(heard)
        heard.bind((0, _ROUTE_GROUPS))


def _only_local(heard: socket.socket) -> None:
    """Have a socket of route netlink get local routes only: socket(7), SO_ATTACH_FILTER."""
    load, equal, give = 0x30, 0x15, 0x06  # BPF_* of linux/filter.h
    steps = (load, 0, 0, _AT_TYPE), (equal, 0, 1, _LOCAL), (give, 0, 0, 0xFFFFFFFF), (give, 0, 0, 0)
    packed = [struct.pack("=HBBI", *step) for step in steps]
    code = ctypes.create_string_buffer(b"".join(packed))
    program = struct.pack("@HP", len(packed), ctypes.addressof(code))
    heard.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
