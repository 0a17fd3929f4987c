# SPDX-License-Identifier: Apache-2.0
"""abi.h in Python: limits, verdicts and the bytes of keys and entries.

`tests/prog/test_abi.py` compares every number and offset here with what clang made of abi.h.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from enum import IntEnum
from typing import NamedTuple

KEY_MAX = 260
KEY_SHORT = 60
WHOLE_MAX = 256
REPLY_MAX = 1472
REPLY_SAFE = 1232
"""Bytes of a reply that every IPv6 path carries: an MTU of 1280 less the headers (40 and 8)."""
REPLY_MEDIUM = 512
REPLY_SHORT = 64
SLOTS = 65536
SERVICES_MAX = 256
ENDPOINTS_MAX = 4096
VIEWS_MAX = 256
PLACES_MAX = 1024
CHAIN_MAX = 8
PORT_MORE = 0x8000
OWN_BITS = 65536
OWN_FACTOR0, OWN_FACTOR1, OWN_FACTOR2, OWN_FACTOR3 = OWN_FACTORS = (
    0x9E3779B1,
    0x85EBCA77,
    0xC2B2AE3D,
    0x27D4EB2F,
)
"""What an address' words (native order) are multiplied by for its bit among OWN_BITS."""
TTL_FLOOR = 32
SOURCE_PORT_MIN = 1024
FRAME_MIN = 60
BUDGET_CELLS = 65536
WAYS_MAX = 4096
NEIGHBOURS_MAX = 16384
GATEWAYS_MAX = 4
COOKIE_SECRETS = 4
HANDED_OVER = 0x6D6F7263
FLIGHTS = 16384
FLIGHT_SECONDS = 60
FLIGHT_WRITES = 8
CUT_SECONDS = 3600
UNREAD_SECONDS = 10
VOIDERS_MAX = 1024
DOUBTS_MAX = 10
DOORS_MAX = 4096
SOCKETS_MAX = 65536
HOLD_MS = 500
STREAM_CELLS = 16
STREAM_LINE_MAX = 256
SEEN_PER_ENTRY = 8
"""How many cells `seen` has for each entry that a length class has room for."""


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
    PASS_SOURCE_NOBODY = 16
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
    PASS_MTU = 30
    PASS_NEIGHBOUR = 31
    PASS_RESPONSES = 32
    SLIP = 33
    DROP_LOOP = 34
    PASS_COOKIE = 35
    PASS_SOURCE_LOOPBACK = 36
    PASS_SOURCE_GROUP = 37
    PASS_SOURCE_MAC = 38
    PASS_SOURCE_LOW = 39
    PASS_SOURCE_SERVED = 40
    PASS_SOURCE_OWN = 41


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
        Verdict.PASS_MTU,
        Verdict.PASS_RESPONSES,
        Verdict.PASS_COOKIE,
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
    BUSY = 8
    NOT_ADMITTED = 9
    HELD = 10
    UNEXPLAINED = 11
    FELL_OUT = 12
    REFUSED = 13
    CUT = 14
    UNREAD = 15
    WRONG_SUM = 16
    STRANGER = 17
    BOUND = 18
    RELEASED = 19
    NOT_ASKED = 20
    ENDING = 21


class Ends(IntEnum):
    """What is done where a server's items may end by themselves. `abi.h` says what each means."""

    IGNORED = 0
    ASKED = 1
    UNASKED = 2


class MarkKind(IntEnum):
    """What a socket is to a service. `abi.h` says what each means."""

    STRANGER = 0
    NEW = 1
    DOOR = 2
    SERVER = 3


_META = "QQQQQIHHHH4x"

SHORT_KEY = struct.Struct(f"=HH{KEY_SHORT}s")
KEY = struct.Struct(f"=HH{KEY_MAX}s")
"""service, length, bytes. Packing appends the zeros that are part of the key."""

SHORT_ENTRY = struct.Struct(f"={_META}HH{KEY_SHORT}s{REPLY_SHORT}sQ")
LONG_ENTRY = struct.Struct(f"={_META}HH{KEY_MAX}s{REPLY_SHORT}sQ")
"""head, expires, filled, token, body, slot, length, stored, sum, loops; the three fields of the
key; the reply if it is short; tail."""

MEDIUM_REPLY = struct.Struct(f"=Q{REPLY_MEDIUM}sQ")
LONG_REPLY = struct.Struct(f"=Q{REPLY_MAX}sQ")
"""head, bytes, tail."""

ENDPOINT = struct.Struct("=16sIHH2sH")
"""Address (IPv4 as ::ffff:a.b.c.d), ifindex, outer and inner VLAN id, port in network order, 0."""

STRAY = struct.Struct(f"={ENDPOINT.size}sIQ")
"""Endpoint, 0, number of packets."""

SERVICE = struct.Struct("=HHBBBB6sHIIIIQQHHIII")
"""id, view, fast, protocol, skb mode, hands over, MAC, MTU in bytes, multiple, allow-list, learn,
link, bytes of replies a second to a prefix, the same to all sources, longest reply, longest reply
for which the route is not asked, echoes, responses a second, slip."""

PLACE = struct.Struct(f"={ENDPOINT.size}sI{SERVICE.size}s")
"""Endpoint, index of the next, service."""

WATCH = struct.Struct("=IIIHHI")
"""Protocol, TTL in seconds, uid, ends, alone, away."""

WAITING = struct.Struct(f"=HH{KEY_MAX}sI4xQ")
"""The key's service, length and bytes; the cell of `versions` that voids it; its item."""

MARK = struct.Struct("=HHI")
"""Service, view, kind."""

DOOR = struct.Struct("=16sQHHI")
"""Address (zero for all), cookie of the network namespace, port, 1 for TCP, 0."""

PAYER = struct.Struct("=8sHH")
"""The first half of an IPv6 address, or 0 and three bytes of IPv4; service; 1 for IPv4, 0 for IPv6,
2 for all sources."""

COOKIES = struct.Struct(f"=QQII{16 * COOKIE_SECRETS}s")
"""Epoch, the epoch in which the server gives no cookies, number of secrets, their version, the
secrets."""

COOKIE_SIGHT = struct.Struct("=QQQQ")
"""Epoch, replies with a cookie, replies whose cookie a secret made, the version of the secrets when
the last cookie was made by none of them."""

PREFIX = struct.Struct("=I16s")
"""Length in bits, address."""

WAY_PREFIX = struct.Struct("=II16s")
"""Length in bits, ifindex, address."""

WAY = struct.Struct("=II" + GATEWAYS_MAX * "6s2x")
"""Direct, number of gateways, their MACs."""

NEIGHBOUR = struct.Struct("=16sI")
"""Address, ifindex."""

STATION = struct.Struct("=6s2x")
"""MAC."""


class Entry(NamedTuple):
    """One cache entry as stored. A longer reply lies in another map.

    `length` is the reply's in bytes; `stored` also counts what the protocol keeps behind it.
    `reply` is the reply if it has at most REPLY_SHORT bytes: only then is it in the entry itself.
    """

    service: int
    view: int
    key: bytes
    head: int
    expires: int
    filled: int
    token: int
    body: int
    slot: int
    length: int
    stored: int
    reply: bytes


def sum_of(data: bytes) -> int:
    """One's-complement sum of 16-bit words in memory order (RFC 1071), 0 to 0xfffe.

    A number modulo 0xffff is the end-around-carry sum of its 16-bit digits.
    """
    if sys.byteorder == "big" and len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, sys.byteorder) % 0xFFFF


def unpack_entry(packed: struct.Struct, data: bytes | memoryview) -> Entry | None:
    """Read an entry with a short or a long key; None if it was replaced while it was read."""
    *meta, _, _, service, key_length, key, reply, tail = packed.unpack(data)
    head, expires, filled, token, body, slot, length, stored = meta
    if head != tail:
        return None
    return Entry(
        service=service % SERVICES_MAX,
        view=service // SERVICES_MAX,
        key=key[:key_length],
        head=head,
        expires=expires,
        filled=filled,
        token=token,
        body=body,
        slot=slot,
        length=length,
        stored=stored,
        reply=reply[:stored],
    )


def packed_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """The 16 bytes of an address as the programs store it: IPv4 as ::ffff:a.b.c.d (RFC 4291)."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def packed_endpoint(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    ifindex: int,
    outer: int,
    inner: int,
) -> bytes:
    """The bytes of a struct endpoint; a VLAN id (`outer`, `inner`) is 0 where there is no tag."""
    packed = packed_address(address)
    return ENDPOINT.pack(packed, ifindex, outer, inner, port.to_bytes(2, "big"), 0)


def port_of(endpoint: bytes) -> int:
    """The port in the bytes of a struct endpoint."""
    return int.from_bytes(ENDPOINT.unpack(endpoint)[4], "big")
