# SPDX-License-Identifier: Apache-2.0
"""coap.h: which requests are read or write, what is learned, and what clients get of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from carom.kernel.abi import REPLY_MAX, sum_of
from carom.protocols.coap import SPEC, keys_named
from carom.protocols.protocol import TEXT_ROOM, Intent, Request
from prog.protocol import PROGRAMS, REPLY_ROOM, Protocol, State, buffer
from reference import coap
from reference.coap import (
    ACCEPT,
    ACK,
    CON,
    CONTENT,
    DELETE,
    ETAG,
    FETCH,
    FORMAT,
    GET,
    HOST,
    IPATCH,
    MAX_AGE,
    NON,
    PATCH,
    PATH,
    PORT,
    POST,
    PUT,
    QUERY,
    RST,
    VALID,
    Learned,
    Message,
    Options,
)
from reference.flights import Answer

pytestmark = pytest.mark.prog

VERIFIED_MAX = 150_000
OBSERVE, BLOCK2, BLOCK1, SIZE2, SIZE1, IF_MATCH = 6, 23, 27, 28, 60, 1
TTL = 1000

TEMPERATURE: Options = [(PATH, b"sensors"), (PATH, b"temperature")]
NOTHING, ANYTHING = Request(Intent.OTHER), Request(Intent.WRITE_ALL, quiet=True)


class Stored(NamedTuple):
    """What coap_learn made of a reply: `stored` begins with `length` bytes of it."""

    stored: bytes
    length: int
    ttl: int


class Bench(Protocol):
    """The programs of coap.h."""

    def __init__(self, room: int = TEXT_ROOM) -> None:
        super().__init__("coap", room=room)

    def keeps(self, reply: bytes, ttl: int = TTL) -> Stored | None:
        """coap_learn."""
        room = buffer(reply, REPLY_ROOM, lambda size: b"\xa5" * size)
        before = State(length=len(reply), stored=len(reply), ttl=ttl, reply=room)
        found = self.run("learned", before)
        if not found.returned:
            return None
        data = found.reply[: found.stored]
        behind = data[found.length : (found.length + 7) // 8 * 8]
        assert found.length <= REPLY_MAX and found.stored <= REPLY_MAX and not any(behind)
        assert not found.key
        return Stored(data, found.length, found.ttl)

    def gives(self, stored: Stored, request: bytes, age: int = 0) -> bytes | None:
        """coap_answer; what it adds to the sum is held against the sum of the bytes."""
        before = State(
            length=stored.length,
            stored=len(stored.stored),
            text_length=len(request),
            age=age,
            text=buffer(request, self.room),
            reply=buffer(stored.stored, REPLY_ROOM),
        )
        found = self.run("answer", before)
        if not found.returned:
            return None
        reply = found.reply[: stored.length]
        added = (sum_of(stored.stored[: stored.length]) + found.sum) % 0xFFFF
        assert added == sum_of(reply), "the sum"
        return reply


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def wide() -> Iterator[Bench]:
    """With as much room as a hook has that watches writes."""
    with Bench(2048) as loaded:
        yield loaded


def request(
    options: Options,
    code: int = GET,
    *,
    type: int = CON,
    token: bytes = b"\x71\x72",
    payload: bytes | None = None,
    id: int = 0x1234,
) -> bytes:
    return Message(type, code, id, token, options, payload).encode()


def reply(
    options: Options = [(FORMAT, b"")],  # noqa: B006  # never changed
    code: int = CONTENT,
    *,
    type: int = ACK,
    token: bytes = b"\x71\x72",
    payload: bytes | None = b"22.5 C",
) -> bytes:
    return Message(type, code, 0x1234, token, options, payload).encode()


READS: dict[str, Options] = {
    "the root": [],
    "one segment": [(PATH, b"time")],
    "a path": TEMPERATURE,
    "a host and a port": [(HOST, b"example.org"), (PORT, b"\x16\x33"), *TEMPERATURE],
    "a long host": [(HOST, b"h" * 200)],
    "a query": [*TEMPERATURE, (QUERY, b"unit=K"), (QUERY, b"")],
    "accept": [*TEMPERATURE, (ACCEPT, b"2")],
    "an ETag": [(ETAG, b"12345678"), *TEMPERATURE],
    "a segment of 13": [(PATH, b"s" * 13)],
    "a segment of 14": [(PATH, b"s" * 14)],
    "as much as fits": [(PATH, b"s" * 210), (PATH, b"abc")],
    "Size2, which is no key": [*TEMPERATURE, (SIZE2, b"")],
    "Size1, which is no key": [*TEMPERATURE, (SIZE1, b"\1\0")],
    "an elective number that is no key": [*TEMPERATURE, (0x1FC, b"x")],
    "24 options": [(PATH, b"a")] * 24,
}


@pytest.mark.parametrize("type", [CON, NON])
@pytest.mark.parametrize("token", [b"", b"\0", b"12345678"])
@pytest.mark.parametrize("options", READS.values(), ids=READS)
def test_reads(bench: Bench, options: Options, token: bytes, type: int) -> None:
    text = request(options, type=type, token=token)
    if len(text) > SPEC.request_max:
        assert bench.understand(text) == NOTHING == coap.understand(text)
        return
    expected = Request(Intent.READ, coap.key(len(token), options))
    assert bench.understand(text) == expected == coap.understand(text)


OTHERS: dict[str, bytes] = {
    "nothing": b"",
    "three bytes": b"\x40\1\0",
    "version 0": b"\0" + request(TEMPERATURE)[1:],
    "version 2": b"\x82" + request(TEMPERATURE)[1:],
    "version 3": b"\xc2" + request(TEMPERATURE)[1:],
    "an acknowledgement": request(TEMPERATURE, type=ACK),
    "a reset": request(TEMPERATURE, type=RST),
    "an empty message": request([], 0, token=b""),
    "a response": request(TEMPERATURE, CONTENT),
    "a token of 9": b"\x49\1\0\1" + bytes(9),
    "a token that is cut off": b"\x44\1\0\1\0\0",
    "a payload": request(TEMPERATURE, payload=b"x"),
    "a marker alone": request(TEMPERATURE) + b"\xff",
    "Observe": request([(OBSERVE, b""), *TEMPERATURE]),
    "Block2": request([*TEMPERATURE, (BLOCK2, b"\6")]),
    "Block1": request([*TEMPERATURE, (BLOCK1, b"\6")]),
    "If-Match": request([(IF_MATCH, b""), *TEMPERATURE]),
    "If-None-Match": request([(5, b""), *TEMPERATURE]),
    "Proxy-Uri": request([*TEMPERATURE, (35, b"coap://example.org")]),
    "Proxy-Scheme": request([*TEMPERATURE, (39, b"coap")]),
    "Hop-Limit": request([*TEMPERATURE, (16, b"\x10")]),
    "OSCORE": request([(9, b"x"), *TEMPERATURE]),
    "a critical number that is no key": request([*TEMPERATURE, (29, b"")]),
    "an unknown elective one": request([*TEMPERATURE, (2048, b"")]),
    "two hosts": request([(HOST, b"a"), (HOST, b"b")]),
    "two ETags": request([(ETAG, b"a"), (ETAG, b"b")]),
    "an ETag of 9": request([(ETAG, b"123456789")]),
    "two ports": request([(PORT, b"a"), (PORT, b"b")]),
    "two formats": request([(ACCEPT, b"a"), (ACCEPT, b"b")]),
    "an empty segment": request([(PATH, b"")]),
    "an empty segment behind others": request([*TEMPERATURE, (PATH, b"")]),
    "an option that is cut off": request(TEMPERATURE)[:-1],
    "an option's number that is cut off": request([]) + b"\xd0",
    "a reserved number": request([]) + b"\xf0",
    "a reserved length": request([]) + b"\xbf",
    "25 options": request([(PATH, b"a")] * 25),
    "more than fits": request([(PATH, b"s" * 215)], token=b""),
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_what_goes_up(bench: Bench, text: bytes) -> None:
    assert bench.understand(text) == NOTHING == coap.understand(text)


@pytest.mark.parametrize("type", [CON, NON])
@pytest.mark.parametrize("code", [POST, PUT, DELETE, FETCH, PATCH, IPATCH])
def test_writes(wide: Bench, code: int, type: int) -> None:
    """They name their path alone."""
    found = []
    for options in (
        TEMPERATURE,
        [(HOST, b"example.org"), *TEMPERATURE, (FORMAT, b"")],
        [(IF_MATCH, b"1"), *TEMPERATURE, (QUERY, b"a=b"), (BLOCK1, b"\x0e")],
    ):
        text = request(options, code, type=type, payload=b"x" * 1024)
        read = wide.understand(text)
        assert read == coap.understand(text, 2048)
        assert (read.intent, read.quiet) == (Intent.WRITE, type == NON)
        assert read.answers == (code in (POST, FETCH))
        found.append(read.key)
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "text",
    [
        request(TEMPERATURE, 8),
        request(TEMPERATURE, 31),
        request([*TEMPERATURE, (35, b"coap://example.org/x")], PUT),
        request([(PATH, b"")], PUT),
        request([], PUT) + b"\xf0",
        request(TEMPERATURE, PUT)[:-1],
        request([(PATH, b"a" * 200), (PATH, b"b" * 30)], PUT),
        bytes([23, 254, 253]) + bytes(40),
        bytes([20]),
        bytes([63]),
    ],
)
def test_writes_to_anything(bench: Bench, text: bytes) -> None:
    assert bench.understand(text) == ANYTHING == coap.understand(text)


def test_what_is_a_write_of_what(bench: Bench) -> None:
    """A write has the slot of every read of its path, and of no other."""

    def slot(text: bytes) -> int:
        key = bench.understand(text).key
        return bench.hashes.slot_of(coap.slot_key_of(key))

    write = slot(request(TEMPERATURE, PUT, payload=b"1"))
    for options in (
        TEMPERATURE,
        [(HOST, b"example.org"), (ETAG, b"1"), (PORT, b"12"), *TEMPERATURE],
        [*TEMPERATURE, (QUERY, b"unit=K"), (ACCEPT, b"")],
    ):
        assert slot(request(options)) == write
    assert slot(request([(PATH, b"sensors")])) != write
    assert slot(request([])) == slot(request([], PUT)) != write


def test_the_id_is_the_token(bench: Bench) -> None:
    """Whatever its length; bytes behind it do not count."""
    for token in (b"", b"\1", b"\1\2", b"12345678"):
        text = request(TEMPERATURE, token=token)
        for program, at in (("request", "text"), ("replied", "reply")):
            room = buffer(text, TEXT_ROOM if at == "text" else REPLY_ROOM)
            found = bench.run(program, State(length=len(text), **{at: room}))  # type: ignore[arg-type]
            assert found.id == int.from_bytes(token, "little")


@pytest.mark.parametrize(
    ("says", "code", "type"),
    [
        *((Answer.READ, code, ACK) for code in (CONTENT, VALID)),
        *((Answer.PART, code, type) for code in (CONTENT, VALID) for type in (CON, NON)),
        *((Answer.WRITTEN, code, type) for code in (0x41, 0x42, 0x44, 0x5F) for type in (CON, ACK)),
        *((Answer.OTHER, code, ACK) for code in (0x80, 0x84, 0xA0, 0xA5)),
        *((Answer.PART, code, type) for code in (0, GET, PUT) for type in (CON, ACK, RST)),
    ],
)
def test_what_a_reply_says(bench: Bench, says: Answer, code: int, type: int) -> None:
    assert bench.what_answer(reply([], code, type=type)) is says


def test_sealed_replies_may_acknowledge(bench: Bench) -> None:
    assert bench.what_answer(bytes([23, 254, 253]) + bytes(40)) is Answer.WRITTEN
    assert bench.what_answer(bytes(40)) is Answer.PART


def payload(options: Options, length: int) -> bytes:
    """So much that a reply with these options has this length."""
    return bytes(length - len(reply(options, payload=b"")))


LEARNED: dict[str, bytes] = {
    "as coap-server's": reply([(FORMAT, b""), (MAX_AGE, b"\1")]),
    "no Max-Age": reply(),
    "no option": reply([]),
    "an ETag alone": reply([(ETAG, b"1")]),
    "an ETag of 8": reply([(ETAG, b"12345678"), (FORMAT, b"\1\2"), (MAX_AGE, b"\1\2")]),
    "Max-Age of 4": reply([(MAX_AGE, b"\1\2\3\4")]),
    "Max-Age with zeros before": reply([(MAX_AGE, b"\0\0\0\7")]),
    "no payload": reply(payload=None),
    "valid": reply([(ETAG, b"1"), (MAX_AGE, b"\x0a")], VALID, payload=None),
    "no token": reply(token=b""),
    "a token of 8": reply(token=b"12345678"),
    "the longest": reply([], payload=payload([], REPLY_MAX - 24)),
    "the longest with Max-Age": reply(
        [(MAX_AGE, b"\5")], payload=payload([(MAX_AGE, b"\5")], REPLY_MAX - 24)
    ),
}


@pytest.mark.parametrize("text", LEARNED.values(), ids=LEARNED)
def test_learns(bench: Bench, text: bytes) -> None:
    """Each client gets it with what is its own, and the rest of its time."""
    stored, learned = bench.keeps(text), coap.learn(text)
    assert stored and learned
    assert stored.ttl == min(TTL, learned.seconds)
    token = learned.reply.token
    for type, age in ((CON, 0), (NON, 1), (CON, min(learned.seconds, 2**31) - 1)):
        asked = request(TEMPERATURE, type=type, token=bytes(reversed(token)), id=0xBEEF)
        given = bench.gives(stored, asked, age)
        assert given == coap.answer(learned, asked, age)
        if given is None:
            assert age >= learned.seconds
            continue
        message = coap.decode(given)
        assert (message.type, message.id) == (NON if type == NON else ACK, 0xBEEF)
        assert message.token == bytes(reversed(token))
        left = int.from_bytes(dict(message.options)[MAX_AGE])
        assert left == learned.seconds - age
        assert message.payload == coap.decode(text).payload
    assert bench.gives(stored, request([], token=token), learned.seconds) is None


def test_a_token_of_another_length_gets_nothing(bench: Bench) -> None:
    stored = bench.keeps(reply())
    assert stored
    assert bench.gives(stored, request([], token=b"123")) is None
    assert bench.gives(stored, request([], token=b"")) is None


def test_a_shorter_ttl_is_the_services(bench: Bench) -> None:
    stored = bench.keeps(reply([(MAX_AGE, b"\xff")]), ttl=5)
    assert stored and stored.ttl == 5


NOT_LEARNED: dict[str, bytes] = {
    "nothing": b"",
    "not confirmable": reply(type=NON),
    "a separate response": reply(type=CON),
    "an empty acknowledgement": b"\x60\0\0\1",
    "not found": reply(code=0x84),
    "changed": reply(code=0x44),
    "an error of the server": reply(code=0xA0),
    "Observe": reply([(OBSERVE, b"\1"), (FORMAT, b"")]),
    "Block2": reply([(FORMAT, b""), (BLOCK2, b"\x0e")]),
    "Size2": reply([(FORMAT, b""), (SIZE2, b"\1")]),
    "OSCORE": reply([(9, b"x")]),
    "Max-Age 0": reply([(MAX_AGE, b"")]),
    "Max-Age 0 in a byte": reply([(MAX_AGE, b"\0")]),
    "Max-Age of 5": reply([(MAX_AGE, b"\1\2\3\4\5")]),
    "Max-Age twice": reply([(MAX_AGE, b"\1"), (MAX_AGE, b"\1")]),
    "an ETag of 9": reply([(ETAG, b"123456789")]),
    "an empty ETag": reply([(ETAG, b"")]),
    "two ETags": reply([(ETAG, b"1"), (ETAG, b"2")]),
    "a format of 3": reply([(FORMAT, b"123")]),
    "a marker alone": reply(payload=b""),
    "an option that is cut off": reply(payload=None, options=[(FORMAT, b"12")])[:-1],
    "a reserved number": reply([], payload=None) + b"\xf0",
    "a token of 9": b"\x69\x45\0\1" + bytes(20),
    "version 2": b"\xa2" + reply()[1:],
    "too long": reply([], payload=payload([], REPLY_MAX - 23)),
}


@pytest.mark.parametrize("text", NOT_LEARNED.values(), ids=NOT_LEARNED)
def test_does_not_learn(bench: Bench, text: bytes) -> None:
    assert bench.keeps(text) is None
    assert coap.learn(text) is None


def made_options(rng: random.Random, numbers: list[int]) -> Options:
    chosen = sorted(rng.choices(numbers, k=rng.choice((0, 1, 2, 3, 4, 6))))
    sizes = (0, 1, 2, 4, 8, 9, 12, 13, 14, 40)
    return [
        (one, rng.randbytes(rng.choice(sizes[: 5 if rng.random() < 0.8 else 10]))) for one in chosen
    ]


def mutated(rng: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(rng.choice((0, 0, 1, 2))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice(
                (0, 0xFF, 0xD1, 0xE0, rng.randrange(256))
            )
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.1 else changed)


def made_request(rng: random.Random) -> bytes:
    known = [HOST, ETAG, PORT, PATH, PATH, PATH, QUERY, ACCEPT]
    if rng.random() < 0.3:
        known += [OBSERVE, BLOCK2, SIZE2, SIZE1, 35, 300]
    return mutated(
        rng,
        request(
            made_options(rng, known),
            rng.choice((GET, GET, GET, PUT, POST, DELETE, FETCH, 0, 9)),
            type=rng.choice((CON, NON, CON, NON, ACK)),
            token=rng.randbytes(rng.randrange(9)),
            payload=rng.choice((None, None, rng.randbytes(20))),
        ),
    )


def made_reply(rng: random.Random) -> bytes:
    known = [ETAG, FORMAT, MAX_AGE]
    if rng.random() < 0.1:
        known += [OBSERVE, BLOCK2]
    options = made_options(rng, known)
    if rng.random() < 0.8:
        options = sorted(dict(options).items())
    return mutated(
        rng,
        reply(
            options,
            rng.choice((CONTENT, CONTENT, CONTENT, VALID, 0x44)),
            type=rng.choice((ACK, ACK, ACK, CON)),
            token=rng.randbytes(rng.randrange(9)),
            payload=rng.choice((None, rng.randbytes(rng.choice((1, 5, 8, 100, 1300))))),
        ),
    )


def test_requests_as_the_model_has_them(bench: Bench) -> None:
    rng = random.Random(7252)
    found = dict.fromkeys(Intent, 0)
    for _ in range(6000):
        text = made_request(rng)
        expected = coap.understand(text)
        assert bench.understand(text, rng.randbytes) == expected, text.hex()
        found[expected.intent] += 1
    assert min(found.values()) > 200, found


def test_replies_as_the_model_has_them(bench: Bench) -> None:
    rng = random.Random(5272)
    kept = 0
    for _ in range(6000):
        text = made_reply(rng)
        stored, learned = bench.keeps(text), coap.learn(text)
        assert bool(stored) == bool(learned), text.hex()
        if not stored or not learned:
            continue
        kept += 1
        asked = request(
            [], type=rng.choice((CON, NON)), token=rng.randbytes(len(learned.reply.token))
        )
        age = rng.choice((0, 1, 59, 60, learned.seconds - 1, learned.seconds)) % 2**32
        assert bench.gives(stored, asked, age) == coap.answer(learned, asked, age), text.hex()
    assert kept > 1000


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (b"/", []),
        (b"time", [(PATH, b"time")]),
        (b"/sensors/temperature", TEMPERATURE),
        (b"/sensors/temperature?unit=K&b", [*TEMPERATURE, (QUERY, b"unit=K"), (QUERY, b"b")]),
        (b"/" + b"s" * 13, [(PATH, b"s" * 13)]),
    ],
)
def test_the_keys_of_a_name(name: bytes, options: Options) -> None:
    assert keys_named(name) == tuple(coap.key(token, options) for token in range(9))


@pytest.mark.parametrize("program", PROGRAMS)
def test_cost_of_verifying(bench: Bench, program: str) -> None:
    assert bench.verified(program) < VERIFIED_MAX


def test_the_model_is_the_rfcs() -> None:
    """Its examples: GET /temperature, and 2.05 with 22.5 C (appendix A, figure 16)."""
    asked = bytes.fromhex("40017d34") + b"\xbbtemperature"
    assert coap.decode(asked) == Message(CON, GET, 0x7D34, b"", [(PATH, b"temperature")])
    given = bytes.fromhex("60457d34ff") + b"22.3 C"
    assert coap.decode(given) == Message(ACK, CONTENT, 0x7D34, b"", [], b"22.3 C")
    assert coap.learn(given) == Learned(
        Message(ACK, CONTENT, 0x7D34, b"", [(MAX_AGE, b"<")], b"22.3 C"), 60
    )
