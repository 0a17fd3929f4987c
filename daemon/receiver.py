# SPDX-License-Identifier: Apache-2.0
"""What receives a service's requests, and which of this host's addresses lead there."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence

from carom import protocols
from carom.daemon import firewall
from carom.daemon.fastpath import Attachment
from carom.daemon.firewall import Ruleset
from carom.daemon.options import Options
from carom.daemon.places import Place
from carom.daemon.reach import Reach, large_words, reach, tag_words
from carom.daemon.translated import Translations, translations
from carom.errors import UsageError
from carom.kernel.abi import REPLY_SAFE, Fast
from carom.kernel.links import Interface
from carom.kernel.netlink import Address
from carom.kernel.resource import Resource

_LISTED = 16  # addresses that a message names; it counts the rest
_NAMED = 3  # the same for rules, programs and processes


class Receiver(Resource):
    """What receives one service's requests; `id` is the service's number in the fast path.

    The kernel answers only where requests get here: others are not this service's.
    """

    learns = False
    """Whether its replies are learned as they leave the server's socket."""

    def __init__(self, options: Options, id: int):
        self.options = options
        self.id = id
        self.protocol = protocols.spec(options.protocol)
        self.switched_off = False
        """Whether the kernel answers nothing of it any more, whatever its options say."""
        self.translations: Translations = {}
        """Which requests this host translates before any socket gets them, and where to."""

    def in_words(self) -> str:
        """Which service it is, among others and at other times."""
        kind = "server" if self.learns else "service"
        options = self.options
        return (
            f"{options.protocol} {kind} at {options.bind} port {options.port}, ttl {options.ttl:g}"
        )

    def server_name(self) -> str:
        """Who its server is, and where it receives."""
        return f"pid {os.getpid()}"

    def processes(self) -> tuple[int, ...]:
        """The processes that hold its server's sockets."""
        return (os.getpid(),)

    def close(self) -> None:
        """Stop receiving, where the socket is ours."""

    @property
    def server_port(self) -> int:
        """The port that its server has itself."""
        return self.options.port

    def heed(self, rules: Ruleset, interfaces: Iterable[Interface]) -> bool:
        """Find out how rules translate its requests. Returns whether that has changed."""
        before, ways = self.translations, firewall.ways(interfaces, self.wanted)
        self.translations = translations(rules, self.options.port, ways)
        return self.translations != before

    def wanted(self, _: str, addresses: Iterable[Address]) -> list[Address]:
        """Those of an interface's addresses that the service is bound to."""
        return list(wanted_of(addresses, self.options.bind))

    def answered_at(self, interface: str, addresses: Iterable[Address]) -> list[Address]:
        """Those at which it may be answered, as requests there get to its server."""
        return [
            address
            for address in self.wanted(interface, addresses)
            if self._comes(interface, address)
        ]

    def _comes(self, interface: str, address: Address) -> bool:
        """Whether a request to the address, by that interface, gets to its server."""
        to = self.translations.get((interface, address))
        bind = ipaddress.ip_address(self.options.bind)
        return to is None or (
            to.local
            and to.port == self.options.port
            and (bind.is_unspecified or to.address == bind)
        )

    def places(self, attachment: Attachment) -> Iterator[Place]:
        """The places on an interface where it is answered."""
        interface = attachment.interface
        if interface.port:  # its bridge or bond takes everything in
            return
        # In native mode a bond's packets come by its ports.
        ports = [port.ifindex for port in interface.ports if port.active]
        for place in self._places(attachment):
            yield place
            for port in ports if attachment.mode == "native" else ():
                yield place._replace(ifindex=port)

    def _places(self, attachment: Attachment) -> Iterator[Place]:
        interface = attachment.interface
        for upper in interface.uppers:
            for address in self.answered_at(interface.name, upper.addresses):
                place = self._place(attachment, address, upper.mac, upper.mtu)
                yield place._replace(outer=upper.outer, inner=upper.inner, link=upper.ifindex)
        untagged = interface.untagged if attachment.hook == "xdp" else interface.addresses
        # After a macvlan's: at an address of both, the interface's own place holds.
        for address in self.answered_at(interface.name, untagged):
            yield self._place(attachment, address, interface.mac, interface.mtu)

    def server_words(self) -> str:
        """Where its server receives, for when that is not where requests come in."""
        return ""

    def reach(self, attachment: Attachment) -> Reach:
        """Whether requests can come in by an interface and be answered."""
        interface, places = attachment.interface, sum(1 for _ in self.places(attachment))
        server = next(self.goes_elsewhere(interface), "") or self.server_words()
        but = "; ".join(filter(None, self._left(attachment)))
        return reach(attachment, self.options.bind, places, server or but, but)

    def _left(self, attachment: Attachment) -> Iterator[str]:
        """What is left to its server, though the rest is answered."""
        if attachment.hook == "xdp":
            yield tag_words(attachment.interface)
        if self.everywhere:
            yield large_words(attachment.interface)

    @property
    def everywhere(self) -> bool:
        """Whether its server receives at any address of the host."""
        return ipaddress.ip_address(self.options.bind).is_unspecified

    def goes_elsewhere(self, interface: Interface) -> Iterator[str]:
        """Where requests by an interface are sent on to, where that is not its server."""
        for address in self.wanted(interface.name, interface.reachable):
            to = self.translations.get((interface.name, address))
            if to and not self._comes(interface.name, address):
                yield f"to {address} port {self.options.port} go on to {to}"

    def _place(self, attachment: Attachment, address: Address, mac: bytes, mtu: int) -> Place:
        options = self.options
        return Place(
            address=address,
            port=options.port,
            ifindex=attachment.interface.ifindex,
            mac=mac,
            mtu=mtu,
            link=attachment.interface.ifindex,
            service=self.id,
            fast=Fast.OFF if self.switched_off else Fast[options.fast.upper()],
            protocol=self.protocol,
            skb_mode=attachment.mode == "generic",
            hands_over=attachment.hands_over,
            multiple=options.amplify,
            allow_list=bool(options.allow),
            learn=self.learns,
            prefix_rate=options.prefix_rate,
            total_rate=options.total_rate,
            max_reply=options.max_reply,
            unasked=REPLY_SAFE,
            echoes=options.echoes,
            responses=options.responses_per_second,
            slip=options.slip,
        )


def wanted_of(addresses: Iterable[Address], bind: str) -> tuple[Address, ...]:
    """Those addresses that a socket bound to `bind` receives at."""
    bound = ipaddress.ip_address(bind)
    if not bound.is_unspecified:
        return tuple(address for address in addresses if address == bound)
    return tuple(address for address in addresses if bound.version == 6 or address.version == 4)


def reachable(interfaces: Iterable[Interface]) -> list[Address]:
    """Every address of some interfaces, and of what is on top of them."""
    return [address for interface in interfaces for address in interface.reachable]


def listed(addresses: Sequence[Address]) -> str:
    """Addresses in words; of many, the first ones."""
    more = f" and {len(addresses) - _LISTED:,} more" if len(addresses) > _LISTED else ""
    return ", ".join(map(str, addresses[:_LISTED])) + more


def some(names: Sequence[str]) -> str:
    """Rules, programs or processes in words; of many, the first ones."""
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def check_bind(bind: str, interfaces: Iterable[Interface]) -> None:
    """Raises UsageError when no interface has the address."""
    interfaces = list(interfaces)
    bound = ipaddress.ip_address(bind)
    has = reachable(interfaces)
    if not bound.is_unspecified and bound not in has:
        names = ", ".join(interface.name for interface in interfaces)
        raise UsageError(
            f"{names} does not have the address {bound}",
            hint=f"it has {listed(has) or 'none'}"
            + (", and takes it without the zone" if "%" in bind else ""),
            passing=True,
            trap="address",
        )
