# SPDX-License-Identifier: Apache-2.0
"""memcached.h against memcached.py on tables and fuzz, and what both say against memcached."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw, raw

from carom.kernel.abi import KEY_MAX, sum_of
from carom.protocols.memcached import SPEC
from carom.protocols.memcached.layers import MemcachedUDP
from carom.protocols.protocol import Intent, Request
from prog.memcached_binary import OPCODES, binary
from prog.memcached_commands import SEED, commands, datagram, replies, stale_bytes
from prog.protocol import PROGRAMS, Protocol
from reference import memcached
from reference.flights import Answer
from reference.memcached import understand

VERIFIED_MAX = 80_000
"""Instructions that the verifier may go through, of the million that it allows a program."""


@pytest.fixture(scope="module", params=[512, 2048], ids=lambda room: f"room-{room}")
def protocol(request: pytest.FixtureRequest) -> Iterator[Protocol]:
    with Protocol("memcached", (*PROGRAMS, "next"), room=request.param) as loaded:
        yield loaded


OTHER, ALL = Request(Intent.OTHER), Request(Intent.WRITE_ALL, quiet=True)
ASKING = Request(Intent.OTHER, either=True)
SEVERAL = Request(Intent.OTHER, several=True)


def get(key: bytes) -> Request:
    return Request(Intent.READ, b"g" + key)


def gets(key: bytes) -> Request:
    return Request(Intent.READ, b"s" + key)


def write(key: bytes, **bits: bool) -> Request:
    return Request(Intent.WRITE, b"\0" + key, **bits)


def line(key: bytes) -> Request:
    """One line that is not taken apart: acknowledged, or not."""
    return write(key, quiet=True, answers=True)


LONGEST = b"x" * 250
MEMCASLAP = bytes(range(0x10, 0x20)) + b"\x7f1RlYcZrZ"
"""Its keys begin with bytes that no key should have, and memcached takes."""
READS = {
    b"get k\r\n": get(b"k"),
    b"get k\n": get(b"k"),
    b"gets k\r\n": gets(b"k"),
    b"get gets\r\n": get(b"gets"),
    b"get " + LONGEST + b"\r\n": get(LONGEST),
    b"gets " + LONGEST + b"\n": gets(LONGEST),
    b"get \x80\xff\xc3\xbc\r\n": get(b"\x80\xff\xc3\xbc"),
    **{b"get %b\r\n" % (b"k" * n): get(b"k" * n) for n in range(1, 35)},
    **{
        b"get %b\r\n" % key: get(key)
        for key in (bytes(range(0x21, 0x80)), bytes(range(0x80, 0x100)), MEMCASLAP)
    },
}
NO_READS = {
    b"get k": OTHER,  # memcached waits for the line's end, and then drops it
    b"get k\r": OTHER,
    b"get k l\r\n": SEVERAL,
    b"get  k\r\n": SEVERAL,
    b"get k \r\n": SEVERAL,
    b"get \r\n": SEVERAL,
    b"get k\r\r\n": SEVERAL,
    b"get k\tl\r\n": SEVERAL,
    **{b"get k%c\r\n" % byte: SEVERAL for byte in range(0x10) if byte != ord("\n")},
    b"get k\0\r\n": SEVERAL,
    b"get " + LONGEST + b"x\r\n": SEVERAL,
    b"get k\r\nget k\r\n": ALL,
    b"get k\r\nset k 0 0 1\r\nx\r\n": ALL,
    b"get k\nx": ALL,
    b"get k\r\n\0": ALL,
    b"get k l\r\nflush_all\r\n": ALL,
    b"Get k\r\n": ALL,
    b"GET k\r\n": ALL,
    b" get k\r\n": ALL,
    b"get\r\n": ALL,
    b"getk\r\n": ALL,
    b"get\tk\r\n": ALL,
    b"bget k\r\n": ALL,
    b"getss k\r\n": ALL,
    b"g": OTHER,
    b"": OTHER,
    b"\n": ALL,
}
WRITES = {
    **{
        b"%b k 0 0 1\r\nx\r\n" % word: write(b"k")
        for word in (b"set", b"add", b"replace", b"append", b"prepend")
    },
    b"cas k 0 0 1 7\r\nx\r\n": write(b"k"),
    b"cas k 0 0 1 7 noreply\r\nx\r\n": write(b"k", quiet=True),
    b"cas k 0 0 1 1234567890123456789\r\nx\r\n": write(b"k"),
    b"set k 0 0 1 noreply\r\nx\r\n": write(b"k", quiet=True),
    b"set k 0 0 1\nx\r\n": write(b"k"),
    b"set noreply 0 0 1\r\nx\r\n": write(b"noreply"),
    b"set %b 0 0 1\r\nx\r\n" % MEMCASLAP: write(MEMCASLAP),
    b"set k 4294967295 2147483647 0\r\n\r\n": write(b"k"),
    b"set k 0 -2147483647 12\r\nflush_all\r\nx\r\n": write(b"k"),
    b"set " + LONGEST + b" 0 0 1\r\nx\r\n": write(LONGEST),
    b"set k 0 0 3000\r\n" + b"y" * 3000 + b"\r\n": write(b"k"),
    b"delete k\r\n": write(b"k"),
    b"delete k\n": write(b"k"),
    b"delete k 0\r\n": write(b"k"),
    b"delete k noreply\r\n": write(b"k", quiet=True),
    b"delete k 0 noreply\r\n": write(b"k", quiet=True),
    b"delete k 0 \r\n": line(b"k"),
    b"delete k norepl\r\n": line(b"k"),
    b"delete k noreply \r\n": line(b"k"),
    b"incr k 12\r\n": write(b"k"),
    b"decr k 1 noreply\r\n": write(b"k", quiet=True),
    b"touch k 100\r\n": write(b"k"),
    b"incr k 1 \r\n": line(b"k"),
    b"touch k -1\r\n": write(b"k"),
    b"touch k 100 noreply\r\n": write(b"k", quiet=True),
    b"touch k -1 noreply\n": write(b"k", quiet=True),
    b"touch k --1\r\n": line(b"k"),
    b"gat 10 k\r\n": write(b"k", answers=True),
    b"gats -1 k\r\n": write(b"k", answers=True),
    b"ms k 1\r\nx\r\n": write(b"k"),
    b"ms k 1 q\r\nx\r\n": write(b"k", quiet=True),
    b"ms k 1 T90 F5 MA c\r\nx\r\n": write(b"k"),
    b"ms b 1 Oq\r\nx\r\n": write(b"b"),
    b"md k\r\n": write(b"k"),
    b"md k q I T30\r\n": write(b"k", quiet=True),
    b"md k \r\n": write(b"k"),
    b"ma k N0 J13 D7 v\r\n": write(b"k"),
    b"mg k N30 v\r\n": write(b"k"),
    b"mg k v T30 q\r\n": write(b"k", either=True, quiet=True, answers=True),
    b"mg k E99\r\n": write(b"k"),
    b"mg k P\r\n": write(b"k"),
}
ALL_OR_NONE = {
    b"set k 0 0 1": OTHER,
    b"set k 0 0 1\r\n": ALL,
    b"set k 0 0 1\r\nx\r": ALL,
    b"set k 0 0 2\r\nx\r\n": ALL,
    b"set k 0 0 1\r\nxy\r\n": ALL,
    b"set k 0 0 1\r\nx\r\nset l 0 0 1\r\nx\r\n": ALL,
    b"set k x 0 9\r\nflush_all\r\n": ALL,
    b"set k 4294967296 0 1\r\nx\r\n": ALL,
    b"set k 0 2147483648 1\r\nx\r\n": ALL,
    b"set k 0 0 01234567890\r\nx\r\n": ALL,
    b"set k -1 0 1\r\nx\r\n": ALL,
    b"set k 0 - 1\r\nx\r\n": ALL,
    b"set k 0 0 -1\r\nx\r\n": ALL,
    b"set k 0 0 1 7\r\nx\r\n": ALL,
    b"set k 0 0 1 noreplyx\r\nx\r\n": ALL,
    b"set k 0 0 1 noreply \r\nx\r\n": ALL,
    b"set k  0 0 1\r\nx\r\n": ALL,
    b"set  k 0 0 1\r\nx\r\n": ALL,
    b"set k\t 0 0 1\r\nx\r\n": ALL,
    b"set k 0 0 1\r\r\nx\r\n": ALL,
    b"set " + LONGEST + b"x 0 0 1\r\nx\r\n": ALL,
    b"cas k 0 0 1\r\nx\r\n": ALL,
    b"cas k 0 0 1 x\r\nx\r\n": ALL,
    b"cas k 0 0 1 12345678901234567890\r\nx\r\n": ALL,
    b"delete\r\n": ALL,
    b"delete  k\r\n": ALL,
    b"delete k\tl\r\n": ALL,
    b"delete k\rl\r\n": ALL,
    b"delete k\r\ndelete l\r\n": ALL,
    b"incr k 1\r\nx": ALL,
    b"gat 10 k l\r\n": ALL,
    b"gat k\r\n": ALL,
    b"gat 10\r\n": ALL,
    b"gat x k\r\n": ALL,
    b"gats 10 k\r\nx": ALL,
    b"ms k\r\n": ALL,
    b"ms k S1\r\nx\r\n": ALL,
    b"ms k 1 b\r\nx\r\n": ALL,
    b"ms k 1x\r\nx\r\n": ALL,
    b"ms k 2\r\nx\r\n": ALL,
    b"ms k 1 c c\r\nx\r\n": ALL,
    b"ms k 1 " + b" ".join(b"%c" % c for c in b"acdefghijklmnopqr") + b"\r\nx\r\n": ALL,
    b"ms k 1 O" + b"o" * 70 + b"\r\nx\r\n": ALL,
    b"md aw== b\r\n": ALL,
    b"ma aw== q bbb\r\n": ALL,
    b"mg aw== b v N1\r\n": ALL,
    b"mg k v\r\nmd k\r\n": ALL,
    b"mg\r\n": ALL,
    b"mx k\r\n": ALL,
    b"flush_all\r\n": ALL,
    b"flush_all 10 noreply\r\n": ALL,
    b"cache_memlimit 64\r\n": ALL,
    b"slabs reassign 1 2\r\n": ALL,
    b"lru tune 1 2 3\r\n": ALL,
    b"lru_crawler crawl all\r\n": ALL,
    b"shutdown\r\n": ALL,
    b"refresh_certs\r\n": ALL,
    b"version\r\nx\n": ALL,
    b"versions\r\n": ALL,
    b"mnx\r\n": ALL,
    b"verbosit\r\n": ALL,
    b"verbosityx 1\r\n": ALL,
}
OTHERS = {
    b"version\r\n": OTHER,
    b"stats\r\n": OTHER,
    b"stats reset\r\n": OTHER,
    b"verbosity 1\r\n": ASKING,
    b"stats detail on\r\n": ASKING,
    b"mg aw== b v\r\n": ASKING,
    b"mn\r\n": OTHER,
    b"me k\r\n": ASKING,
    b"mg k\r\n": ASKING,
    b"mg k s v t f c q k O123 h l u\r\n": ASKING,
    b"unknown": OTHER,
}
BINARY = {
    b"\x80": ALL,
    b"\x80\n": ALL,
    **{binary(opcode, b"k"): ALL for opcode in OPCODES},
    b"\x80\0" + bytes(22): ALL,
    b"\x81\0\n": ALL,
}
TABLE = [*(READS | NO_READS | WRITES | ALL_OR_NONE | OTHERS | BINARY).items()]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[repr(text)[:50] for text, _ in TABLE])
def test_commands(protocol: Protocol, text: bytes, expected: Request) -> None:
    assert understand(datagram(text), protocol.room) == expected
    assert protocol.understand(datagram(text)) == expected


LASTING = {
    **{
        b"%b k 0 %b 1\r\nx\r\n" % (word, exptime): not int(exptime)
        for word in (b"set", b"add", b"replace", b"append", b"prepend")
        for exptime in (b"0", b"-0", b"00", b"1", b"-1", b"2592001", b"2147483647")
    },
    b"cas k 0 0 1 7\r\nx\r\n": True,
    b"cas k 7 10 1 0\r\nx\r\n": False,
    b"set k 7 0 1 noreply\r\nx\r\n": True,
    b"delete k\r\n": True,
    b"delete k 0 noreply\r\n": True,
    b"incr k 12\r\n": True,
    b"decr k 1 noreply\r\n": True,
    b"touch k 0\r\n": False,
    b"touch k 100\r\n": False,
    b"touch k -1\r\n": False,
    b"gat 0 k\r\n": False,
    b"gats 10 k\r\n": False,
    b"ms k 1\r\nx\r\n": True,
    b"ms k 1 c C7 F5 MA q S1\r\nx\r\n": True,
    b"ms k 1 T0\r\nx\r\n": False,
    b"ms k 1 MA N30\r\nx\r\n": False,
    b"ms k 1 I\r\nx\r\n": False,
    b"md k q\r\n": True,
    b"md k I\r\n": False,
    b"md k I T30\r\n": False,
    b"md k x\r\n": False,
    b"ma k MD D7 v\r\n": True,
    b"ma k N0 J13\r\n": False,
    b"ma k T30\r\n": False,
    b"mg k N30 v\r\n": False,
    b"mg k T30\r\n": False,
    b"mg k R30\r\n": False,
    b"mg k E99\r\n": False,
    b"get k\r\n": False,
    b"flush_all\r\n": False,
    b"flush_all 10\r\n": False,
    b"set k 0 0 1\r\nx\r\nset l 0 9 1\r\nx\r\n": False,
}


@pytest.mark.parametrize(("text", "lasting"), LASTING.items(), ids=map(repr, LASTING))
def test_writes_that_give_no_end(protocol: Protocol, text: bytes, lasting: bool) -> None:
    assert memcached.lasts(datagram(text), protocol.room) == lasting
    protocol.understand(datagram(text))
    assert protocol.lasts == lasting


HEADERS = [
    ({"sequence": 1}, OTHER, ALL),
    ({"sequence": 256}, OTHER, ALL),
    ({"reserved": 1}, get(b"k"), write(b"k")),
    ({"reserved": 0x8000}, get(b"k"), write(b"k")),
    ({"total": 0}, OTHER, OTHER),
    ({"total": 2}, OTHER, OTHER),
    ({"total": 257}, OTHER, OTHER),
    ({"request_id": 0xFFFF}, get(b"k"), write(b"k")),
]


@pytest.mark.parametrize("fields", [{"sequence": 1}, {"total": 0}, {"total": 2}])
def test_several_keys_in_a_part_of_a_message(protocol: Protocol, fields: dict[str, int]) -> None:
    text = datagram(b"get k l\r\n", **fields)
    assert understand(text) == protocol.understand(text) == OTHER


@pytest.mark.parametrize(("fields", "read", "written"), HEADERS)
def test_frame_headers(
    protocol: Protocol, fields: dict[str, int], read: Request, written: Request
) -> None:
    for text, expected in ((b"get k\r\n", read), (b"delete k\r\n", written), (b"mn\r\n", OTHER)):
        assert understand(datagram(text, **fields)) == expected
        assert protocol.understand(datagram(text, **fields)) == expected


@pytest.mark.parametrize("length", range(9))
def test_datagrams_without_a_command(protocol: Protocol, length: int) -> None:
    assert understand(datagram(b"")[:length]) == OTHER
    assert protocol.understand(datagram(b"")[:length], lambda n: b"\x80".ljust(n)) == OTHER
    assert protocol.understand(datagram(b"")[:length], lambda n: b"get k\r\n".ljust(n)) == OTHER


SEVERAL_KEYS = {
    b"k l": [b"k", b"l"],
    b"k k": [b"k", b"k"],
    b"%b %b" % (LONGEST[:240], LONGEST): [LONGEST[:240], LONGEST],
    b" ".join(b"%d" % n for n in range(60)): [b"%d" % n for n in range(60)],
    b"k %b" % MEMCASLAP: [b"k", MEMCASLAP],
    b"k  l": None,
    b" k l": None,
    b"k l ": None,
    b"k l\t": None,
    b"k\0 l": None,
    b"k %bx" % LONGEST: None,
    b"%bx k" % LONGEST: None,
}


@pytest.mark.parametrize("names", SEVERAL_KEYS, ids=lambda names: repr(names)[:30])
@pytest.mark.parametrize(("command", "kind"), [(b"get", b"g"), (b"gets", b"s")])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_several_keys(
    protocol: Protocol, names: bytes, command: bytes, kind: bytes, end: bytes
) -> None:
    request, keys = datagram(b"%b %b%b" % (command, names, end)), SEVERAL_KEYS[names]
    expected = None if keys is None or len(request) > 510 else [kind + key for key in keys]
    assert memcached.several(request) == expected
    assert protocol.understand(request) == SEVERAL
    assert protocol.several(request) == expected


def test_long_gets_are_seen_as_far_as_there_is_room(protocol: Protocol) -> None:
    request = datagram(b"get " + b" ".join(b"key-%d" % n for n in range(100)) + b"\r\n")
    expected = SEVERAL if protocol.room > len(request) else ALL
    assert understand(request, protocol.room) == expected
    assert protocol.understand(request) == expected


def test_requests_as_the_model_has_them(protocol: Protocol) -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    endings: Counter[tuple[Intent, bool]] = Counter()
    for request in commands(rng, 12_000):
        expected = understand(request, protocol.room)
        found = protocol.understand(request, stale_bytes(rng))
        assert found == expected, request
        bits = ("quiet", "unsure", "answers")
        told = [bit for bit in bits if getattr(expected, bit)]
        if expected.several:
            keys = memcached.several(request)
            assert protocol.several(request, stale_bytes(rng)) == keys, request
            told.append("several plain" if keys else "several")
        seen[" ".join([expected.intent.name, *told])] += 1
        lasting = memcached.lasts(request, protocol.room)
        assert protocol.lasts == lasting, request
        endings[expected.intent, lasting] += 1
    assert min(endings[Intent.WRITE, lasting] for lasting in (False, True)) > 300, endings
    kinds = [
        "OTHER",
        "OTHER several plain",
        "READ",
        "WRITE",
        "WRITE quiet",
        "WRITE quiet answers",
        "WRITE answers",
        "WRITE_ALL quiet",
    ]
    assert all(seen[kind] > 300 for kind in kinds), seen
    assert all(seen[kind] > 50 for kind in ("WRITE quiet", "OTHER several")), seen


ACKNOWLEDGE = {
    Answer.READ: [
        b"END\r\n",
        b"VALUE k 0 1\r\nx\r\nEND\r\n",
        b"VALUE STORED 0 0\r\n\r\nEND\r\n",
    ],
    Answer.WRITTEN: [
        b"STORED\r\n",
        b"DELETED\r\n",
        b"TOUCHED\r\n",
        b"0\r\n",
        b"18446744073709551615\r\n",
        b"STORED\r\nEND\r\n",
        b"ERROR\r\nSTORED\r\n",
        b"NOT_FOUND\r\nDELETED\r\n",
        b"CLIENT_ERROR without an end",
        b"CLIENT_ERROR " + b"x" * 1460 + b"\r\n",
        b"\x81\1" + bytes(22),
        b"a word of a later version\r\n",
        b"ERRORS\r\n",
        b"\0",
    ],
    Answer.REFUSED: [
        b"NOT_FOUND\r\n",
        b"NOT_STORED\r\n",
        b"EXISTS\r\n",
        b"NF\r\n",
        b"NS\r\n",
        b"EX\r\n",
    ],
    Answer.ERROR: [
        b"ERROR\r\n",
        b"CLIENT_ERROR bad command line format\r\n",
        b"ERROR: shutdown not enabled\r\n",
        b"ERROR hot and warm pcts must not exceed 80\r\n",
    ],
    Answer.PART: [
        b"VERSION 1.6.18\r\n",
        b"STAT pid 1\r\n",
        b"MN\r\n",
        b"ITEM k [1 b; 0 s]\r\n",
        b"PREFIX k get 1 hit 1 set 0 del 0\r\n",
    ],
    Answer.OTHER: [
        b"",
        b"SERVER_ERROR out of memory storing object\r\n",
        b"VERSION 1.6.18\r\nSTORED\r\n",
        b"ITEM k [1 b; 0 s]\r\nEND\r\n",
        b"\x81\0" + bytes(22),
        b"\x81\1" + bytes(4) + b"\0\1" + bytes(16),
    ],
    Answer.EITHER: [
        b"VA 1 k\r\nx\r\n",
        b"EN\r\n",
        b"HD\r\n",
        b"HD c5\r\n",
        b"OK\r\n",
        b"ME k exp=-1 la=1 cas=1 fetch=no cls=1 size=63\r\n",
    ],
}
"""What a server's texts say of writes."""


@pytest.mark.parametrize(
    ("answer", "text"),
    [(answer, text) for answer, texts in ACKNOWLEDGE.items() for text in texts],
    ids=lambda value: repr(value)[:40],
)
def test_acknowledges(protocol: Protocol, answer: Answer, text: bytes) -> None:
    assert protocol.what_answer(datagram(text)) is answer
    assert protocol.what_answer(datagram(text), lambda n: b"\r\n".ljust(n, b"\n")) is answer


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [({"sequence": 1}, Answer.PART), ({"total": 2}, Answer.WRITTEN), ({}, Answer.REFUSED)],
)
def test_a_part_of_a_reply_refuses_nothing(
    protocol: Protocol, fields: dict[str, int], refusal: Answer
) -> None:
    assert protocol.what_answer(datagram(b"NOT_FOUND\r\n", **fields)) is refusal


LEARNED = {
    b"VALUE k 0 1\r\nx\r\nEND\r\n": b"gk",
    b"VALUE k 0 1 17\r\nx\r\nEND\r\n": b"sk",
    b"VALUE k 0 0\r\n\r\nEND\r\n": b"gk",
    b"VALUE k 4294967295 7\r\n\r\nEND\r\n\r\nEND\r\n": b"gk",
    b"VALUE k 0 1 18446744073709551615\r\nx\r\nEND\r\n": b"sk",
    b"VALUE " + LONGEST + b" 0 1 9\r\nx\r\nEND\r\n": b"s" + LONGEST,
    b"VALUE k 0 1400\r\n" + bytes(1400) + b"\r\nEND\r\n": b"gk",
}
NOT_LEARNED = [
    b"",
    b"END\r\n",
    b"VALUE",
    b"VALUE  0 1\r\nx\r\nEND\r\n",
    b"VALUE k 0 1\r\nx\r\nEND\r\n\r\n",
    b"VALUE k 0 1\r\nx\r\nEND\r",
    b"VALUE k 0 1\r\nx\r\nEND\n",
    b"VALUE k 0 1\nx\r\nEND\r\n",
    b"VALUE k 0 2\r\nx\r\nEND\r\n",
    b"VALUE k 0 1\r\nxx\r\nEND\r\n",
    b"VALUE k 0 1\r\nx\r\n",
    b"VALUE k 0 1\r\nx\r\nVALUE l 0 1\r\nx\r\nEND\r\n",
    b"VALUE k 0\r\nx\r\nEND\r\n",
    b"VALUE k 0 x\r\nx\r\nEND\r\n",
    b"VALUE k 0 1 \r\nx\r\nEND\r\n",
    b"VALUE k 0 1 x\r\nx\r\nEND\r\n",
    b"VALUE k 0 1 1 1\r\nx\r\nEND\r\n",
    b"VALUE k 0 1 123456789012345678901\r\nx\r\nEND\r\n",
    b"VALUE k\t 0 1\r\nx\r\nEND\r\n",
    b"VALUE " + LONGEST + b"x 0 1\r\nx\r\nEND\r\n",
    b"VALUE k 0 1450\r\n" + bytes(1450) + b"\r\nEND\r\n",  # longer than a reply may be
    b"VALUX k 0 1\r\nx\r\nEND\r\n",
    b"VA 1 k\r\nx\r\n",
    b"STORED\r\n",
]


@pytest.mark.parametrize(("text", "key"), LEARNED.items(), ids=lambda value: repr(value)[:40])
def test_learns(protocol: Protocol, text: bytes, key: bytes) -> None:
    reply = datagram(text, request_id=0x1234)
    expected = (key, datagram(text, request_id=0))
    assert memcached.learn(reply) == expected
    assert protocol.learn(reply) == expected


@pytest.mark.parametrize("text", NOT_LEARNED, ids=lambda text: repr(text)[:40])
def test_does_not_learn(protocol: Protocol, text: bytes) -> None:
    assert memcached.learn(datagram(text)) is None
    assert protocol.learn(datagram(text)) is None


@pytest.mark.parametrize(
    "fields",
    [{"sequence": 1}, {"total": 0}, {"total": 2}, {"total": 257}, {"reserved": 1}],
    ids=str,
)
def test_does_not_learn_parts(protocol: Protocol, fields: dict[str, int]) -> None:
    reply = datagram(b"VALUE k 0 1\r\nx\r\nEND\r\n", **fields)
    assert memcached.learn(reply) is None
    assert protocol.learn(reply) is None


def test_replies_as_the_model_has_them(protocol: Protocol) -> None:
    rng = random.Random(SEED)
    learned = 0
    for reply in replies(rng, 6_000):
        expected = memcached.learn(reply)
        assert protocol.learn(reply, stale_bytes(rng)) == expected, reply
        learned += expected is not None
    assert 1_500 < learned < 5_000


@pytest.mark.parametrize("request_id", [0, 1, 0x1234, 0xFFFF])
def test_answers_with_the_requests_id(protocol: Protocol, request_id: int) -> None:
    text = b"VALUE k 0 3\r\nabc\r\nEND\r\n"
    request = datagram(b"get k\r\n", request_id=request_id)
    stored = datagram(text, request_id=0)
    expected = datagram(text, request_id=request_id)
    assert memcached.answer(stored, request) == expected
    found = protocol.answer(stored, request)
    assert found is not None
    reply, added = found
    assert reply == expected
    assert (sum_of(stored) + added) % 0xFFFF == sum_of(reply)


@pytest.mark.parametrize("length", [*range(1, 70), *range(245, KEY_MAX + 1)])
def test_slots(protocol: Protocol, length: int) -> None:
    rng = random.Random(length)
    for key in (rng.randbytes(length), b"\xff" * length, bytes(length - 1) + b"\1", bytes(length)):
        assert protocol.slot(key) == protocol.hashes.slot_of(key)


def test_a_write_names_the_slot_of_both_reads(protocol: Protocol) -> None:
    requests = (b"get key\r\n", b"gets key\r\n", b"delete key\r\n")
    keys = [protocol.understand(datagram(text)).key for text in requests]
    assert len(set(keys)) == 3
    assert {SPEC.slot_key_of(key) for key in keys} == {b"key"}
    assert memcached.key_of(datagram(requests[0])) == keys[0]
    assert memcached.key_of(datagram(requests[2])) is None
    assert memcached.intent_of(datagram(requests[2])) is Intent.WRITE
    assert memcached.is_quiet(datagram(b"delete key noreply\r\n"))


def test_the_frame_header_on_memcacheds_port() -> None:
    frame = raw(IP() / UDP(dport=11211) / MemcachedUDP(request_id=0x1234) / Raw(b"get k\r\n"))
    assert frame[28:] == b"\x12\x34\0\0\0\1\0\0get k\r\n"
    assert IP(frame)[MemcachedUDP].request_id == 0x1234


@pytest.mark.parametrize("program", PROGRAMS)
def test_cost_of_verifying(protocol: Protocol, program: str) -> None:
    assert protocol.verified(program) < VERIFIED_MAX
