# SPDX-License-Identifier: Apache-2.0
"""Requests and replies as frames, made by scapy: every checksum and length here is scapy's own."""

from __future__ import annotations

import struct
from typing import Any

from scapy.layers.inet import IP, UDP, in4_pseudoheader
from scapy.layers.l2 import Ether
from scapy.packet import Raw, raw
from scapy.utils import checksum

HOST_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HOST, CLIENT = "198.18.0.1", "198.18.0.2"
PORT, CLIENT_PORT = 51141, 40000
TOS, TTL, ID = 0xB9, 64, 0x1234
HEADERS = 42
FRAME_MIN = 60

Fields = dict[str, Any]


def request(
    payload: bytes = b"",
    *,
    eth: Fields | None = None,
    ip: Fields | None = None,
    udp: Fields | None = None,
    padding: bytes = b"",
) -> bytes:
    """A client's frame; the fields given replace those of a proper request."""
    layers = (
        Ether(**{"src": CLIENT_MAC, "dst": HOST_MAC} | (eth or {}))
        / IP(**{"src": CLIENT, "dst": HOST, "tos": TOS, "ttl": TTL, "id": ID} | (ip or {}))
        / UDP(**{"sport": CLIENT_PORT, "dport": PORT} | (udp or {}))
        / Raw(payload)
    )
    return raw(layers) + padding


def reply(
    payload: bytes = b"",
    *,
    eth: Fields | None = None,
    ip: Fields | None = None,
    udp: Fields | None = None,
    padding: bytes = b"",
) -> bytes:
    """What the host sends back, as long as its payload says, and then `padding`."""
    return request(
        payload,
        eth={"src": HOST_MAC, "dst": CLIENT_MAC} | (eth or {}),
        ip={"src": HOST, "dst": CLIENT, "tos": 0, "ttl": TTL - 1} | (ip or {}),
        udp={"sport": PORT, "dport": CLIENT_PORT} | (udp or {}),
        padding=padding,
    )


def cached_reply(payload: bytes, **fields: Any) -> bytes:
    """A reply from the cache: no shorter than a frame may be, filled with zeros."""
    return reply(payload, **fields).ljust(FRAME_MIN, b"\0")


def pseudo_sum(payload_length: int, *, src: str = CLIENT, dst: str = HOST) -> int:
    """The folded sum of the pseudo-header: what a sender leaves to its device to complete."""
    header = in4_pseudoheader(17, IP(src=src, dst=dst), payload_length + 8)
    return 0xFFFF ^ checksum(header)


def sum_of_words(frame: bytes) -> int:
    """The end-around-carry sum of the UDP datagram and its pseudo-header, check field as it is."""
    length = struct.unpack_from("!H", frame, 38)[0]
    header = frame[26:34] + struct.pack("!HH", 17, length)
    return 0xFFFF ^ checksum(header + frame[34 : 34 + length])


def tuned(wanted: int, payload: bytes, **fields: Any) -> bytes:
    """`payload` with its first two bytes chosen so that the right UDP checksum is `wanted`.

    One's-complement sums are numbers modulo 0xffff: 0 and 0xffff are the same wish.
    """
    blank = b"\0\0" + payload[2:]
    rest = sum_of_words(request(blank, **fields | {"udp": {"chksum": 0}}))
    return struct.pack("!H", (0xFFFF - wanted - rest) % 0xFFFF) + payload[2:]
