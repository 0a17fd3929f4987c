# SPDX-License-Identifier: Apache-2.0
"""memcached_stream.h against a model that has all of a connection's bytes at hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from carom.protocols.protocol import Intent, Request
from prog.memcached_binary import binary
from prog.memcached_commands import SEED
from prog.memcached_stream import CELLS, DOUBT, LOST, QUIET_DOUBT, STEPS, Connection, Model, streams
from prog.test_verified import leeway

VERIFIED_MAX = 75_000
"""Instructions that the verifier may go through for one step."""


@pytest.fixture(scope="module", params=[512, 2048], ids=lambda room: f"room-{room}")
def room(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def loaded(room: int) -> Iterator[Connection]:
    with Connection(room) as connection:
        yield connection


@pytest.fixture
def connection(loaded: Connection) -> Connection:
    loaded.begin()
    return loaded


def write(key: bytes, **bits: bool) -> Request:
    return Request(Intent.WRITE, b"\0" + key, **bits)


SET = b"set k 0 0 5\r\nhello\r\n"
BINARY_SET = binary(0x01, b"k", b"hello")
BINARY_HEAD = len(binary(0x01, b"k"))
LINE_OF_READS = b"get " + b" ".join(b"key-%d" % n for n in range(300)) + b"\r\n"
TABLE: dict[str, tuple[list[bytes], list[Request], bool]] = {
    "one": ([SET], [write(b"k")], False),
    "byte by byte": ([SET[n : n + 1] for n in range(len(SET))], [write(b"k")], False),
    "pipeline": (
        [b"get a\r\n" + SET + b"delete l\r\nincr m 1\r\n" * 5],
        [write(b"k"), *[write(b"l"), write(b"m")] * 5],
        False,
    ),
    "value over segments": (
        [
            b"set k 0 0 6000\r\n" + b"y" * 1000,
            b"\nset z 0 0 1\r\n" * 250,
            b"y" * 1500,
            b"\r",
            b"\nmd l q\r\n",
        ],
        [write(b"k"), write(b"l", quiet=True)],
        False,
    ),
    "commands in a value": (
        [b"set k 0 0 11\r\nflush_all\r\n\r\ndelete l\r\n"],
        [write(b"k"), write(b"l")],
        False,
    ),
    "line cut before its end": (
        [b"delete k\r", b"\ndelete l\r\n"],
        [write(b"k"), write(b"l")],
        False,
    ),
    "word cut": ([b"dele", b"te ", b"k\r\n"], [write(b"k")], False),
    "long get": ([LINE_OF_READS[:900], LINE_OF_READS[900:] + SET], [write(b"k")], False),
    "get without an end": (
        [b"get k", b" flush_all", b"\r\nmd l\n"],
        [write(b"l")],
        False,
    ),
    "gat of several": ([b"gat 0 k l\r\nmd m\r\n"], [QUIET_DOUBT, write(b"m")], False),
    "a key in base64": ([b"ms aw== 3 b\r\nabc\r\nmd m\r\n"], [LOST, write(b"m")], False),
    "a key in base64, its flags wrong": ([b"md aw== b b\r\n"], [QUIET_DOUBT], False),
    "almost a flush": ([b"flush_allx\r\n"], [QUIET_DOUBT], False),
    "flush": ([b"flush_all\r\nmd m\r\n"], [LOST, write(b"m")], False),
    "several of a kind": ([b"mg k v\r\nmn\r\nversion\r\nget k l\r\n"], [], False),
    "no value": ([b"set k 0 0 0\r\n\r\nmd l\r\n"], [write(b"k"), write(b"l")], False),
    "quit": ([SET + b"qu", b"it\r\n", b"quit\n"], [write(b"k")], False),
    "more than quit": ([b"quits\r\n"], [DOUBT], False),
    "unknown": ([b"unheard of\r\nmd l\r\n"], [DOUBT, write(b"l")], False),
    "not a key": (
        [b"delete  k noreply\r\ndelete \r\ngat 10\r\ngat  0 k\r\nset\r\nmd l\r\n"],
        [QUIET_DOUBT] * 4 + [DOUBT, write(b"l")],
        False,
    ),
    "a space before": ([SET, b" set k 0 0 14\r\nset l 0 0 99\r\n\r\n"], [write(b"k"), LOST], True),
    "not taken apart": (
        [b"touch k - 1\r\ndelete k no\r\n"],
        [write(b"k", quiet=True, answers=True)] * 2,
        False,
    ),
    # The opcode is a line's end: two lines.
    "a reply": ([b"\x81" + binary(0x0A)[1:] + b"\n"], [DOUBT, DOUBT], False),
    "binary behind text": ([SET, binary(0x0A) + b"\n"], [write(b"k"), DOUBT, DOUBT], False),
    "text behind binary": ([binary(0x0A), SET], [LOST], True),
    "refused store": ([b"set k x 0 5\r\nhello\r\n"], [LOST], True),
    "value too long": ([b"set k 0 0 5\r\nhello!\r\nmd l\r\n"], [write(b"k"), LOST], True),
    "value too short": ([b"set k 0 0 5\r\nhell\r\nmd l\r\n"], [write(b"k"), LOST], True),
    "value over segments too short": (
        [b"set k 0 0 5\r\n", b"hell\r\n\n"],
        [write(b"k"), LOST],
        True,
    ),
    **{
        f"line's ends in a value, {key.decode()}": (
            [b"set %b 0 0 2400\r\n" % key + b"\r\n" * 1200 + b"xx"],
            [write(key), LOST],
            True,
        )
        for key in (b"k", b"kk")
    },
    **{
        f"value of which nothing is there, {key.decode()}": (
            [b"set %b 0 0 30\r\nab" % key, b"c" * 28 + b"\r\nmd l\r\n"],
            [write(key), write(b"l")],
            False,
        )
        for key in (b"k", b"kk")
    },
    "binary": ([BINARY_SET], [write(b"k")], False),
    "binary byte by byte": (
        [BINARY_SET[n : n + 1] for n in range(len(BINARY_SET))],
        [write(b"k")],
        False,
    ),
    "binary pipeline": (
        [binary(0x00, b"a") + BINARY_SET + binary(0x04, b"l") + binary(0x05, b"m") * 5],
        [write(b"k"), write(b"l"), *[write(b"m")] * 5],
        False,
    ),
    "binary value over segments": (
        [
            binary(0x01, b"k", b"y" * 6000)[:1000],
            binary(0x08) * 50,
            b"y" * (6000 - 1000 + BINARY_HEAD - 50 * len(binary(0x08))) + binary(0x14, b"l"),
        ],
        [write(b"k"), write(b"l", quiet=True)],
        False,
    ),
    "binary requests and lines in a value": (
        [binary(0x11, b"k", b"\r\nflush_all\r\n" + binary(0x08) + b"\n") + binary(0x1C, b"l")],
        [write(b"k", quiet=True), write(b"l")],
        False,
    ),
    "any bytes in a key": (
        [binary(0x02, bytes(range(250)), b"x") + binary(0x04, b"\r\n")],
        [write(bytes(range(250))), write(b"\r\n")],
        False,
    ),
    **{
        f"binary key of {size}": (
            [binary(0x06, b"k" * size)[:cut], binary(0x06, b"k" * size)[cut:]],
            [write(b"k" * size)],
            False,
        )
        for size in (1, 7, 8, 9, 200, 250)
        for cut in (23, 24, 25, 44)
    },
    "binary flush": ([binary(0x08) + binary(0x04, b"m")], [LOST, write(b"m")], False),
    "binary flush later": (
        [binary(0x18, extras=4) + binary(0x04, b"m")],
        [LOST, write(b"m")],
        False,
    ),
    **{
        f"binary {opcode:#x} reads": ([binary(opcode, key) + BINARY_SET], [write(b"k")], False)
        for key, opcodes in (
            (b"k", b"\x00\x09\x0c\x0d\x10\x21\x22"),
            (b"", b"\x07\x17\x0a\x0b\x20"),
        )
        for opcode in opcodes
    },
    "binary sasl": ([binary(0x21, b"PLAIN", b"\0u\0p") + BINARY_SET], [write(b"k")], False),
    **{
        f"improper: {what}": ([request + BINARY_SET], [LOST], True)
        for what, request in {
            "value of a get": binary(0x00, b"k", b"v"),
            "value of a delete": binary(0x04, b"k", b"v"),
            "get without a key": binary(0x00),
            "set without a key": binary(0x01, b"", b"v"),
            "key of a noop": binary(0x0A, b"k"),
            "key too long": binary(0x01, b"k" * 251, b"v"),
            "extras of a get": binary(0x00, b"k", extras=4),
            "extras of a set": binary(0x01, b"k", b"v", extras=4),
            "extras of a flush": binary(0x08, extras=8),
            "body too short": binary(0x01, b"k", b"v", body_length=8),
            "body of no server": binary(0x01, b"k", b"v", body_length=2**30 + 10),
            "verbosity": binary(0x1B, extras=4),
            "unknown": binary(0x25),
            "unknown by 64": binary(0x41, b"k", b"v", extras=8),
        }.items()
    },
    "binary key cut too late to hold": (
        [binary(0x06, b"k" * 250)[:-1], binary(0x06, b"k" * 250)[-1:]],
        [LOST],
        True,
    ),
    "line too long to hold": ([b"set " + b"k" * 260], [LOST], True),
    "line just held": ([b"md k" + b" " * 252, b"\r\n"], [QUIET_DOUBT], False),
    "line too long": ([b"md k" + b" " * 3000 + b"\r\n"], [LOST], True),
}


@pytest.mark.parametrize(("segments", "writes", "lost"), TABLE.values(), ids=TABLE)
def test_streams(
    connection: Connection, room: int, segments: list[bytes], writes: list[Request], lost: bool
) -> None:
    model = Model(room)
    assert [write for segment in segments for write in model.feed(segment)] == writes
    assert model.lost == lost
    found = [write for segment in segments for write in connection.feed(segment).writes]
    assert found == connection.in_slots(writes)
    assert connection.lost == lost


def test_streams_as_the_model_has_them(loaded: Connection, room: int) -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    for segments in streams(rng, 1_500):
        loaded.begin()
        model = Model(room)
        for segment in segments:
            stale = rng.choice((b"\r\n", b"\n\r", b"0 1\r\n", b" ", b"k"))
            told = len(model.lasting)
            expected = loaded.in_slots(model.feed(segment))
            found, _, lasting = loaded.feed(segment, stale=stale)
            assert found == expected, segments
            assert lasting == model.lasting[told:], segments
            seen["lasting"] += sum(lasting)
            seen["ending"] += len(lasting) - sum(lasting)
            assert loaded.lost == model.lost, segments
            seen["writes"] += len(found)
            seen["ahead"] += loaded.ahead
            if model.lost:
                break
        seen["lost" if model.lost else "whole"] += 1
    assert seen["writes"] > 1_000 and seen["whole"] > 300 and seen["lost"] > 100, seen
    assert min(seen["lasting"], seen["ending"]) > 500, seen
    assert seen["ahead"] > 100, seen


def test_last_writes_are_remembered(connection: Connection) -> None:
    keys = [b"key-%d" % n for n in range(CELLS + 5)]
    slots = [connection.slot_of(key) for key in keys]
    assert connection.answered() == []
    for n, key in enumerate(keys):
        outcome = connection.feed(b"md " + key + b"\r\n")
        assert outcome.displaced == slots[max(0, n - CELLS) : max(0, n + 1 - CELLS)]
        assert sorted(connection.answered()) == sorted(slots[max(0, n + 1 - CELLS) : n + 1])


@pytest.mark.parametrize("program", ["begin", "proceed", "answered"])
def test_cost_of_verifying(loaded: Connection, program: str) -> None:
    most = VERIFIED_MAX * leeway(loaded.compiler)
    assert loaded.verified(program) < most * (STEPS if program == "proceed" else 1)
