# SPDX-License-Identifier: Apache-2.0
"""Where this host would send a reply: its routes and neighbours, and their changes."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from carom.kernel.abi import GATEWAYS_MAX
from carom.kernel.netlink import Address, route_socket
from carom.kernel.waiting import readable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Stations = Mapping[tuple[int, Address], bytes]
"""MACs of neighbours, by ifindex and address."""

_FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}
_MAIN = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_CLONED = 0x200  # RTM_F_CLONED: for one destination alone, after a redirect for example
_DEAD = 0x01 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN
_USUAL_RULES = {4: {(0, 255), (32766, 254), (32767, 253)}, 6: {(0, 255), (32766, 254)}}
_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # NUD_VALID, include/net/neighbour.h
_NTF_PROXY = 0x08
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NDMSG = struct.Struct("=B3xiHBB")  # struct ndmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NDA_DST, _NDA_LLADDR = 1, 2
_NEWNEIGH, _DELNEIGH = 28, 29  # RTM_*, linux/rtnetlink.h


class Hop(NamedTuple):
    """A route's next hop: the ifindex, and the gateway or None (directly to the destination)."""

    link: int
    gateway: Address | None


class Route(NamedTuple):
    """A route of the main table; one without hops leads nowhere from here."""

    network: Network
    metric: int
    hops: tuple[Hop, ...]


class Way(NamedTuple):
    """How replies to a prefix leave by one interface: to neighbours (`direct`), or `via` MACs."""

    direct: bool
    via: tuple[bytes, ...]


class Neighbour(NamedTuple):
    """A change of the neighbour table; `mac` is None where no frame can be sent any more."""

    link: int
    address: Address
    mac: bytes | None


def routes_of(messages: Iterable[Any]) -> Iterator[Route]:
    """The routes of the main table in a dump, without those for a certain TOS."""
    for message in messages:
        version = _FAMILIES.get(message["family"])
        table = message.get_attr("RTA_TABLE") or message["table"]
        if version is None or table != _MAIN or message["tos"] or message["flags"] & _CLONED:
            continue
        anywhere = "0.0.0.0" if version == 4 else "::"
        network = ipaddress.ip_network(
            f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}"
        )
        hops = tuple(_hops(message)) if message["type"] == _UNICAST else ()
        yield Route(network, message.get_attr("RTA_PRIORITY") or 0, hops)


def _hops(route: Any) -> Iterator[Hop]:
    """A route's hops that are alive and plain: through one that encapsulates we cannot reply."""
    for hop in route.get_attr("RTA_MULTIPATH") or (route,):
        link = hop.get_attr("RTA_OIF") if hop is route else hop["oif"]
        if hop["flags"] & _DEAD or hop.get_attr("RTA_ENCAP_TYPE") or not link:
            continue
        gateway = hop.get_attr("RTA_GATEWAY") or (hop.get_attr("RTA_VIA") or {}).get("addr")
        yield Hop(link, ipaddress.ip_address(gateway) if gateway else None)


def usual_rules(messages: Iterable[Any]) -> set[int]:
    """The IP versions with the default rules: routes are chosen by destination alone."""
    by_version: dict[int, set[tuple[int, int]]] = {4: set(), 6: set()}
    for message in messages:
        version = _FAMILIES.get(message["family"])
        if version:
            rule = (
                message.get_attr("FRA_PRIORITY") or 0,
                message.get_attr("FRA_TABLE") or message["table"],
            )
            by_version[version].add(rule)
    return {version for version, rules in by_version.items() if rules <= _USUAL_RULES[version]}


def ways_by(
    link: int, routes: Iterable[Route], wanted: Iterable[Network], stations: Stations
) -> dict[Network, Way]:
    """How replies to the sources in `wanted` leave by the interface `link`, by prefix.

    A prefix that leaves by another interface, or not at all, is in the result too: it may lie
    within a prefix that leaves by this one. `stations` are the MACs of gateways.
    """
    best: dict[Network, Route] = {}
    wanted = list(wanted)
    for route in routes:
        network = route.network
        if not any(net.version == network.version and net.overlaps(network) for net in wanted):
            continue
        known = best.get(network)
        if known is None or route.metric < known.metric:
            best[network] = route
        elif route.metric == known.metric:  # IPv6 reports some hops of a route one by one
            best[network] = route._replace(hops=known.hops + route.hops)
    ways = {}
    for network, route in best.items():
        mine = [hop.gateway for hop in route.hops if hop.link == link]
        macs = [stations.get((link, gateway)) for gateway in mine if gateway]
        via = tuple(dict.fromkeys(mac for mac in macs if mac))
        ways[network] = Way(None in mine, via[:GATEWAYS_MAX])
    return ways


def routes() -> tuple[list[Route], set[int]]:
    """The routes of this network namespace, and the IP versions with other than default rules.

    Routes of those versions are left out: which one a reply takes is not known here.
    """
    with route_socket() as netlink:
        usual = usual_rules(
            rule for family in _FAMILIES for rule in netlink.get_rules(family=family)
        )
        dump = (message for family in _FAMILIES for message in netlink.get_routes(family=family))
        known = [route for route in routes_of(dump) if route.network.version in usual]
        return known, {4, 6} - usual


def neighbours() -> list[Neighbour]:
    """The neighbours that this network namespace can send frames to."""
    changes = []
    with route_socket() as netlink:
        for family in _FAMILIES:
            for entry in netlink.get_neighbours(family):
                mac, address = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
                if address and mac and entry["state"] & _VALID and not entry["flags"] & _NTF_PROXY:
                    packed = bytes.fromhex(mac.replace(":", ""))
                    changes.append(
                        Neighbour(entry["ifindex"], ipaddress.ip_address(address), packed)
                    )
    return [neighbour for neighbour in changes if neighbour.mac and len(neighbour.mac) == 6]


def neighbour_of(kind: int, body: bytes) -> Neighbour | None:
    """The change in a message; None for another address family, or a proxy's entry.

    Raises struct.error for a message that is cut off.
    """
    family, link, state, flags, _ = _NDMSG.unpack_from(body)
    if family not in _FAMILIES or flags & _NTF_PROXY:
        return None
    attributes, at = {}, _NDMSG.size
    while at + _ATTRIBUTE.size <= len(body):
        length, name = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        attributes[name] = body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    address, mac = attributes.get(_NDA_DST), attributes.get(_NDA_LLADDR)
    if not address or len(address) not in (4, 16):
        return None
    valid = kind == _NEWNEIGH and state & _VALID and mac is not None and len(mac) == 6
    return Neighbour(link, ipaddress.ip_address(address), mac if valid else None)


class WayChanges:
    """Reports every change of routes, rules, links and neighbours of this namespace."""

    # RTMGRP_{LINK,NEIGH,IPV4_ROUTE,IPV4_RULE,IPV6_ROUTE} and RTNLGRP_IPV6_RULE, linux/rtnetlink.h
    _GROUPS = 0x1 | 0x4 | 0x40 | 0x80 | 0x400 | 1 << 18

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, self._GROUPS))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def wait(self, seconds: float) -> tuple[list[Neighbour], bool]:
        """Wait for at most `seconds`: the neighbours that changed, and whether anything else did.

        Messages that were lost for want of room count as anything else.
        """
        changed: list[Neighbour] = []
        more = False
        if not readable([self._socket], seconds):
            return changed, more
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return changed, more
            except OSError:  # ENOBUFS
                more = True
                continue
            for kind, body in _messages(data):
                if kind not in (_NEWNEIGH, _DELNEIGH):
                    more = True
                    continue
                with contextlib.suppress(struct.error):
                    neighbour = neighbour_of(kind, body)
                    if neighbour:
                        changed.append(neighbour)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3
