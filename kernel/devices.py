# SPDX-License-Identifier: Apache-2.0
"""This network namespace's links, as rtnetlink(7) tells of them."""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

from carom.kernel.netlink import attributes, dump, text

_GETLINK = 18  # RTM_GETLINK, linux/rtnetlink.h
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS, _IFNAME, _MTU, _LOWER, _MASTER = 1, 3, 4, 5, 10  # IFLA_*, linux/if_link.h
_LINKINFO, _CARRIER, _LINK_NETNSID, _PROP_LIST, _ALT_IFNAME = 18, 33, 37, 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VLAN_ID, _MACVLAN_MODE, _BOND_SLAVE_STATE = 1, 1, 1  # each first of its own
_UP = 1  # IFF_UP, linux/if.h
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
_KIND = 0x3FFF  # NLA_TYPE_MASK: the rest are flags


class Device(NamedTuple):
    """A link. `lower` and `master` are the ifindexes that it is on and part of; 0 for none.

    `type` is its ARPHRD_*, and `kind` what made it (`vlan`), or "". `also` are its alternative
    names. `here` is False if `lower` is a number of another namespace. `tag` is a VLAN's, `mode` a
    macvlan's; `backup` says which port of a bond is one, and is None for all else.
    """

    ifindex: int
    name: str = ""
    type: int = 0
    up: bool = True
    mac: bytes = b""
    mtu: int = 0
    also: tuple[str, ...] = ()
    carrier: bool = True
    lower: int = 0
    here: bool = True
    master: int = 0
    kind: str = ""
    tag: int = 0
    mode: str = ""
    backup: bool | None = None


def devices() -> list[Device]:
    """All of them. Raises OSError."""
    return [device_of(message) for message in dump(_GETLINK, bytes(_LINK.size))]


def device_of(message: memoryview) -> Device:
    """The link in a message of the kernel's, without its header."""
    _, type, index, flags, _ = _LINK.unpack_from(message)
    told = _by_kind(message[_LINK.size :])
    info = _by_kind(told.get(_LINKINFO, b""))
    kind = text(info.get(_INFO_KIND, b""))
    data = _by_kind(info.get(_INFO_DATA, b""))
    in_bond = text(info.get(_INFO_SLAVE_KIND, b"")) == "bond"
    slave = _by_kind(info.get(_INFO_SLAVE_DATA, b"")) if in_bond else {}
    names = attributes(memoryview(told.get(_PROP_LIST, b"")))
    return Device(
        ifindex=index,
        name=text(told.get(_IFNAME, b"")),
        type=type,
        up=bool(flags & _UP),
        mac=told.get(_ADDRESS, b""),
        mtu=_number(told.get(_MTU)),
        also=tuple(text(name) for of, name in names if of & _KIND == _ALT_IFNAME),
        carrier=_CARRIER not in told or bool(_number(told[_CARRIER])),
        lower=_number(told.get(_LOWER)),
        here=_LINK_NETNSID not in told,
        master=_number(told.get(_MASTER)),
        kind=kind,
        tag=_number(data.get(_VLAN_ID)) if kind == "vlan" else 0,
        mode=_MACVLAN_MODES.get(_number(data.get(_MACVLAN_MODE)), "") if kind == "macvlan" else "",
        backup=bool(_number(slave.get(_BOND_SLAVE_STATE))) if slave else None,
    )


def _by_kind(data: bytes | memoryview) -> dict[int, bytes]:
    return {kind & _KIND: value for kind, value in attributes(memoryview(data))}


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)
