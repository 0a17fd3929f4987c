# SPDX-License-Identifier: Apache-2.0
"""memcached's commands and replies, seeded: proper ones, near misses, and bytes gone wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator

from scapy.packet import Raw, raw

from carom.protocols.memcached.layers import MemcachedUDP
from prog.memcached_binary import binary_request
from prog.protocol import Stale

SEED = 20250611

KEYS = [
    b"k",
    b"l",
    b"key-one",
    b"key/two:2",
    b"x" * 250,
    b"noreply",
    b"0",
    b"\xc3\xbc" * 9,
    b"\x10\x1f8",
]
ODD_KEYS = [b"x" * 251, b"k\t", b"k\0l", b"", b"k" * 300, b"aw==", b"k\rl"]
NUMBERS = [b"0", b"1", b"7", b"3600", b"2147483647"]
ODD_NUMBERS = [b"-1", b"x", b"", b"4294967296", b"99999999999999999999", b"1x", b"2147483648"]
FLAGS = [b"v", b"q", b"c", b"t", b"k", b"f", b"s", b"O12", b"T30", b"N60", b"I", b"MA", b"D2", b"h"]
ODD_FLAGS = [b"b", b"v", b"9", b"\xff", b"", b"O" + b"o" * 60]
ENDS = [b"\r\n"] * 12 + [b"\n", b"\n", b"", b"\r", b" \r\n", b"\r\r\n", b"\0\r\n"]
STORES = [b"set", b"add", b"replace", b"append", b"prepend"]
LINES = [b"delete", b"incr", b"decr", b"touch"]
PLAIN = [b"version", b"stats", b"stats items", b"mn", b"verbosity 0", b"me k", b"mnx", b"statsx"]
WRITES_ALL = [b"flush_all", b"flush_all noreply", b"cache_memlimit 64", b"unheard of", b"bget k"]


def datagram(text: bytes, **fields: int) -> bytes:
    """Text behind the frame header of a request or reply in one datagram."""
    return bytes(raw(MemcachedUDP(**{"request_id": 0x0102} | fields) / Raw(text)))


def stale_bytes(rng: random.Random) -> Stale:
    """What an earlier packet left behind: the more confusing, the better."""
    pieces = [
        b"\n",
        b"\r\n",
        b"k",
        b"0",
        b" ",
        b" noreply\r\n",
        b"\r\nEND\r\n",
        b"\0",
        b"x 0 0 1\r\n",
    ]
    piece = rng.choice(pieces)
    return lambda length: (piece * length)[:length]


def _pick(rng: random.Random, usual: list[bytes], odd: list[bytes]) -> bytes:
    return rng.choice(odd if rng.random() < 0.06 else usual)


def _get(rng: random.Random) -> bytes:
    keys = [_pick(rng, KEYS, ODD_KEYS) for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 3, 30)))]
    return b" ".join([rng.choice((b"get", b"gets")), *keys]) + rng.choice(ENDS)


def _value(rng: random.Random) -> bytes:
    return rng.choice(
        (rng.randbytes(rng.randrange(12)), b"flush_all\r\n", b"y" * rng.randrange(900))
    )


def _data(rng: random.Random, value: bytes) -> bytes:
    """A value and its line's end, or something like that."""
    return rng.choice([value + b"\r\n"] * 12 + [value, value + b"\n", value[:-1] + b"\r\n", b""])


def _store(rng: random.Random) -> bytes:
    value = _value(rng)
    word = rng.choice([*STORES, b"cas"])
    arguments = [_pick(rng, NUMBERS, ODD_NUMBERS), _pick(rng, NUMBERS, ODD_NUMBERS)]
    arguments.append(_pick(rng, [b"%d" % len(value)], ODD_NUMBERS))
    if word == b"cas" or rng.random() < 0.05:
        arguments.append(_pick(rng, NUMBERS, ODD_NUMBERS))
    arguments += rng.choice([[], [], [b"noreply"], [b"noreply", b""], [b"no"]])
    line = b" ".join([word, _pick(rng, KEYS, ODD_KEYS), *arguments])
    return line + rng.choice(ENDS) + _data(rng, value)


def _line(rng: random.Random) -> bytes:
    arguments = rng.choices([*NUMBERS, b"noreply", b"-1"], k=rng.choice((0, 1, 1, 2, 3)))
    line = b" ".join([rng.choice(LINES), _pick(rng, KEYS, ODD_KEYS), *arguments])
    return line + rng.choice(ENDS)


def _gat(rng: random.Random) -> bytes:
    keys = [_pick(rng, KEYS, ODD_KEYS) for _ in range(rng.choice((1, 1, 1, 2)))]
    words = [rng.choice((b"gat", b"gats")), _pick(rng, NUMBERS, ODD_NUMBERS), *keys]
    return b" ".join(words) + rng.choice(ENDS)


def _meta(rng: random.Random) -> bytes:
    flags = [_pick(rng, FLAGS, ODD_FLAGS) for _ in range(rng.choice((0, 1, 2, 3, 5)))]
    word, value = rng.choice((b"mg", b"mg", b"ms", b"md", b"ma")), _value(rng)
    size = [_pick(rng, [b"%d" % len(value)], ODD_NUMBERS)] if word == b"ms" else []
    line = b" ".join([word, _pick(rng, KEYS, ODD_KEYS), *size, *flags])
    return line + rng.choice(ENDS) + (_data(rng, value) if word == b"ms" else b"")


def _plain(rng: random.Random) -> bytes:
    return _pick(rng, PLAIN, WRITES_ALL) + rng.choice(ENDS)


_KINDS = [_get, _store, _line, _gat, _meta, _plain, binary_request]
_WEIGHTS = [6, 6, 4, 2, 5, 1, 1]
_ALPHABET = b" \r\n\0\t\x7f\x800159abqkmgs-"


def _mutate(rng: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(min(len(data), 40) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at] = bytes((rng.choice(_ALPHABET),))
        elif kind == 1:
            del data[at : at + 1]
        elif kind == 2:
            data[at : at + 1] = bytes((rng.choice(_ALPHABET),))
        else:
            del data[at:]
    return bytes(data)


def command(rng: random.Random) -> bytes:
    """One command, as it should be or nearly."""
    text = rng.choices(_KINDS, _WEIGHTS)[0](rng)
    return _mutate(rng, text) if rng.random() < 0.25 else text


def commands(rng: random.Random, count: int) -> Iterator[bytes]:
    """Requests: mostly one command each, some with another or rubbish behind it."""
    for _ in range(count):
        text = command(rng)
        if rng.random() < 0.1:
            text += rng.choice((command(rng), b"x", b"\n", b"\0"))
        odd = rng.random() < 0.04
        fields = {rng.choice(("sequence", "total", "reserved")): rng.choice((1, 2, 256))}
        request = datagram(text, request_id=rng.getrandbits(16), **(fields if odd else {}))
        yield request[: rng.randrange(10)] if rng.random() < 0.005 else request


def replies(rng: random.Random, count: int) -> Iterator[bytes]:
    """What memcached sends, and nearly so."""
    for _ in range(count):
        value = rng.choice((_value(rng), b"\r\nEND\r\n", b"z" * rng.randrange(1600)))
        cas = b" %d" % rng.getrandbits(rng.choice((1, 30, 64, 68))) if rng.random() < 0.4 else b""
        size = _pick(rng, [b"%d" % len(value)], ODD_NUMBERS)
        line = b"VALUE %b %b %b" % (_pick(rng, KEYS, ODD_KEYS), rng.choice(NUMBERS), size)
        end = rng.choice([b"\r\nEND\r\n"] * 12 + [b"\r\n", b"\r\nEND\r", b"\nEND\r\n", b""])
        text = line + cas + rng.choice([b"\r\n"] * 12 + [b"\n", b""]) + value + end
        if rng.random() < 0.2:
            text = _mutate(rng, text)
        odd = rng.random() < 0.04
        fields = {rng.choice(("sequence", "total", "reserved")): rng.choice((1, 2, 256))}
        yield datagram(text, request_id=rng.getrandbits(16), **(fields if odd else {}))
