# SPDX-License-Identifier: Apache-2.0
"""A host with carom's fast path on a made-up interface, driven frame by frame and tick by tick."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from carom.daemon.cache import Cache
from carom.include import libbpf
from carom.include.abi import ENTRY, KEY, Fast, Verdict
from carom.include.netlink import Interface
from carom.xdp.fastpath import FastPath
from prog.packets import HOST, HOST_MAC, PORT

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
    """The fast path with one service at HOST:PORT, an empty cache, a lease and a clock at START."""

    def __init__(self, fastpath: FastPath, *, ttl: int = 100):
        self.fastpath = fastpath
        self.clock = Ticks(fastpath)
        fastpath.clock[0] = START
        fastpath.lease[0] = 2**63
        self.describe()
        self.serve(Fast.CACHE)
        self.cache = Cache(fastpath, self.clock, ttl)
        self.cache.flush()

    def describe(self, *, mtu: int = 1500, skb_mode: bool = False) -> None:
        """Change the facts of the interface."""
        mac = bytes.fromhex(HOST_MAC.replace(":", ""))
        made_up = Interface(0, "made-up", mac, mtu, True, "none", ())
        self.fastpath.describe(made_up, skb_mode=skb_mode)

    def serve(self, fast: Fast) -> None:
        """Change what requests are answered with."""
        self.fast = fast
        self.fastpath.serve((ipaddress.IPv4Address(HOST),), PORT, fast)

    def fill(self, payload: bytes, reply: bytes, ttl: float | None = None) -> None:
        """Take a token and fill at once."""
        self.cache.fill(payload, reply, self.cache.take(payload), ttl)

    def run(self, frame: bytes) -> Outcome:
        """Give the program one frame: exactly one counter must rise, by one."""
        before = self.fastpath.verdicts()
        result = libbpf.test_run(self.fastpath.program, frame)
        after = self.fastpath.verdicts()
        rose = {
            verdict: n - before[verdict] for verdict, n in after.items() if n != before[verdict]
        }
        assert list(rose.values()) == [1], f"counters rose by {rose} for one frame"
        return Outcome(next(iter(rose)), result.retval, result.data)

    def stored(self, payload: bytes) -> bytes:
        """The bytes of an entry, as they stand in the map."""
        value = libbpf.lookup(self.fastpath.cache_fd, self.key(payload), ENTRY.size)
        assert value is not None
        return value

    def store(self, payload: bytes, value: bytes, service: int = FastPath.SERVICE) -> None:
        """Put these bytes into the map, right or wrong."""
        libbpf.update(self.fastpath.cache_fd, KEY.pack(service, len(payload), payload), value)

    def key(self, payload: bytes) -> bytes:
        """The map's key of a request."""
        return KEY.pack(self.fastpath.SERVICE, len(payload), payload)
