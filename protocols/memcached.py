# SPDX-License-Identifier: Apache-2.0
"""memcached over UDP: a frame header, then commands in text. The other half of memcached.h.

The format is that of memcached's doc/protocol.txt. This is the model that the C is held against,
written from the grammar of whole commands rather than from bytes.
"""

from __future__ import annotations

import re
import struct

from carom.include.abi import REPLY_MAX
from carom.protocols.protocol import TEXT_ROOM, Intent, Request

PORT = 11211
KEY_LENGTH_MAX = 250
SLOT_FROM = 1
"""Where in a cache key the bytes begin that its slot is computed from."""

GET, GETS = b"g", b"s"
"""The first byte of a cache key: a `gets` also tells the cas number."""

_HEADER = struct.Struct("!HHHH")
_BINARY = 0x80  # first byte of a request in the binary protocol
_FLAGS_BYTES, _FLAGS_COUNT = 64, 16
_FLAGS_READING = frozenset(b"cfhklOqstuv")
_KEY = rb"(?P<key>[^\x00-\x0f ]{1,250})"

_GET = re.compile(rb"(?P<command>gets?) %b\r?\n" % _KEY)
_GAT = re.compile(rb"gats? (?P<exptime>-?[0-9]{1,10}) %b\r?\n" % _KEY)
_LINE_LOUD = re.compile(rb"(delete|incr|decr|touch) %b( [0-9]{1,19})?\r?\n" % _KEY)
_LINE = re.compile(rb"(delete|incr|decr|touch) %b( [^\n]*|\r)?\n" % _KEY)
_STORE = re.compile(
    rb"((set|add|replace|append|prepend)|cas) %b (?P<flags>[0-9]{1,10}) (?P<exptime>-?[0-9]{1,10}) "
    rb"(?P<bytes>[0-9]{1,9})(?(2)| [0-9]{1,19})(?P<noreply> noreply)?\r?\n" % _KEY
)
_META = re.compile(rb"(?P<command>m[gda]) %b(?P<flags>( [ -~]*)?)\r?\n" % _KEY)
_MS = re.compile(rb"ms %b (?P<bytes>[0-9]{1,9})(?P<flags>( [ -~]*)?)\r?\n" % _KEY)
_QUERY = re.compile(rb"(mn|stats|verbosity|version)[ \r\n]|(me|gets?) ")
_VALUE = re.compile(rb"VALUE %b [0-9]{1,10} (?P<bytes>[0-9]{1,9})(?P<cas> [0-9]{1,20})?\r\n" % _KEY)

_ANYTHING = Request(Intent.WRITE_ALL, quiet=True)
_NOTHING = Request(Intent.OTHER)


def _write(match: re.Match[bytes], *, quiet: bool = False) -> Request:
    return Request(Intent.WRITE, bytes(SLOT_FROM) + match["key"], quiet)


def _data_ends(match: re.Match[bytes], length: int) -> bool:
    """Whether the payload ends just behind the data that its command line announces."""
    return match.end() + int(match["bytes"]) + len(b"\r\n") == length


def _store(text: bytes, length: int) -> Request | None:
    match = _STORE.match(text)
    if (
        match is None
        or int(match["flags"]) >= 2**32
        or abs(int(match["exptime"])) >= 2**31
        or not _data_ends(match, length)
    ):
        return None
    return _write(match, quiet=match["noreply"] is not None)


def _flags(match: re.Match[bytes]) -> frozenset[int] | None:
    """The first characters of a meta command's flags; None where they are not understood."""
    letters = [flag[0] for flag in match["flags"].split()]
    if (
        len(match["flags"]) >= _FLAGS_BYTES
        or len(letters) > _FLAGS_COUNT
        or len(letters) > len(set(letters))
        or any(letter < ord("@") for letter in letters)
    ):
        return None
    return frozenset(letters)


def _meta(text: bytes, length: int) -> Request | None:
    match = _MS.match(text)
    if match is not None:
        whole, only_reads = _data_ends(match, length), False
    else:
        match = _META.match(text)
        if match is None:
            return None
        whole, only_reads = match.end() == length, match["command"] == b"mg"
    flags = _flags(match)
    if flags is None or not whole:
        return None
    if only_reads and flags <= _FLAGS_READING:
        return _NOTHING
    # A key in base64 (b) names another one than it shows.
    return None if ord("b") in flags else _write(match, quiet=ord("q") in flags)


def _exactly(text: bytes, length: int) -> Request | None:
    """A payload that is one command in its proper form; None otherwise."""
    match = _GET.match(text)
    if match and match.end() == length:
        return Request(Intent.READ, (GETS if match["command"] == b"gets" else GET) + match["key"])
    match = _GAT.match(text)
    if match and match.end() == length and abs(int(match["exptime"])) < 2**31:
        return _write(match)
    match = _LINE_LOUD.match(text)
    if match and match.end() == length:
        return _write(match)
    return _store(text, length) or _meta(text, length)


def _roughly(text: bytes, length: int) -> Request:
    """A payload of which at most the first word is understood."""
    if b"\n" not in text:
        return _NOTHING if len(text) == length else _ANYTHING
    if text.index(b"\n") + 1 < length:
        return _ANYTHING
    if _QUERY.match(text):
        return _NOTHING
    match = _LINE.fullmatch(text)
    return _write(match, quiet=True) if match else _ANYTHING


def understand(request: bytes, room: int = TEXT_ROOM) -> Request:
    """What a datagram's payload wants, to whoever sees its first `room` bytes and its length."""
    if len(request) <= _HEADER.size:
        return _NOTHING
    _, sequence, total, _ = _HEADER.unpack_from(request)
    if total != 1:
        return _NOTHING  # memcached drops parts of longer messages
    payload, text = request[_HEADER.size :], request[_HEADER.size : room]
    if payload[0] == _BINARY:
        found = _ANYTHING
    else:
        found = _exactly(text, len(payload)) or _roughly(text, len(payload))
    if sequence and found.intent is not Intent.OTHER:
        return _NOTHING if found.intent is Intent.READ else _ANYTHING
    return found


def intent_of(request: bytes) -> Intent:
    """What a request wants."""
    return understand(request).intent


def is_quiet(request: bytes) -> bool:
    """Whether a write may go without acknowledgement."""
    return understand(request).quiet


def key_of(request: bytes) -> bytes | None:
    """The cache key of a request; None for one that the cache does not answer."""
    found = understand(request)
    return found.key if found.intent is Intent.READ else None


def slot_key_of(key: bytes) -> bytes:
    """What the slot of a cache key is computed from: the same for `get` and `gets`."""
    return key[SLOT_FROM:]


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of what a user calls by this name: what `get` and `gets` have stored."""
    return GET + name, GETS + name


def answer(stored: bytes, request: bytes) -> bytes:
    """A stored reply as the reply to this request."""
    return request[:2] + stored[2:]


def learn(reply: bytes) -> tuple[bytes, bytes] | None:
    """The cache key that a reply names and the reply as stored; None for one that is not kept."""
    if len(reply) > REPLY_MAX or reply[2 : _HEADER.size] != bytes((0, 0, 0, 1, 0, 0)):
        return None
    text = reply[_HEADER.size :]
    match = _VALUE.match(text)
    if match is None or text[match.end() + int(match["bytes"]) :] != b"\r\nEND\r\n":
        return None
    return (GETS if match["cas"] else GET) + match["key"], bytes(2) + reply[2:]
