# SPDX-License-Identifier: Apache-2.0
"""dns.h, function by function: against tables, against dns.py, and against what dnspython reads."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carom.kernel.abi import KEY_MAX, REPLY_MAX
from carom.protocols.dns import ASKED_MAX, REQUEST_MAX
from carom.protocols.protocol import Intent
from prog.dns_bench import (
    AA,
    AAAA,
    AD,
    AD_KEY,
    CD,
    CD_KEY,
    CNAME,
    COOKIE,
    DO,
    DO_KEY,
    ECS,
    EDNS_KEY,
    NS,
    NSEC,
    NSID,
    NXDOMAIN,
    OPT,
    QR,
    RA,
    RD,
    RD_KEY,
    REPLY_ROOM,
    RRSIG,
    SOA,
    TC,
    TO_QUESTION,
    TXT,
    A,
    DNSBench,
    Stored,
    Z,
    address,
    name,
    opt,
    option,
    query,
    record,
    reply,
    returned,
    soa,
    text,
)
from reference import dns as reference

SEED = 20240607
TTL = 1000
CLIENT = b"8 bytes."
BOTH = CLIENT + b"of the server..."


@pytest.fixture(scope="module")
def bench() -> Iterator[DNSBench]:
    with DNSBench() as bench:
        yield bench


def key(flags: int = RD_KEY, qname: str = "www.example", qtype: int = A) -> bytes:
    return name(qname) + struct.pack("!HB", qtype, flags)


def long_name(length: int) -> bytes:
    """A name of that many bytes on the wire, in labels as long as can be."""
    wire = b""
    while length - len(wire) > 1:
        size = min(63, length - len(wire) - 2)
        if length - len(wire) - 2 - size == 1:  # one byte is no label
            size -= 1
        wire += bytes([size]) + b"X" * size
    wire += b"\0"
    assert len(wire) == length
    return wire


def cookie(data: bytes = CLIENT) -> bytes:
    return option(COOKIE, data)


class Read(NamedTuple):
    request: bytes
    key: bytes


READS = {
    "plain": Read(query(), key()),
    "no recursion": Read(query(flags=0), key(0)),
    "checking disabled": Read(query(flags=RD | CD), key(RD_KEY | CD_KEY)),
    "no recursion, checking disabled": Read(query(flags=CD), key(CD_KEY)),
    "asks for AD": Read(query(flags=RD | AD), key(RD_KEY | AD_KEY)),
    "asks for AD, no recursion": Read(query(flags=AD), key(AD_KEY)),
    "all flags": Read(query(flags=RD | CD | AD), key(RD_KEY | CD_KEY | AD_KEY)),
    "all there is": Read(
        query(flags=RD | CD | AD, edns=opt(ttl=DO)),
        key(RD_KEY | CD_KEY | AD_KEY | EDNS_KEY | DO_KEY),
    ),
    "another type": Read(query(qtype=AAAA), key(qtype=AAAA)),
    "a type above the meta types": Read(query(qtype=256), key(qtype=256)),
    "the type below the meta types": Read(query(qtype=127), key(qtype=127)),
    "a private type": Read(query(qtype=65534), key(qtype=65534)),
    "mixed case": Read(query("wWw.EXAMPLE"), key()),
    "the root": Read(query("."), b"\0\0\1\4"),
    "EDNS": Read(query(edns=opt()), key(RD_KEY | EDNS_KEY)),
    "DO": Read(query(edns=opt(ttl=DO)), key(RD_KEY | EDNS_KEY | DO_KEY)),
    "a size below 512": Read(query(edns=opt(size=0)), key(RD_KEY | EDNS_KEY)),
    "a client's cookie": Read(query(edns=opt(cookie())), key(RD_KEY | EDNS_KEY)),
    "the shortest whole cookie": Read(query(edns=opt(cookie(bytes(16)))), key(RD_KEY | EDNS_KEY)),
    "the longest cookie": Read(query(edns=opt(cookie(bytes(40)))), key(RD_KEY | EDNS_KEY)),
    "DO and a cookie": Read(query(edns=opt(cookie(BOTH), ttl=DO)), key(RD_KEY | EDNS_KEY | DO_KEY)),
    "a label of 63 bytes": Read(query(f"{'a' * 63}.b"), key(qname=f"{'a' * 63}.b")),
    "all bytes that are no dots": Read(
        query(b"\1@\4[`{\xc1" + name("AZaz")), b"\1@\4[`{\xc1" + name("azaz") + b"\0\1\4"
    ),
}

OTHERS = {
    "empty": b"",
    "a cut header": query()[:11],
    "a header alone": query()[:12],
    "a header that says so": query(counts=(0, 0, 0, 0))[:12],
    "cut by one": query()[:-1],
    "one byte behind": query(behind=b"\0"),
    "a reply": query(flags=QR | RD),
    "an inverse query": query(flags=1 << 11),
    "a status query": query(flags=2 << 11),
    "DSO": query(flags=6 << 11),
    "an unknown opcode": query(flags=15 << 11),
    "AA": query(flags=AA | RD),
    "TC": query(flags=TC | RD),
    "RA": query(flags=RA | RD),
    "Z": query(flags=Z | RD),
    "an RCODE": query(flags=RD | NXDOMAIN),
    "no question": query(counts=(0, 0, 0, 0)),
    "two questions": query(counts=(2, 0, 0, 0), behind=name("b") + b"\0\1\0\1"),
    "257 questions": query(counts=(257, 0, 0, 0)),
    "an answer": query(counts=(1, 1, 0, 0), behind=address()),
    "256 answers": query(counts=(1, 256, 0, 0)),
    "an authority": query(counts=(1, 0, 1, 0), behind=soa()),
    "256 authorities": query(counts=(1, 0, 256, 0)),
    "a record that is not OPT": query(counts=(1, 0, 0, 1), behind=address()),
    "TSIG": query(counts=(1, 0, 0, 1), behind=record(250, bytes(40), ttl=0, cls=255)),
    "OPT and TSIG": query(
        counts=(1, 0, 0, 2), behind=opt() + record(250, bytes(40), ttl=0, cls=255)
    ),
    "two OPT": query(counts=(1, 0, 0, 2), behind=opt() + opt()),
    "256 additional": query(counts=(1, 0, 0, 256), behind=opt()),
    "257 additional": query(counts=(1, 0, 0, 257), behind=opt()),
    "OPT not counted": query(counts=(1, 0, 0, 0), behind=opt()),
    "OPT counted, not there": query(counts=(1, 0, 0, 1)),
    "OPT cut": query(edns=opt()[:-1]),
    "bytes behind OPT": query(edns=opt(), behind=b"\0"),
    "OPT of a name": query(edns=opt(owner=TO_QUESTION)),
    "an extended RCODE": query(edns=opt(ttl=1 << 24)),
    "EDNS version 1": query(edns=opt(ttl=1 << 16)),
    "an unknown EDNS flag": query(edns=opt(ttl=0x4000)),
    "the last EDNS flag": query(edns=opt(ttl=DO | 1)),
    "ECS": query(edns=opt(option(ECS, b"\0\1\x18\0\xc0\0\2"))),
    "ECS of the length of a cookie": query(edns=opt(option(ECS, bytes(8)))),
    "NSID": query(edns=opt(option(NSID, b""))),
    "a cookie and NSID": query(edns=opt(cookie() + option(NSID, b""))),
    "NSID and a cookie": query(edns=opt(option(NSID, b"") + cookie())),
    "two cookies": query(edns=opt(cookie() + cookie())),
    "an empty cookie": query(edns=opt(cookie(b""))),
    "a cookie of 7": query(edns=opt(cookie(bytes(7)))),
    "a cookie of 9": query(edns=opt(cookie(bytes(9)))),
    "a cookie of 15": query(edns=opt(cookie(bytes(15)))),
    "a cookie of 41": query(edns=opt(cookie(bytes(41)))),
    "a cookie shorter than its data": query(
        edns=record(OPT, struct.pack("!HH", COOKIE, 8) + bytes(9), ttl=0, owner=b"\0")
    ),
    "a cookie longer than its data": query(
        edns=record(OPT, struct.pack("!HH", COOKIE, 16) + bytes(8), ttl=0, owner=b"\0")
    ),
    "OPT with one byte": query(edns=opt(b"\0")),
    "OPT with three bytes": query(edns=opt(b"\0\n\0")),
    "class CH": query(cls=3),
    "class ANY": query(cls=255),
    "class 257": query(cls=257),
    "type 0": query(qtype=0),
    "type OPT": query(qtype=OPT),
    "the first meta type": query(qtype=128),
    "TKEY": query(qtype=249),
    "TSIG asked for": query(qtype=250),
    "IXFR": query(qtype=251),
    "AXFR": query(qtype=252),
    "ANY": query(qtype=255),
    "the reserved type": query(qtype=65535),
    "a pointer": query(b"\3www\xc0\x0c"),
    "a pointer alone": query(TO_QUESTION),
    "a label of 64": query(b"\x40" + b"a" * 64 + b"\0"),
    "a label of kind 2": query(b"\x80" + b"a" * 128 + b"\0"),
    "a name without end": query(b"\3www"),
    "a name of 256": query(long_name(256)),
    "128 labels": query(b"\1a" * 128 + b"\0"),
}

WRITES = {
    "UPDATE": query(flags=5 << 11, qtype=SOA),
    "UPDATE with all flags": query(flags=5 << 11 | 0x7FF),
    "UPDATE of a header": query(flags=5 << 11)[:12],
    "UPDATE of some records": query(
        flags=5 << 11, counts=(1, 2, 3, 4), behind=address() * 9 + b"cut"
    ),
    "NOTIFY": query(flags=4 << 11 | AA, qtype=SOA),
    "NOTIFY with an SOA": query(flags=4 << 11 | AA, counts=(1, 1, 0, 0), behind=soa()),
}


@pytest.mark.parametrize("row", READS.values(), ids=READS)
def test_reads(bench: DNSBench, row: Read) -> None:
    assert bench.request(row.request) == (Intent.READ, row.key)
    assert reference.intent_of(row.request) is Intent.READ
    assert reference.key_of(row.request) == row.key


@pytest.mark.parametrize("request_", OTHERS.values(), ids=OTHERS)
def test_others(bench: DNSBench, request_: bytes) -> None:
    assert bench.request(request_) == (Intent.OTHER, None)
    assert reference.intent_of(request_) is Intent.OTHER
    assert reference.key_of(request_) is None


@pytest.mark.parametrize("request_", WRITES.values(), ids=WRITES)
def test_writes(bench: DNSBench, request_: bytes) -> None:
    assert bench.request(request_) == (Intent.WRITE_ALL, None)
    assert reference.intent_of(request_) is Intent.WRITE_ALL
    assert reference.key_of(request_) is None


@pytest.mark.parametrize("opcode", [4, 5])
def test_acknowledgements_and_stumps_write_nothing(bench: DNSBench, opcode: int) -> None:
    for message in (query(flags=QR | opcode << 11), query(flags=opcode << 11)[:11]):
        assert bench.request(message) == (Intent.OTHER, None)
        assert reference.intent_of(message) is Intent.OTHER


def test_a_long_message_by_its_beginning(bench: DNSBench) -> None:
    update = query(flags=5 << 11, counts=(1, 0, 60, 0), behind=address() * 60)
    assert bench.request(update[:512], length=len(update)) == (Intent.WRITE_ALL, None)
    read = query(edns=opt(cookie(bytes(40))))
    assert bench.request(read, length=len(read) + 1) == (Intent.OTHER, None)
    assert bench.request(read, length=2**16 - 1) == (Intent.OTHER, None)


@pytest.mark.parametrize("length", [2, 3, 8, 9, 64, 65, 127, 128, 250, 252, 253, 254, 255])
def test_names_of_all_lengths(bench: DNSBench, length: int) -> None:
    if length == 2:
        return  # no such name
    qname = long_name(length)
    edns = opt(cookie(bytes(40)), ttl=DO)
    request = query(qname, edns=edns)
    assert len(request) <= REQUEST_MAX
    if length + 3 > KEY_MAX:
        assert bench.request(request) == (Intent.OTHER, None)
    else:
        flags = bytes([RD_KEY | EDNS_KEY | DO_KEY])
        assert bench.request(request) == (Intent.READ, qname.lower() + b"\0\1" + flags)
    assert reference.key_of(request) == bench.request(request)[1]


def test_127_labels(bench: DNSBench) -> None:
    qname = b"\1A" * ((min(255, KEY_MAX - 3) - 1) // 2) + b"\0"
    assert bench.request(query(qname)) == (Intent.READ, qname.lower() + b"\0\1\4")


def test_only_ascii_is_folded(bench: DNSBench) -> None:
    """Every byte in every place of a word."""
    for start in range(0, 256, 32):
        for shift in range(8):
            label = b"-" * shift + bytes(range(start, start + 32))
            qname = bytes([len(label)]) + label + b"\0"
            found = bench.request(query(qname))[1]
            assert found == qname.lower() + b"\0\1\4"


def test_every_byte_of_a_request_counts(bench: DNSBench) -> None:
    """All values of every byte of some requests, as dns.py reads them."""
    read = 0
    for request in (
        query("a.Bc"),
        query("a.Bc", edns=opt(ttl=DO)),
        query("a.Bc", edns=opt(cookie())),
    ):
        for at in range(len(request)):
            for value in range(256):
                changed = request[:at] + bytes([value]) + request[at + 1 :]
                intent, found = bench.request(changed)
                assert intent is reference.intent_of(changed), changed.hex()
                assert found == reference.key_of(changed), changed.hex()
                read += intent is Intent.READ
    assert read > 5000


class Kept(NamedTuple):
    reply: bytes
    key: bytes
    ttl: int


WWW = name("www.example")
SIGNATURE = bytes(18) + b"\0signature"

KEPT = {
    "one address": Kept(reply(address()), key(), 300),
    "not authoritative": Kept(reply(address(), flags=QR | RD | RA), key(), 300),
    "no recursion": Kept(reply(address(), flags=QR | AA), key(0), 300),
    "checking disabled": Kept(reply(address(), flags=QR | RA | RD | CD), key(RD_KEY | CD_KEY), 300),
    "no recursion, checking disabled": Kept(reply(address(), flags=QR | AA | CD), key(CD_KEY), 300),
    "authentic": Kept(reply(address(), flags=QR | RA | RD | AD), key(), 300),
    "the smallest TTL of answers": Kept(reply(address(30), address(20), address(40)), key(), 20),
    "the smallest TTL of the authority": Kept(
        reply(address(), authority=(record(NS, TO_QUESTION, ttl=7),)), key(), 7
    ),
    "the smallest TTL of the additional": Kept(
        reply(address(), additional=(address(8),)), key(), 8
    ),
    "the service's TTL": Kept(reply(address(TTL + 1)), key(), TTL),
    "the longest TTL": Kept(reply(address(2**31 - 1)), key(), TTL),
    "whole names": Kept(reply(address(owner=WWW), text(owner=WWW)), key(), 300),
    "a name with a pointer": Kept(reply(address(owner=b"\3abc\xc0\x10")), key(), 300),
    "a reverse name": Kept(reply(address(owner=b"\1a" * 32 + name("ip6.arpa"))), key(), 300),
    "EDNS": Kept(reply(address(), additional=(opt(),)), key(RD_KEY | EDNS_KEY), 300),
    "DO": Kept(
        reply(address(), record(RRSIG, SIGNATURE), additional=(opt(ttl=DO),)),
        key(RD_KEY | EDNS_KEY | DO_KEY),
        300,
    ),
    "OPT that is not the last": Kept(
        reply(address(), additional=(opt(), address(9))), key(RD_KEY | EDNS_KEY), 9
    ),
    "RRSIG asked for": Kept(reply(record(RRSIG, SIGNATURE), qtype=RRSIG), key(qtype=RRSIG), 300),
    "16 records and OPT": Kept(
        reply(*[address(50 - n) for n in range(16)], additional=(opt(),)),
        key(RD_KEY | EDNS_KEY),
        35,
    ),
    "an alias and its end": Kept(
        reply(record(CNAME, name("b"), ttl=9), address(owner=name("b")), flags=QR | RD | RA),
        key(),
        9,
    ),
    "an alias that leads elsewhere": Kept(reply(record(CNAME, name("b"))), key(), 300),
    "an alias asked for": Kept(
        reply(record(CNAME, name("b")), qtype=CNAME, flags=QR | RD | RA), key(qtype=CNAME), 300
    ),
    "an alias to nothing": Kept(
        reply(record(CNAME, name("b")), authority=(soa(minimum=5),), flags=QR | RD | RA), key(), 5
    ),
    "an alias to no name": Kept(
        reply(record(CNAME, name("b")), authority=(soa(),), flags=QR | AA | RD | NXDOMAIN),
        key(),
        60,
    ),
    "no name": Kept(reply(authority=(soa(),), flags=QR | AA | RD | NXDOMAIN), key(), 60),
    "no data": Kept(reply(authority=(soa(),)), key(), 60),
    "an SOA shorter than its minimum": Kept(reply(authority=(soa(ttl=5),)), key(), 5),
    "a signed denial": Kept(
        reply(
            authority=(soa(), record(RRSIG, SIGNATURE, ttl=70), record(NSEC, b"\0", ttl=50)),
            additional=(opt(ttl=DO),),
        ),
        key(RD_KEY | EDNS_KEY | DO_KEY),
        50,
    ),
    "an SOA asked for": Kept(reply(soa(), qtype=SOA), key(qtype=SOA), 600),
    "mixed case": Kept(reply(address(), qname="WwW.Example"), key(), 300),
    "the root": Kept(reply(record(NS, b"\0"), qname=".", qtype=NS), b"\0\0\2\4", 300),
    "as long as can be": Kept(reply(address(), text(b"x" * 255), behind=b""), key(), 300),
}

REFUSED = {
    "empty": b"",
    "a cut header": reply(address())[:11],
    "a header": reply(address())[:12],
    "a query": reply(address(), flags=RD),
    "an UPDATE's": reply(address(), flags=QR | 5 << 11),
    "TC": reply(address(), flags=QR | AA | TC),
    "Z": reply(address(), flags=QR | AA | Z),
    **{
        f"RCODE {rcode}": reply(address(), authority=(soa(),), flags=QR | AA | rcode)
        for rcode in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 15)
    },
    "an extended RCODE": reply(address(), additional=(opt(ttl=1 << 24),)),
    "BADVERS": reply(authority=(soa(),), additional=(opt(ttl=1 << 24),)),
    "EDNS version 1": reply(address(), additional=(opt(ttl=1 << 16),)),
    "an unknown EDNS flag": reply(address(), additional=(opt(ttl=0x4000),)),
    "no question": reply(address(), questions=0),
    "two questions": reply(address(), questions=2),
    "no record": reply(),
    "no name, no SOA": reply(flags=QR | AA | RD | NXDOMAIN),
    "no name, SOA as an answer": reply(soa(), flags=QR | AA | RD | NXDOMAIN),
    "no data, SOA in the additional": reply(additional=(soa(),)),
    "a referral": reply(
        authority=(record(NS, name("ns")),), additional=(address(owner=name("ns")),), flags=QR | RD
    ),
    "an alias to what is not said": reply(record(CNAME, name("b")), flags=QR | RD | RA),
    "TTL 0": reply(address(0)),
    "one TTL 0": reply(address(), address(0), address()),
    "TTL 0 in the additional": reply(address(), additional=(address(0),)),
    "a TTL with its top bit": reply(address(2**31)),
    "SOA with TTL 0": reply(authority=(soa(ttl=0),)),
    "SOA with minimum 0": reply(authority=(soa(minimum=0),)),
    "SOA with a minimum with its top bit": reply(authority=(soa(minimum=2**31 + 60),)),
    "SOA with a TTL with its top bit": reply(authority=(soa(ttl=2**31 + 60),)),
    "a short SOA": reply(authority=(record(SOA, bytes(17) + b"\0\0\0\7"),)),
    "bytes behind": reply(address(), behind=b"\0"),
    "a record behind": reply(address(), behind=address()),
    "cut by one": reply(address())[:-1],
    "cut in a name": reply(address(), address(owner=b"\3abc\xc0\x10"))[:-16],
    "cut in the question": reply(address(), qname="a" * 60)[:40],
    "more counted than there": query(flags=QR | AA | RD, counts=(1, 2, 0, 0), behind=address()),
    "less counted than there": query(
        flags=QR | AA | RD, counts=(1, 1, 0, 0), behind=address() + address()
    ),
    "17 records": reply(*[address()] * 17),
    "17 records and OPT": reply(*[address()] * 17, additional=(opt(),)),
    "300 records": query(flags=QR | AA | RD, counts=(1, 300, 0, 0), behind=address()),
    "65535 records thrice": query(
        flags=QR | AA | RD, counts=(1, 65535, 65535, 65535), behind=address()
    ),
    "data that is too long": reply(record(A, b"\xc0\0\2\1", size=5)),
    "data beyond all": reply(record(A, b"\xc0\0\2\1", size=65535)),
    "another class": reply(record(A, b"\xc0\0\2\1", cls=3)),
    "a record of a meta type": reply(address(), record(255, b"")),
    "TSIG": reply(address(), additional=(record(250, bytes(40), cls=255),)),
    "a record of type 0": reply(address(), record(0, b"")),
    "a compressed question": reply(address(), qname=TO_QUESTION),
    "class CH asked for": reply(address(), cls=3),
    "ANY asked for": reply(address(), qtype=255),
    "AXFR": reply(soa(), address(), soa(), qtype=252),
    "two OPT": reply(address(), additional=(opt(), opt())),
    "OPT as an answer": reply(address(), opt()),
    "OPT in the authority": reply(address(), authority=(opt(),)),
    "OPT of a name": reply(address(), additional=(opt(owner=TO_QUESTION),)),
    "OPT of a whole name": reply(address(), additional=(opt(owner=name("a")),)),
    "NSID": reply(address(), additional=(opt(option(NSID, b"here")),)),
    "ECS": reply(address(), additional=(opt(option(ECS, b"\0\1\x18\x18\xc0\0\2")),)),
    "EDE": reply(address(), additional=(opt(option(15, b"\0\3")),)),
    "a cookie and EDE": reply(address(), additional=(opt(cookie(BOTH) + option(15, b"\0\3")),)),
    "a cookie without the server's": reply(address(), additional=(opt(cookie()),)),
    "a cookie of 41": reply(address(), additional=(opt(cookie(bytes(41))),)),
    "a cookie longer than OPT": reply(
        address(), additional=(opt(struct.pack("!HH", COOKIE, 40) + bytes(30)),)
    ),
    "a cookie in the middle": reply(address(), additional=(opt(cookie(BOTH)), address())),
    "a label of 64": reply(address(owner=b"\x40" + b"a" * 64 + b"\0")),
    "41 labels": reply(address(owner=b"\1a" * 40 + b"\0")),
}


def learned(bench: DNSBench, message: bytes, ttl: int = TTL, asked: int | None = None) -> Stored:
    """What dns_learn and dns.py agree on."""
    asked = returned(message) if asked is None else asked
    stored = bench.learned(message, ttl, asked)
    expected = reference.learn(message, ttl, asked)
    assert stored is not None
    assert expected is not None
    assert (stored.key, stored.ttl) == (expected.key, expected.ttl)
    assert stored.length == len(expected.reply)
    assert stored.stored[: stored.length] == blanked(expected)
    return stored


def blanked(expected: reference.Learned) -> bytes:
    """A reply with zeros where every request has its own."""
    stored = bytearray(expected.reply)
    stored[:2] = bytes(2)
    qname = expected.key[:-3]
    stored[12 : 12 + len(qname)] = bytes(len(qname))
    for offset, _ in expected.ttls:
        stored[offset : offset + 4] = bytes(4)
    return bytes(stored)


@pytest.mark.parametrize("row", KEPT.values(), ids=KEPT)
def test_kept(bench: DNSBench, row: Kept) -> None:
    stored = learned(bench, row.reply, asked=row.key[-1])
    assert (stored.key, stored.ttl) == (row.key, row.ttl)
    assert stored.length == len(row.reply)


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_refused(bench: DNSBench, message: bytes) -> None:
    """Whatever was asked."""
    for asked in range(ASKED_MAX):
        assert bench.learned(message, TTL, asked) is None
        assert reference.learn(message, TTL, asked) is None


SIGNED = {
    "an answer": reply(address(), record(RRSIG, SIGNATURE), additional=(opt(),)),
    "without EDNS": reply(address(), record(RRSIG, SIGNATURE)),
    "a denial": reply(authority=(soa(), record(RRSIG, SIGNATURE))),
}


@pytest.mark.parametrize("message", SIGNED.values(), ids=SIGNED)
def test_signatures_that_nobody_asked_for(bench: DNSBench, message: bytes) -> None:
    """Of a server that does not return DO they are kept where DO asked for them."""
    asked = RD_KEY | EDNS_KEY
    assert bench.learned(message, TTL, asked) is None
    assert reference.learn(message, TTL, asked) is None
    assert learned(bench, message, asked=asked | DO_KEY).key == key(asked | DO_KEY)


def test_the_longest_reply(bench: DNSBench) -> None:
    """Reply and notes together fill REPLY_MAX, and not more."""
    least = len(reply(*[text(b"")] * 6))
    room = (REPLY_MAX - 8 * 7) // 8 * 8
    for size, fits in ((room, True), (room + 1, False), (REPLY_MAX, False), (REPLY_MAX + 1, False)):
        more, words = divmod(size - least, 255)
        lengths = [255] * more + [words] + [0] * (5 - more)
        message = reply(*[text(b"x" * length) for length in lengths], qtype=TXT)
        assert len(message) == size
        if fits:
            assert len(learned(bench, message).stored) == REPLY_MAX
        else:
            assert bench.learned(message) is None
            assert reference.learn(message, TTL, RD_KEY) is None


@pytest.mark.parametrize("length", [REPLY_MAX + 1, REPLY_ROOM, REPLY_ROOM + 1, 3000, 65535])
def test_no_reply_longer_than_its_room(bench: DNSBench, length: int) -> None:
    head = reply(record(TXT, b"", size=length - len(reply(record(TXT, b"")))), qtype=TXT)
    message = head.ljust(length, b"x")
    assert bench.learned(message[:REPLY_ROOM], length=length) is None
    assert reference.learn(message, TTL, RD_KEY) is None


@pytest.mark.parametrize("size", range(16, 41))
def test_a_cookie_is_cut_off(bench: DNSBench, size: int) -> None:
    message = reply(address(), additional=(opt(cookie(b"\xaa" * size), ttl=DO),))
    stored = learned(bench, message).for_all()
    assert stored.length == len(message) - 4 - size
    assert b"\xaa" not in stored.stored
    again = query("WWW.example", ident=7, edns=opt(cookie(BOTH), ttl=DO))
    plain = reply(address(290), qname="WWW.example", ident=7, additional=(opt(ttl=DO),))
    assert bench.given(stored, again, 10) == plain


def test_every_byte_of_a_reply_counts(bench: DNSBench) -> None:
    """All values of every byte of some replies, as dns.py reads them."""
    kept = 0
    for message in (
        reply(address(owner=name("a.b")), qname="a.Bc", additional=(opt(cookie(BOTH)),)),
        reply(qname="a.Bc", authority=(soa(),), flags=QR | AA | NXDOMAIN),
    ):
        for at in range(len(message)):
            for value in range(256):
                changed = message[:at] + bytes([value]) + message[at + 1 :]
                kept += agree(bench, changed, returned(message) | CD_KEY)
    assert kept > 5000


def agree(bench: DNSBench, message: bytes, asked: int) -> bool:
    """dns.h and dns.py keep the same of a reply, or both nothing."""
    if reference.learn(message, TTL, asked) is None:
        assert bench.learned(message, TTL, asked) is None, message.hex()
        return False
    learned(bench, message, asked=asked)
    return True


FLAGS = [rd | cd | ad for rd in (0, RD) for cd in (0, CD) for ad in (0, AD)]
EDNS = {
    "none": (b"", ()),
    "EDNS": (opt(), (opt(),)),
    "DO": (opt(ttl=DO), (opt(ttl=DO),)),
    "cookie": (opt(cookie()), (opt(cookie(BOTH)),)),
    "DO and cookie": (opt(cookie(), ttl=DO), (opt(cookie(BOTH), ttl=DO),)),
}
OPTS = {"none": (), "EDNS": (opt(),), "DO": (opt(ttl=DO),)}


@pytest.mark.parametrize("edns", [b"".join(some) for some in OPTS.values()], ids=OPTS)
@pytest.mark.parametrize("flags", FLAGS)
def test_who_asks_the_same_gets_the_same(bench: DNSBench, flags: int, edns: bytes) -> None:
    """Whatever a server returns of what was asked, and whatever AD it sets: just that is given."""
    request = query("Www.Example", flags=flags, edns=edns, ident=9)
    wanted = bench.request(request)[1]
    assert wanted is not None
    given_ = 0
    for said in FLAGS:
        for echo in OPTS.values():
            message = reply(
                address(), qname="Www.Example", flags=QR | RA | said, additional=echo, ident=9
            )
            if returned(message) & ~wanted[-1]:
                assert bench.learned(message, TTL, wanted[-1]) is None
                assert reference.learn(message, TTL, wanted[-1]) is None
                continue
            stored = learned(bench, message, asked=wanted[-1])
            assert stored.key == wanted
            assert bench.given(stored, request, 0) == message
            given_ += 1
    opts = {b"": 1, opt(): 2, opt(ttl=DO): 3}[edns]
    assert given_ == opts * 2 ** (1 + bool(flags & RD) + bool(flags & CD))


def test_keys_differ(bench: DNSBench) -> None:
    """All that a request says makes another key; a cookie does not."""
    keys = [
        bench.request(query(flags=flags, edns=edns))[1]
        for flags in FLAGS
        for edns, _ in EDNS.values()
    ]
    assert len(set(keys)) == len(FLAGS) * len(OPTS)


@pytest.mark.parametrize("age", [0, 1, 299, 300, 301, 2**32 - 1])
@pytest.mark.parametrize("words", [b"even", b"odd"])
def test_ttls_are_counted_down(bench: DNSBench, age: int, words: bytes) -> None:
    message = reply(text(words), address(1000), text(words, ttl=0x01020304), qtype=TXT)
    stored = learned(bench, message)
    left = [max(0, ttl - age) for ttl in (300, 1000, 0x01020304)]
    expected = reply(
        text(words, left[0]), address(left[1]), text(words, left[2]), qtype=TXT, ident=0xFFFE
    )
    assert bench.given(stored, query(qtype=TXT, ident=0xFFFE), age) == expected


def test_an_soa_that_denies_lasts_no_longer_than_its_minimum(bench: DNSBench) -> None:
    message = reply(authority=(soa(ttl=600, minimum=60),))
    expected = reply(authority=(soa(ttl=59, minimum=60),))
    assert bench.given(learned(bench, message), query(), 1) == expected


@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 128, 252])
def test_the_clients_own_spelling(bench: DNSBench, length: int) -> None:
    wire = long_name(length)
    stored = learned(bench, reply(address(), text(), qname=wire)).for_all()
    mixed = bytes(c ^ (0x20 * (n % 2)) if c == ord("X") else c for n, c in enumerate(wire))
    expected = reply(address(200), text(ttl=200), qname=mixed, ident=0)
    assert bench.given(stored, query(mixed, ident=0), 100) == expected


SIZES = {
    "no EDNS": (b"", 512),
    "0": (opt(size=0), 512),
    "511": (opt(size=511), 512),
    "512": (opt(size=512), 512),
    "513": (opt(size=513), 513),
    "600": (opt(size=600), 600),
}


@pytest.mark.parametrize(("edns", "size"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("more", [0, 1])
def test_no_reply_is_longer_than_the_client_takes(
    bench: DNSBench, edns: bytes, size: int, more: int
) -> None:
    echo = (opt(),) if edns else ()
    first = (text(b"x" * 200), text(b"x" * 200))
    least = len(reply(*first, text(b""), qtype=TXT, additional=echo))
    message = reply(*first, text(b"x" * (size + more - least)), qtype=TXT, additional=echo)
    assert len(message) == size + more
    given = bench.given(learned(bench, message), query(qtype=TXT, edns=edns), 0)
    assert given == (None if more else message)


SPELLED = {
    # names that differ in letters alone, the last letters that count of the last label, and if so
    "the same": ("www.example", "www.example", True),
    "capitals": ("WWW.EXAMPLE", "WWW.EXAMPLE", True),
    "one capital": ("www.example", "wwW.example", False),
    "none of all": ("WWW.EXAMPLE", "www.example", False),
    "other capitals": ("Www.example", "wWw.example", False),
    "in the last label": ("www.exampLe", "www.examplE", False),
    "in the fifth word": (f"{'a' * 31}A.b", f"{'a' * 31}a.b", False),
    "in two words alike": (f"{'a' * 8}{'A' * 8}.b", f"{'A' * 8}{'a' * 8}.b", False),
    "the root": (".", ".", True),
    "no letters": ("1-2.3", "1-2.3", True),
}


@pytest.mark.parametrize(("one", "other", "same"), SPELLED.values(), ids=SPELLED)
def test_a_reply_is_for_its_own_spelling(bench: DNSBench, one: str, other: str, same: bool) -> None:
    """Until the server has said the same to another; then for any, as that spells it."""
    message, request = reply(address(), qname=one), query(other, ident=7)
    stored, what = learned(bench, message), reference.learn(message, TTL, RD_KEY)
    assert what is not None
    expected = reply(address(), qname=other, ident=7)
    assert bench.given(stored, query(one, ident=7), 0) == reply(address(), qname=one, ident=7)
    assert bench.given(stored, request, 0) == (expected if same else None)
    assert reference.answer(what, request, 0) == (expected if same else None)
    assert bench.given(stored.for_all(), request, 0) == expected
    assert reference.answer(what, request, 0, spelled=True) == expected


def spelling(bench: DNSBench, qname: str) -> tuple[int, int]:
    return learned(bench, reply(address(), qname=qname)).spelling


def test_spellings(bench: DNSBench) -> None:
    """No two of a name are alike; its last label's is a bit for each of the first seven letters."""
    plain = "www.example"
    forms = {
        "".join(c.upper() if bits >> n & 1 else c for n, c in enumerate(plain))
        for bits in range(2 ** len(plain))
    }
    assert len(forms) == 2**10
    assert len({spelling(bench, form) for form in forms}) == 2**10
    assert spelling(bench, plain) == (0, 0)
    assert spelling(bench, "WWW.example")[1] == 0
    assert len({spelling(bench, form)[1] for form in forms}) == 2**7
    assert spelling(bench, "a.abcdefgH")[1] == 0, "a tenth letter, say, does not tell"
    assert spelling(bench, "Abcd.a")[1] == spelling(bench, "ABCD.a")[1] == 0
    assert spelling(bench, "abcd.A")[1] != 0


POINTED = {
    "to the name": (address(), True),
    "into the name": (address(owner=b"\xc0\x10"), True),
    "to its root": (address(owner=b"\xc0\x18"), False),
    "behind it": (address(owner=b"\xc0\x19"), False),
    "before it": (address(owner=b"\xc0\x0b"), False),
    "far": (address(owner=b"\xc1\x0c"), False),
    "by a label and a pointer": (address(owner=b"\3www\xc0\x10"), False),
    "whole": (address(owner=WWW), False),
}


@pytest.mark.parametrize(("first", "points"), POINTED.values(), ids=POINTED)
def test_who_points_into_the_question(bench: DNSBench, first: bytes, points: bool) -> None:
    assert learned(bench, reply(first, address())).points == points
    assert learned(bench, reply(authority=(soa(owner=first[:-14]),))).points == points


def test_an_entry_that_makes_no_sense_is_not_given(bench: DNSBench) -> None:
    stored = learned(bench, reply(address(), text()))
    assert bench.given(stored, query(), 0) is not None
    for more in (-24, -16, -8, -1, 1, 8):
        assert bench.given(stored, query(), 0, size=len(stored.stored) + more) is None
    assert bench.given(stored._replace(length=stored.length - 8), query(), 0) is None


LABELS = st.binary(min_size=1, max_size=20)
RECORDS = st.one_of(
    st.builds(address, st.integers(1, 2**31 - 1)),
    st.builds(text, st.binary(max_size=30), st.integers(1, 2**31 - 1)),
    st.builds(
        lambda owner, ttl: record(CNAME, owner + b"\0", ttl=ttl, owner=owner + TO_QUESTION),
        LABELS.map(lambda label: bytes([len(label)]) + label),
        st.integers(1, 2**31 - 1),
    ),
)


@settings(max_examples=600)
@given(
    labels=st.lists(LABELS, max_size=6),
    records=st.lists(RECORDS, min_size=1, max_size=16),
    edns=st.sampled_from(list(EDNS.values())),
    flags=st.sampled_from(FLAGS),
    ident=st.integers(0, 2**16 - 1),
    age=st.integers(0, 2**32 - 1),
    swap=st.integers(0, 2**63),
)
def test_any_reply(
    bench: DNSBench,
    labels: list[bytes],
    records: list[bytes],
    edns: tuple[bytes, tuple[bytes, ...]],
    flags: int,
    ident: int,
    age: int,
    swap: int,
) -> None:
    """What is learned is given to another client as dns.py gives it, with the sum of its bytes."""
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    message = reply(*records, qname=wire, flags=QR | AA | flags, additional=edns[1])
    stored = learned(bench, message, asked=returned(message) | (AD_KEY if flags & AD else 0))
    other = bytes(
        c ^ 0x20 if chr(c).isascii() and chr(c).isalpha() and swap >> (n % 63) & 1 else c
        for n, c in enumerate(wire)
    )
    request = query(other, flags=flags, ident=ident, edns=edns[0])
    assert bench.request(request)[1] == stored.key
    what = reference.learn(message, TTL, stored.key[-1])
    assert what is not None
    assert bench.given(stored, request, age) == reference.answer(what, request, age)
    expected = reference.answer(what, request, age, spelled=True)
    assert bench.given(stored.for_all(), request, age) == expected


def mutations(seed: int, messages: list[bytes], count: int) -> Iterator[bytes]:
    """Messages with a few bytes changed, cut, doubled or put in."""
    rng = random.Random(seed)
    telling = [0, 1, 3, 12, 41, 46, 63, 64, 127, 128, 0xC0, 0xFF]

    def change(data: bytearray, at: int) -> None:
        data[at] = rng.choice(telling) if rng.random() < 0.5 else rng.randrange(256)

    def flip(data: bytearray, at: int) -> None:
        data[at] ^= 1 << rng.randrange(8)

    def cut(data: bytearray, at: int) -> None:
        del data[at : at + rng.randrange(1, 12)]

    def insert(data: bytearray, at: int) -> None:
        data[at:at] = rng.randbytes(rng.randrange(1, 12))

    def double(data: bytearray, at: int) -> None:
        data[at:at] = data[at : at + rng.randrange(1, 20)]

    def end(data: bytearray, at: int) -> None:
        del data[at:]

    actions: list[Callable[[bytearray, int], None]] = [cut, insert, double, end]
    actions += [*[change] * 4, *[flip] * 4]
    for _ in range(count):
        data = bytearray(rng.choice(messages))
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            if data:
                rng.choice(actions)(data, rng.randrange(len(data)))
        yield bytes(data)


def test_mutated_requests(bench: DNSBench) -> None:
    """dns.h and dns.py read the same, and what both read dnspython reads too."""
    messages = [row.request for row in READS.values()] + list(WRITES.values())
    read = 0
    for message in mutations(SEED, messages, 20000):
        if len(message) > 512:
            continue
        intent, found = bench.request(message)
        assert intent is reference.intent_of(message), message.hex()
        assert found == reference.key_of(message), message.hex()
        if intent is Intent.READ:
            read += 1
            parsed = dns.message.from_wire(message)
            (question,) = parsed.question
            assert found is not None
            assert found[:-3] == question.name.canonicalize().to_wire()
            assert found[-3:-1] == struct.pack("!H", question.rdtype)
    assert read > 3000


def test_mutated_replies(bench: DNSBench) -> None:
    """dns.h and dns.py keep the same, and give the same to who asks for it."""
    messages = [row.reply for row in KEPT.values()] + [
        reply(*[text(bytes(n), ttl=n + 1) for n in range(12)], qtype=TXT),
        reply(address(owner=WWW), additional=(opt(cookie(BOTH)),)),
    ]
    kept = given_ = 0
    for number, message in enumerate(mutations(SEED, messages, 20000)):
        asked = number % ASKED_MAX | RD_KEY | (EDNS_KEY if number & DO_KEY else 0)
        if len(message) > REPLY_MAX or not agree(bench, message, asked):
            continue
        kept += 1
        what, stored = reference.learn(message, TTL, asked), bench.learned(message, TTL, asked)
        assert what is not None
        assert stored is not None
        request = asks_for(what, number)
        assert bench.request(request) == (Intent.READ, what.key)
        answer = bench.given(stored.for_all(), request, number % 400)
        expected = reference.answer(what, request, number % 400, spelled=True)
        assert answer == expected, message.hex()
        own = bench.given(stored, request, number % 400)
        assert own == reference.answer(what, request, number % 400), message.hex()
        given_ += answer is not None
    assert kept > 5000
    assert given_ > 4000


def asks_for(what: reference.Learned, number: int) -> bytes:
    """A request with the key of what was learned, in capitals."""
    flags = what.key[-1]
    edns = opt(ttl=DO if flags & DO_KEY else 0, size=number % 2048) if flags & EDNS_KEY else b""
    return query(
        what.key[:-3].upper() if number % 2 else what.key[:-3],
        int.from_bytes(what.key[-3:-1]),
        flags=RD * bool(flags & RD_KEY) | CD * bool(flags & CD_KEY) | AD * bool(flags & AD_KEY),
        edns=edns,
        ident=number,
    )


def rrsets(
    message: dns.message.Message, age: int = 0
) -> list[tuple[int, str, int, frozenset[str], int]]:
    """Section, name, type, data and TTL of all records, in small letters."""
    return [
        (
            number,
            rrset.name.canonicalize().to_text(),
            rrset.rdtype,
            frozenset(rdata.to_text().lower() for rdata in rrset),
            rrset.ttl - age,
        )
        for number, section in enumerate(message.sections[1:])
        for rrset in section
    ]


def test_as_dnspython_reads_it(bench: DNSBench) -> None:
    """A reply by dnspython, given to another client: the same records, younger by `age`."""
    request = dns.message.make_query("www.Example.org", "MX", use_edns=0, payload=1400, id=3)
    response = dns.message.make_response(request, recursion_available=True)
    for section, words in (
        (response.answer, ("www.example.org.", 900, "IN", "MX", "10 a.example.org.", "20 b.org.")),
        (response.authority, ("example.org.", 800, "IN", "NS", "ns.example.org.", "ns.b.org.")),
        (response.additional, ("a.example.org.", 700, "IN", "A", "192.0.2.1", "192.0.2.2")),
        (response.additional, ("a.example.org.", 600, "IN", "AAAA", "2001:db8::1")),
    ):
        section.append(dns.rrset.from_text(*words))
    wire = response.to_wire()
    stored = bench.learned(wire)
    assert stored is not None
    assert stored.ttl == 600
    other = dns.message.make_query("wWW.example.oRG", "MX", use_edns=0, payload=1400, id=4)
    given_ = bench.given(stored.for_all(), other.to_wire(), 123)
    assert given_ is not None
    parsed = dns.message.from_wire(given_)
    assert parsed.id == 4
    assert parsed.question[0].to_text() == "wWW.example.oRG. IN MX"
    assert rrsets(parsed) == rrsets(response, 123)
    assert (parsed.flags, parsed.rcode()) == (response.flags, response.rcode())


COSTS = {
    "request": 50_000,
    "answer": 50_000,
    "cookie": 50_000,
    "returning": 10_000,
    "learned": 150_000,
}


@pytest.mark.parametrize(("program", "most"), COSTS.items())
def test_the_verifier_is_not_kept_long(bench: DNSBench, program: str, most: int) -> None:
    """The kernel follows a million instructions of a whole program."""
    assert 0 < bench.verified(program) < most
