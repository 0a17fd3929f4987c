# SPDX-License-Identifier: Apache-2.0
"""Whether requests to a service can come in by an interface and be answered; if not, why not."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

import msgspec

from carom.daemon.fastpath import Attachment
from carom.kernel.links import Interface


class Reach(msgspec.Struct, kw_only=True, frozen=True):
    """One service on one interface; `why` says why it is not answered, and is empty if it is."""

    interface: str
    answered: bool
    why: str
    but: str = ""
    """What is not answered, though the rest is."""


def reach(attachment: Attachment, bind: str, places: int, server: str, but: str = "") -> Reach:
    """The reach of a service that is bound to `bind`, and answered at `places` places there.

    `server` says where its server receives, in case that is elsewhere; `but` what is left to it.
    """
    interface = attachment.interface
    why = attachment.failed or _why(interface, bind, places, server)
    return Reach(interface=interface.name, answered=not why, why=why, but="" if why else but)


def without(before: Reach, versions: Collection[int], unknown: Collection[int], why: str) -> Reach:
    """The same where requests of `unknown` IP versions go up, of the `versions` that there are."""
    if not before.answered or not why:
        return before
    if set(versions) <= set(unknown):
        return msgspec.structs.replace(before, answered=False, why=why, but="")
    which = " and ".join(f"IPv{version}" for version in sorted(set(versions) & set(unknown)))
    but = f"of {which} the server answers alone: {why}" if which else ""
    return msgspec.structs.replace(before, but="; ".join(filter(None, (before.but, but))))


def stripped_tags(interface: Interface) -> list[int]:
    """The VLAN tags that are, or may be, taken off before XDP sees them."""
    tags = sorted({upper.outer for upper in interface.uppers if upper.outer and upper.addresses})
    return tags if interface.strips else []


def stripping(interface: Interface) -> list[str]:
    """The devices of an interface that take tags off; none where the other end decides it."""
    if interface.loses_native:
        return []
    return [port.name for port in interface.ports] or [interface.name]


def tag_words(interface: Interface) -> str:
    """What XDP misses on an interface that takes VLAN tags off before it; "" for nothing."""
    tags, devices = stripped_tags(interface), stripping(interface)
    if not tags:
        return ""
    name = interface.name
    if devices:
        how = "takes"
        way = "; ".join(f"ethtool -K {device} rxvlan off" for device in devices) + " keeps them"
    else:
        how, way = "may take", "`ethtool -K DEVICE txvlan off` at its other end keeps them"
    hosts = ", and at the host's own addresses without a tag" if interface.hosts else ""
    return (
        f"{name} {how} VLAN tags off before XDP sees them: behind tags "
        f"({', '.join(map(str, tags))}){hosts} the server answers alone; {way}, and --hook tc "
        "sees them"
    )


def large_words(interface: Interface) -> str:
    """What is not answered of prefixes that local routes make the host's; "" for nothing."""
    if not interface.large:
        return ""
    return (
        f"the host has {', '.join(map(str, interface.large))} by local routes: of these, addresses "
        "that a server is bound to are answered, and at the others the server answers alone"
    )


def _why(interface: Interface, bind: str, places: int, server: str) -> str:
    if not interface.there:
        return f"{interface.name} is gone"
    if not interface.up:
        return down_words(interface)
    if interface.port:
        return port_words(interface)
    if not places:
        return address_words(interface, bind) or server
    if not interface.carrier:
        return carrier_words(interface)
    return ""


def down_words(interface: Interface) -> str:
    """What to do about an interface that is down."""
    return f"{interface.name} is down: ip link set {interface.name} up"


def carrier_words(interface: Interface) -> str:
    """What an interface lacks that nothing is connected to."""
    return f"{interface.name} has no carrier: nothing is connected to it"


def port_words(interface: Interface) -> str:
    """What to do about an interface that is a port of another one."""
    name, master = interface.name, interface.master
    return f"{name} is a port of {master}, which takes in all that comes to it: -i {master}"


def address_words(interface: Interface, bind: str) -> str:
    """The address that an interface lacks for what is bound to `bind`; "" if it has one."""
    name, bound = interface.name, ipaddress.ip_address(bind)
    has = interface.reachable
    if not has:
        return f"{name} has no address"
    if not bound.is_unspecified:
        return "" if bound in has else f"{name} does not have the address {bound}"
    if bound.version == 4 and all(address.version == 6 for address in has):
        return f"{name} has no IPv4 address: --bind :: answers at IPv6's"
    return ""
