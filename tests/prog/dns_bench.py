# SPDX-License-Identifier: Apache-2.0
"""The functions of dns.h on made-up messages, and messages to make up."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Sequence
from typing import NamedTuple

from carom.kernel.abi import COOKIE_SECRETS, COOKIES, packed_address, sum_of
from carom.protocols.protocol import TEXT_ROOM, Intent
from prog.protocol import PROGRAMS, REPLY_ROOM, Protocol, State

_JUNK = random.Random(1).randbytes(REPLY_ROOM)  # what an earlier packet left in a buffer

IN = 1
A, NS, CNAME, SOA, MX, TXT, AAAA, OPT, RRSIG, NSEC = 1, 2, 5, 6, 15, 16, 28, 41, 46, 47
QR, AA, TC, RD, RA, Z, AD, CD = 0x8000, 0x400, 0x200, 0x100, 0x80, 0x40, 0x20, 0x10
NXDOMAIN = 3
DO = 0x8000
COOKIE, ECS, NSID = 10, 8, 3
TO_QUESTION = b"\xc0\x0c"


EDNS_KEY, DO_KEY, RD_KEY, CD_KEY, AD_KEY = 1, 2, 4, 8, 16
"""Of a key's last byte, and of what was asked."""

POINTS, ANY = 2, 4
"""Of the notes' flags, dns.h."""


class Stored(NamedTuple):
    """What dns_learn made of a reply: `stored` begins with `length` bytes of the reply."""

    key: bytes
    stored: bytes
    length: int
    ttl: int

    @property
    def notes(self) -> int:
        """Where they begin."""
        return (self.length + 7) // 8 * 8

    @property
    def points(self) -> bool:
        """Its first record's name is a pointer into the question."""
        return bool(self.stored[self.notes + 2] & POINTS)

    @property
    def spelling(self) -> tuple[int, int]:
        """Of the question, and of its last label."""
        _, _, _, last, spelling = struct.unpack_from("=BBBBI", self.stored, self.notes)
        return spelling, last

    def for_all(self) -> Stored:
        """The same once it may be given to any spelling."""
        changed = bytearray(self.stored)
        changed[self.notes + 2] |= ANY
        return self._replace(stored=bytes(changed))


def returned(reply: bytes) -> int:
    """What was asked, of a server that returns all of it in its reply."""
    opt = reply.rfind(b"\0\0\x29", 12, -8) if any(reply[10:12]) else -1
    asked = EDNS_KEY if opt >= 0 else 0
    asked |= DO_KEY if opt >= 0 and reply[opt + 7] & 0x80 else 0
    asked |= RD_KEY if reply[2] & 1 else 0
    return asked | (CD_KEY if reply[3] & CD else 0)


def _room(data: bytes, size: int) -> bytes:
    """A buffer as the contract has it: zero up to whole 8 bytes, then whatever was there."""
    data += bytes(-len(data) % 8)
    return data + _JUNK[len(data) : size]


class DNSBench(Protocol):
    """The programs of dns.h."""

    def __init__(self) -> None:
        super().__init__("dns", (*PROGRAMS, "cookie", "returning"))

    def request(self, text: bytes, *, length: int | None = None) -> tuple[Intent, bytes | None]:
        """dns_request: the intent, and the key of a read. `length` where it is not `text`'s."""
        room = _room(text, TEXT_ROOM)
        length = len(text) if length is None else length
        found = self.run("request", State(length=length, text=room))
        assert found.text == room
        intent = Intent(found.returned)
        if intent is not Intent.READ:
            return intent, None
        assert found.asked == found.key[-1]
        return intent, found.key

    def learned(
        self, reply: bytes, ttl: int = 1000, asked: int | None = None, *, length: int | None = None
    ) -> Stored | None:
        """dns_learn. `asked` where it is not what the reply says, and `length` likewise."""
        length = len(reply) if length is None else length
        asked = returned(reply) if asked is None else asked
        room = _room(reply, REPLY_ROOM)
        before = State(length=length, stored=length, ttl=ttl, asked=asked, reply=room)
        found = self.run("learned", before)
        assert found.returned in (0, 1)
        if not found.returned:
            return None
        data = found.reply[: found.stored]
        behind = data[found.length : (found.length + 7) // 8 * 8]
        assert not any(behind), "no zeros behind the reply"
        return Stored(found.key, data, found.length, found.ttl)

    def given(
        self, stored: Stored, text: bytes, age: int, *, size: int | None = None
    ) -> bytes | None:
        """dns_answer; what it adds to the sum is held against the sum of the bytes.

        `size` where it is not that of what is stored.
        """
        room = _room(stored.stored, REPLY_ROOM)
        before = State(
            length=stored.length,
            stored=len(stored.stored) if size is None else size,
            text_length=len(text),
            age=age,
            text=_room(text, TEXT_ROOM),
            reply=room,
        )
        found = self.run("answer", before)
        assert found.returned in (0, 1)
        if not found.returned:
            return None
        reply = found.reply[: stored.length]
        assert (found.length, found.stored) == (before.length, before.stored)
        assert found.reply[stored.length :] == room[stored.length :]
        assert (sum_of(room[: stored.length]) + found.sum) % 0xFFFF == sum_of(reply), "the sum"
        return reply

    def cookie(
        self, text: bytes, client: str, secrets: Sequence[bytes], seconds: int
    ) -> tuple[bool, bool]:
        """Of a request's COOKIE: was it made by one of the secrets, and is it fresh, too?"""
        before = State(
            length=len(text),
            age=seconds,
            text=_room(text, TEXT_ROOM),
            client=packed_address(ipaddress.ip_address(client)),
            cookies=packed_cookies(secrets),
        )
        found = self.run("cookie", before).returned
        return bool(found & 1), bool(found & 2)

    def answer_returning(self, stored: Stored, text: bytes, age: int) -> bytes | None:
        """dns_answer and then dns_return_cookie; the sum as above."""
        plain = self.given(stored, text, age)
        if plain is None:
            return None
        before = State(
            length=stored.length,
            key=stored.key,
            text=_room(text, TEXT_ROOM),
            reply=_room(plain + stored.stored[stored.length :], REPLY_ROOM),
        )
        found = self.run("returning", before)
        if not found.returned:
            assert found.reply[: stored.length] == plain
            return None
        reply = found.reply[: found.length]
        assert (sum_of(plain) + found.sum) % 0xFFFF == sum_of(reply), "the sum"
        return reply


def packed_cookies(
    secrets: Sequence[bytes], *, epoch: int = 1, none: int = 0, version: int = 1
) -> bytes:
    """What the daemon tells the kernel of a server's cookies."""
    keys = [*secrets, *[bytes(16)] * (COOKIE_SECRETS - len(secrets))]
    return COOKIES.pack(epoch, none, len(secrets), version, b"".join(keys))


def name(text: str | bytes) -> bytes:
    """A name on the wire, as spelled."""
    labels = text.encode() if isinstance(text, str) else text
    return b"".join(bytes([len(x)]) + x for x in labels.split(b".") if x) + b"\0"


def option(code: int, data: bytes) -> bytes:
    """An EDNS option."""
    return struct.pack("!HH", code, len(data)) + data


def record(
    rrtype: int,
    data: bytes,
    *,
    ttl: int = 300,
    owner: bytes = TO_QUESTION,
    cls: int = IN,
    size: int | None = None,
) -> bytes:
    """A resource record."""
    length = len(data) if size is None else size
    return owner + struct.pack("!HHIH", rrtype, cls, ttl, length) + data


def opt(data: bytes = b"", *, size: int = 1232, ttl: int = 0, owner: bytes = b"\0") -> bytes:
    """An OPT record; the DO flag is a part of its TTL field."""
    return record(OPT, data, ttl=ttl, owner=owner, cls=size)


def soa(*, ttl: int = 600, minimum: int = 60, owner: bytes = TO_QUESTION) -> bytes:
    """An SOA record."""
    numbers = struct.pack("!5I", 1, 2, 3, 4, minimum)
    return record(SOA, name("ns") + name("mail") + numbers, ttl=ttl, owner=owner)


def address(ttl: int = 300, owner: bytes = TO_QUESTION) -> bytes:
    """An A record."""
    return record(A, b"\xc0\0\2\1", ttl=ttl, owner=owner)


def text(words: bytes = b"odd", ttl: int = 300, owner: bytes = TO_QUESTION) -> bytes:
    """A TXT record, whose length is what one wants."""
    return record(TXT, bytes([len(words)]) + words, ttl=ttl, owner=owner)


def query(
    qname: bytes | str = "www.example",
    qtype: int = A,
    *,
    flags: int = RD,
    edns: bytes = b"",
    cls: int = IN,
    ident: int = 0x1234,
    counts: tuple[int, int, int, int] | None = None,
    behind: bytes = b"",
) -> bytes:
    """A query; `edns` is its OPT record, `counts` what the header says where it lies."""
    wire = name(qname) if isinstance(qname, str) else qname
    header = struct.pack("!HH4H", ident, flags, *(counts or (1, 0, 0, 1 if edns else 0)))
    return header + wire + struct.pack("!HH", qtype, cls) + edns + behind


def reply(
    *answers: bytes,
    qname: bytes | str = "www.example",
    qtype: int = A,
    flags: int = QR | AA | RD,
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
    cls: int = IN,
    ident: int = 0x1234,
    questions: int = 1,
    behind: bytes = b"",
) -> bytes:
    """A reply to `query`."""
    counts = (questions, len(answers), len(authority), len(additional))
    records = b"".join((*answers, *authority, *additional))
    return query(
        qname, qtype, flags=flags, cls=cls, ident=ident, counts=counts, behind=records + behind
    )
