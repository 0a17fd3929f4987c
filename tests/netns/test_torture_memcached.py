# SPDX-License-Identifier: Apache-2.0
"""Writers over TCP and UDP and readers at full load against `carom front` before a memcached.

Every reply is one that its key had, and none is older than the last write that was acknowledged
before its request was sent; a deletion is a write as well. All the while entries expire, are
evicted and flushed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from carom.daemon import control
from carom.include import libbpf
from carom.include.abi import WATCH
from netns.line import Line
from netns.memcache import PORT, Memcached, value_of
from netns.process import DEADLINE, Carom, map_of
from netns.torture import ANSWER, ASKS, READERS, Asker, Cell, Shared, crowd, enough, torture
from prog.memcached_binary import binary

KEYS = 48
WRITERS = 3
"""Each has keys of its own: their numbers only grow."""

CALM = KEYS - WRITERS
"""From this key on they are seldom written, so that what is kept of them grows old."""

UNSEEN = 11212
"""A port of the server where carom is made to look away."""

DELETIONS = 13
"""One number in so many is a deletion."""

SIZES = (0, 40, 64, 200, 500, 1100)
"""Of values; memcached sends larger ones in several datagrams."""
FRONT = ("--ttl", "1s", "--capacity", "16", "--prefix-rate", "0", "--total-rate", "0")
"""Too short a life and too little room for what is asked, so entries expire and are evicted."""

Say = Callable[[bytes], bytes | None]
"""Sends a command and returns the reply to it, or None for a loss."""

Words = Callable[[int, int], tuple[bytes, tuple[bytes, ...]]]
"""The command that makes the key's number this one, and what begins replies that acknowledge it."""


def name_of(key: int) -> bytes:
    return (b"torture-%d-" % key).ljust((12, 59, 60, 200)[key % 4], b"k")


def deletes(number: int) -> bool:
    return number % DELETIONS == DELETIONS - 1


def value(key: int, number: int) -> bytes:
    """The one value of a key at a number, which it tells."""
    filling = bytes(ord("a") + (key + number) % 26 for _ in range(SIZES[(key + number) % 6]))
    return b"%d:%d:%b" % (key, number, filling)


def in_text(key: int, number: int) -> tuple[bytes, tuple[bytes, ...]]:
    if deletes(number):
        return b"delete %b\r\n" % name_of(key), (b"DELETED\r\n", b"NOT_FOUND\r\n")
    data = value(key, number)
    return b"set %b 0 0 %d\r\n%b\r\n" % (name_of(key), len(data), data), (b"STORED\r\n",)


def in_binary(key: int, number: int) -> tuple[bytes, tuple[bytes, ...]]:
    done, absent = b"\x81%c\0\0\0\0\0\0", b"\x81%c\0\0\0\0\0\1"
    if deletes(number):
        return binary(0x04, name_of(key)), (done % 0x04, absent % 0x04)
    return binary(0x01, name_of(key), value(key, number)), (done % 0x01,)


def over_udp(address: str, port: int) -> Say:
    """Frame headers come and go; a reply to anything else than was asked fails the process."""
    asker, ids = Asker(address, port), itertools.cycle(range(1, 65_536))

    def say(text: bytes) -> bytes | None:
        head = next(ids).to_bytes(2, "big") + bytes((0, 0, 0, 1, 0, 0))
        reply = asker.ask(head + text)
        if reply is None:
            return None
        return reply[8:] if reply[:8] == head else b"not the reply"

    return say


def over_tcp(address: str, port: int) -> Say:
    tcp = socket.create_connection((address, port), ANSWER)

    def say(text: bytes) -> bytes | None:
        tcp.sendall(text)
        return tcp.recv(4096)

    return say


def _possible(reply: bytes, key: int, floor: int, newest: int) -> bool | None:
    """Whether a reply is not too old; None where its key never had it."""
    try:
        found = value_of(reply)
        number = int(found.split(b":")[1]) if found is not None else -1
    except (AssertionError, ValueError, IndexError):
        return None
    if found is None:  # before the first write, or deleted since
        return floor == 0 or any(deletes(n) for n in range(floor, newest + 1))
    if found != value(key, number) or number > newest or deletes(number):
        return None
    return number >= floor


def read(shared: Shared, address: str, reader: int) -> None:
    """Ask for keys, some more often than others, and judge each reply."""
    chance, say, cells = random.Random(reader), over_udp(address, PORT), shared.cells
    while not cells[Cell.STOP]:
        key = min(chance.randrange(KEYS), chance.randrange(KEYS))
        if chance.random() < 0.2:
            key = chance.randrange(CALM, KEYS)
        command = b"gets" if chance.random() < 0.2 else b"get"
        floor = shared.acknowledged[key]
        reply = say(b"%b %b\r\n" % (command, name_of(key)))
        if reply is None:
            cells[Cell.LOST] += 1
            continue
        cells[Cell.ASKS + reader] += 1
        possible = _possible(reply, key, floor, shared.started[key])
        if possible is None:
            cells[Cell.UNKNOWN] += 1
        elif not possible:
            cells[Cell.STALE] += 1


def write(shared: Shared, connect: Callable[[], Say], words: Words, writer: int) -> None:
    """Write the keys of this writer and note what is acknowledged."""
    chance, say, cells = random.Random(writer), connect(), shared.cells
    while not cells[Cell.STOP]:
        keys = range(writer, CALM, WRITERS) if chance.random() < 0.999 else [CALM + writer]
        key = min(chance.choice(keys), chance.choice(keys))
        shared.started[key] += 1
        command, acknowledgements = words(key, shared.started[key])
        reply = say(command)
        if reply is None:  # done or not: it is not known
            cells[Cell.LOST] += 1
            continue
        assert reply.startswith(acknowledgements), (command, reply)
        shared.acknowledged[key] = shared.started[key]
        cells[Cell.WRITES] += 1
        time.sleep(chance.random() * 0.002)


def jobs(shared: Shared, address: str, port: int = PORT) -> list[Callable[[], None]]:
    """Readers, and writers to this port: over TCP, over UDP, and over TCP in binary."""
    ways = ((over_tcp, in_text), (over_udp, in_text), (over_tcp, in_binary))
    return [
        *(functools.partial(read, shared, address, reader) for reader in range(READERS)),
        *(
            functools.partial(write, shared, functools.partial(way, address, port), words, writer)
            for writer, (way, words) in enumerate(ways)
        ),
    ]


def has_expired(carom: Carom) -> bool:
    return carom.counters()["miss_expired"] > 0


def flush_at_times(carom: Carom) -> None:
    """Seldom enough for entries to grow as old as they may."""
    if random.random() < 0.1:
        control.call("flush", carom.pid, timeout=DEADLINE)


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("policy", ["lru", "fcfs"])
def test_nothing_stale(straight: Line, long_form: bool, hook: str, policy: str) -> None:
    """No violation, whatever else happens."""
    arguments = ("--hook", hook, "--policy", policy, *FRONT)
    shared = Shared(KEYS)
    with (
        Memcached(straight.server, threads=2),
        Carom(straight.server, *arguments, command="front") as carom,
        crowd(straight.client, shared, *jobs(shared, straight.address)),
    ):
        ended = enough(shared, long_form, ASKS // 100)
        torture(carom, shared, lambda: ended() and has_expired(carom), flush_at_times)
        counters = carom.counters()
    print(shared, {name: n for name, n in counters.items() if n})
    assert shared.violations() == (0, 0)
    assert counters["hit"] >= 0.05 * shared.asks(), "hardly any hits prove nothing"
    assert counters["fills"] >= 0.01 * shared.asks()
    assert counters["miss_void"]
    assert counters["miss_expired"]


@contextlib.contextmanager
def looking_away(carom: Carom, port: int) -> Iterator[None]:
    """Let a carom miss what is written by this port."""
    watched = map_of(carom.pid, 4, WATCH.size)
    try:
        assert libbpf.delete(watched, struct.pack("=I", port))
        yield
    finally:
        os.close(watched)


def test_the_judges_find_what_is_stale(straight: Line) -> None:
    """Written where nobody looks, what was learned stays until it expires: violations are found."""
    shared = Shared(KEYS)
    with (
        Memcached(straight.server, addresses=f"::,0.0.0.0,0.0.0.0:{UNSEEN}"),
        Carom(straight.server, "-p", str(PORT), *FRONT, command="front") as carom,
        looking_away(carom, UNSEEN),
        crowd(straight.client, shared, *jobs(shared, straight.address, UNSEEN)),
    ):
        torture(carom, shared, lambda: shared.cells[Cell.STALE] > 0)
    assert shared.cells[Cell.UNKNOWN] == 0
