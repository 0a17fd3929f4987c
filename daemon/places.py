# SPDX-License-Identifier: Apache-2.0
"""Where services are answered, as the kernel looks for them: include/place.h is the other side."""

from __future__ import annotations

import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from carom import protocols
from carom.daemon.mirror import Mirror
from carom.kernel import libbpf
from carom.kernel.abi import (
    CHAIN_MAX,
    PLACE,
    PLACES_MAX,
    PORT_MORE,
    REPLY_MAX,
    SERVICE,
    Fast,
    packed_endpoint,
    port_of,
)
from carom.kernel.bpf import Module
from carom.kernel.netlink import Address
from carom.kernel.resource import Resource
from carom.protocols.spec import Filled, Spec

REST = 10.0
"""Seconds from when a place is unlinked to when its part of the array may be written anew.

A program that has found it before is done by then: it runs for microseconds, and is not preempted.
"""

_PER_CELL = 4
_PORT_BITS = 16


class Place(NamedTuple):
    """Where a service is answered, and how.

    `view` is the number of the server's address: each answers for itself. `ifindex`, `mac` and
    `mtu` are the interface's; `link` is the ifindex of what has the address, where that is a VLAN
    interface on top. `learn` says that the socket's edge watches writes, `skb_mode` that XDP is
    generic there, `hands_over` that TC ingress takes what XDP has no room for.

    A reply is `multiple` times as long as its request at most (0: any). One of more bytes than
    `max_reply` is never given, one of more than `unasked` only where the route's MTU takes it.
    `prefix_rate` and `total_rate` are bytes of replies a second (0: any) to a source's /24 or IPv6
    /64, and to all. A source's /24 or IPv6 /56 gets `responses` replies a second (0: any); beyond
    that, every `slip`th is truncated (0: none). Of `echoes` replies that may go in a loop one is
    left out (0: none).
    """

    address: Address
    port: int
    ifindex: int
    mac: bytes
    mtu: int
    outer: int = 0
    inner: int = 0
    service: int = 0
    view: int = 0
    fast: Fast = Fast.CACHE
    protocol: Spec = protocols.default(Filled.DAEMON)
    skb_mode: bool = False
    hands_over: bool = False
    multiple: int = 0
    allow_list: bool = False
    learn: bool = False
    prefix_rate: int = 0
    total_rate: int = 0
    link: int = 0
    max_reply: int = REPLY_MAX
    unasked: int = REPLY_MAX
    echoes: int = 0
    responses: int = 0
    slip: int = 0

    def packed(self) -> tuple[bytes, bytes]:
        """Key and value in `services`."""
        return (
            packed_endpoint(self.address, self.port, self.ifindex, self.outer, self.inner),
            SERVICE.pack(
                self.service,
                self.view,
                self.fast,
                self.protocol.number,
                self.skb_mode,
                self.hands_over,
                self.mac,
                self.mtu,
                self.multiple,
                self.allow_list,
                bool(self.prefix_rate or self.total_rate or self.responses),
                self.learn,
                self.link or self.ifindex,
                self.prefix_rate,
                self.total_rate,
                self.max_reply,
                self.unasked,
                self.echoes,
                self.responses,
                self.slip,
            ),
        )


class _Chain(NamedTuple):
    """A port's first places: their indices in the array, and their endpoints and services."""

    indices: tuple[int, ...]
    elements: tuple[tuple[bytes, bytes], ...]


class Places(Resource):
    """The places where the kernel answers.

    The hash map `services` has all of them. The first few of each port are also in an array, which
    is quicker to look through; `ports` says where, and whether there are more than those. An
    element of the array that may be looked at is never written.
    """

    def __init__(self, module: Module, room: int):
        self._services = Mirror(module.map("services"), "endpoints to answer at", room)
        self._array = module.map("places")
        self._ports = module.cells("ports", 65536 // _PER_CELL)
        self._chains: dict[int, _Chain] = {}
        self._open: set[int] = set()
        self._free = deque(range(1, PLACES_MAX))
        self._resting: deque[tuple[float, int]] = deque()

    def answer_at(self, places: Iterable[Place]) -> None:
        """Answer at these places, and at no others from now on.

        Raises BPFError when there is no room for all; what is left out is not answered.
        """
        wanted = dict(place.packed() for place in places)
        ports = set(map(port_of, wanted))
        self._unlink(wanted)
        for port in self._open ^ ports:
            self._set(port, PORT_MORE if port in ports else 0)
        self._open = ports
        try:
            self._services.hold(wanted)
        finally:
            self._link()

    def withdraw(self, places: Iterable[Place]) -> None:
        """Stop answering wherever is not among these places; no place is added."""
        wanted = {endpoint for endpoint, _ in map(Place.packed, places)}
        now = self._services.now
        self._unlink({key: value for key, value in now.items() if key in wanted})
        self._services.withdraw(wanted)
        self._link()

    def _unlink(self, wanted: Mapping[bytes, bytes]) -> None:
        """Have the programs ask `services` at each port whose chain has what is not wanted, or
        could have more than it has."""
        counts = Counter(map(port_of, wanted))
        for port, chain in list(self._chains.items()):
            full = len(chain.elements) == min(counts[port], CHAIN_MAX)
            if not full or any(wanted.get(key) != value for key, value in chain.elements):
                self._set(port, PORT_MORE)
                del self._chains[port]
                until = time.monotonic() + REST
                self._resting.extend((until, index) for index in chain.indices)

    def _link(self) -> None:
        """Make the chains that are missing, of what `services` holds."""
        for port, elements in _by_port(self._services.now).items():
            if port not in self._chains:
                self._chains[port] = self._chain(elements)
            more = len(elements) > len(self._chains[port].indices)
            first = self._chains[port].indices[:1] or (0,)
            self._set(port, first[0] | (PORT_MORE if more else 0))

    def _chain(self, elements: tuple[tuple[bytes, bytes], ...]) -> _Chain:
        """Write as many elements as there is room for; nothing leads to them yet."""
        while self._resting and self._resting[0][0] <= time.monotonic():
            self._free.append(self._resting.popleft()[1])
        count = min(len(elements), CHAIN_MAX, len(self._free))
        indices = tuple(self._free.popleft() for _ in range(count))
        following = (*indices[1:], 0)
        for (endpoint, service), index, after in zip(elements, indices, following, strict=False):
            value = PLACE.pack(endpoint, after, service)
            libbpf.update(self._array, struct.pack("=I", index), value)
        return _Chain(indices, elements[:count])

    def _set(self, port: int, word: int) -> None:
        cell, shift = port // _PER_CELL, port % _PER_CELL * _PORT_BITS
        others = self._ports[cell] & ~(((1 << _PORT_BITS) - 1) << shift)
        self._ports[cell] = others | word << shift

    def close(self) -> None:
        """Release its cells; the maps are the module's."""
        self._ports.release()


def _by_port(places: Mapping[bytes, bytes]) -> dict[int, tuple[tuple[bytes, bytes], ...]]:
    """The elements of each port, in the order in which they are given."""
    found = defaultdict[int, list[tuple[bytes, bytes]]](list)
    for endpoint, service in places.items():
        found[port_of(endpoint)].append((endpoint, service))
    return {port: tuple(elements) for port, elements in found.items()}
