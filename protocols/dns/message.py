# SPDX-License-Identifier: Apache-2.0
"""DNS messages as Python reads them, and how a server is asked whether it gives cookies."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from carom.kernel.abi import KEY_MAX
from carom.protocols.dns import LABEL_MAX

HEADER = struct.Struct("!HHHHHH")
QUESTION = struct.Struct("!HH")
RECORD = struct.Struct("!HHIH")
OPTION = struct.Struct("!HH")

QUERY, NOTIFY, UPDATE = 0, 4, 5
NOERROR, NXDOMAIN, REFUSED = 0, 3, 5
IN = 1
NS, SOA, OPT, RRSIG, _RESERVED = 2, 6, 41, 46, 65535
COOKIE = 10
OPT_DO = 0x8000
_EDNS_SIZE = 1232
_NAME_MAX, _OWNER_LABELS_MAX = 255, 40


class Flag(IntFlag):
    """The header's second word."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100
    RA = 0x0080
    Z = 0x0040
    AD = 0x0020
    CD = 0x0010


class Section(IntEnum):
    """The sections of a message that follow the question."""

    ANSWER = 0
    AUTHORITY = 1
    ADDITIONAL = 2


class Malformed(Exception):
    """Not a message, or a kind of message that is not understood."""


class Message(NamedTuple):
    """Header and question; `rest` is the offset where the records begin."""

    flags: int
    counts: tuple[int, int, int]
    name: bytes
    type: int
    rest: int

    @property
    def rcode(self) -> int:
        return self.flags & 0xF


class Record(NamedTuple):
    """A record: its section, whether its name is the root's; `at` is the offset of its type."""

    section: Section
    root: bool
    type: int
    cls: int
    ttl: int
    at: int
    data: bytes

    @property
    def end(self) -> int:
        return self.at + RECORD.size + len(self.data)


def unpack(layout: struct.Struct, message: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(message):
        raise Malformed("cut off")
    return layout.unpack_from(message, at)


def is_data(rrtype: int) -> bool:
    """Whether records have this type and can be asked for by it (RFC 6895 3.1)."""
    return rrtype not in (0, OPT, _RESERVED) and not 128 <= rrtype <= 255


def opcode(flags: int) -> int:
    return flags >> 11 & 0xF


def labels(message: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each label up to the root's or up to a pointer (length -1).

    Raises Malformed.
    """
    while True:
        if at >= len(message):
            raise Malformed("a name is cut off")
        length = message[at]
        if length >= 0xC0:
            yield at, -1
            return
        if length > LABEL_MAX:
            raise Malformed("a label of an unknown kind")
        yield at, length
        if not length:
            return
        at += 1 + length


def read_question(message: bytes) -> Message:
    """Read header and question: one question, of class IN, for data, with an uncompressed name.

    Raises Malformed for anything else.
    """
    _, flags, questions, *counts = unpack(HEADER, message, 0)
    if questions != 1:
        raise Malformed("not one question")
    for at, length in labels(message, HEADER.size):
        if length < 0 or at - HEADER.size >= _NAME_MAX:
            raise Malformed("a compressed name, or one too long")
    name = message[HEADER.size : at + 1]
    rrtype, cls = unpack(QUESTION, message, at + 1)
    if len(name) + 3 > KEY_MAX or cls != IN or not is_data(rrtype):
        raise Malformed("a question that is not for data")
    answers, authority, additional = counts
    return Message(flags, (answers, authority, additional), name, rrtype, at + 1 + QUESTION.size)


def read_records(message: bytes, question: Message) -> Iterator[Record]:
    """All records. Raises Malformed, also for bytes after the last one."""
    at = question.rest
    for section, count in zip(Section, question.counts, strict=True):
        for _ in range(count):
            owner = list(labels(message, at))
            if len(owner) > _OWNER_LABELS_MAX:
                raise Malformed("too many labels")
            last, length = owner[-1]
            root = len(owner) == 1 and length == 0
            at = last + (2 if length < 0 else 1)
            rrtype, cls, ttl, size = unpack(RECORD, message, at)
            data = message[at + RECORD.size : at + RECORD.size + size]
            if len(data) != size:
                raise Malformed("a record is cut off")
            record = Record(section, root, rrtype, cls, ttl, at, data)
            yield record
            at = record.end
    if at != len(message):
        raise Malformed("bytes behind the message")


def cookie_of(message: bytes) -> bytes | None:
    """The data of a message's COOKIE; empty if its OPT record has none, None without an OPT."""
    try:
        question = read_question(message)
        records = [record for record in read_records(message, question) if record.type == OPT]
    except Malformed:
        return None
    if not records:
        return None
    data = records[0].data
    while len(data) >= OPTION.size:
        code, size = OPTION.unpack_from(data)
        if code == COOKIE:
            return data[OPTION.size : OPTION.size + size]
        data = data[OPTION.size + size :]
    return b""


def cookie_query(ident: int, cookie: bytes) -> bytes:
    """A query with a client's cookie that any name server answers itself: for the root's NS."""
    header = HEADER.pack(ident, 0, 1, 0, 0, 1)
    option = OPTION.pack(COOKIE, len(cookie)) + cookie
    opt = b"\0" + RECORD.pack(OPT, _EDNS_SIZE, 0, len(option)) + option
    return header + b"\0" + QUESTION.pack(NS, IN) + opt


def answers_cookie(reply: bytes, query: bytes) -> bool | None:
    """Whether a server's reply to `cookie_query` has a cookie; None where that tells nothing.

    A refusal tells it too: servers that give cookies also give them there.
    """
    if len(reply) < HEADER.size or reply[:2] != query[:2] or not reply[2] & 0x80:
        return None
    cookie = cookie_of(reply)
    if cookie:
        return True
    rcode = reply[3] & 0xF
    return False if cookie is not None and rcode in (NOERROR, NXDOMAIN, REFUSED) else None
