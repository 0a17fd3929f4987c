# SPDX-License-Identifier: Apache-2.0
"""memcached over UDP: a frame header, then commands in text (memcached's doc/protocol.txt)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from carom.protocols.memcached import life
from carom.protocols.memcached.questions import Questions
from carom.protocols.spec import Ending, Filled, Joined, Reading, RequestId, Sample, Spec, Stream

PORT = 11211
KEY_LENGTH_MAX = 250
REQUEST_MAX = 504
"""Bytes of a `get` of many keys that are read: TEXT_ROOM less the word that ends it."""

DATAGRAM_MAX = 1400
"""Bytes of a datagram: of a longer reply memcached makes several (its UDP_MAX_PAYLOAD_SIZE)."""

SLOT_FROM = 1
"""Offset in a cache key of the bytes that its slot is computed from."""

GET, GETS = b"g", b"s"
"""The first byte of a cache key: a `gets` also tells the cas number."""

HEADER = struct.Struct("!HHHH")
"""Request id, number of the datagram, datagrams, 0."""


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of an item by its name: those of `get` and of `gets`."""
    return GET + name, GETS + name


def asking(name: bytes) -> bytes | None:
    """The datagram of a command, such as `get foo`, or `set foo 0 0 1` and a line of data."""
    return HEADER.pack(1, 0, 1, 0) + name + b"\r\n" if name.strip() else None


def name_of(key: bytes) -> bytes:
    """The name of the item that a cache key is about."""
    return key[SLOT_FROM : SLOT_FROM + KEY_LENGTH_MAX]


def how_to_have_udp(port: int) -> str:
    """The option that turns UDP on at a port: since 1.5.6 it is off by default."""
    return f"-U {port}"


def _get(number: int, key: bytes) -> bytes:
    return HEADER.pack(number & 0xFFFF, 0, 1, 0) + b"get %b\r\n" % key


def _samples(client: str) -> Sequence[Sample]:
    del client
    get = HEADER.pack(7, 0, 1, 0) + b"get a-key-of-twenty-bytes\r\n"
    value = b"VALUE a-key-of-twenty-bytes 0 32\r\n%b\r\nEND\r\n" % bytes(32)
    return [
        Sample(
            "memcached, 20/32 bytes",
            get,
            HEADER.pack(0, 0, 1, 0) + value,
            miss=("memcached, 20-byte key", get.replace(b"a-key", b"b-key")),
        )
    ]


SPEC = Spec(
    name="memcached",
    number=2,
    filled=Filled.LEARNED,
    default=True,
    port=PORT,
    request_max=REQUEST_MAX,
    id=RequestId(0, 2),
    joined=Joined(tail=len(b"END\r\n"), longest=DATAGRAM_MAX),
    slot_from=SLOT_FROM,
    stream=Stream.COMMANDS,
    headers=("memcached.h", "memcached_stream.h"),
    functions=(
        "request",
        "answer",
        "next_key",
        "learn",
        "what_answer",
        "may_be_learned",
        "says_stored",
        "stream_front",
        "stream_is_readable",
        "stream_held",
        "stream_read",
        "stream_ahead",
        "stream_agrees",
        "stream_replies",
        "stream_row",
        "stream_refuses",
        "stream_is_whole",
        "stream_refuses_line",
        "stream_says_stored",
        "stream_is_of_quiet",
        "stream_is_value",
        "stream_in_binary",
        "stream_may_begin",
        "stream_reads",
        "stream_writes",
    ),
    written_at_any_door=True,
    ending=Ending(
        program="memcached",
        hint="memcached 1.6 does",
        by=Questions,
        about_all=(life.STATS, life.SETTINGS),
        state=lambda answers: life.Lives.read(*answers),
        slack=life.SLACK,
        second_question=life.second_question,
        second_left=life.second_left,
        name_of=name_of,
    ),
    keys_named=keys_named,
    asking=asking,
    how_to_have_udp=how_to_have_udp,
    samples=_samples,
    reading=Reading(_get, KEY_LENGTH_MAX),
)
