# SPDX-License-Identifier: Apache-2.0
"""Packets that a filter saw, from the kernel's ring buffer."""

from __future__ import annotations

import struct
import time
from typing import Any

import msgspec

_HEAD = struct.Struct("=QIHBB")  # struct capture of filter.h, before its bytes
HOOKS = ("xdp", "tc", "socket")


class Capture(msgspec.Struct, frozen=True):
    """A packet: `data` begins with its Ethernet header, at the socket with its IP header.

    `seconds` are since 1970; `length` is the packet's in bytes, of which `data` has the first 500.
    """

    seconds: float
    length: int
    hook: str
    valid: bool
    accepted: bool
    data: bytes

    def packet(self) -> Any:
        """The packet as scapy reads it; a valid request has a layer of its own."""
        from scapy.layers.inet import IP, UDP
        from scapy.layers.inet6 import IPv6
        from scapy.layers.l2 import Ether

        from carom.protocols.kv.layers import KeyValue

        layer: Any = Ether
        if self.hook == "socket":
            layer = IPv6 if self.data[0] >> 4 == 6 else IP
        packet = layer(self.data)
        if self.valid and UDP in packet:
            udp = packet[UDP]
            payload = bytes(udp.payload)[: udp.len - len(UDP())]
            udp.remove_payload()
            udp.add_payload(KeyValue(payload))
        return packet


def unpack(data: bytes) -> Capture:
    """A capture from the bytes of the ring buffer."""
    nanoseconds, length, captured, hook, tally = _HEAD.unpack_from(data)
    since = time.time() - time.monotonic()
    return Capture(
        seconds=since + nanoseconds / 1e9,
        length=length,
        hook=HOOKS[hook],
        valid=tally >= 2,
        accepted=bool(tally & 1),
        data=data[_HEAD.size : _HEAD.size + captured],
    )
