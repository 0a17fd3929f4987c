# SPDX-License-Identifier: Apache-2.0
"""How a route's packets find their way: rules that choose a table, and what is in it.

    by the route's mark         in its interface's table
    by an interface's address   there too: the kernel's own answers to what came by it (a reset, an
                                ICMP message), and what a strict reverse-path filter asks
    to a tunnel's other end     in the main table, or the tunnel would lead itself
    in the table                everything by the interface; and where that is gone, nothing

All that is ours has a number as its owner (OWNER), so what a process that was killed left is found.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from carom.errors import UsageError
from carom.kernel import netlink
from carom.kernel.netlink import Address, Network

OWNER = 202
"""Whose rules and routes these are (rtm_protocol, FRA_PROTOCOL); see rt_protos(5)."""

FAMILIES = (socket.AF_INET, socket.AF_INET6)

_ENDPOINT, _MARKED, _SOURCE = 5_179, 5_180, 5_181
"""The priorities of rules: before the main table's, behind the local one's."""

_NOTHING = 4_278_198_272
"""The metric of `unreachable`: behind all others (as systemd has it for its own)."""

_BY_INTERFACE = 100
_MAIN = 254
_UP = 1  # IFF_UP
_VXLAN, _GRE = "vxlan", ("gre", "gretap", "ip6gre", "ip6gretap", "ipip", "sit", "ip6tnl")


class Rule(NamedTuple):
    """One rule: packets of a family with a mark, a source or a destination look up in a table."""

    family: int
    priority: int
    table: int
    mark: int = 0
    mask: int = 0
    source: str = ""
    destination: str = ""
    bits: int = 0
    """Of the destination's prefix; 0: all of its address."""


class Table(NamedTuple):
    """What is in a table: an interface (0: it is gone) and its routers by family."""

    ifindex: int
    gateways: Mapping[int, str]


def marked(mark: int, mask: int, table: int) -> list[Rule]:
    """The rules of a mark."""
    return [Rule(family, _MARKED, table, mark, mask) for family in FAMILIES]


def sourced(addresses: Iterable[Address], table: int) -> list[Rule]:
    """The rules of an interface's addresses."""
    return [
        Rule(_family(address), _SOURCE, table, source=str(address))
        for address in addresses
        if not address.is_link_local
    ]


def endpoints(remotes: Iterable[str], mark: int, mask: int) -> list[Rule]:
    """Those of a tunnel's other end: packets to there with a route's mark are the tunnel's own, as
    it keeps the mark of what is in them."""
    addresses = map(ipaddress.ip_address, remotes)
    return [
        Rule(_family(address), _ENDPOINT, _MAIN, mark, mask, destination=str(address))
        for address in addresses
        if not address.is_unspecified and not address.is_multicast
    ]


def by_family(addresses: Iterable[str]) -> dict[int, str]:
    """Addresses by their families."""
    return {_family(ipaddress.ip_address(address)): address for address in addresses}


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Link(NamedTuple):
    """An interface: whether it is up, its addresses, and where a tunnel's other end is, as far as
    its kind says it."""

    ifindex: int
    up: bool
    addresses: tuple[Address, ...]
    remotes: tuple[str, ...] = ()

    @property
    def has_global_ipv6(self) -> bool:
        """Whether it has an IPv6 address that reaches further than its neighbours."""
        return any(one.version == 6 and not one.is_link_local for one in self.addresses)


GONE = Link(0, False, ())


def links() -> dict[str, Link]:
    """Every interface by name. Raises OSError."""
    addresses = netlink.addresses()
    with netlink.route_socket() as asked:
        return {
            link.get_attr("IFLA_IFNAME"): Link(
                link["index"],
                bool(link["flags"] & _UP),
                addresses.get(link["index"], ()),
                tuple(_remotes(link)),
            )
            for link in asked.get_links()
        }


def _remotes(link: Any) -> Iterable[str]:
    info: Any = link.get_attr("IFLA_LINKINFO")
    data: Any = info.get_attr("IFLA_INFO_DATA") if info else None
    names: tuple[str, ...] = ()
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    if kind == _VXLAN and data:
        names = ("IFLA_VXLAN_GROUP", "IFLA_VXLAN_GROUP6")
    elif kind in _GRE and data:
        names = ("IFLA_GRE_REMOTE", "IFLA_IPIP_REMOTE", "IFLA_IP6TNL_REMOTE", "IFLA_SIT_REMOTE")
    for name in names:
        if value := data.get_attr(name):
            yield str(value)


def lans(but: str) -> list[Network]:
    """The private networks that this host's interfaces but one are in. Raises OSError."""
    found = []
    with netlink.route_socket() as asked:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in asked.get_links()}
        for family in FAMILIES:
            for told in asked.get_routes(family=family, table=_MAIN):
                by = names.get(told.get_attr("RTA_OIF"), "")
                to = told.get_attr("RTA_DST")
                if by not in ("", "lo", but) and to and not told.get_attr("RTA_GATEWAY"):
                    network = ipaddress.ip_network(f"{to}/{told['dst_len']}")
                    if network.is_private and not network.is_link_local:
                        found.append(network)
    return found


def direct(networks: Iterable[Network], mark: int, mask: int) -> list[Rule]:
    """The rules by which marked packets to these networks go as any others."""
    return [
        Rule(
            socket.AF_INET if network.version == 4 else socket.AF_INET6,
            _ENDPOINT,
            _MAIN,
            mark,
            mask,
            destination=str(network.network_address),
            bits=network.prefixlen,
        )
        for network in networks
    ]


class Tables:
    """The rules and tables of all routes of this network namespace.

    They are brought to what is wanted in two steps, with the routes' switches between: `add` what
    is missing, then `remove` what is not wanted, so that at no time there is none.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._ours: set[Rule] = set()
        self._others: list[tuple[int, int]] = []  # priorities and masks
        with netlink.route_socket() as asked:
            for family in FAMILIES:
                for told in asked.get_rules(family=family):
                    self._take(family, told)

    def _take(self, family: int, told: Any) -> None:
        mask = told.get_attr("FRA_FWMASK") or 0
        if told.get_attr("FRA_PROTOCOL") == OWNER:
            self._ours.add(
                Rule(
                    family,
                    told.get_attr("FRA_PRIORITY") or 0,
                    told.get_attr("FRA_TABLE") or 0,
                    told.get_attr("FRA_FWMARK") or 0,
                    mask,
                    told.get_attr("FRA_SRC") or "",
                    told.get_attr("FRA_DST") or "",
                    _bits_of(family, told["dst_len"]),
                )
            )
        elif mask:
            self._others.append((told.get_attr("FRA_PRIORITY") or 0, mask))

    def check(self, mask: int) -> None:
        """Raises UsageError where somebody else's rule looks at the same bits of marks."""
        for priority, other in self._others:
            if other & mask:
                raise UsageError(
                    f"rule {priority} looks at marks {other:#x}, and routes look at {mask:#x}: "
                    "a packet could be both's",
                    hint="choose other bits: mask in [marks] of /etc/carom/routes.toml",
                )

    def of_source(self, table: int) -> list[Rule]:
        """The rules by source that there are for a table."""
        return [rule for rule in self._ours if rule.priority == _SOURCE and rule.table == table]

    def add(self, wanted: Iterable[Rule], tables: Mapping[int, Table]) -> None:
        """Fill tables, and add the rules that are missing, those by mark last. Raises OSError."""
        with netlink.route_socket() as asked:
            for number, table in tables.items():
                _fill(asked, number, table)
            for rule in sorted({*wanted} - self._ours, key=lambda rule: rule.priority == _MARKED):
                _change(asked, "add", rule)
                self._ours.add(rule)

    def remove(self, wanted: Iterable[Rule]) -> None:
        """Remove all that is not wanted, and empty the tables that no rule names any more.

        Raises OSError.
        """
        wanted = {*wanted}
        before = {rule.table for rule in self._ours} - {_MAIN}
        with netlink.route_socket() as asked:
            for rule in self._ours - wanted:
                with contextlib.suppress(OSError):  # somebody else has removed it
                    _change(asked, "del", rule)
            self._ours &= wanted
            for table in before - {rule.table for rule in self._ours}:
                _empty(asked, table)


def _bits_of(family: int, length: int) -> int:
    return 0 if length == (32 if family == socket.AF_INET else 128) else length


def _change(asked: Any, command: str, rule: Rule) -> None:
    from pyroute2 import NetlinkError

    bits = 32 if rule.family == socket.AF_INET else 128
    said: dict[str, Any] = {}
    if rule.mask:
        said |= {"fwmark": rule.mark, "fwmask": rule.mask}
    if rule.source:
        said |= {"src": rule.source, "src_len": bits}
    if rule.destination:
        said |= {"dst": rule.destination, "dst_len": rule.bits or bits}
    words = {"family": rule.family, "table": rule.table, "priority": rule.priority}
    try:
        asked.rule(command, protocol=OWNER, **words, **said)
    except NetlinkError as error:
        raise OSError(*error.args) from error


def _fill(asked: Any, number: int, table: Table) -> None:
    """`unreachable` first: what finds nothing else must not find the main table's."""
    for family in FAMILIES:
        words = {"family": family, "dst": "default", "table": number, "proto": OWNER}
        asked.route("replace", type="unreachable", priority=_NOTHING, **words)
        if table.ifindex and (family in table.gateways or not table.gateways):
            if gateway := table.gateways.get(family):
                words["gateway"] = gateway
            with contextlib.suppress(_netlink_error()):  # it is down, or has no such family
                asked.route("replace", oif=table.ifindex, priority=_BY_INTERFACE, **words)


def _netlink_error() -> type[Exception]:
    from pyroute2 import NetlinkError

    error: type[Exception] = NetlinkError
    return error


def _empty(asked: Any, table: int) -> None:
    """Take out of a table what is ours."""
    for family in FAMILIES:
        for told in asked.get_routes(family=family, table=table):
            if told["proto"] == OWNER:
                with contextlib.suppress(_netlink_error()):
                    asked.route("del", **_same(told, family, table))


def _same(told: Any, family: int, table: int) -> dict[str, Any]:
    words: dict[str, Any] = {"family": family, "table": table, "dst": "default", "proto": OWNER}
    words["type"] = told["type"]
    for key, name in (("oif", "RTA_OIF"), ("priority", "RTA_PRIORITY"), ("gateway", "RTA_GATEWAY")):
        if (value := told.get_attr(name)) is not None:
            words[key] = value
    return words
