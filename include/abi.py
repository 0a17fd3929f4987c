# SPDX-License-Identifier: Apache-2.0
"""abi.h in Python: limits, verdicts and the bytes of keys and entries.

`tests/prog/test_abi.py` holds every number and offset here against what clang made of abi.h.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from enum import IntEnum
from typing import NamedTuple

KEY_MAX = 260
KEY_SHORT = 60
RAW_MAX = 256
REPLY_MAX = 1472
REPLY_MEDIUM = 512
REPLY_SHORT = 64
SLOTS = 65536
SERVICES_MAX = 256
ENDPOINTS_MAX = 4096
TTL_FLOOR = 32
SOURCE_PORT_MIN = 1024
FRAME_MIN = 60
HANDED_OVER = 0x6D6F7263
PENDING_MAX = 65536
PENDING_SECONDS = 10
HOLD_MS = 500
STREAM_CELLS = 16
STREAM_LINE_MAX = 256
STREAMS_MAX = 16384
SEEN_PER_ENTRY = 8
"""Cells of `seen` for each entry that a length class has room for."""


class Verdict(IntEnum):
    """What was decided on a packet, and why. `abi.h` says what each means."""

    BOUNCE = 1
    HIT = 2
    MISS = 3
    MISS_EXPIRED = 4
    MISS_VOID = 5
    MISS_TORN = 6
    PASS_TRUNCATED = 7
    PASS_ETHERTYPE = 8
    PASS_VERSION = 9
    PASS_OPTIONS = 10
    PASS_FRAGMENT = 11
    PASS_PROTOCOL = 12
    PASS_LENGTH = 13
    PASS_SERVICE = 14
    PASS_MAC = 15
    PASS_SOURCE = 16
    PASS_TTL = 17
    PASS_OFF = 18
    PASS_LEASE = 19
    PASS_SIZE = 20
    PASS_CHECKSUM = 21
    PASS_ROOM = 22
    FAULT = 23
    PASS_TO_TC = 24
    PASS_AMPLIFY = 25
    PASS_REQUEST = 26
    PASS_WRITE = 27
    PASS_ALLOW = 28
    PASS_RATE = 29


VERDICTS = max(Verdict) + 1

MISSES = frozenset(
    {
        Verdict.MISS,
        Verdict.MISS_EXPIRED,
        Verdict.MISS_VOID,
        Verdict.MISS_TORN,
        Verdict.PASS_ROOM,
        Verdict.PASS_AMPLIFY,
        Verdict.PASS_RATE,
    }
)
"""The verdicts on requests that the cache could have answered and that went up to the server."""


class Hook(IntEnum):
    """Where a verdict is given: each has its own counters."""

    XDP = 0
    TC = 1


class Fast(IntEnum):
    """What a service's requests are answered with."""

    OFF = 0
    CACHE = 1
    BOUNCE = 2


class Protocol(IntEnum):
    """What language a service's requests are in."""

    RAW = 0
    KV = 1
    MEMCACHED = 2
    DNS = 3


class Event(IntEnum):
    """What happened at the socket's edge. `abi.h` says what each means."""

    LEARNED = 0
    UNASKED = 1
    UNLEARNABLE = 2
    FULL = 3
    WRITE_SEEN = 4
    WRITE_ALL_SEEN = 5
    WRITE_DONE = 6
    STREAM_LOST = 7
    EDGE_BUSY = 8
    NOT_ADMITTED = 9


_META = "QQQQQQIHHH6x"

SHORT_KEY = struct.Struct(f"=HH{KEY_SHORT}s")
KEY = struct.Struct(f"=HH{KEY_MAX}s")
"""service, length, bytes. Packing fills up with the zeros that are part of the key."""

SHORT_ENTRY = struct.Struct(f"={_META}HH{KEY_SHORT}s{REPLY_SHORT}sQ")
LONG_ENTRY = struct.Struct(f"={_META}HH{KEY_MAX}s{REPLY_SHORT}sQ")
"""head, expires, filled, token, generation, body, slot, length, stored, sum; the key's three;
the reply if it is short; tail."""

ENTRY_KEY = struct.calcsize("=" + _META)
"""Where in an entry its key is."""

MEDIUM_REPLY = struct.Struct(f"=Q{REPLY_MEDIUM}sQ")
LONG_REPLY = struct.Struct(f"=Q{REPLY_MAX}sQ")
"""head, bytes, tail."""

ENDPOINT = struct.Struct("=16sIHH2sH")
"""Address (IPv4 as ::ffff:a.b.c.d), ifindex, outer and inner VLAN id, port in network order, 0."""

SERVICE = struct.Struct("=IBBBB6sHIII4xQQ")
"""id, fast, protocol, skb mode, second tier, MAC, MTU in bytes, multiple, allow-list, learn,
bytes of replies a second to a prefix, to all."""

WATCH = struct.Struct("=IIIIQ")
"""id, protocol, TTL in seconds, 0."""

ASKED = struct.Struct("=16sQI2sH")
"""Client's address, hash of the key, request id, client's port in network order, service."""

PENDING = struct.Struct("=QQQII")
"""Token, generation, jiffies, slot, outstanding."""

PREFIX = struct.Struct("=I16s")
"""Length in bits, address."""

SLOT_PRIME = 65519  # below SLOTS; 256 has the order 32,759, so a key's bytes weigh differently


class Entry(NamedTuple):
    """One cache entry as stored, without its reply: that may lie in another map.

    `length` is the reply's in bytes, `stored` also counts what the protocol keeps behind it;
    `reply` is what lies in the entry itself, for a reply of at most REPLY_SHORT bytes.
    """

    service: int
    key: bytes
    head: int
    expires: int
    filled: int
    token: int
    generation: int
    body: int
    slot: int
    length: int
    stored: int
    reply: bytes


def slot_of(key: bytes) -> int:
    """The cell of `versions` that a key hashes to, 0 to SLOTS - 1.

    The key as a little-endian number, modulo a prime: cheap in Python, where big numbers are
    native, and 32 bits at a time in BPF. A collision costs a miss, never a wrong answer.
    """
    return int.from_bytes(key, "little") % SLOT_PRIME


def sum_of(data: bytes) -> int:
    """One's-complement sum of 16-bit words in memory order (RFC 1071), 0 to 0xfffe.

    A number modulo 0xffff is the end-around-carry sum of its 16-bit digits.
    """
    if sys.byteorder == "big" and len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, sys.byteorder) % 0xFFFF


def unpack_entry(packed: struct.Struct, data: bytes | memoryview) -> Entry | None:
    """Read an entry of either class; None when it was replaced while it was read."""
    *meta, _, service, key_length, key, reply, tail = packed.unpack(data)
    head, expires, filled, token, generation, body, slot, length, stored = meta
    if head != tail:
        return None
    return Entry(
        service=service,
        key=key[:key_length],
        head=head,
        expires=expires,
        filled=filled,
        token=token,
        generation=generation,
        body=body,
        slot=slot,
        length=length,
        stored=stored,
        reply=reply[:stored],
    )


def packed_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """The 16 bytes of an address as the programs have it: IPv4 as ::ffff:a.b.c.d (RFC 4291)."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def packed_endpoint(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    ifindex: int,
    outer: int,
    inner: int,
) -> bytes:
    """A struct endpoint: VLAN ids are 0 for no tag."""
    packed = packed_address(address)
    return ENDPOINT.pack(packed, ifindex, outer, inner, port.to_bytes(2, "big"), 0)
