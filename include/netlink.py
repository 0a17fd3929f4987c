# SPDX-License-Identifier: Apache-2.0
"""The one module that asks the kernel about this host's interfaces by netlink."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from carom.errors import InterfaceError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UP = 1  # IFF_UP, linux/if.h
_RTN_BROADCAST = 3  # linux/rtnetlink.h


class Vlan(NamedTuple):
    """A VLAN interface on top of another: its tags, outermost first, and its own facts.

    `inner` is 0 where there is one tag.
    """

    outer: int
    inner: int
    mac: bytes
    mtu: int
    addresses: tuple[Address, ...]


class Interface(NamedTuple):
    """Facts of one interface.

    `mtu` is the longest IP packet in bytes; `driver` the kernel driver's name, or the kind of a
    virtual link (`veth`).
    """

    ifindex: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    driver: str
    addresses: tuple[Address, ...]
    vlans: tuple[Vlan, ...] = ()


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def _driver(name: str, link: Any) -> str:
    kind = _kind(link)
    if kind:
        return kind
    driver = Path("/sys/class/net") / name / "device" / "driver"
    return driver.resolve().name if driver.exists() else "unknown"


def _mac(link: Any) -> bytes:
    return bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))


def _addresses(netlink: IPRoute) -> dict[int, tuple[Address, ...]]:
    """Every interface's addresses, by ifindex."""
    found: dict[int, list[Address]] = {}
    for one in netlink.get_addr():
        text = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
        found.setdefault(one["index"], []).append(ipaddress.ip_address(text))
    return {index: tuple(addresses) for index, addresses in found.items()}


def vlans_on(
    index: int,
    links: Iterable[Any],
    addresses: Mapping[int, tuple[Address, ...]],
    outer: int = 0,
) -> Iterator[Vlan]:
    """The VLAN interfaces on top of an interface, and those on top of them: two tags at most.

    Those that are down take nothing in. One that came from another namespace knows its interface
    by that namespace's number.
    """
    for link in links:
        here = link.get_attr("IFLA_LINK") == index and link.get_attr("IFLA_LINK_NETNSID") is None
        if _kind(link) != "vlan" or not here or not link["flags"] & _UP:
            continue
        data = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        tag = data.get_attr("IFLA_VLAN_ID")
        yield Vlan(
            outer=outer or tag,
            inner=tag if outer else 0,
            mac=_mac(link),
            mtu=link.get_attr("IFLA_MTU"),
            addresses=addresses.get(link["index"], ()),
        )
        if not outer:
            yield from vlans_on(link["index"], links, addresses, tag)


def own_addresses() -> frozenset[Address]:
    """Every address of this network namespace, and where IPv4 has broadcast addresses, these."""
    with IPRoute() as netlink:
        own = frozenset(a for some in _addresses(netlink).values() for a in some)
        return own | frozenset(_broadcasts(netlink))


def _broadcasts(netlink: IPRoute) -> Iterator[Address]:
    """As the kernel's routes have them, which take in what an address itself does not tell."""
    for one in netlink.get_routes(family=socket.AF_INET, type=_RTN_BROADCAST):
        yield ipaddress.ip_address(one.get_attr("RTA_DST"))


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
        mac = _mac(link)
        if len(mac) != 6 or name == "lo":
            raise InterfaceError(
                f"{name} is not an Ethernet interface",
                hint="carom answers Ethernet frames; give the interface that requests come in by",
            )
        addresses = _addresses(netlink)
        return Interface(
            ifindex=link["index"],
            name=name,
            mac=mac,
            mtu=link.get_attr("IFLA_MTU"),
            up=bool(link["flags"] & _UP),
            driver=_driver(name, link),
            addresses=addresses.get(link["index"], ()),
            vlans=tuple(vlans_on(link["index"], list(links.values()), addresses)),
        )


_RTN_UNICAST = 1  # linux/rtnetlink.h
_NTF_USE = 0x01  # linux/neighbour.h: resolve it, as if there were something to send
_NUD_FAILED = 0x20
_RESOLVE_SECONDS = 4.0  # the kernel asks three times, a second apart


def on_link(interface: Interface, address: ipaddress.IPv4Address) -> ipaddress.IPv4Address:
    """The own address for frames to a host that is on this interface's own link.

    Raises InterfaceError when there is no route, or the route goes another way.
    """
    with IPRoute() as netlink:
        try:
            (route,) = netlink.route("get", dst=str(address))
        except NetlinkError as error:
            raise InterfaceError(
                f"there is no route to {address}", hint=f"see `ip route get {address}`"
            ) from error
    gateway, by = route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")
    if route["type"] != _RTN_UNICAST:
        why = "it is this host's own, or an address for many"
    elif by != interface.ifindex:
        why = f"the route leaves by {socket.if_indextoname(by)}"
    elif gateway or route.get_attr("RTA_VIA"):
        why = f"the route goes through the gateway {gateway or 'of another family'}"
    else:
        return ipaddress.IPv4Address(route.get_attr("RTA_PREFSRC"))
    raise InterfaceError(
        f"{address} is not on the link of {interface.name}: {why}",
        hint=f"frames are sent raw, so it must be a neighbour; see `ip route get {address}`",
    )


def neighbour(interface: Interface, address: ipaddress.IPv4Address) -> bytes:
    """The MAC address of a neighbour, which the kernel asks for if it has to.

    Raises InterfaceError when nobody answers.
    """
    wanted = {"dst": str(address), "ifindex": interface.ifindex}
    end = time.monotonic() + _RESOLVE_SECONDS
    asked = False
    with IPRoute() as netlink:
        while time.monotonic() < end:
            for entry in netlink.get_neighbours(**wanted):
                mac = entry.get_attr("NDA_LLADDR")
                if mac and not entry["state"] & _NUD_FAILED:
                    return bytes.fromhex(mac.replace(":", ""))
            if not asked:
                netlink.neigh("replace", **wanted, state=0, flags=_NTF_USE)
                asked = True
            time.sleep(0.02)
    raise InterfaceError(
        f"no host on {interface.name} answers for {address}",
        hint="is it up, and on this link? See `ip neigh`",
    )


class Changes:
    """Wakes up whoever waits when a link or an address of this namespace changes."""

    _GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_{LINK,IPV4_IFADDR,IPV6_IFADDR}, linux/rtnetlink.h

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
