# SPDX-License-Identifier: Apache-2.0
"""Whether requests to a service can come in by an interface and be answered; if not, why not."""

from __future__ import annotations

import ipaddress

import msgspec

from carom.daemon.fastpath import Attachment
from carom.include.links import Interface


class Reach(msgspec.Struct, kw_only=True, frozen=True):
    """Of one service by one interface; `why` says why it is not answered, and is empty if it is."""

    interface: str
    answered: bool
    why: str


def reach(attachment: Attachment, bind: str, places: int, server: str) -> Reach:
    """A service that is bound so, and answered at so many places of an interface.

    `server` says where its server receives, for when it does not here.
    """
    interface = attachment.interface
    why = attachment.failed or _why(interface, bind, places, server)
    return Reach(interface=interface.name, answered=not why, why=why)


def _why(interface: Interface, bind: str, places: int, server: str) -> str:
    name = interface.name
    if not interface.there:
        return f"{name} is gone"
    if not interface.up:
        return f"{name} is down: ip link set {name} up"
    if interface.port:
        return port_words(interface)
    if not places:
        return _no_address(interface, bind) or server
    if not interface.carrier:
        return f"{name} has no carrier: nothing is connected to it"
    return ""


def port_words(interface: Interface) -> str:
    """What to do about an interface that hands everything on to another."""
    name, master = interface.name, interface.master
    return f"{name} is a port of {master}, which takes in all that comes to it: -i {master}"


def _no_address(interface: Interface, bind: str) -> str:
    name, bound = interface.name, ipaddress.ip_address(bind)
    has = interface.reachable
    if not has:
        return f"{name} has no address"
    if not bound.is_unspecified:
        return "" if bound in has else f"{name} does not have the address {bound}"
    if bound.version == 4 and all(one.version == 6 for one in has):
        return f"{name} has no IPv4 address: --bind :: answers at IPv6's"
    return ""
