# SPDX-License-Identifier: Apache-2.0
"""What coap.h makes of requests and replies, from RFC 7252 and apart from it: its model."""

from __future__ import annotations

from typing import NamedTuple

from carom.kernel.abi import REPLY_MAX
from carom.protocols.protocol import TEXT_ROOM, Intent, Request

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE, FETCH, PATCH, IPATCH = range(1, 8)
VALID, CONTENT = 0x43, 0x45
HOST, ETAG, PORT, PATH, FORMAT, MAX_AGE, QUERY, ACCEPT = 3, 4, 7, 11, 12, 14, 15, 17
PROXIES = {35, 39}
REQUEST_MAX, KEY_ROOM, OPTIONS_MAX = 240, 216, 24
FRESH = 60
MARKER = b"\xff"

Options = list[tuple[int, bytes]]


class Malformed(Exception):
    """No message, or none that is understood."""


class Message(NamedTuple):
    """One, with where on the wire each option ends; without a payload None."""

    type: int
    code: int
    id: int
    token: bytes
    options: Options
    payload: bytes | None = None

    def encode(self) -> bytes:
        """Its bytes."""
        head = bytes([0x40 | self.type << 4 | len(self.token), self.code])
        text = head + self.id.to_bytes(2) + self.token + encoded(self.options)
        return text if self.payload is None else text + MARKER + self.payload


def encoded(options: Options) -> bytes:
    """Options on the wire, in the order of their numbers (3.1)."""
    text, before = b"", 0
    for number, value in options:
        heads, more = [], b""
        for part in (number - before, len(value)):
            nibble, extra = (part, b"") if part < 13 else (13, b"")
            if part >= 269:
                nibble, extra = 14, (part - 269).to_bytes(2)
            elif part >= 13:
                extra = bytes([part - 13])
            heads.append(nibble)
            more += extra
        text += bytes([heads[0] << 4 | heads[1]]) + more + value
        before = number
    return text


def _number(nibble: int, rest: bytes) -> tuple[int, bytes]:
    if nibble == 15:
        raise Malformed("a reserved length")
    size = max(0, nibble - 12)
    if len(rest) < size:
        raise Malformed("cut off")
    base = {0: nibble, 1: 13, 2: 269}[size]
    return base + int.from_bytes(rest[:size]), rest[size:]


def decode(data: bytes, seen: bytes | None = None) -> Message:
    """Read a message; of a long one no more than `seen` is there. Raises Malformed."""
    text = data if seen is None else seen
    if len(data) < 4 or data[0] >> 6 != 1 or data[0] & 15 > 8 or len(data) < 4 + (data[0] & 15):
        raise Malformed("no header")
    end = 4 + (data[0] & 15)
    rest, options, number = text[end:], [], 0
    payload = None
    while rest:
        if rest[:1] == MARKER:
            payload = rest[1:]
            break
        head, rest = rest[0], rest[1:]
        delta, rest = _number(head >> 4, rest)
        size, rest = _number(head & 15, rest)
        if len(rest) < size:
            raise Malformed("cut off")
        number += delta
        options.append((number, rest[:size]))
        rest = rest[size:]
    if payload is None and len(text) < len(data):
        raise Malformed("options beyond what is seen")
    return Message(
        data[0] >> 4 & 3, data[1], int.from_bytes(data[2:4]), data[4:end], options, payload
    )


def _once(options: Options, number: int) -> bool:
    return sum(one == number for one, _ in options) <= 1


def _keyless(number: int) -> bool:
    """Elective, and no part of a cache's key (5.4.6)."""
    return not number & 1 and number & 0x1E == 0x1C


def _path(options: Options) -> tuple[bytes, int]:
    """The bytes that a path's options have from its first value on, and where that is."""
    of_path = [one for one in options if one[0] == PATH]
    if not of_path:
        return b"", 0
    before = [one for one in options if one[0] < PATH]
    whole = encoded(before + of_path)
    start = len(encoded([*before, of_path[0]])) - len(of_path[0][1])
    return whole[start:], start


def key(token: int, options: Options) -> bytes:
    """The cache key of a read by its options, the length of its token, and where its path is."""
    kept = [one for one in options if not _keyless(one[0])]
    path, start = _path(kept)
    return bytes([token, 4 + start, 4 + start + len(path), 0]) + encoded(kept)


def _plain(message: Message) -> bool:
    options = message.options
    sizes = {HOST: 255, ETAG: 8, PORT: 8, ACCEPT: 8}
    return (
        message.payload is None
        and all(n in (*sizes, PATH, QUERY) or _keyless(n) for n, _ in options)
        and all(_once(options, one) for one in sizes)
        and all(len(value) <= sizes.get(n, 1 << 16) for n, value in options)
        and all(value for n, value in options if n == PATH)
    )


def understand(request: bytes, room: int = TEXT_ROOM) -> Request:
    """What a datagram wants, to whoever sees its first `room` bytes and its length."""
    if request and 20 <= request[0] <= 63:
        return Request(Intent.WRITE_ALL, quiet=True)  # DTLS
    if len(request) < 4 or request[0] >> 6 != 1 or request[0] & 15 > 8:
        return Request(Intent.OTHER)
    if request[0] >> 4 & 3 > NON or not 0 < request[1] < 32:
        return Request(Intent.OTHER)
    read, anything = request[1] == GET, Request(Intent.WRITE_ALL, quiet=True)
    try:
        message = decode(request, request[:room])
    except Malformed:
        return Request(Intent.OTHER) if read else anything
    if len(message.options) > OPTIONS_MAX - (message.payload is not None):
        return Request(Intent.OTHER) if read else anything
    if read:
        found = key(len(message.token), message.options)
        fits = len(found) <= 4 + KEY_ROOM and len(request) <= REQUEST_MAX
        return Request(Intent.READ, found) if _plain(message) and fits else Request(Intent.OTHER)
    path, _ = _path(message.options)
    strange = any(n in PROXIES or (n == PATH and not value) for n, value in message.options)
    if message.code > IPATCH or strange or len(path) > KEY_ROOM:
        return anything
    return Request(
        Intent.WRITE,
        bytes([0, 4, 4 + len(path), 0]) + path,
        quiet=message.type == NON,
        answers=message.code in (POST, FETCH),
    )


def slot_key_of(found: bytes) -> bytes:
    """The bytes of a cache key that its slot is computed from: the path's."""
    return found[found[1] : found[2]]


class Learned(NamedTuple):
    """A reply that is kept: as it came but for a Max-Age, and how many seconds it is fresh."""

    reply: Message
    seconds: int


def learn(reply: bytes) -> Learned | None:
    """What is kept of a server's reply; None where nothing is."""
    try:
        message = decode(reply)
    except Malformed:
        return None
    options = dict(message.options)
    if message.type != ACK or message.code not in (VALID, CONTENT) or message.payload == b"":
        return None
    if len(options) < len(message.options) or not options.keys() <= {ETAG, FORMAT, MAX_AGE}:
        return None
    if not 1 <= len(options.get(ETAG, b"x")) <= 8 or len(options.get(FORMAT, b"")) > 2:
        return None
    age = options.get(MAX_AGE, bytes([FRESH]))
    if not 0 < len(age) <= 4 or not int.from_bytes(age):
        return None
    with_age = message._replace(options=sorted((options | {MAX_AGE: age}).items()))
    if len(reply) > REPLY_MAX - 24 or len(with_age.encode()) > REPLY_MAX - 16:
        return None
    return Learned(with_age, int.from_bytes(age))


def answer(learned: Learned, request: bytes, age: int) -> bytes | None:
    """The reply to a read of its key, `age` seconds later; None where it is not given."""
    asked = decode(request)
    if age >= learned.seconds or len(asked.token) != len(learned.reply.token):
        return None
    options = dict(learned.reply.options)
    options[MAX_AGE] = (learned.seconds - age).to_bytes(len(options[MAX_AGE]))
    kind = NON if asked.type == NON else ACK
    given = learned.reply._replace(
        type=kind, id=asked.id, token=asked.token, options=sorted(options.items())
    )
    return given.encode()
