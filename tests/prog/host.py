# SPDX-License-Identifier: Apache-2.0
"""A host with carom's fast path on a made-up interface, driven frame by frame and tick by tick."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from carom.daemon.cache import Cache
from carom.daemon.fastpath import ENTRY_CLASSES, FastPath, LengthClass, Place
from carom.include import libbpf
from carom.include.abi import Fast, Hook, Verdict
from prog.packets import HOST, HOST_MAC, PORT

IFINDEX = 1
"""Of the interface that frames of PROG_TEST_RUN come in by: the namespace's loopback."""

START = 1_000_000
"""Jiffies when a test begins."""


class Outcome(NamedTuple):
    """What became of a frame: the one verdict counted, the XDP action, the bytes that came out."""

    verdict: Verdict
    action: int
    frame: bytes


def passed(verdict: Verdict, frame: bytes) -> Outcome:
    """Handed on, untouched."""
    return Outcome(verdict, libbpf.XDP_PASS, frame)


def sent(verdict: Verdict, frame: bytes) -> Outcome:
    """Answered with this frame."""
    return Outcome(verdict, libbpf.XDP_TX, frame)


class Ticks:
    """The clock that the program reads in a test build: a second is a tick."""

    def __init__(self, fastpath: FastPath):
        self._cell = fastpath.clock

    def now(self) -> int:
        return self._cell[0]

    def ticks(self, seconds: float) -> int:
        return round(seconds)

    def seconds(self, ticks: int) -> float:
        return float(ticks)

    def advance(self, ticks: int) -> None:
        self._cell[0] += ticks


class Host:
    """The fast path with one service at HOST:PORT, an empty cache, a lease and a clock at START.

    Frames come in by the interface that PROG_TEST_RUN makes up, which is the namespace's first.
    """

    def __init__(self, fastpath: FastPath, *, hook: Hook = Hook.XDP, ttl: int = 100):
        self.fastpath = fastpath
        self.hook = hook
        self.clock = Ticks(fastpath)
        fastpath.clock[0] = START
        fastpath.lease[0] = 2**63
        fastpath.refuse([ipaddress.ip_address(HOST)])
        fastpath.allow(())
        self.place = Place(ipaddress.ip_address(HOST), PORT, IFINDEX, mac_of(HOST_MAC), 1500)
        self.serve(Fast.CACHE)
        self.cache = Cache(fastpath, self.clock, ttl)
        self.cache.flush()

    def describe(self, **facts: object) -> None:
        """Change fields of the service's place."""
        self.place = self.place._replace(**facts)  # type: ignore[arg-type]
        self.fastpath.serve([self.place])

    def serve(self, fast: Fast) -> None:
        """Change what requests are answered with."""
        self.fast = fast
        self.describe(fast=fast)

    def fill(self, payload: bytes, reply: bytes, ttl: float | None = None) -> None:
        """Take a token and fill at once."""
        self.cache.fill(payload, reply, self.cache.take(payload), ttl)

    def run(self, frame: bytes) -> Outcome:
        """Give the program one frame: exactly one counter must rise, by one."""
        before = self.fastpath.verdicts(self.hook)
        program = self.fastpath.program if self.hook == Hook.XDP else self.fastpath.tc_program
        result = libbpf.test_run(program, frame)
        after = self.fastpath.verdicts(self.hook)
        rose = {
            verdict: n - before[verdict] for verdict, n in after.items() if n != before[verdict]
        }
        assert list(rose.values()) == [1], f"counters rose by {rose} for one frame"
        return Outcome(next(iter(rose)), result.retval, result.data)

    def stored(self, payload: bytes) -> bytes:
        """The bytes of an entry, as they stand in the map."""
        table = entry_class(payload)
        value = libbpf.lookup(self.fastpath.map(table.map), self.key(payload), table.value.size)
        assert value is not None
        return value

    def store(self, payload: bytes, value: bytes, service: int = 0) -> None:
        """Put these bytes into the map, right or wrong."""
        table = entry_class(payload)
        key = table.key.pack(service, len(payload), payload)
        libbpf.update(self.fastpath.map(table.map), key, value)

    def held(self) -> dict[bytes, bytes | None]:
        """Every entry's reply by its key."""
        return {entry.key: self.cache.reply(entry) for entry in self.cache.entries()}

    def key(self, payload: bytes) -> bytes:
        """The map's key of a request."""
        return entry_class(payload).key.pack(0, len(payload), payload)


def entry_class(key: bytes) -> LengthClass:
    """The length class of a key's entry."""
    return next(one for one in ENTRY_CLASSES if len(key) <= one.room)


def mac_of(text: str) -> bytes:
    """A MAC address from its usual form."""
    return bytes.fromhex(text.replace(":", ""))
