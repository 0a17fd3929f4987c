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
WHOLE_MAX = 256
REPLY_MAX = 1472
REPLY_SAFE = 1232
"""Bytes of a reply that every IPv6 path carries: an MTU of 1280 less the headers (40 and 8)."""
LINE = 64
PAGE_BYTES = 65536
PAGE_LINES = 1024
PAGE_LAST = 980
CHUNK_PAGES = 4
SIZES = 9
SIZE_LINES = (2, 3, 4, 6, 8, 11, 15, 21, 29)
"""Lines of each size of entries: LINES of arena.h."""
WAYS = 16
LINE_BITS = 28
SLOTS_LINE = 8
TAG_SHIFT = 41
WEIGHTS = 136
USED_MAX = 3
RING = 8
DRAFT_ROOM = 2056
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
SNAP_MAX = 2048
"""Bytes of a packet, and as many of its reply, that `carom trace` shows."""
FLIGHTS = 16384
FLIGHT_SECONDS = 60
FLIGHT_WRITES = 8
FLIGHT_WAITERS = 4
CUT_SECONDS = 3600
UNREAD_SECONDS = 10
VOIDERS_MAX = 1024
DOUBTS_MAX = 10
SAMPLED = 32
"""Of so many requests to a server, one is timed."""
TIMES = 32
DOORS_MAX = 4096
SOCKETS_MAX = 65536
HOLD_MS = 500
STREAM_CELLS = 16
STREAM_LINE_MAX = 256
SEEN_PER_ENTRY = 8
"""How many cells `seen` has for each entry that there is room for."""


class Stop(IntEnum):
    """Where a packet may go on up, in the order of its walk. `abi.h` says what each is."""

    PARSE = 0
    SERVICE = 1
    MAC = 2
    SOURCE = 3
    HEADER = 4
    OFF = 5
    LEASE = 6
    CPU = 7
    KEY = 8
    LOOK_UP = 9
    AMPLIFY = 10
    MAPS = 11
    CHECKSUM = 12
    ADAPT = 13
    COOKIE = 14
    RESPONSES = 15
    LENGTH = 16
    RATE = 17
    ROOM = 18
    LOOP = 19
    ANSWER = 20


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
    PASS_CPU = 42
    PASS_SHADOW = 43


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
        Verdict.PASS_CPU,
        Verdict.PASS_SHADOW,
    }
)
"""The verdicts on requests that the cache could have answered and that went up to the server."""


class Noted(IntEnum):
    """What becomes of a verdict besides. `abi.h` says what each means."""

    NOT = 0
    DRY = 1
    TRACED = 2


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


_META = "QQQIHHHBBH2x"

KEY = struct.Struct(f"=HH4x{KEY_MAX}s4x")
"""service, length, bytes. Packing appends the zeros that are part of the key."""

DRAFT = struct.Struct(f"=Q{_META}HH4x{KEY_MAX}s4x{DRAFT_ROOM}s")
"""ready, token, expires, filled, slot, length, stored, sum, loops, used, the key's sum; the three
fields of the key; the reply."""

PAIR = struct.Struct(f"={_META}HH4x{KEY_MAX}s4xI4x{DRAFT_ROOM}s{DRAFT_ROOM}s")
"""What is known of the one in the store, as in DRAFT; the three fields of the key; the length of
the other; both replies."""

ENTRY = struct.Struct(f"=QQHHI{_META}")
"""sequence, hash, service, length of the key, next; then as in DRAFT. Key and reply follow, each
with zeros up to whole words."""

PAGE_HEAD = struct.Struct("=II")
"""Size (0 to SIZES - 1) and one, or 0 where it is not known yet; next page."""

ORDER = struct.Struct("=QQIIQ")
"""Sequence, expires, line, cell, secret: what a program is to do (xdp/order.h)."""

LIMITS = struct.Struct(f"=8Q{WEIGHTS}Q")
"""Buckets less one, capacity, pages, grows, evicts, cells of `seen`, always, places of new entries;
weights."""

USAGE = struct.Struct("=4Q32x")
"""Entries, pages, newest, oldest."""


class Stored(IntEnum):
    """What became of a reply. `store.h` says what each means."""

    STORED = 0
    NOT_ADMITTED = 1
    FULL = 2
    NO_PAGE = 3


ENDPOINT = struct.Struct("=16sIHH2sH")
"""Address (IPv4 as ::ffff:a.b.c.d), ifindex, outer and inner VLAN id, port in network order, 0."""

WALKED = struct.Struct("=IIII")
"""Verdict, place, stop, 0."""

TRACING = struct.Struct("=Q16s16sIIIIH6x")
"""A bit for each verdict; the source, and the bits of it that count; 1 if any of these do; of so
many packets one; the most in a tenth of a second; bytes of each packet; port (0: any)."""

SAMPLE = struct.Struct(f"=QIIIIHHBBHHH4x{KEY_MAX}s4x")
"""Nanoseconds, ifindex, VLAN tag, bytes of the packet and of its reply; how many of both follow;
hook, verdict, place; the three fields of the key."""

LEFT_OUT = struct.Struct("=QQ")
"""What a CPU's sampler begins with: samples left out, as there were too many, and unread."""

STRAY = struct.Struct(f"={ENDPOINT.size}sIQ")
"""Endpoint, 0, number of packets."""

SERVICE = struct.Struct("=HHBBBB6sHIHHIIQQHHIII")
"""id, view, fast, protocol, skb mode, hands over, MAC, MTU in bytes, multiple, allow-list, rated,
learn, link, bytes of replies a second to a prefix, the same to all sources, longest reply, longest
reply for which the route is not asked, echoes, responses a second, slip."""

PLACE = struct.Struct(f"={ENDPOINT.size}sI{SERVICE.size}s")
"""Endpoint, index of the next, service."""

WATCH = struct.Struct("=IIIHHIII")
"""Protocol, TTL in seconds, uid, ends, alone, away, losses, changed."""

WAITING = struct.Struct(f"=HH4x{KEY_MAX}s4xI4xQ")
"""The key's service, length and bytes; the cell of `versions` that voids it; its item."""

MARK = struct.Struct("=HHI4x")
"""Service, view, kind; what the kernel has behind them is zero in userspace's."""

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

REPLY_TIMES = struct.Struct(f"={TIMES}QQ")
"""How many replies took from 2^(n-1) to less than 2^n microseconds, the first less than one; the
sum, in microseconds."""

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
    """A stored reply, and where it lies.

    `length` is the reply's in bytes; `data` also has what the protocol keeps behind it. `loops`
    says that the reply is itself a request that was known.
    """

    service: int
    view: int
    key: bytes
    expires: int
    filled: int
    token: int
    slot: int
    length: int
    loops: bool
    data: bytes
    line: int
    sequence: int

    @property
    def reply(self) -> bytes:
        """The reply's own bytes."""
        return self.data[: self.length]


def sum_of(data: bytes) -> int:
    """One's-complement sum of 16-bit words in memory order (RFC 1071), 0 to 0xfffe.

    A number modulo 0xffff is the end-around-carry sum of its 16-bit digits.
    """
    if sys.byteorder == "big" and len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, sys.byteorder) % 0xFFFF


def unpack_entry(memory: memoryview, line: int) -> Entry | None:
    """Read the entry in that memory, which begins at a line; None where nothing is stored.

    None too where it is written meanwhile: what is read then may be anything.
    """
    sequence, _, service, key_length, _, *meta = ENTRY.unpack_from(memory)
    token, expires, filled, slot, length, stored, _, loops, *_ = meta
    if not key_length or sequence % 2:
        return None
    at = ENTRY.size + whole(key_length)
    key, data = bytes(memory[ENTRY.size :][:key_length]), bytes(memory[at:][:stored])
    if ENTRY.unpack_from(memory)[0] != sequence:
        return None
    return Entry(
        service=service % SERVICES_MAX,
        view=service // SERVICES_MAX,
        key=key,
        expires=expires,
        filled=filled,
        token=token,
        slot=slot,
        length=length,
        loops=bool(loops),
        data=data,
        line=line,
        sequence=sequence,
    )


def whole(length: int) -> int:
    """Bytes of the whole words that so many bytes take."""
    return -(-length // 8) * 8


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
