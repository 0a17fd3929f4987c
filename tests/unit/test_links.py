# SPDX-License-Identifier: Apache-2.0
"""What is on top of interfaces, in made-up links: not every kernel makes such devices."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from carom.kernel.devices import Device
from carom.kernel.links import Port, Upper, hosts_own, ports_of, uppers_on, virtual_of

ETH0 = 2
ADDRESSES = {
    10: (ipaddress.ip_address("198.18.7.1"), ipaddress.ip_address("2001:db8:7::1")),
    20: (ipaddress.ip_address("198.18.78.1"),),
}


def link(index: int, **facts: Any) -> Device:
    return Device(index, mtu=facts.pop("mtu", 1500), **facts)


def vlan(index: int, on: int, tag: int, *, mac: int = 1, **more: Any) -> Device:
    return link(index, lower=on, kind="vlan", tag=tag, mac=bytes((2, 0, 0, 0, 0, mac)), **more)


def found(*links: Device) -> list[Upper]:
    return list(uppers_on(ETH0, list(links), ADDRESSES))


def macvlan(index: int, on: int, mode: str = "bridge", *, mac: int = 1) -> Device:
    return link(index, lower=on, kind="macvlan", mode=mode, mac=bytes((2, 0, 0, 0, 0, mac)))


def test_none() -> None:
    assert found() == []
    assert found(link(ETH0), macvlan(3, ETH0, "source"), macvlan(4, 9)) == []


@pytest.mark.parametrize("mode", ["private", "vepa", "bridge", "passthru"])
def test_a_macvlan(mode: str) -> None:
    mac = bytes.fromhex("020000000009")
    assert found(macvlan(10, ETH0, mode, mac=9)) == [Upper(0, 0, mac, 1500, ADDRESSES[10], 10)]


def test_a_macvlan_of_a_vlan_and_the_other_way_round() -> None:
    both = found(vlan(10, ETH0, 7), macvlan(20, 10), macvlan(30, ETH0), vlan(31, 30, 8))
    assert [(one.ifindex, one.outer, one.inner) for one in both] == [
        (10, 7, 0),
        (20, 7, 0),
        (30, 0, 0),
        (31, 8, 0),
    ]


@pytest.mark.parametrize(("kind", "count"), [("bridge", 0), ("bond", 0), ("vrf", 2)])
def test_part_of_another(kind: str, count: int) -> None:
    """A bridge's port hands on what comes to it, and what is on top of it has nothing."""
    master = link(9, kind=kind)
    links = (vlan(10, ETH0, 7, master=9), vlan(20, 10, 8), master)
    assert len(found(*links)) == count


def device(index: int, name: str, kind: str = "", **more: Any) -> Device:
    return link(index, name=name, kind=kind, **more)


LO, ETH, VRF, DUMMY, VRFS, DOWN = range(1, 7)


def test_which_addresses_are_the_hosts_own() -> None:
    """Those of the loopback and of dummies that are up; in a VRF its own, and its dummies'."""
    links = [
        device(LO, "lo"),
        device(ETH, "eth0"),
        device(VRF, "red", "vrf"),
        device(DUMMY, "anycast0", "dummy"),
        device(VRFS, "anycast1", "dummy", master=VRF),
        device(DOWN, "anycast2", "dummy", up=False),
    ]
    of = {one: (ipaddress.ip_address(f"198.18.0.{one}"),) for one in range(1, 7)}
    of[LO] += (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
    of[DUMMY] += (ipaddress.ip_address("fe80::1"),)
    assert hosts_own(links, of) == (of[LO][0], of[DUMMY][0])
    assert hosts_own(links, of, {of[LO][0]}) == (of[DUMMY][0],)
    assert hosts_own(links, of, vrf=VRF) == (of[VRF][0], of[VRFS][0])


def port(index: int, of: int, *, backup: bool = False, **more: Any) -> Device:
    return link(index, name=f"eth{index}", master=of, kind="veth", backup=backup, **more)


def test_a_bonds_ports() -> None:
    """Active is one that is up and no backup."""
    bond = device(9, "bond0", "bond")
    ports = [port(1, 9), port(2, 9, backup=True), port(3, 9, up=False), port(4, 8)]
    assert list(ports_of(bond, ports)) == [
        Port(1, "eth1", "veth", True),
        Port(2, "eth2", "veth", False),
        Port(3, "eth3", "veth", False),
    ]
    assert list(ports_of(device(9, "br0", "bridge"), ports)) == []


IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C6120003:0050 rr
  -> C6120105:0050      Masq    1      0          0
UDP  C6120001:0035 rr
  -> C6120105:0035      Masq    1      0          0
UDP  [2001:0db8:0000:0000:0000:0000:0000:0007]:0035 rr
FWM  00000001 rr
"""


def test_what_ipvs_takes() -> None:
    wanted = {ipaddress.ip_address(one) for one in ("198.18.0.1", "2001:db8::7")}
    assert virtual_of(IPVS.splitlines()) == wanted


def test_one_tag_with_facts_of_its_own() -> None:
    one = vlan(10, ETH0, 7, mac=9, mtu=1400)
    mac = bytes.fromhex("020000000009")
    assert found(link(ETH0), one) == [Upper(7, 0, mac, 1400, ADDRESSES[10], 10)]


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
    down = vlan(10, ETH0, 7, up=False)
    assert found(down, vlan(20, 10, 8), vlan(11, ETH0, 9)) == found(vlan(11, ETH0, 9))


def test_one_of_another_namespace() -> None:
    """Its number for the interface below is that namespace's, and means none of ours."""
    moved = vlan(10, ETH0, 7, here=False)
    assert found(moved, vlan(20, 10, 8)) == []
