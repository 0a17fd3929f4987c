# SPDX-License-Identifier: Apache-2.0
"""Requests and replies as frames, made by scapy: every checksum and length here is scapy's own.

Those that differ in payload alone are made once, and their checksum by scapy's function.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

from scapy.layers.inet import IP, UDP, in4_pseudoheader
from scapy.layers.inet6 import IPv6, PseudoIPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw, raw
from scapy.utils import checksum

from carom.kernel.abi import REPLY_MAX

HOST_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOST, CLIENT = "198.18.0.1", "198.18.0.2"
HOST6, CLIENT6 = "2001:db8::1", "2001:db8::2"
PORT, CLIENT_PORT = 51141, 40000
TOS, TTL, ID, LABEL = 0xB9, 64, 0x1234, 0xABCDE
HEADERS = 42
FRAME_MIN = 60
PRIORITY = 5
"""Of VLAN tags, whose DEI is set as well: none of it is part of a VLAN's id."""

Fields = dict[str, Any]


_CALM = {"src", "dst", "sport", "dport", "tos", "ttl", "id", "tc", "fl", "hlim"}
"""Fields that change no other, but for checksums."""

_Given = tuple[tuple[str, Any], ...]


@functools.lru_cache(maxsize=10_000)
def _blank(wire: Wire, length: int, eth: _Given, ip: _Given, udp: _Given) -> bytes:
    """A frame with zeros for a payload of this length, and for the checksum of UDP.

    For scapy takes long to make one.
    """
    return wire.built(bytes(length), dict(eth), dict(ip), {**dict(udp), "chksum": 0})


class Wire(NamedTuple):
    """What frames to a service look like: their IP version, and their VLAN ids, outermost first."""

    version: int = 4
    tags: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "-".join((f"ipv{self.version}", *(f"vlan{tag}" for tag in self.tags)))

    @property
    def host(self) -> str:
        return HOST if self.version == 4 else HOST6

    @property
    def client(self) -> str:
        return CLIENT if self.version == 4 else CLIENT6

    @property
    def network(self) -> int:
        """Where the IP header is."""
        return 14 + 4 * len(self.tags)

    @property
    def transport(self) -> int:
        """Where the UDP header is."""
        return self.network + (20 if self.version == 4 else 40)

    @property
    def check(self) -> slice:
        """Where the UDP checksum is."""
        return slice(self.transport + 6, self.transport + 8)

    @property
    def headers(self) -> int:
        """Bytes before the payload."""
        return self.transport + 8

    @property
    def mtu(self) -> int:
        """One that the longest reply fits."""
        return self.headers - self.network + REPLY_MAX

    def ttl(self, hops: int) -> Fields:
        return {"ttl" if self.version == 4 else "hlim": hops}

    def length(self, udp: int) -> Fields:
        """The IP header's length field for a datagram of `udp` bytes."""
        return {"len": 20 + udp} if self.version == 4 else {"plen": udp}

    def ethernet(self, inside: Packet, **fields: object) -> bytes:
        """A frame of a client's with anything behind the tags."""
        frame: Packet = Ether(**{"src": CLIENT_MAC, "dst": HOST_MAC} | fields)
        for number, tag in enumerate(self.tags):
            kind = Dot1AD if number < len(self.tags) - 1 else Dot1Q
            frame.add_payload(kind(vlan=tag, prio=PRIORITY, dei=1))
        frame.add_payload(inside)
        return raw(frame)

    def request(
        self,
        payload: bytes = b"",
        *,
        eth: Fields | None = None,
        ip: Fields | None = None,
        udp: Fields | None = None,
        padding: bytes = b"",
    ) -> bytes:
        """A client's frame; the fields given replace those of a proper request."""
        fields = tuple(tuple((given or {}).items()) for given in (eth, ip, udp))
        if any(name not in _CALM for given in fields for name, _ in given):
            return self.built(payload, eth, ip, udp) + padding
        frame = bytearray(_blank(self, len(payload), *fields))
        frame[self.headers :] = payload
        frame[self.check] = struct.pack("!H", 0xFFFF - self.sum_of_words(frame) or 0xFFFF)
        return bytes(frame) + padding

    def built(
        self,
        payload: bytes,
        eth: Fields | None = None,
        ip: Fields | None = None,
        udp: Fields | None = None,
    ) -> bytes:
        """The same, by scapy alone."""
        ends = {"src": self.client, "dst": self.host}
        network = (
            IP(**ends | {"tos": TOS, "ttl": TTL, "id": ID} | (ip or {}))
            if self.version == 4
            else IPv6(**ends | {"tc": TOS, "fl": LABEL, "hlim": TTL} | (ip or {}))
        )
        transport = UDP(**{"sport": CLIENT_PORT, "dport": PORT} | (udp or {}))
        transport.add_payload(Raw(payload))  # `/` would copy all layers for each
        network.add_payload(transport)
        return self.ethernet(network, **eth or {})

    def reply(
        self,
        payload: bytes = b"",
        *,
        eth: Fields | None = None,
        ip: Fields | None = None,
        udp: Fields | None = None,
        padding: bytes = b"",
    ) -> bytes:
        """What the host sends back, as long as its payload says, and then `padding`."""
        cleared = {"tos": 0} if self.version == 4 else {"tc": 0, "fl": 0}
        ends = {"src": self.host, "dst": self.client}
        return self.request(
            payload,
            eth={"src": HOST_MAC, "dst": CLIENT_MAC} | (eth or {}),
            ip=ends | cleared | self.ttl(TTL - 1) | (ip or {}),
            udp={"sport": PORT, "dport": CLIENT_PORT} | (udp or {}),
            padding=padding,
        )

    def cached_reply(self, payload: bytes, **fields: Any) -> bytes:
        """A reply from the cache: no shorter than a frame may be, filled with zeros."""
        return self.reply(payload, **fields).ljust(FRAME_MIN, b"\0")

    def pseudo_sum(
        self, payload_length: int, *, src: str | None = None, dst: str | None = None
    ) -> int:
        """The folded sum of the pseudo-header: what a sender leaves to its device to complete."""
        ends = {"src": src or self.client, "dst": dst or self.host}
        if self.version == 4:
            header = in4_pseudoheader(17, IP(**ends), payload_length + 8)
        else:
            header = raw(PseudoIPv6(**ends, uplen=payload_length + 8, nh=17))
        return 0xFFFF ^ checksum(header)

    def sum_of_words(self, frame: bytes | bytearray) -> int:
        """The end-around-carry sum of the UDP datagram and its pseudo-header, check field as is."""
        start, addresses = self.transport, 4 if self.version == 4 else 16
        (length,) = struct.unpack_from("!H", frame, start + 4)
        header = frame[start - 2 * addresses : start] + struct.pack("!HH", 17, length)
        return 0xFFFF ^ checksum(header + frame[start : start + length])

    def tuned(self, wanted: int, payload: bytes, **fields: Any) -> bytes:
        """`payload` with its first two bytes chosen so that the right UDP checksum is `wanted`.

        One's-complement sums are numbers modulo 0xffff: 0 and 0xffff are the same wish.
        """
        blank = b"\0\0" + payload[2:]
        rest = self.sum_of_words(self.request(blank, **fields | {"udp": {"chksum": 0}}))
        return struct.pack("!H", (0xFFFF - wanted - rest) % 0xFFFF) + payload[2:]


PLAIN = Wire()
"""IPv4 without tags."""

WIRES = tuple(Wire(version, tags) for version in (4, 6) for tags in ((), (7,), (7, 8)))

request = PLAIN.request
reply = PLAIN.reply
cached_reply = PLAIN.cached_reply
pseudo_sum = PLAIN.pseudo_sum
sum_of_words = PLAIN.sum_of_words
tuned = PLAIN.tuned
