# SPDX-License-Identifier: Apache-2.0
"""Processes that write, read and judge what they read, and what they share."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from enum import IntEnum, auto

import pyroute2.netns

from carom.vm.namespace import Namespace
from netns.process import DEADLINE, Carom

READERS = 2
ASKS = 10_000
"""Replies that the ordinary suite checks, over all readers."""

LONG = 60.0
"""Seconds of the long form."""

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

    def __init__(self, keys: int) -> None:
        self._memory = mmap.mmap(-1, 8 * (2 * keys + len(Cell) + READERS))
        self._cells = memoryview(self._memory).cast("Q")
        self.acknowledged = self._cells[:keys]
        self.started = self._cells[keys : 2 * keys]
        self.cells = self._cells[2 * keys :]

    def asks(self) -> int:
        """Over all readers."""
        return sum(self.cells[Cell.ASKS : Cell.ASKS + READERS])

    def violations(self) -> tuple[int, int]:
        """Replies that are stale, and replies that are none."""
        return self.cells[Cell.STALE], self.cells[Cell.UNKNOWN]

    def __str__(self) -> str:
        stale, unknown = self.violations()
        return (
            f"{self.asks():,} replies, {self.cells[Cell.WRITES]:,} writes, "
            f"{stale} stale, {unknown} unknown, {self.cells[Cell.LOST]} lost"
        )


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

    @property
    def address(self) -> str:
        """Its own."""
        return str(self._udp.getsockname()[0])

    def ask(self, request: bytes) -> bytes | None:
        """The reply, or None for a loss."""
        self._udp.send(request)
        return self.receive()

    def receive(self) -> bytes | None:
        """What comes next, or None for a loss."""
        try:
            return self._udp.recv(65_536)
        except (TimeoutError, ConnectionRefusedError):
            self._udp.close()
            self._udp = self._connect()
            return None


def _inside(namespace: Namespace, job: Callable[[], None]) -> None:
    pyroute2.netns.setns(namespace.name)
    job()
    os._exit(0)  # nothing of the tests' own process is to be closed here


@contextlib.contextmanager
def crowd(namespace: Namespace, shared: Shared, *jobs: Callable[[], None]) -> Iterator[None]:
    """Processes in a namespace until the context is left, which is when Cell.STOP is set."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_inside, args=(namespace, job)) for job in jobs]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        shared.cells[Cell.STOP] = 1
        for process in processes:
            process.join(DEADLINE)
            process.kill()


def torture(
    carom: Carom,
    shared: Shared,
    done: Callable[[], bool],
    disturb: Callable[[Carom], object] = Carom.flush,
) -> None:
    """Flush (or disturb) now and then until it is done, or nothing comes any more."""
    asks, end = 0, time.monotonic() + DEADLINE
    while not done():
        disturb(carom)
        time.sleep(0.2)
        if shared.asks() > asks:
            asks, end = shared.asks(), time.monotonic() + DEADLINE
        assert time.monotonic() < end, "no replies any more"


def enough(shared: Shared, long_form: bool, writes: int) -> Callable[[], bool]:
    """Whether that many were written and ASKS read, and the long form's time is over."""
    start = time.monotonic()

    def done() -> bool:
        both = shared.asks() >= ASKS and shared.cells[Cell.WRITES] >= writes
        return both and (not long_form or time.monotonic() - start >= LONG)

    return done
