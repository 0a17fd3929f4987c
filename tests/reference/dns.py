# SPDX-License-Identifier: Apache-2.0
"""What dns.h learns, keeps and gives, written apart from it: the model it is held against."""

from __future__ import annotations

import struct
from typing import NamedTuple

from carom.kernel.abi import REPLY_MAX
from carom.protocols.dns import KeyFlag
from carom.protocols.dns.message import (
    COOKIE,
    HEADER,
    IN,
    NOERROR,
    NOTIFY,
    NXDOMAIN,
    OPT,
    OPT_DO,
    OPTION,
    QUERY,
    RRSIG,
    SOA,
    UPDATE,
    Flag,
    Malformed,
    Message,
    Record,
    Section,
    is_data,
    opcode,
    read_question,
    read_records,
    unpack,
)
from carom.protocols.protocol import Intent

RECORDS_MAX = 16
"""Records of a reply that is learned, not counting OPT."""

UDP_MIN, SOA_MIN = 512, 22
_NOTE = 8  # bytes of a note of one TTL behind a stored reply, and of what heads them


class Learned(NamedTuple):
    """A reply that may be kept.

    `ttls` has the offset and the seconds of every TTL in `reply`, which is as the server sent it
    but for a COOKIE; `ttl` says how many seconds the reply may be kept.
    """

    key: bytes
    reply: bytes
    ttl: int
    ttls: tuple[tuple[int, int], ...]


class OptRecord(NamedTuple):
    """An OPT record that changes nothing but by its DO flag."""

    size: int
    do: bool
    cookie: bytes


def _opt(record: Record, cookies: frozenset[int]) -> OptRecord:
    """Read an OPT record; it has no option but a COOKIE of one of these lengths."""
    if not record.root or record.section is not Section.ADDITIONAL or record.ttl & ~OPT_DO:
        raise Malformed("an OPT record of another kind")
    cookie = b""
    if record.data:
        code, size = unpack(OPTION, record.data, 0)
        cookie = record.data[OPTION.size :]
        if code != COOKIE or size != len(cookie) or size not in cookies:
            raise Malformed("an option other than one COOKIE")
    return OptRecord(record.cls, bool(record.ttl & OPT_DO), cookie)


_REQUEST_COOKIES = frozenset({8, *range(16, 41)})
_REPLY_COOKIES = frozenset(range(16, 41))


def _read(request: bytes) -> tuple[Message, OptRecord | None]:
    """The question and the OPT record of a read."""
    question = read_question(request)
    if question.flags & ~(Flag.RD | Flag.AD | Flag.CD) or question.counts not in (
        (0, 0, 0),
        (0, 0, 1),
    ):
        raise Malformed("not a plain query")
    opt = None
    for record in read_records(request, question):
        if record.type != OPT:
            raise Malformed("a record other than OPT")
        opt = _opt(record, _REQUEST_COOKIES)
    return question, opt


def _said(message: Message, opt: OptRecord | None) -> KeyFlag:
    said = KeyFlag(0)
    for bit, flag in ((Flag.RD, KeyFlag.RD), (Flag.CD, KeyFlag.CD), (Flag.AD, KeyFlag.AD)):
        if message.flags & bit:
            said |= flag
    if opt:
        said |= KeyFlag.EDNS
    if opt and opt.do:
        said |= KeyFlag.DO
    return said


def _key(question: Message, asked: int) -> bytes:
    return question.name.lower() + struct.pack("!HB", question.type, asked)


def intent_of(request: bytes) -> Intent:
    """What a request wants: a read, a write to all that is cached (UPDATE, NOTIFY), or another."""
    if len(request) < HEADER.size:
        return Intent.OTHER
    flags = int.from_bytes(request[2:4])
    if not flags & Flag.QR and opcode(flags) in (NOTIFY, UPDATE):
        return Intent.WRITE_ALL
    return Intent.READ if key_of(request) is not None else Intent.OTHER


def key_of(request: bytes) -> bytes | None:
    """The cache key of a read: name in lower case, type, flags; None for any other request."""
    try:
        question, opt = _read(request)
    except Malformed:
        return None
    return _key(question, _said(question, opt))


def _is_reply(question: Message) -> bool:
    """NOERROR or NXDOMAIN to a query, whole."""
    return bool(
        question.flags & Flag.QR
        and opcode(question.flags) == QUERY
        and not question.flags & (Flag.TC | Flag.Z)
        and question.rcode in (NOERROR, NXDOMAIN)
    )


def _lifetime(record: Record) -> int:
    """Seconds that a record may be kept.

    With its top bit set, a TTL means 0 (RFC 2181 8). An SOA in the authority section tells the TTL
    of what does not exist: the smaller of its own and its last number (RFC 2308 3, 5).
    """
    ttls = [record.ttl]
    if record.section is Section.AUTHORITY and record.type == SOA:
        if len(record.data) < SOA_MIN:
            raise Malformed("a short SOA")
        ttls.append(int.from_bytes(record.data[-4:]))
    if not all(0 < ttl < 2**31 for ttl in ttls):
        raise Malformed("not to be kept")
    return min(ttls)


def _may_keep(question: Message, asked: int, records: list[Record]) -> bool:
    """Is a reply of these records, none of them OPT, one that says how long it is true?"""
    answers = [record for record in records if record.section is Section.ANSWER]
    negative = any(r.section is Section.AUTHORITY and r.type == SOA for r in records)
    signed = any(record.type == RRSIG for record in records)
    if signed and question.type != RRSIG and not asked & KeyFlag.DO:
        return False
    if question.rcode == NXDOMAIN or not answers:
        return negative
    answered = any(record.type == question.type for record in answers)
    return answered or negative or bool(question.flags & Flag.AA)


def _without_cookie(reply: bytes, record: Record) -> bytes:
    """Cut off the COOKIE of an OPT record that ends the reply."""
    if record.end != len(reply):
        raise Malformed("a COOKIE in the middle")
    return reply[: record.at + 8] + b"\0\0"


def _learn(reply: bytes, ttl: int, asked: int) -> Learned | None:
    question = read_question(reply)
    if not _is_reply(question) or len(reply) > REPLY_MAX or sum(question.counts) > RECORDS_MAX + 1:
        return None
    records = list(read_records(reply, question))
    opts = [record for record in records if record.type == OPT]
    others = [record for record in records if record.type != OPT]
    if len(opts) > 1 or len(others) > RECORDS_MAX:
        return None
    if any(record.cls != IN or not is_data(record.type) for record in others):
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


def learn(reply: bytes, ttl: int, asked: int) -> Learned | None:
    """What may be kept of a server's reply under a service's `ttl` in seconds; None: nothing.

    `asked` is the last byte of its request's key.
    """
    try:
        return _learn(reply, ttl, asked)
    except Malformed:
        return None


def _returning(reply: bytes, cookie: bytes) -> bytes | None:
    """A reply with this cookie, where an OPT record ends it."""
    question = read_question(reply)
    *_, last = read_records(reply, question)
    if last.type != OPT or last.end != len(reply):
        return None
    option = OPTION.pack(COOKIE, len(cookie)) + cookie
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
    if question.name != read_question(learned.reply).name and not spelled:
        return None
    whole = _returning(learned.reply, opt.cookie) if opt and returned else learned.reply
    if whole is None or len(whole) > max(opt.size if opt else 0, UDP_MIN):
        return None
    reply = bytearray(whole)
    reply[:2] = request[:2]
    reply[HEADER.size : question.rest] = request[HEADER.size : question.rest]
    for offset, seconds in learned.ttls:
        reply[offset : offset + 4] = max(0, seconds - age).to_bytes(4)
    return bytes(reply)
