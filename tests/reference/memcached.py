# SPDX-License-Identifier: Apache-2.0
"""What memcached.h makes of requests and replies: the model it is held against.

The format is that of memcached's doc/protocol.txt. Written from the grammar of whole commands
rather than from bytes.
"""

from __future__ import annotations

import re

from carom.kernel.abi import REPLY_MAX
from carom.protocols.memcached import GET, GETS, HEADER, SLOT_FROM
from carom.protocols.protocol import TEXT_ROOM, Intent, Request

_BINARY = 0x80  # first byte of a request in the binary protocol
_FLAGS_BYTES, _FLAGS_COUNT = 64, 16
_FLAGS_READING = frozenset(b"cfhklOqstuv")
_FLAGS_LASTING = _FLAGS_READING | frozenset(b"CDEFJMS")
_KEY = rb"(?P<key>[^\x00-\x0f ]{1,250})"

_GET = re.compile(rb"(?P<command>gets?) %b\r?\n" % _KEY)
_GAT = re.compile(rb"gats? (?P<exptime>-?[0-9]{1,10}) %b\r?\n" % _KEY)
_LINE_PROPER = re.compile(
    rb"(delete|incr|decr|touch) %b( -?[0-9]{1,19})?(?P<noreply> noreply)?\r?\n" % _KEY
)
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
_ASKING = Request(Intent.OTHER, either=True)
_SEVERAL = Request(Intent.OTHER, several=True)


def _write(match: re.Match[bytes], **bits: bool) -> Request:
    return Request(Intent.WRITE, bytes(SLOT_FROM) + match["key"], **bits)


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


def _proper_meta(text: bytes, length: int) -> tuple[re.Match[bytes], frozenset[int]] | None:
    """A meta command that is understood to its end, and its flags."""
    match = _MS.match(text)
    if match is not None:
        whole = _data_ends(match, length)
    else:
        match = _META.match(text)
        whole = match is not None and match.end() == length
    flags = _flags(match) if match is not None and whole else None
    return None if match is None or flags is None else (match, flags)


def _meta(text: bytes, length: int) -> Request | None:
    found = _proper_meta(text, length)
    if found is None:
        return None
    match, flags = found
    if match.re is _META and match["command"] == b"mg" and flags <= _FLAGS_READING | {ord("b")}:
        return _ASKING
    # A key in base64 (b) names another one than it shows.
    if ord("b") in flags:
        return None
    # Of mg, q hides EN alone.
    quiet = ord("q") in flags
    told = quiet and match.re is _META and match["command"] == b"mg"
    return _write(match, quiet=quiet, either=told, answers=told)


def names_in_base64(text: bytes) -> bool:
    """Whether this is a meta command in its proper form that writes another key than it shows."""
    found = _proper_meta(text, len(text))
    return found is not None and ord("b") in found[1] and _meta(text, len(text)) is None


def _exactly(text: bytes, length: int) -> Request | None:
    """A payload that is one command in its proper form; None otherwise."""
    match = _GET.match(text)
    if match and match.end() == length:
        return Request(Intent.READ, (GETS if match["command"] == b"gets" else GET) + match["key"])
    match = _GAT.match(text)
    if match and match.end() == length and abs(int(match["exptime"])) < 2**31:
        return _write(match, answers=True)
    match = _LINE_PROPER.match(text)
    if match and match.end() == length:
        return _write(match, quiet=match["noreply"] is not None)
    return _store(text, length) or _meta(text, length)


def _roughly(text: bytes, length: int) -> Request:
    """A payload of which at most the first word is understood."""
    if b"\n" not in text:
        return _NOTHING if len(text) == length else _ANYTHING
    if text.index(b"\n") + 1 < length:
        return _ANYTHING
    if text.startswith((b"me ", b"verbosit", b"stats de")) and _QUERY.match(text):
        return _ASKING
    if text.startswith((b"get ", b"gets ")):
        return _SEVERAL
    if _QUERY.match(text):
        return _NOTHING
    match = _LINE.fullmatch(text)
    return _write(match, quiet=True, answers=True) if match else _ANYTHING


def several(request: bytes) -> list[bytes] | None:
    """The keys of a `get` of one or more keys in the plainest form; None for any other request."""
    command, *names = request[HEADER.size :].removesuffix(b"\n").removesuffix(b"\r").split(b" ")
    if not all(re.fullmatch(_KEY, name) for name in names):
        return None
    return [(GETS if command == b"gets" else GET) + name for name in names]


def understand(request: bytes, room: int = TEXT_ROOM) -> Request:
    """What a datagram's payload wants, to whoever sees its first `room` bytes and its length."""
    if len(request) <= HEADER.size:
        return _NOTHING
    _, sequence, total, _ = HEADER.unpack_from(request)
    if total != 1:
        return _NOTHING  # memcached drops parts of longer messages
    payload, text = request[HEADER.size :], request[HEADER.size : room]
    if payload[0] == _BINARY:
        found = _ANYTHING
    else:
        found = _exactly(text, len(payload)) or _roughly(text, len(payload))
    if sequence and (found.intent is Intent.READ or found.several):
        return _NOTHING
    if sequence and found.intent is not Intent.OTHER:
        return _ANYTHING
    return found


def lasts(request: bytes, room: int = TEXT_ROOM) -> bool:
    """Whether a request writes one key, and gives no end to an item that had none."""
    if understand(request, room).intent is not Intent.WRITE:
        return False
    text = request[HEADER.size : room]
    if store := _STORE.match(text):
        return int(store["exptime"]) == 0
    if meta := _MS.match(text) or _META.match(text):
        return meta[0][:2] != b"mg" and (_flags(meta) or frozenset()) <= _FLAGS_LASTING
    return text.startswith((b"delete", b"incr", b"decr"))


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


def answer(stored: bytes, request: bytes) -> bytes:
    """A stored reply as the reply to this request."""
    return request[:2] + stored[2:]


def learn(reply: bytes) -> tuple[bytes, bytes] | None:
    """The cache key that a reply names and the reply as stored; None for one that is not kept."""
    if len(reply) > REPLY_MAX or reply[2 : HEADER.size] != bytes((0, 0, 0, 1, 0, 0)):
        return None
    text = reply[HEADER.size :]
    match = _VALUE.match(text)
    if match is None or text[match.end() + int(match["bytes"]) :] != b"\r\nEND\r\n":
        return None
    return (GETS if match["cas"] else GET) + match["key"], bytes(2) + reply[2:]
