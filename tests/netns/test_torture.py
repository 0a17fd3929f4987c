# SPDX-License-Identifier: Apache-2.0
"""Writers and readers at full load against a carom that fills, flushes, expires and evicts.

Every reply is one that its key had, and none is older than the last write that was acknowledged
before its request was sent.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from enum import IntEnum, auto

import pyroute2.netns
import pytest

from carom.daemon import control
from carom.vm.namespace import Namespace
from netns.changing import KEYS, WRITE_PORT, number_of, reply_of, request_of, write_of
from netns.line import Line
from netns.process import DEADLINE, Carom
from netns.services import PORT

READERS = 2
ASKS = 10_000
"""Replies that the ordinary suite checks, over all readers."""

LONG = 60.0
"""Seconds of the long form."""

SERVE = ("--ttl", "20ms", "--capacity", "16", "--amplify", "0")
"""Too short a life and too little room for what is asked, so entries expire and are evicted."""

ANSWER = 5.0
"""Seconds after which a request counts as lost; it is asked again from another port."""


class Cell(IntEnum):
    """What the processes share, behind two numbers a key."""

    STOP = 0
    ASKS = auto()  # and those of the other readers
    WRITES = ASKS + READERS
    LOST = auto()
    STALE = auto()
    UNKNOWN = auto()  # replies that their key never had


class Shared:
    """Cells of 64 bits in memory that forked processes share; each has one writer or needs none."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._cells = memoryview(self._memory).cast("Q")
        self.acknowledged = self._cells[:KEYS]
        self.started = self._cells[KEYS : 2 * KEYS]
        self.cells = self._cells[2 * KEYS :]

    def asks(self) -> int:
        """Over all readers."""
        return sum(self.cells[Cell.ASKS : Cell.ASKS + READERS])


class Asker:
    """Asks one port, from a new port of its own after a loss: what comes late is nobody's."""

    def __init__(self, address: str, port: int):
        self._to = (address, port)
        self._udp = self._connect()

    def _connect(self) -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.connect(self._to)
        udp.settimeout(ANSWER)
        return udp

    def ask(self, request: bytes) -> bytes | None:
        """The reply, or None for a loss."""
        self._udp.send(request)
        try:
            return self._udp.recv(65_536)
        except (TimeoutError, ConnectionRefusedError):
            self._udp.close()
            self._udp = self._connect()
            return None


def read(shared: Shared, address: str, reader: int) -> None:
    """Ask for keys, some more often than others, and judge each reply."""
    chance, asker, cells = random.Random(reader), Asker(address, PORT), shared.cells
    while not cells[Cell.STOP]:
        key = min(chance.randrange(KEYS), chance.randrange(KEYS))
        floor = shared.acknowledged[key]
        reply = asker.ask(request_of(key))
        if reply is None:
            cells[Cell.LOST] += 1
            continue
        cells[Cell.ASKS + reader] += 1
        number = number_of(reply)
        if reply != reply_of(key, number) or number > shared.started[key]:
            cells[Cell.UNKNOWN] += 1
        elif number < floor:
            cells[Cell.STALE] += 1


def write(shared: Shared, address: str) -> None:
    """Write keys and note what is acknowledged."""
    chance, asker, cells = random.Random(), Asker(address, WRITE_PORT), shared.cells
    while not cells[Cell.STOP]:
        key = min(chance.randrange(KEYS), chance.randrange(KEYS))
        shared.started[key] += 1
        reply = asker.ask(write_of(key))
        if reply is None:  # done or not: it is not known, and `started` may be one too high
            cells[Cell.LOST] += 1
            continue
        shared.acknowledged[key] = number_of(reply)
        cells[Cell.WRITES] += 1
        time.sleep(chance.random() * 0.002)


def _inside(namespace: Namespace, function: Callable[..., None], *arguments: object) -> None:
    pyroute2.netns.setns(namespace.name)
    function(*arguments)
    os._exit(0)  # nothing of the tests' own process is to be closed here


@contextlib.contextmanager
def crowd(line: Line) -> Iterator[Shared]:
    """Readers and a writer in the client's namespace until the context is left."""
    shared = Shared()
    fork = multiprocessing.get_context("fork")
    wanted: list[tuple[object, ...]] = [(read, shared, line.address, i) for i in range(READERS)]
    processes = [
        fork.Process(target=_inside, args=(line.client, *what))
        for what in (*wanted, (write, shared, line.address))
    ]
    for process in processes:
        process.start()
    try:
        yield shared
    finally:
        shared.cells[Cell.STOP] = 1
        for process in processes:
            process.join(DEADLINE)
            process.kill()


def torture(carom: Carom, shared: Shared, done: Callable[[], bool]) -> None:
    """Flush now and then until it is done, or nothing comes any more."""
    asks, end = 0, time.monotonic() + DEADLINE
    while not done():
        control.call("flush", carom.pid, timeout=DEADLINE)
        time.sleep(0.2)
        if shared.asks() > asks:
            asks, end = shared.asks(), time.monotonic() + DEADLINE
        assert time.monotonic() < end, "no replies any more"


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("policy", ["lru", "fcfs"])
def test_nothing_stale(straight: Line, long_form: bool, hook: str, policy: str) -> None:
    """`changing` takes back what it said: no violation, whatever else happens."""
    arguments = ("--app", "changing:changing", "--hook", hook, "--policy", policy, *SERVE)
    with Carom(straight.server, *arguments) as carom, crowd(straight) as shared:
        start = time.monotonic()

        def done() -> bool:
            enough = shared.asks() >= ASKS and shared.cells[Cell.WRITES] >= ASKS // 100
            return enough and (not long_form or time.monotonic() - start >= LONG)

        torture(carom, shared, done)
        counters = carom.counters()
    kinds = {kind: shared.cells[kind] for kind in (Cell.STALE, Cell.UNKNOWN, Cell.LOST)}
    print(
        f"{shared.asks():,} replies ({counters['hit']:,} hits), "
        f"{shared.cells[Cell.WRITES]:,} writes, {counters['fills']:,} fills, "
        f"{counters['miss_void']:,} void, {counters['miss_expired']:,} expired, {kinds}"
    )
    assert (kinds[Cell.STALE], kinds[Cell.UNKNOWN]) == (0, 0)
    assert counters["hit"] >= 0.1 * shared.asks(), "hardly any hits prove nothing"
    assert counters["fills"] >= 0.01 * shared.asks()
    assert counters["miss_void"]
    assert counters["miss_expired"]


def test_the_judges_find_what_is_stale(straight: Line) -> None:
    """`forgetful` takes nothing back: violations are found."""
    arguments = ("--app", "changing:forgetful", *SERVE)
    with Carom(straight.server, *arguments) as carom, crowd(straight) as shared:
        torture(carom, shared, lambda: shared.cells[Cell.STALE] > 0)
    assert shared.cells[Cell.UNKNOWN] == 0
