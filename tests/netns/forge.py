# SPDX-License-Identifier: Apache-2.0
"""Frames that no socket sends: wrong checksums, other people's addresses, any TTL, any option.

Made by hand and not by scapy: a flood is to be a flood.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Literal

from carom.kernel.resource import Resource
from netns.line import Line
from netns.memcache import PORT
from netns.process import INTERFACE

Sum = Literal["right", "wrong", "none", "left"]
"""`left`: wrong, and the kernel is told that it is still to be made, so that it does not look."""

_VNET_HEADER, _NEEDS_SUM = 15, 1  # PACKET_VNET_HDR (linux/if_packet.h); linux/virtio_net.h

SYN, ACK, PSH, FIN, RST, URG = 0x02, 0x10, 0x08, 0x01, 0x04, 0x20
MTU = 1500
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, AUTHENTICATION = 0, 43, 44, 60, 51
PADDING = bytes((1, 4, 0, 0, 0, 0))
"""An option of six bytes that says nothing, as hop-by-hop and destination headers have it."""

_SOL_PACKET = 263
_numbers = itertools.count(1)


def ones_sum(data: bytes) -> int:
    """The one's-complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def head(number: int) -> bytes:
    """memcached's frame header of a request in one datagram."""
    return struct.pack("!HHHH", number & 0xFFFF, 0, 1, 0)


class Forge(Resource):
    """Sends frames from the client's end of a line to its server."""

    def __init__(self, line: Line):
        def make() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            raw.bind((INTERFACE, 0))
            raw.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
            return raw

        self.line = line
        self._socket = line.client.call(make)
        macs = (line.server.mac(INTERFACE), line.client.mac(INTERFACE))
        self._ethernet = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in macs)

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def send(self, packets: Iterable[bytes], sum_at: int = 0) -> None:
        """Send IP packets as they are; with `sum_at`, a UDP header whose sum is to be made."""
        before = struct.pack(
            "=BBHHHH", *(_NEEDS_SUM, 0, 0, 0, 14 + sum_at, 6) if sum_at else [0] * 6
        )
        for packet in packets:
            kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
            self._socket.send(before + self._ethernet + kind + packet)

    def udp(
        self,
        payload: bytes,
        *,
        version: int = 4,
        source: str = "",
        sport: int = 40_000,
        dport: int = PORT,
        checksum: Sum = "right",
        ttl: int = 64,
        options: bytes = b"",
        extensions: Sequence[int] = (),
    ) -> None:
        """Send a datagram, in fragments where it is long; IPv6 behind so many extension headers."""
        line = self.line.over(version)
        source = source or line.client_address
        datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
        addresses = _packed(source) + _packed(line.address)
        found = 0xFFFF ^ ones_sum(addresses + struct.pack("!HH", 17, len(datagram)) + datagram)
        wrong = (found ^ 0x5555) or 1
        told = {"right": found or 0xFFFF, "wrong": wrong, "none": 0, "left": wrong}[checksum]
        datagram = datagram[:6] + struct.pack("!H", told) + datagram[8:]
        if version == 4:
            packets, sum_at = _ipv4(addresses, datagram, 17, ttl, options), 20 + len(options)
        else:
            packets, sum_at = _ipv6(addresses, datagram, ttl, extensions), 40 + 8 * len(extensions)
        self.send(packets, sum_at if checksum == "left" else 0)

    def tcp(
        self,
        payload: bytes,
        *,
        source: str = "",
        sport: int,
        dport: int = PORT,
        sequence: int,
        acknowledged: int = 0,
        flags: int = PSH | ACK,
        urgent: int = 0,
        wrong: bool = False,
    ) -> None:
        """Send a segment over IPv4; `urgent` is where its urgent data ends, from `sequence`."""
        addresses = _packed(source or self.line.client_address) + _packed(self.line.address)
        ports = struct.pack("!HHII", sport, dport, sequence % 2**32, acknowledged % 2**32)
        segment = ports + struct.pack("!BBHHH", 5 << 4, flags, 65_535, 0, urgent) + payload
        found = 0xFFFF ^ ones_sum(addresses + struct.pack("!HH", 6, len(segment)) + segment)
        found ^= 0x5555 * wrong
        segment = segment[:16] + struct.pack("!H", found) + segment[18:]
        self.send(_ipv4(addresses, segment, 6, 64, b""))


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _ipv4(addresses: bytes, data: bytes, protocol: int, ttl: int, options: bytes) -> list[bytes]:
    number, packets = next(_numbers) & 0xFFFF, []
    length = 20 + len(options)
    room = (MTU - length) // 8 * 8
    for at in range(0, max(len(data), 1), room):
        part = data[at : at + room]
        more = 0x2000 * (at + room < len(data))
        header = struct.pack(
            "!BBHHHBBH",
            4 << 4 | length // 4,
            0,
            length + len(part),
            number,
            more | at // 8,
            ttl,
            protocol,
            0,
        )
        header += addresses + options
        header = header[:10] + struct.pack("!H", 0xFFFF ^ ones_sum(header)) + header[12:]
        packets.append(header + part)
    return packets


def _extension(kind: int, following: int) -> bytes:
    if kind == FRAGMENT:  # the only one of its datagram (RFC 6946)
        return struct.pack("!BBHI", following, 0, 0, next(_numbers))
    if kind == ROUTING:  # of type 0 with no address left, which a host ignores (RFC 5095)
        return bytes((following, 0, 0, 0, 0, 0, 0, 0))
    return bytes((following, 0)) + PADDING


def _ipv6(addresses: bytes, data: bytes, ttl: int, extensions: Sequence[int]) -> list[bytes]:
    kinds = [*extensions, 17]
    before = b"".join(_extension(a, b) for a, b in itertools.pairwise(kinds))

    def packet(first: int, rest: bytes) -> bytes:
        return struct.pack("!IHBB", 6 << 28, len(rest), first, ttl) + addresses + rest

    if 40 + len(before) + len(data) <= MTU:
        return [packet(kinds[0], before + data)]
    assert not before, "fragments of these are not made"
    number, room, packets = next(_numbers), (MTU - 48) // 8 * 8, []
    for at in range(0, len(data), room):
        more = at + room < len(data)
        header = struct.pack("!BBHI", 17, 0, at | more, number)
        packets.append(packet(FRAGMENT, header + data[at : at + room]))
    return packets
