# SPDX-License-Identifier: Apache-2.0
"""abi.h in Python: limits, verdicts and the bytes of keys and entries.

`tests/prog/test_abi.py` holds every number and offset here against what clang made of abi.h.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import NamedTuple

KEY_MAX = 256
REPLY_MAX = 1472
SLOTS = 65536
SERVICES_MAX = 256
TTL_FLOOR = 32
SOURCE_PORT_MIN = 1024
FRAME_MIN = 60


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


MISSES = frozenset(
    {Verdict.MISS, Verdict.MISS_EXPIRED, Verdict.MISS_VOID, Verdict.MISS_TORN, Verdict.PASS_ROOM}
)
"""The verdicts on requests that the cache could have answered and that went up to the server."""


class Fast(IntEnum):
    """What a service's requests are answered with."""

    OFF = 0
    CACHE = 1
    BOUNCE = 2


KEY = struct.Struct(f"=HH{KEY_MAX}s")
"""service, length, bytes. Packing fills up with the zeros that are part of the key."""

ENTRY = struct.Struct(f"=QQQQIHHHH{KEY_MAX}sI{REPLY_MAX}sQ")
"""head, expires, token, generation, slot, length, sum, the key's three, 0, reply, tail."""

ENTRY_KEY = struct.calcsize("=QQQQIHH")
"""Where in an entry its key is."""

ENDPOINT = struct.Struct("=4s2sH")
"""IPv4 address and port in network order, 0."""

SERVICE = struct.Struct("=II")
"""id, fast."""

INTERFACE = struct.Struct("=6sHI")
"""MAC address, MTU in bytes, skb mode."""

_SLOT_PRIME = 65519  # below SLOTS; 256 has the order 32,759, so a key's bytes weigh differently


class Entry(NamedTuple):
    """One cache entry as stored."""

    service: int
    key: bytes
    reply: bytes
    expires: int
    token: int
    generation: int
    slot: int


def slot_of(key: bytes) -> int:
    """The cell of `versions` that a key hashes to, 0 to SLOTS - 1.

    The key as a little-endian number, modulo a prime: cheap in Python, where big numbers are
    native, and 32 bits at a time in BPF. A collision costs a miss, never a wrong answer.
    """
    return int.from_bytes(key, "little") % _SLOT_PRIME


def sum_of(data: bytes) -> int:
    """One's-complement sum of 16-bit words in memory order (RFC 1071), 0 to 0xfffe.

    A number modulo 0xffff is the end-around-carry sum of its 16-bit digits.
    """
    if sys.byteorder == "big" and len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, sys.byteorder) % 0xFFFF


def unpack_entry(data: bytes | memoryview) -> Entry | None:
    """Read an entry from the bytes of a map value; None when it was replaced while it was read."""
    (head, expires, token, generation, slot, length, _, *key, _, reply, tail) = ENTRY.unpack(data)
    if head != tail:
        return None
    service, key_length, key_bytes = key
    return Entry(service, key_bytes[:key_length], reply[:length], expires, token, generation, slot)
