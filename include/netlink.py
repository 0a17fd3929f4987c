# SPDX-License-Identifier: Apache-2.0
"""The one module that asks the kernel about this host's interfaces by netlink."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from carom.errors import InterfaceError


class Interface(NamedTuple):
    """Facts of one interface.

    `mtu` is the longest IP packet in bytes; `driver` the kernel driver's name, or the kind of a
    virtual link (`veth`); `addresses` its IPv4 addresses.
    """

    ifindex: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    driver: str
    addresses: tuple[ipaddress.IPv4Address, ...]


def _driver(name: str, link: Any) -> str:
    kind = (link.get_attr("IFLA_LINKINFO") or {}).get("attrs", ())
    for attribute, value in kind:
        if attribute == "IFLA_INFO_KIND":
            return str(value)
    driver = Path("/sys/class/net") / name / "device" / "driver"
    return driver.resolve().name if driver.exists() else "unknown"


def interface(name: str) -> Interface:
    """Look up an interface of this network namespace.

    Raises InterfaceError when there is none of that name, or it is no Ethernet interface.
    """
    with IPRoute() as netlink:
        links = {link.get_attr("IFLA_IFNAME"): link for link in netlink.get_links()}
        if name not in links:
            raise InterfaceError(
                f"there is no interface {name!r} here",
                hint="this host has: " + ", ".join(sorted(map(str, links))),
            )
        link = links[name]
        mac = bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
        if len(mac) != 6 or name == "lo":
            raise InterfaceError(
                f"{name} is not an Ethernet interface",
                hint="carom answers Ethernet frames; give the interface that requests come in by",
            )
        addresses = tuple(
            ipaddress.IPv4Address(address.get_attr("IFA_LOCAL"))
            for address in netlink.get_addr(family=2, index=link["index"])
        )
        return Interface(
            ifindex=link["index"],
            name=name,
            mac=mac,
            mtu=link.get_attr("IFLA_MTU"),
            up=bool(link["flags"] & 1),
            driver=_driver(name, link),
            addresses=addresses,
        )


class Changes:
    """Wakes up whoever waits when a link or an IPv4 address of this namespace changes."""

    _GROUPS = 0x1 | 0x10  # RTMGRP_LINK | RTMGRP_IPV4_IFADDR, linux/rtnetlink.h

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, self._GROUPS))
        self._socket.setblocking(False)

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; True when something changed meanwhile."""
        readable, _, _ = select.select([self._socket], [], [], seconds)
        if not readable:
            return False
        with contextlib.suppress(OSError):  # drained, or overrun: either way something changed
            while self._socket.recv(65536):
                pass
        return True

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
