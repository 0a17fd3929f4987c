# SPDX-License-Identifier: Apache-2.0
"""Writers over TCP and UDP and readers at full load against `carom front` before a memcached.

Every reply is one that its key had, and none is older than the last write that was acknowledged
before its request was sent; a deletion is a write as well. Writers use every command (writes.py).
All the while entries expire, are evicted and flushed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.synchronize import Lock
from pathlib import Path

import pytest

from carom.daemon import control
from carom.daemon.sockets import bound
from carom.kernel import libbpf
from carom.kernel.abi import MARK
from netns import writes
from netns.line import Line
from netns.memcache import PORT, Memcached, values_of
from netns.process import DEADLINE, Carom, map_of
from netns.torture import ANSWER, ASKS, READERS, Asker, Cell, Shared, crowd, enough, torture
from netns.writes import CYCLE, DELETES, BinaryWays, Say, Ways, deletes, name_of, number_of
from prog.memcached_binary import HEADER

KEYS = 48
WRITERS = 3
"""Each has keys of its own: their numbers only grow."""

CALM = KEYS - WRITERS
"""From this key on they are seldom written, so that what is kept of them grows old."""

UNSEEN = 11212
"""A port of the server where carom is made to look away."""

FRONT = ("--ttl", "1s", "--capacity", "16", "--prefix-rate", "0", "--total-rate", "0")
"""Too short a life and too little room for what is asked, so entries expire and are evicted."""

BESIDE = 8
"""One key in so many is touched too, which holds it for a minute."""


def over_udp(address: str, port: int, *, ids: Iterable[int]) -> Say:
    """Frame headers come and go; a reply to anything else than was asked fails the process.

    memcached 1.6 answers a get of several keys with a datagram for each.
    """
    asker, numbers = Asker(address, port), itertools.cycle(ids)

    def say(text: bytes) -> bytes | None:
        head = next(numbers).to_bytes(2, "big")
        several = text.startswith(b"get") and text.count(b" ") > 1
        reply, whole = asker.ask(head + bytes((0, 0, 0, 1, 0, 0)) + text), b""
        while reply is not None:
            whole += reply[8:] if reply[:2] == head else b"not the reply"
            if not several or whole.endswith(b"END\r\n"):
                return whole
            reply = asker.receive()
        return None

    return say


def over_tcp(address: str, port: int, *, is_whole: Callable[[bytes], bool]) -> Say:
    tcp = socket.create_connection((address, port), ANSWER)

    def say(text: bytes) -> bytes | None:
        tcp.sendall(text)
        reply = b""
        while not is_whole(reply):
            more = tcp.recv(65_536)
            assert more, (text, reply)
            reply += more
        return reply

    return say


def is_whole_binary(reply: bytes) -> bool:
    return len(reply) >= HEADER.size and len(reply) >= HEADER.size + HEADER.unpack_from(reply)[6]


def _possible(found: bytes | None, key: int, floor: int, newest: int) -> bool | None:
    """Whether what a key was said to have is not too old; None where it never had it."""
    if found is None:  # before the first write, or deleted since
        return floor == 0 or any(deletes(n) for n in range(floor, newest + 1))
    number = number_of(key, found)
    if number is None or number > newest or deletes(number):
        return None
    return number >= floor


def choose(chance: random.Random) -> list[int]:
    """Keys, some more often than others; several at times, and one that there never is."""
    keys = [min(chance.randrange(KEYS), chance.randrange(KEYS))]
    if chance.random() < 0.2:
        keys = [chance.randrange(CALM, KEYS)]
    if chance.random() < 0.1:
        keys.append((keys[0] + 1 + chance.randrange(KEYS - 1)) % KEYS)
    if chance.random() < 0.05:
        keys.append(KEYS)
    return keys


def read(shared: Shared, address: str, reader: int) -> None:
    """Ask for keys and judge each reply. The first reader has one id for all that it asks."""
    chance, cells = random.Random(reader), shared.cells
    say = over_udp(address, PORT, ids=range(1, 65_536) if reader else (0,))
    while not cells[Cell.STOP]:
        keys = choose(chance)
        command = b"gets" if chance.random() < 0.2 else b"get"
        floors = {key: shared.acknowledged[key] for key in keys if key < KEYS}
        reply = say(b"%b %b\r\n" % (command, b" ".join(map(name_of, keys))))
        if reply is None:
            cells[Cell.LOST] += 1
            continue
        cells[Cell.ASKS + reader] += 1
        try:
            found = values_of(reply)
        except ValueError:
            found = {b"": b""}
        if found.keys() - {name_of(key) for key in floors}:
            cells[Cell.UNKNOWN] += 1
            continue
        for key, floor in floors.items():
            possible = _possible(found.get(name_of(key)), key, floor, shared.started[key])
            if possible is None:
                cells[Cell.UNKNOWN] += 1
            elif not possible:
                cells[Cell.STALE] += 1


def write(
    shared: Shared,
    locks: Sequence[Lock],
    connect: Callable[[], Say],
    aside: Callable[[], Say],
    ways: Ways,
    writer: int,
) -> None:
    """Write this writer's keys and note what is acknowledged; what is no write goes `aside`."""
    chance, say, cells = random.Random(writer), connect(), shared.cells
    ask = aside()
    while not cells[Cell.STOP]:
        calm = CALM + writer
        keys = range(writer, CALM, WRITERS)
        key = min(chance.choice(keys), chance.choice(keys))
        if deletes(shared.started[calm]) or chance.random() < 0.001:
            key = calm  # it is there most of the time, though all are flushed now and then
        if chance.random() < 0.0005:
            flush(shared, locks, say, ways)
        with locks[writer]:
            sure = shared.acknowledged[key] == shared.started[key]
            shared.started[key] += 1
            if not writes.write(say, key, shared.started[key], sure=sure, ways=ways):
                cells[Cell.LOST] += 1  # done or not: it is not known
                continue
            shared.acknowledged[key] = shared.started[key]
            cells[Cell.WRITES] += 1
            if key % BESIDE == 0 and chance.random() < 0.1:
                ask(ways.beside(name_of(key), chance.randrange(30)))
        time.sleep(chance.random() * 0.002)


def flush(shared: Shared, locks: Sequence[Lock], say: Say, ways: Ways) -> None:
    """Delete all keys at once, while nobody else writes."""
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        for key in range(KEYS):
            shared.started[key] += (DELETES - shared.started[key] - 1) % CYCLE + 1
        command, done = ways.flush
        reply = say(command)
        if reply is None:
            return
        assert reply.startswith(done), reply
        for key in range(KEYS):
            shared.acknowledged[key] = shared.started[key]


def jobs(shared: Shared, address: str, port: int = PORT) -> list[Callable[[], None]]:
    """Readers, and writers to this port: over TCP, over UDP with one id, and in binary."""
    locks = [multiprocessing.get_context("fork").Lock() for _ in range(WRITERS)]
    in_text = functools.partial(over_tcp, is_whole=lambda reply: reply.endswith(b"\r\n"))
    in_binary = functools.partial(over_tcp, is_whole=is_whole_binary)
    connects = (in_text, functools.partial(over_udp, ids=(0,)), in_binary)
    asides = (in_text, functools.partial(over_udp, ids=range(1, 65_536)), in_binary)
    ways = (Ways(), Ways(), BinaryWays())
    return [
        *(functools.partial(read, shared, address, reader) for reader in range(READERS)),
        *(
            functools.partial(
                write,
                shared,
                locks,
                functools.partial(connects[writer], address, port),
                functools.partial(asides[writer], address, port),
                ways[writer],
                writer,
            )
            for writer in range(WRITERS)
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
    assert counters["hit"] >= 0.004 * shared.asks(), "hardly any hits prove nothing"
    assert counters["fills"] >= 0.004 * shared.asks()
    assert counters["miss_void"]
    assert counters["miss_expired"]


@contextlib.contextmanager
def looking_away(carom: Carom, port: int) -> Iterator[None]:
    """Let a carom take the server's sockets at this port for strangers'."""
    found = map_of(carom.pid, 8, MARK.size)
    try:
        process = Path(f"/proc/{carom.pid}")
        for one in (*bound(process, stream=True), *bound(process, stream=False)):
            if one.port == port:
                assert libbpf.delete(found, struct.pack("=Q", one.cookie))
        yield
    finally:
        os.close(found)


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
