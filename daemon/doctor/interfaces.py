# SPDX-License-Identifier: Apache-2.0
"""Checks of an interface: whether requests come in by it, and what its device does to them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from carom.daemon.bypassed_programs import tc_programs
from carom.daemon.doctor.check import Fix, Found, NotKnown, Severity, check
from carom.daemon.doctor.look import Look
from carom.daemon.firewall_check import tc_words
from carom.daemon.notes import notes_on_sources
from carom.daemon.options import Options
from carom.daemon.reach import (
    address_words,
    carrier_words,
    down_words,
    large_words,
    port_words,
    stripped_tags,
    stripping,
    tag_words,
)
from carom.errors import InterfaceError
from carom.kernel import devices, ethtool, libbpf, owner
from carom.kernel.abi import REPLY_SAFE
from carom.kernel.ethtool import Channels, Feature
from carom.kernel.links import Interface

NATIVE_MTU = 3_498
"""The longest IP packet in a page of 4,096 bytes, with what XDP keeps free before it (256) and the
kernel behind it (320), and Ethernet's header with two tags (22)."""

MTU_LEAST = REPLY_SAFE + 48
"""What takes every reply of the kernel's: IPv6's header and UDP's are 48 bytes."""


@check(
    "down",
    "interface",
    "useless",
    means="the interface is down: nothing comes in by it",
    remedy="`ip link set NAME up`",
)
def down(_: Look, interface: Interface) -> Iterator[Found]:
    """Is it up?"""
    if not interface.up:
        yield Found.said(down_words(interface))


@check(
    "no-carrier",
    "interface",
    "useless",
    means="nothing is connected to the interface",
    remedy="connect it; of a veth, set the other end up",
)
def no_carrier(_: Look, interface: Interface) -> Iterator[Found]:
    """Is somebody at the other end?"""
    if interface.up and not interface.carrier:
        yield Found(carrier_words(interface))


@check(
    "no-address",
    "interface",
    "useless",
    means="the interface has no address that could be answered at",
    remedy="`ip address add`; or name the interface that has the address",
)
def no_address(look: Look, interface: Interface) -> Iterator[Found]:
    """Has it an address, of the IP that each service is bound to?"""
    binds = [asked.options.bind for asked in look.services] or ["::"]
    said = [
        address_words(interface, bind)
        for bind in binds
        if ipaddress.ip_address(bind).is_unspecified  # any other is looked at as `address`
    ]
    if not interface.port:
        yield from (Found.said(words) for words in dict.fromkeys(said) if words)


@check(
    "port",
    "interface",
    "useless",
    means="the interface is a port of a bridge, bond or team, which takes in all that comes to it",
    remedy="`-i` with the bridge, bond or team",
)
def port(_: Look, interface: Interface) -> Iterator[Found]:
    """Does another interface take in what comes to it?"""
    if interface.port:
        yield Found.said(port_words(interface))


@check(
    "xdp-taken",
    "interface",
    "useless",
    means="another's program is in the interface's XDP place, of which there is one, and carom "
    "replaces none",
    remedy="`--hook tc` stands beside it; or stop its owner",
)
def xdp_taken(look: Look, interface: Interface) -> Iterator[Found]:
    """Is its XDP place free?"""
    if look.mode_of(interface) is None:
        return
    for name, ifindex in _places(look, interface):
        program = libbpf.attached_xdp(ifindex)
        if not program:
            continue
        holders = owner.holders(program)
        if look.pid in holders:
            continue
        whose = [f"{comm} (pid {pid})" for pid, comm in holders.items()]
        whose += [f"the file {path}" for path in owner.pins(program)]
        called = libbpf.program_name(program) or "without a name"
        yield Found(
            f"{name} has another XDP program: {called}, id {program}, of "
            f"{', '.join(whose) or 'nobody that is seen: it was put there by ip(8) or its like'}",
            "--hook tc stands beside it; or stop its owner",
        )


def _places(look: Look, interface: Interface) -> Iterator[tuple[str, int]]:
    """Where a program is put: a bond puts a native one on its ports, too."""
    yield interface.name, interface.ifindex
    if look.mode_of(interface) == "native" and not look.is_on(interface):
        yield from ((port.name, port.ifindex) for port in interface.ports)


@check(
    "veth-peer",
    "interface",
    "slow",
    means="the other end of a veth has no XDP program: native XDP's replies do not get there, so "
    "carom takes generic XDP (with `--mode native` it does not start: useless)",
    remedy="first put an XDP program on the other end, and say `--mode native`; or be content with "
    "`--mode generic`",
)
def veth_peer(look: Look, interface: Interface) -> Iterator[Found]:
    """Do native XDP's frames get to the other end of a veth? Sixteen are sent there."""
    from carom.xdp.probe import arrivals, lost_words

    mode = look.mode_of(interface)
    if mode is None or not interface.loses_native or look.mode == "generic":
        return
    for name, arrives in arrivals(interface).items():
        if arrives is None:
            raise NotKnown(f"no frames can be sent by {name} to see whether they arrive (as root?)")
        if not arrives:
            yield Found(
                lost_words(name),
                "--mode generic; or first put an XDP program on its other end, and --mode native",
                severity="useless" if mode == "native" else "slow",
            )


@check(
    "native",
    "interface",
    "slow",
    means="the driver has no native XDP, or refuses it: generic XDP is later in the stack (with "
    "`--mode native` carom does not start: useless)",
    remedy="[what drivers want](deploying.md#cards); where XDP's cost to other traffic matters, "
    "`--hook tc`",
)
def native(look: Look, interface: Interface) -> Iterator[Found]:
    """Does the driver have native XDP?"""
    name, driver, mode = interface.name, interface.driver, look.mode_of(interface)
    if mode is None or look.mode == "generic" or interface.loses_native:
        return
    severity: Severity = "useless" if look.mode == "native" else "slow"
    remedy = "docs/deploying.md says what drivers want; --hook tc costs other traffic least"
    if look.is_on(interface):
        if mode == "generic":
            yield Found(f"{name} ({driver}) is in generic mode: it refused native XDP", remedy)
        return
    if not look.has_native(interface):
        yield Found(f"{name} ({driver}) has no native XDP", remedy, severity=severity)


@check(
    "mtu-large",
    "interface",
    "slow",
    means="most drivers refuse native XDP with an MTU whose frames do not fit a page (with `--mode "
    "native` carom does not start: useless)",
    remedy=f"`ip link set NAME mtu {NATIVE_MTU}`, or less; or `--hook tc`",
)
def mtu_large(look: Look, interface: Interface) -> Iterator[Found]:
    """Is its MTU so large that drivers refuse native XDP?"""
    wants = look.mode_of(interface) == "native" and not look.is_on(interface)
    if wants and interface.mtu > NATIVE_MTU:
        yield Found(
            f"{interface.name} has an MTU of {interface.mtu}, with which most drivers refuse "
            "native XDP",
            f"ip link set {interface.name} mtu {NATIVE_MTU}, or less; or --hook tc",
            severity="useless" if look.mode == "native" else "slow",
        )


@check(
    "mtu-small",
    "interface",
    "slow",
    means="replies that do not fit the interface's MTU are left to the server",
    remedy=f"an MTU of {MTU_LEAST} or more, where its link takes that",
    at_start=True,
)
def mtu_small(_: Look, interface: Interface) -> Iterator[Found]:
    """Is its MTU so small that replies do not fit?"""
    if interface.mtu < MTU_LEAST:
        yield Found(
            f"{interface.name} has an MTU of {interface.mtu}: replies of more than "
            f"{max(0, interface.mtu - 48)} bytes (IPv6), {max(0, interface.mtu - 28)} (IPv4) are "
            "left to the server",
            f"an MTU of {MTU_LEAST} or more, if the link takes it",
        )


@check(
    "tags",
    "interface",
    "useless",
    means="the device takes VLAN tags off before XDP sees them: what comes behind tags is left to "
    "the server",
    remedy="`ethtool -K NAME rxvlan off` (of a veth: `txvlan off` at its other end); or "
    "`--hook tc`",
)
def tags(look: Look, interface: Interface) -> Iterator[Found]:
    """Does XDP see the tags of the VLANs on top?"""
    if look.mode_of(interface) is None or not stripped_tags(interface):
        return
    at = stripping(interface)
    remedy = (
        "; ".join(f"ethtool -K {name} rxvlan off" for name in at)
        or "ethtool -K DEVICE txvlan off at its other end"
    )
    yield Found(tag_words(interface), f"{remedy}, or --hook tc")


@check(
    "merged",
    "interface",
    "useless",
    means="GRO puts UDP datagrams together before TC sees them, and what is put together is left "
    "to the server (at XDP nothing is)",
    remedy="`ethtool -K NAME rx-gro-list off rx-udp-gro-forwarding off`; or `--hook xdp`",
    at_start=True,
)
def merged(look: Look, interface: Interface) -> Iterator[Found]:
    """Does GRO merge datagrams before carom sees them? Where XDP is, generic too, it does not."""
    name = interface.name
    if look.mode_of(interface) is not None:
        return
    told = _features(name)
    for feature in ("rx-gro-list", "rx-udp-gro-forwarding"):
        if _is_on(told, "rx-gro") and _is_on(told, feature):
            yield Found(
                f"{name} merges UDP datagrams ({feature}) before TC sees them",
                f"ethtool -K {name} {feature} off",
                _turned_off(name, feature),
            )


@check(
    "lro",
    "interface",
    "slow",
    means="with LRO, or GRO in hardware, some drivers refuse native XDP",
    remedy="`ethtool -K NAME lro off rx-gro-hw off`",
)
def lro(look: Look, interface: Interface) -> Iterator[Found]:
    """Does the device itself merge what it takes in? Generic XDP turns that off by itself."""
    if look.mode_of(interface) != "native" or look.is_on(interface):
        return
    for name in [port.name for port in interface.ports] or [interface.name]:
        told = _features(name)
        for feature, word in (("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")):
            if _is_on(told, feature):
                yield Found(
                    f"{name} merges what it takes in ({word}), with which some drivers "
                    "refuse native XDP",
                    f"ethtool -K {name} {word} off (a card may reset for it)",
                )


def _features(name: str) -> Mapping[str, Feature]:
    try:
        return ethtool.features(name)
    except OSError as error:
        raise NotKnown(f"ethtool does not tell {name}'s features: {error.strerror}") from error


def _is_on(features: Mapping[str, Feature], name: str) -> bool:
    return name in features and features[name].on


def _turned_off(name: str, feature: str) -> Fix:
    """For a feature that the kernel has itself: no card resets for it."""

    def apply() -> None:
        ethtool.set_feature(name, feature, on=False)

    return Fix(f"ethtool -K {name} {feature} off", f"ethtool -K {name} {feature} on", apply)


@check(
    "queues",
    "interface",
    "slow",
    means="the device has too few queues: native XDP sends by a queue of its own on each CPU, and "
    "drivers that have too few share them, or refuse",
    remedy="`ethtool -L NAME combined N`; on a guest, more queues from its host "
    "([cards](deploying.md#cards))",
)
def queues(look: Look, interface: Interface) -> Iterator[Found]:
    """Has it queues for all CPUs?"""
    if look.mode_of(interface) != "native":
        return
    cpus = libbpf.possible_cpus()
    for name, driver in [
        (interface.name, interface.driver),
        *((port.name, port.driver) for port in interface.ports),
    ]:
        try:
            channels = ethtool.channels(name)
        except OSError as error:
            raise NotKnown(f"ethtool does not tell {name}'s queues: {error.strerror}") from error
        if channels and (said := queue_words(driver, channels, cpus)):
            yield Found(f"{name} ({driver}) {said[0]}", said[1].format(name))


def queue_words(driver: str, channels: Channels, cpus: int) -> tuple[str, str] | None:
    """What a driver lacks for native XDP on so many CPUs, and the remedy; None for nothing."""
    receive, most = channels.receive, channels.send_max
    if driver == "virtio_net" and receive + cpus > most:
        return (
            f"uses {receive} of {most} queue pairs, and wants one more for each of {cpus} CPUs: "
            "they share what there is, under a lock",
            f"ethtool -L {{}} combined {most - cpus}, or {receive + cpus} queues from its host"
            if most > cpus
            else f"{receive + cpus} queues from its host",
        )
    if driver == "ena" and 2 * receive > most:
        return (
            f"uses {receive} of {most} queues, and has XDP send by the other half: it refuses",
            f"ethtool -L {{}} combined {most // 2}",
        )
    if driver == "gve" and receive + channels.send > most:
        return (
            f"uses {channels.send} of {most} transmit queues, and wants {receive} spare ones: it "
            "refuses",
            f"ethtool -L {{}} tx {most - receive}",
        )
    word = "combined" if channels.together else "rx"
    # A veth's packets come in on the CPU of their sender.
    if driver != "veth" and receive < min(cpus, channels.receive_max):
        return (
            f"takes packets in by {receive} of {channels.receive_max} queues: of {cpus} CPUs as "
            "many answer",
            f"ethtool -L {{}} {word} {min(cpus, channels.receive_max)}",
        )
    return None


@check(
    "ipvlan",
    "interface",
    "note",
    means="at the addresses of an ipvlan on top of the interface the server answers alone",
    remedy="a macvlan in its place, or the addresses on the interface itself",
    at_start=True,
)
def ipvlan(_: Look, interface: Interface) -> Iterator[Found]:
    """Is an ipvlan on top?"""
    on = [
        device.name
        for device in devices.devices()
        if device.kind == "ipvlan" and device.here and device.lower == interface.ifindex
    ]
    if on:
        yield Found(
            f"{interface.name} has an ipvlan on top ({', '.join(on)}), at whose addresses the "
            "server answers alone",
            "a macvlan in its place",
        )


@check(
    "local-routes",
    "interface",
    "note",
    means="of a large prefix that local routes make the host's, only the addresses that a server "
    "is bound to are answered",
    remedy="bind the server, or `--bind`, to the address",
)
def local_routes(_: Look, interface: Interface) -> Iterator[Found]:
    """Are there more addresses than are answered?"""
    if words := large_words(interface):
        yield Found(words, "bind the server, or --bind, to the address that is to be answered")


@check(
    "rp-filter",
    "interface",
    "note",
    means="the kernel drops requests whose source is not routed back by the interface "
    "(`rp_filter`), and carom answers them",
    remedy="`--allow PREFIX` makes carom look at routes, too",
)
def rp_filter(look: Look, interface: Interface) -> Iterator[Found]:
    """Does the kernel check the way back to sources?"""
    options = [asked.options for asked in look.services] or [Options(port=1)]
    for words in notes_on_sources([look.attachment(interface)], options):
        yield Found.said(words)


@check(
    "tc-programs",
    "interface",
    "note",
    means="others' programs and filters at TC, after carom, do not see what is answered",
    remedy="what they drop, `--allow` has to leave out too",
)
def others_at_tc(look: Look, interface: Interface) -> Iterator[Found]:
    """Who is behind carom?"""
    if programs := list(tc_programs(look.attachment(interface), look.programs)):
        yield Found(
            tc_words(interface.name, programs), "--allow has to leave out what they drop, too"
        )


@check(
    "room",
    "interface",
    "slow",
    means="XDP has little room for replies that are longer than their requests, so TC answers them "
    "(a note where there is room for 64 bytes or more). A running carom counts them; else it is "
    "tried with `--try` alone",
    remedy="none with this driver; `--hook tc` costs other traffic less, and answers as many",
)
def room(look: Look, interface: Interface) -> Iterator[Found]:
    """How far can a reply be longer than its request? Counted, or tried."""
    mode = look.mode_of(interface)
    if mode is None:
        return
    remedy = "--hook tc answers all of them in one place"
    if look.is_on(interface) and look.running and look.running.status:
        counts = look.running.status["hooks"]["xdp"]
        left, hits = counts["pass_to_tc"], counts["hit"]
        if left > hits:
            yield Found(f"XDP had no room for {left:,} replies, which TC answers", remedy)
        return
    if not look.tries:
        raise NotKnown(
            f"how much room {interface.name}'s driver leaves is tried with --try alone: a program "
            "is attached for a moment, for which some drivers restart their queues"
        )
    from carom.xdp.growing import PAYLOAD, STEPS, grows

    try:
        grown = grows(interface, mode)
    except (InterfaceError, OSError) as error:
        raise NotKnown(f"{interface.name} was not tried: {error}") from error
    if grown is None:
        raise NotKnown(f"no frame came in by {interface.name} while it was tried")
    if grown < max(STEPS):
        yield Found(
            f"XDP has room for replies of {PAYLOAD + grown} bytes to requests of {PAYLOAD} on "
            f"{interface.name} ({mode}); longer ones TC answers",
            remedy,
            severity="note" if grown >= 64 else "slow",
        )
