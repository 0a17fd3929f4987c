# SPDX-License-Identifier: Apache-2.0
"""What a route is."""

from __future__ import annotations

import ipaddress
import re
import zlib
from typing import Literal

import msgspec

from carom.errors import UsageError

MASK = 0x3F000000
"""The bits of a packet's mark that tell routes, where the file says no others."""

IPv6 = Literal["auto", "lead", "refuse"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")
_TABLES, _FIRST_TABLE = 10_000, 51_820_000


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a group's packets leave, and what else is true of it.

    `via` is the interface, `gateway` its router for each family, where it is like an Ethernet.
    Questions of DNS go to `dns` (an address of each family at most); empty: they are left alone.
    `ipv6` "auto" leads it where the interface has a global address. `other_netns` "allow" lets
    programs have sockets in other network namespaces, which are nobody's matter then. `lan`
    "direct" leaves what is for this host's own private networks alone. `resolver_sockets` "hide"
    keeps its programs from resolvers behind Unix sockets. With `table` its packets are looked up
    there, in a table of the user's.
    """

    via: str
    gateway: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ipv6: IPv6 = "auto"
    other_netns: Literal["refuse", "allow"] = "refuse"
    lan: Literal["refuse", "direct"] = "refuse"
    resolver_sockets: Literal["leave", "hide"] = "leave"
    table: int | None = None

    def wrong(self) -> list[str]:
        """What is wrong with it, each with its key."""
        said = [f"via: {why}" for why in _interface(self.via)]
        for key, addresses in (("gateway", self.gateway), ("dns", self.dns)):
            versions: list[int] = []
            for address in addresses:
                try:
                    versions.append(ipaddress.ip_address(address).version)
                except ValueError:
                    said.append(f"{key}: {address!r} is no IP address")
            if len(versions) != len(set(versions)):
                said.append(f"{key}: one address of a family, not several")
        if self.table is not None and not 0 < self.table < 2**32:
            said.append(f"table: {self.table} is no number of a table")
        return said


class Mark(msgspec.Struct, frozen=True):
    """Which bits of a packet's mark tell routes."""

    mask: int = MASK

    def of(self, number: int) -> int:
        """A route's mark, by its number."""
        return number << (self.mask & -self.mask).bit_length() - 1

    @property
    def numbers(self) -> int:
        """The largest number that has a mark; 0 has none."""
        return self.mask >> (self.mask & -self.mask).bit_length() - 1


def table_of(via: str) -> int:
    """The number of an interface's table: what answers by the interface uses it after a route has
    left it, so it is the interface's and not the route's."""
    return _FIRST_TABLE + zlib.crc32(via.encode()) % _TABLES


def check_name(name: str) -> str:
    """A route's name. Raises UsageError for what cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a route's name",
            hint="letters, digits, '_', '.' and '-', 48 of them at most",
        )
    return name


def checked(route: Route) -> Route:
    """The same route. Raises UsageError for one that cannot be."""
    if wrong := route.wrong():
        raise UsageError(f"this route cannot be: {'; '.join(wrong)}")
    return route


def _interface(name: str) -> list[str]:
    try:
        encoded = name.encode("ascii")
    except UnicodeEncodeError:
        encoded = b""
    if not 0 < len(encoded) < 16 or b"/" in encoded or b" " in encoded or name in (".", ".."):
        return [f"{name!r} cannot be an interface's name"]
    if name == "lo":
        return ["lo leads nowhere: it is this host itself"]
    return []


def leads_ipv6(route: Route, has_global_ipv6: bool) -> bool:
    """Whether IPv6 is led, by an interface that has a global address of it or not."""
    return route.ipv6 == "lead" or (route.ipv6 == "auto" and has_global_ipv6)
