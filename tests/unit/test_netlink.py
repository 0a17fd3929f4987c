# SPDX-License-Identifier: Apache-2.0
"""VLAN interfaces, found in made-up link messages: not every kernel makes such devices."""

from __future__ import annotations

import ipaddress
from typing import Any

from carom.include.netlink import Vlan, vlans_on

ETH0, UP = 2, 1
ADDRESSES = {
    10: (ipaddress.ip_address("198.18.7.1"), ipaddress.ip_address("2001:db8:7::1")),
    20: (ipaddress.ip_address("198.18.78.1"),),
}


class Message(dict[str, Any]):
    """A netlink message as pyroute2 has it: header fields by name, attributes by `get_attr`."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def link(index: int, *, flags: int = UP, **attributes: object) -> Message:
    return Message({"index": index, "flags": flags, "IFLA_MTU": 1500} | attributes)


def vlan(index: int, on: int, tag: int, *, mac: int = 1, **more: Any) -> Message:
    data = Message(IFLA_VLAN_ID=tag)
    info = Message(IFLA_INFO_KIND="vlan", IFLA_INFO_DATA=data)
    fields: dict[str, Any] = {
        "IFLA_LINK": on,
        "IFLA_ADDRESS": f"02:00:00:00:00:{mac:02x}",
        "IFLA_LINKINFO": info,
    }
    return link(index, **fields | more)


def found(*links: Message) -> list[Vlan]:
    return list(vlans_on(ETH0, list(links), ADDRESSES))


def test_none() -> None:
    assert found() == []
    macvlan = Message(IFLA_INFO_KIND="macvlan")
    assert found(link(ETH0), link(3, IFLA_LINK=ETH0, IFLA_LINKINFO=macvlan)) == []


def test_one_tag_with_facts_of_its_own() -> None:
    one = vlan(10, ETH0, 7, mac=9, IFLA_MTU=1400)
    mac = bytes.fromhex("020000000009")
    assert found(link(ETH0), one) == [Vlan(7, 0, mac, 1400, ADDRESSES[10], 10)]


def test_several_and_none_without_addresses() -> None:
    both = found(vlan(10, ETH0, 7), vlan(11, ETH0, 4094))
    tags = [(one.outer, one.inner, one.addresses) for one in both]
    assert tags == [(7, 0, ADDRESSES[10]), (4094, 0, ())]


def test_on_another_interface() -> None:
    assert found(vlan(10, 3, 7)) == []


def test_two_tags_and_no_more() -> None:
    links = (vlan(30, 20, 9), vlan(20, 10, 8, mac=2), vlan(10, ETH0, 7), vlan(21, 10, 7))
    assert {(one.outer, one.inner) for one in found(*links)} == {(7, 0), (7, 8), (7, 7)}
    (inner,) = [one for one in found(*links) if one.inner == 8]
    assert (inner.mac[5], inner.addresses) == (2, ADDRESSES[20])


def test_one_that_is_down_is_not_answered_for() -> None:
    """Nor what is on top of it: the kernel takes nothing in there."""
    down = vlan(10, ETH0, 7, flags=0)
    assert found(down, vlan(20, 10, 8), vlan(11, ETH0, 9)) == found(vlan(11, ETH0, 9))


def test_one_of_another_namespace() -> None:
    """Its number for the interface below is that namespace's, and means none of ours."""
    moved = vlan(10, ETH0, 7, IFLA_LINK_NETNSID=0)
    assert found(moved, vlan(20, 10, 8)) == []
