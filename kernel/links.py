# SPDX-License-Identifier: Apache-2.0
"""Interfaces of this network namespace, by any of their names or by number."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from carom.errors import InterfaceError
from carom.kernel.devices import Device, devices
from carom.kernel.local_routes import Asked, Network, local
from carom.kernel.netlink import Address, addresses
from carom.kernel.stripping import strips_tags

_MACVLAN_MODES = ("private", "vepa", "bridge", "passthru")
"""The modes in which a macvlan takes in what is sent to its own address."""

PORT_OF = ("bridge", "bond", "team", "openvswitch", "hsr")
"""Kinds of interfaces that take in what comes to their ports; a port needs no address then."""

_NATIVE_MASTERS = ("bond",)
"""Kinds of interfaces that put a native XDP program on their ports."""

_ETHERNET = 1  # ARPHRD_ETHER, linux/if_arp.h

_DEAF = {
    "ifb": "what is redirected to an ifb goes on by the interface that it came in by",
    "dummy": "nothing does by a dummy, whose addresses are answered on the interfaces named",
    "vrf": "what comes in a VRF comes by its ports",
    **dict.fromkeys(
        ("macvtap", "ipvtap"), "what comes to it is for the guest machine that opens it"
    ),
}
"""Kinds of Ethernet interfaces where XDP and TC see no socket's traffic, and the reason."""

BEHIND_TAGS_MAX = 16_384
"""How many addresses of the host itself are answered behind an interface's VLAN tags, at most."""


class Upper(NamedTuple):
    """A VLAN or a macvlan on top of another interface: its tags, and its own facts.

    `outer` is the tag that comes first, `inner` the second; 0 where there is none. `vrf` is the
    ifindex of the VRF that it is in; 0 for none. Behind a tag, `addresses` has the host's own too.
    """

    outer: int
    inner: int
    mac: bytes
    mtu: int
    addresses: tuple[Address, ...]
    ifindex: int = 0
    vrf: int = 0


class Port(NamedTuple):
    """An interface whose frames another one takes in; `active` if it takes them in now."""

    ifindex: int
    name: str
    driver: str
    active: bool


class At(NamedTuple):
    """Where a request reaches a socket: at an address, by a link, in a VRF (0: in none)."""

    address: Address
    link: int
    vrf: int


class Interface(NamedTuple):
    """Facts of one interface.

    `addresses` are its own, and those of the host itself (anycast).
    `mtu` is the longest IP packet in bytes; `driver` the kernel driver's name, or the kind of a
    virtual link (`veth`). `there` is False if it is gone; `carrier` is True if somebody is at the
    other end. `master` is the name of the bridge, bond or VRF that it is part of, and `kind` the
    kind of that one; "" for none. `vrf` is the ifindex of that VRF, or 0. `hosts` are those of
    `addresses` that are the host's. `large` are prefixes that are the host's as well, but too large
    for all of their addresses to be in `addresses`. `ports` are a bond's: native XDP sees their
    ifindexes. `strips` is True if VLAN tags are, or may be, taken off before XDP.
    """

    ifindex: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    driver: str
    addresses: tuple[Address, ...]
    uppers: tuple[Upper, ...] = ()
    there: bool = True
    carrier: bool = True
    master: str = ""
    kind: str = ""
    vrf: int = 0
    hosts: tuple[Address, ...] = ()
    large: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    strips: bool = False

    @property
    def enslaved(self) -> bool:
        """Whether it is part of another interface."""
        return bool(self.master)

    @property
    def reachable(self) -> tuple[Address, ...]:
        """Its addresses, and those of the interfaces on top of it."""
        return tuple(dict.fromkeys(at.address for at in self.reached))

    @property
    def reached(self) -> tuple[At, ...]:
        """The same, with the link and the VRF by which a socket sees requests come in."""
        own = tuple(At(address, self.ifindex, self.vrf) for address in self.addresses)
        return own + tuple(
            At(address, upper.ifindex, upper.vrf)
            for upper in self.uppers
            for address in upper.addresses
        )

    def vrf_of(self, link: int) -> int:
        """The VRF that `link` is in: this interface, or one on top of it; 0 for none."""
        return next((upper.vrf for upper in self.uppers if upper.ifindex == link), self.vrf)

    @property
    def loses_native(self) -> bool:
        """Whether native XDP's replies may get lost: on a veth, or a bond with a veth as port."""
        return "veth" in (self.driver, *(port.driver for port in self.ports))

    @property
    def untagged(self) -> tuple[Address, ...]:
        """The addresses that may be answered without a tag, also where XDP does not see all tags.

        The host's own may be asked for behind a tag too, and the reply would leave without it.
        """
        tagged = self.strips and any(upper.outer for upper in self.uppers)
        return (
            tuple(address for address in self.addresses if address not in self.hosts)
            if tagged
            else self.addresses
        )

    @property
    def port(self) -> bool:
        """Whether what comes to it is taken in by another interface."""
        return self.kind in PORT_OF


def _nothing() -> tuple[Address, ...]:
    return ()


def interface(name: str, asked: Asked = _nothing) -> Interface:
    """Look up an interface, by its name or an alternative one, also as `ip link` shows it (a@b).

    `asked` gives the addresses to look for in large prefixes that are the host's own. Raises
    InterfaceError if there is no interface of that name, if it is not Ethernet, or if no request
    to this host comes in by it.
    """
    links = devices()
    known = {alias: link for link in links for alias in (*link.also, link.name)}
    link = known.get(name) or known.get(name.partition("@")[0])
    if link is None:
        raise InterfaceError(
            f"there is no interface {name!r} here",
            hint="this host has: " + ", ".join(sorted(link.name for link in links)),
            passing=True,
        )
    if link.type != _ETHERNET or len(link.mac) != 6:
        raise InterfaceError(
            f"{name} is not an Ethernet interface",
            hint="carom answers Ethernet frames; give the interface that requests come in by",
        )
    why = _DEAF.get(link.kind)
    if why:
        raise InterfaceError(
            f"no request to this host comes in by {name}: {why}",
            hint="give the interface that requests come in by",
        )
    return _facts(link, links, asked)


def interfaces(names: Iterable[str], asked: Asked = _nothing) -> list[Interface]:
    """The same for several names; each interface once, even if it is named twice."""
    by_number = {facts.ifindex: facts for facts in (interface(name, asked) for name in names)}
    return list(by_number.values())


def numbered(ifindex: int, asked: Asked = _nothing) -> Interface | None:
    """The interface of this number, whatever its name is now; None where there is none."""
    links = devices()
    for link in links:
        if link.ifindex == ifindex:
            return _facts(link, links, asked)
    return None


def address_in(vrf: int, version: int) -> Address:
    """An address of IP `version` that a VRF of this namespace has. Raises OSError if it has none.

    A loopback address is the last choice: the rule for local addresses comes before the one for
    VRFs, unless somebody moved it, and sends packets to the loopback device outside (ip-vrf(8)).
    """
    own = addresses()
    links = devices()
    candidates = [
        address
        for device in links
        if vrf in (device.ifindex, device.master)
        for address in own.get(device.ifindex, ())
        if address.version == version and not address.is_link_local
    ]
    if not candidates:
        raise OSError(f"the device that its socket is bound to has no address of IPv{version}")
    return min(candidates, key=lambda candidate: candidate.is_loopback)


def _facts(link: Device, links: Sequence[Device], asked: Asked) -> Interface:
    own, large = _own(links, asked)
    numbers = {other.ifindex: other for other in links}
    master = numbers.get(link.master)
    kind = master.kind if master else ""
    vrf = master.ifindex if master and kind == "vrf" else 0
    virtual = _virtual()
    hosts = hosts_own(links, own, virtual, vrf) if master is None or vrf else ()
    ports = tuple(ports_of(link, links))
    driver = _driver(link)
    drivers = ((link.name, driver), *((port.name, port.driver) for port in ports))
    return Interface(
        ifindex=link.ifindex,
        name=link.name,
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        driver=driver,
        addresses=own.get(link.ifindex, ()) + hosts,
        uppers=_with_hosts(tuple(uppers_on(link.ifindex, links, own)), links, own, virtual),
        carrier=link.carrier,
        master=master.name if master else "",
        kind=kind,
        vrf=vrf,
        hosts=hosts,
        large=() if master is not None else large,
        ports=ports,
        strips=any(strips_tags(*each) for each in drivers),
    )


def _own(
    links: Iterable[Device], asked: Asked
) -> tuple[dict[int, tuple[Address, ...]], tuple[Network, ...]]:
    """Each interface's addresses, local routes' among the loopback's; and the large prefixes."""
    own = addresses()
    more, large = local({address for group in own.values() for address in group}, asked)
    for other in links if more else ():
        if other.name == "lo":
            own[other.ifindex] = (*own.get(other.ifindex, ()), *more)
    return own, tuple(large)


def ports_of(link: Device, links: Iterable[Device]) -> Iterator[Port]:
    """The ports of an interface that puts native XDP on them.

    A port is active if its frames are taken in: a bond drops what comes to its backup, often a
    copy.
    """
    if link.kind not in _NATIVE_MASTERS:
        return
    for port in links:
        if port.master == link.ifindex:
            yield Port(port.ifindex, port.name, _driver(port), port.up and port.backup is False)


def _with_hosts(
    uppers: tuple[Upper, ...],
    links: Sequence[Device],
    by_link: Mapping[int, tuple[Address, ...]],
    virtual: Collection[Address],
) -> tuple[Upper, ...]:
    """Add the host's own addresses to each VLAN of the same VRF: it takes them in, too."""
    tagged = [upper for upper in uppers if upper.outer]
    hosts = {upper.vrf: hosts_own(links, by_link, virtual, upper.vrf) for upper in tagged}
    if sum(len(hosts[upper.vrf]) for upper in tagged) > BEHIND_TAGS_MAX:
        return uppers
    return tuple(
        upper._replace(addresses=upper.addresses + hosts[upper.vrf]) if upper.outer else upper
        for upper in uppers
    )


def hosts_own(
    links: Iterable[Device],
    by_link: Mapping[int, tuple[Address, ...]],
    virtual: Collection[Address] = (),
    vrf: int = 0,
) -> tuple[Address, ...]:
    """Addresses of the host itself (anycast), which all of its interfaces take in.

    They are on the loopback interface, which also has those of local routes, and on dummies; in a
    VRF on its device and its dummies. Addresses that IPVS takes (`virtual`) are not among them.
    """
    hosts: list[Address] = []
    for other in links:
        itself = other.ifindex == vrf if vrf else other.name == "lo"
        dummy = other.kind == "dummy" and other.master == vrf
        if (itself or dummy) and other.up:
            hosts += by_link.get(other.ifindex, ())
    return tuple(
        address
        for address in hosts
        if not address.is_loopback and not address.is_link_local and address not in virtual
    )


def virtual_of(lines: Iterable[str]) -> set[Address]:
    """The addresses at which IPVS takes UDP, from the lines of /proc/net/ip_vs."""
    taken: set[Address] = set()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        at = rest.split()[0].rpartition(":")[0] if word == "UDP" and rest.split() else ""
        if at.startswith("["):
            taken.add(ipaddress.ip_address(at.strip("[]")))
        elif at:
            taken.add(ipaddress.IPv4Address(int(at, 16)))
    return taken


def _virtual() -> set[Address]:
    with contextlib.suppress(OSError):  # there is no IPVS
        return virtual_of(Path("/proc/thread-self/net/ip_vs").read_text().splitlines())
    return set()


def _driver(link: Device) -> str:
    if link.kind:
        return link.kind
    driver = Path("/sys/class/net") / link.name / "device" / "driver"
    return driver.resolve().name if driver.exists() else "unknown"


def uppers_on(
    index: int,
    links: Sequence[Device],
    by_link: Mapping[int, tuple[Address, ...]],
    tags: tuple[int, ...] = (),
) -> Iterator[Upper]:
    """The VLANs and macvlans on top of an interface, and those on top of them: two tags at most.

    Interfaces that are down take nothing in. One that came from another namespace names its lower
    interface by that namespace's number. A macvlan shares the tags of the interface below. A
    bridge's or bond's port hands on what comes to it.
    """
    kinds = {other.ifindex: other.kind for other in links}
    for link in links:
        if kinds.get(link.master) in PORT_OF:
            continue
        here = link.lower == index and link.here
        theirs = _tags(link, tags) if here and link.up else None
        if theirs is None:
            continue
        outer, inner = (*theirs, 0, 0)[:2]
        yield Upper(
            outer=outer,
            inner=inner,
            mac=link.mac,
            mtu=link.mtu,
            addresses=by_link.get(link.ifindex, ()),
            ifindex=link.ifindex,
            vrf=link.master if kinds.get(link.master) == "vrf" else 0,
        )
        yield from uppers_on(link.ifindex, links, by_link, theirs)


def _tags(link: Device, tags: tuple[int, ...]) -> tuple[int, ...] | None:
    """The tags of frames for a VLAN or macvlan on top of `tags`; None for any other interface."""
    if link.kind == "macvlan":
        return tags if link.mode in _MACVLAN_MODES else None
    return (*tags, link.tag) if link.kind == "vlan" and len(tags) < 2 else None
