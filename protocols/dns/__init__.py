# SPDX-License-Identifier: Apache-2.0
"""dns: one question over UDP, its reply learned from the server. The other half of dns.h.

`dns.h` says what is answered from the cache and why. This is the same in Python, written apart from
it for tests and for looking at packets; the kernel's half does the work. A server whose answer
depends on who asks (views, answers by address) is not supported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from carom.kernel.abi import KEY_MAX, REPLY_MAX
from carom.protocols.dns.types import TYPES
from carom.protocols.protocol import Intent

REQUEST_MAX = 326
"""Bytes of the longest read: header, name, type and class, OPT with a COOKIE of 40 bytes."""

RECORDS_MAX = 16
"""Records of a reply that is learned, not counting OPT."""

_NOTE = 8  # bytes of a note of one TTL behind a stored reply, and of what heads them
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_OPTION = struct.Struct("!HH")

_QUERY, _NOTIFY, _UPDATE = 0, 4, 5
_NOERROR, _NXDOMAIN, _REFUSED = 0, 3, 5
_IN = 1
_NS, _SOA, _OPT, _RRSIG, _RESERVED = 2, 6, 41, 46, 65535
_COOKIE = 10
_OPT_DO = 0x8000
_UDP_MIN, _EDNS_SIZE = 512, 1232
_NAME_MAX, _LABEL_MAX, _OWNER_LABELS_MAX = 255, 63, 40
_SOA_MIN = 22


class _Flag(IntFlag):
    """The header's second word."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100
    RA = 0x0080
    Z = 0x0040
    AD = 0x0020
    CD = 0x0010


class KeyFlag(IntFlag):
    """The last byte of a key: what a request says besides its question."""

    EDNS = 1
    DO = 2
    RD = 4
    CD = 8
    AD = 16


ASKED_MAX = 2 * KeyFlag.AD
"""One more than the largest last byte of a key."""


class Section(IntEnum):
    """Of a message, behind the question."""

    ANSWER = 0
    AUTHORITY = 1
    ADDITIONAL = 2


class Learned(NamedTuple):
    """A reply that may be kept.

    `ttls` has the offset and the seconds of every TTL in `reply`, which is as the server sent it
    but for a COOKIE; `ttl` says how many seconds the reply may be kept.
    """

    key: bytes
    reply: bytes
    ttl: int
    ttls: tuple[tuple[int, int], ...]


class _Malformed(Exception):
    """Not a message, or one of a kind that is not understood."""


class _Message(NamedTuple):
    """Header and question; `rest` is where the records begin."""

    flags: int
    counts: tuple[int, int, int]
    name: bytes
    type: int
    rest: int

    @property
    def rcode(self) -> int:
        return self.flags & 0xF


class _Record(NamedTuple):
    """A record: its section, whether it is the root's, and where its type and its data are."""

    section: Section
    root: bool
    type: int
    cls: int
    ttl: int
    at: int
    data: bytes

    @property
    def end(self) -> int:
        return self.at + _RECORD.size + len(self.data)


class _OptRecord(NamedTuple):
    """An OPT record that changes nothing but by its DO flag."""

    size: int
    do: bool
    cookie: bytes


def _unpack(layout: struct.Struct, message: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(message):
        raise _Malformed("cut off")
    return layout.unpack_from(message, at)


def _is_data(rrtype: int) -> bool:
    """A type that records have and that can be asked for (RFC 6895 3.1)."""
    return rrtype not in (0, _OPT, _RESERVED) and not 128 <= rrtype <= 255


def _opcode(flags: int) -> int:
    return flags >> 11 & 0xF


def _labels(message: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each label up to the root's or up to a pointer (length -1)."""
    while True:
        if at >= len(message):
            raise _Malformed("a name is cut off")
        length = message[at]
        if length >= 0xC0:
            yield at, -1
            return
        if length > _LABEL_MAX:
            raise _Malformed("a label of an unknown kind")
        yield at, length
        if not length:
            return
        at += 1 + length


def _question(message: bytes) -> _Message:
    """Read header and question: one, of class IN, for data, by a whole name."""
    _, flags, questions, *counts = _unpack(_HEADER, message, 0)
    if questions != 1:
        raise _Malformed("not one question")
    for at, length in _labels(message, _HEADER.size):
        if length < 0 or at - _HEADER.size >= _NAME_MAX:
            raise _Malformed("a compressed name, or one too long")
    name = message[_HEADER.size : at + 1]
    rrtype, cls = _unpack(_QUESTION, message, at + 1)
    if len(name) + 3 > KEY_MAX or cls != _IN or not _is_data(rrtype):
        raise _Malformed("a question that is not for data")
    answers, authority, additional = counts
    return _Message(flags, (answers, authority, additional), name, rrtype, at + 1 + _QUESTION.size)


def _records(message: bytes, question: _Message) -> Iterator[_Record]:
    """All records; what is behind them makes the message malformed."""
    at = question.rest
    for section, count in zip(Section, question.counts, strict=True):
        for _ in range(count):
            labels = list(_labels(message, at))
            if len(labels) > _OWNER_LABELS_MAX:
                raise _Malformed("too many labels")
            last, length = labels[-1]
            root = len(labels) == 1 and length == 0
            at = last + (2 if length < 0 else 1)
            rrtype, cls, ttl, size = _unpack(_RECORD, message, at)
            data = message[at + _RECORD.size : at + _RECORD.size + size]
            if len(data) != size:
                raise _Malformed("a record is cut off")
            record = _Record(section, root, rrtype, cls, ttl, at, data)
            yield record
            at = record.end
    if at != len(message):
        raise _Malformed("bytes behind the message")


def _opt(record: _Record, cookies: frozenset[int]) -> _OptRecord:
    """Read an OPT record; it has no option but a COOKIE of one of these lengths."""
    if not record.root or record.section is not Section.ADDITIONAL or record.ttl & ~_OPT_DO:
        raise _Malformed("an OPT record of another kind")
    cookie = b""
    if record.data:
        code, size = _unpack(_OPTION, record.data, 0)
        cookie = record.data[_OPTION.size :]
        if code != _COOKIE or size != len(cookie) or size not in cookies:
            raise _Malformed("an option other than one COOKIE")
    return _OptRecord(record.cls, bool(record.ttl & _OPT_DO), cookie)


_REQUEST_COOKIES = frozenset({8, *range(16, 41)})
_REPLY_COOKIES = frozenset(range(16, 41))


def _read(request: bytes) -> tuple[_Message, _OptRecord | None]:
    """The question and the OPT record of a read."""
    question = _question(request)
    if question.flags & ~(_Flag.RD | _Flag.AD | _Flag.CD) or question.counts not in (
        (0, 0, 0),
        (0, 0, 1),
    ):
        raise _Malformed("not a plain query")
    opt = None
    for record in _records(request, question):
        if record.type != _OPT:
            raise _Malformed("a record other than OPT")
        opt = _opt(record, _REQUEST_COOKIES)
    return question, opt


def _said(message: _Message, opt: _OptRecord | None) -> KeyFlag:
    said = KeyFlag(0)
    for bit, flag in ((_Flag.RD, KeyFlag.RD), (_Flag.CD, KeyFlag.CD), (_Flag.AD, KeyFlag.AD)):
        if message.flags & bit:
            said |= flag
    if opt:
        said |= KeyFlag.EDNS
    if opt and opt.do:
        said |= KeyFlag.DO
    return said


def _key(question: _Message, asked: int) -> bytes:
    return question.name.lower() + struct.pack("!HB", question.type, asked)


def intent_of(request: bytes) -> Intent:
    """What a request wants: a read, a write to all that is cached (UPDATE, NOTIFY), or another."""
    if len(request) < _HEADER.size:
        return Intent.OTHER
    flags = int.from_bytes(request[2:4])
    if not flags & _Flag.QR and _opcode(flags) in (_NOTIFY, _UPDATE):
        return Intent.WRITE_ALL
    return Intent.READ if key_of(request) is not None else Intent.OTHER


def key_of(request: bytes) -> bytes | None:
    """The cache key of a read: name in lower case, type, flags; None for any other request."""
    try:
        question, opt = _read(request)
    except _Malformed:
        return None
    return _key(question, _said(question, opt))


def slot_key_of(key: bytes) -> bytes:
    """The bytes of a cache key that its slot is computed from: all of them."""
    return key


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of what a user calls by this name, such as `example.org MX` (A without it).

    One for each of the flags that requests differ by. None for what is no name or no type.
    """
    words = name.decode("ascii", "replace").split()
    kind = TYPES.get(words[1].upper() if len(words) > 1 else "A")
    labels = [label.encode() for label in words[0].rstrip(".").split(".")] if words else []
    if kind is None or len(words) > 2 or any(len(label) > _LABEL_MAX for label in labels):
        return ()
    wire = b"".join(bytes([len(label)]) + label.lower() for label in labels if label) + b"\0"
    return tuple(wire + struct.pack("!HB", kind, flags) for flags in range(ASKED_MAX))


def _is_reply(question: _Message) -> bool:
    """NOERROR or NXDOMAIN to a query, whole."""
    return bool(
        question.flags & _Flag.QR
        and _opcode(question.flags) == _QUERY
        and not question.flags & (_Flag.TC | _Flag.Z)
        and question.rcode in (_NOERROR, _NXDOMAIN)
    )


def _lifetime(record: _Record) -> int:
    """Seconds that a record may be kept.

    With its top bit set, a TTL means 0 (RFC 2181 8). An SOA in the authority section tells the TTL
    of what does not exist: the smaller of its own and its last number (RFC 2308 3, 5).
    """
    ttls = [record.ttl]
    if record.section is Section.AUTHORITY and record.type == _SOA:
        if len(record.data) < _SOA_MIN:
            raise _Malformed("a short SOA")
        ttls.append(int.from_bytes(record.data[-4:]))
    if not all(0 < ttl < 2**31 for ttl in ttls):
        raise _Malformed("not to be kept")
    return min(ttls)


def _may_keep(question: _Message, asked: int, records: list[_Record]) -> bool:
    """Is a reply of these records, none of them OPT, one that says how long it is true?"""
    answers = [record for record in records if record.section is Section.ANSWER]
    negative = any(r.section is Section.AUTHORITY and r.type == _SOA for r in records)
    signed = any(record.type == _RRSIG for record in records)
    if signed and question.type != _RRSIG and not asked & KeyFlag.DO:
        return False
    if question.rcode == _NXDOMAIN or not answers:
        return negative
    answered = any(record.type == question.type for record in answers)
    return answered or negative or bool(question.flags & _Flag.AA)


def _without_cookie(reply: bytes, record: _Record) -> bytes:
    """Cut off the COOKIE of an OPT record that ends the reply."""
    if record.end != len(reply):
        raise _Malformed("a COOKIE in the middle")
    return reply[: record.at + 8] + b"\0\0"


def _learn(reply: bytes, ttl: int, asked: int) -> Learned | None:
    question = _question(reply)
    if not _is_reply(question) or len(reply) > REPLY_MAX or sum(question.counts) > RECORDS_MAX + 1:
        return None
    records = list(_records(reply, question))
    opts = [record for record in records if record.type == _OPT]
    others = [record for record in records if record.type != _OPT]
    if len(opts) > 1 or len(others) > RECORDS_MAX:
        return None
    if any(record.cls != _IN or not _is_data(record.type) for record in others):
        return None
    opt = _opt(opts[0], _REPLY_COOKIES) if opts else None
    if _said(question, opt) & ~KeyFlag.AD & ~asked or not _may_keep(question, asked, others):
        return None
    if opt and opt.cookie:
        reply = _without_cookie(reply, opts[0])
    ttls = tuple((record.at + 4, _lifetime(record)) for record in others)
    if (len(reply) + _NOTE - 1) // _NOTE * _NOTE + _NOTE * (1 + len(ttls)) > REPLY_MAX:
        return None
    return Learned(_key(question, asked), reply, min(ttl, *(seconds for _, seconds in ttls)), ttls)


def cookie_of(message: bytes) -> bytes | None:
    """The data of a message's COOKIE; empty where its OPT record has none, None without OPT."""
    try:
        question = _question(message)
        records = [one for one in _records(message, question) if one.type == _OPT]
    except _Malformed:
        return None
    if not records:
        return None
    data = records[0].data
    while len(data) >= _OPTION.size:
        code, size = _OPTION.unpack_from(data)
        if code == _COOKIE:
            return data[_OPTION.size : _OPTION.size + size]
        data = data[_OPTION.size + size :]
    return b""


def cookie_query(ident: int, cookie: bytes) -> bytes:
    """A query that any name server answers by itself, with a client's cookie: the root's NS."""
    header = _HEADER.pack(ident, 0, 1, 0, 0, 1)
    option = _OPTION.pack(_COOKIE, len(cookie)) + cookie
    opt = b"\0" + _RECORD.pack(_OPT, _EDNS_SIZE, 0, len(option)) + option
    return header + b"\0" + _QUESTION.pack(_NS, _IN) + opt


def answers_cookie(reply: bytes, query: bytes) -> bool | None:
    """Whether a server's reply to `cookie_query` has a cookie; None where it tells nothing.

    A refusal tells too: servers that give cookies give them there.
    """
    if len(reply) < _HEADER.size or reply[:2] != query[:2] or not reply[2] & 0x80:
        return None
    cookie = cookie_of(reply)
    if cookie:
        return True
    rcode = reply[3] & 0xF
    return False if cookie is not None and rcode in (_NOERROR, _NXDOMAIN, _REFUSED) else None


def learn(reply: bytes, ttl: int, asked: int) -> Learned | None:
    """What may be kept of a server's reply under a service's `ttl` in seconds; None: nothing.

    `asked` is the last byte of its request's key.
    """
    try:
        return _learn(reply, ttl, asked)
    except _Malformed:
        return None


def _returning(reply: bytes, cookie: bytes) -> bytes | None:
    """A reply with this cookie, where an OPT record ends it."""
    question = _question(reply)
    *_, last = _records(reply, question)
    if last.type != _OPT or last.end != len(reply):
        return None
    option = _OPTION.pack(_COOKIE, len(cookie)) + cookie
    return reply[: last.at + 8] + len(option).to_bytes(2) + option


def answer(
    learned: Learned, request: bytes, age: int, *, returned: bool = False, spelled: bool = False
) -> bytes | None:
    """The reply to a read with the key of what was learned `age` seconds ago.

    With its cookie, if that is to be `returned`. None: it cannot be given, for it is longer than
    the client takes, it has no place for the cookie, or the request spells its name in another
    way; unless the server is known to say the same to that (`spelled`).
    """
    question, opt = _read(request)
    if question.name != _question(learned.reply).name and not spelled:
        return None
    whole = _returning(learned.reply, opt.cookie) if opt and returned else learned.reply
    if whole is None or len(whole) > max(opt.size if opt else 0, _UDP_MIN):
        return None
    reply = bytearray(whole)
    reply[:2] = request[:2]
    reply[_HEADER.size : question.rest] = request[_HEADER.size : question.rest]
    for offset, seconds in learned.ttls:
        reply[offset : offset + 4] = max(0, seconds - age).to_bytes(4)
    return bytes(reply)
