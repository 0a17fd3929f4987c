# SPDX-License-Identifier: Apache-2.0
"""How a scan changes the hit rate of keys that are asked for again, by how the cache admits.

The requests run on the fast path's own programs and maps (BPF_PROG_TEST_RUN). There are two kinds:
hot ones, and a scan's, which asks for each of its keys once. The scan comes among hot requests that
are drawn by Zipf's law, or in one piece, after a hot set that fits into the cache. Every miss is
filled as by the daemon. Hits are counted in the kernel: only hot requests can be hits. The order is
drawn by a seed and is the same for both ways to admit.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

import msgspec
import numpy as np

from carom.daemon.cache import Cache
from carom.daemon.store import Admit
from carom.errors import ExperimentError, UsageError
from carom.kernel import libbpf
from carom.kernel.abi import Hook, Verdict
from carom.lab.clients.mix import Choice, keys_drawn
from carom.lab.tools.bench import Bench, frame

SWEEP_EVERY = 10_000
"""Requests from one sweep to the next; a running carom sweeps by the clock."""

HOT_SET, PASS = 0.8, 3
"""The sizes of the hot set and of a scan in one piece, as multiples of the capacity."""

ONE_PASS = "one pass"

_SIZE = 32  # bytes of a request, and of its reply
_CHECKSUM = slice(40, 42)  # of UDP, in an Ethernet frame of IPv4: 0 is none


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `hot` requests by Zipf's law over `keys` keys, and a scan's among them, whose
    share of all requests is each of `scans` in turn.

    The first third of the hot requests warms up the cache and is not counted.
    """

    keys: int = 100_000
    capacity: int = 10_000
    exponent: float = 0.99
    hot: int = 300_000
    scans: tuple[float, ...] = (0.0, 0.5)
    seed: int = 1

    def checked(self) -> Scan:
        """The same scan. Raises UsageError that names the first wrong value."""
        for name, low, high in (
            ("keys", 1, 2**20),
            ("capacity", 1, 10**6),
            ("exponent", 0, 100),
            ("hot", 3, 10**8),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} {value} is out of range", hint=f"{low} to {high}")
        if not all(0 <= share < 1 for share in self.scans):
            raise UsageError("a scan's share lies between 0 and 1", hint="--scan 0,0.5")
        return self


class Washed(msgspec.Struct, frozen=True, kw_only=True):
    """One row: the hot requests that were counted, their hits, and all fills."""

    scan: str
    admit: Admit
    requests: int
    hits: int
    fills: int
    not_admitted: int

    @property
    def hit_rate(self) -> float:
        """The hit rate of the hot requests, 0 to 1."""
        return self.hits / self.requests


def measure(scan: Scan, progress: Callable[[str], None] = lambda row: None) -> Iterator[Washed]:
    """A row for each kind of scan and each way to admit.

    Raises UsageError, PrivilegeError, CompileError, VerifierError, ExperimentError.
    """
    scan.checked()
    for share in (*scan.scans, None):
        for admit in get_args(Admit):
            name = ONE_PASS if share is None else f"{share:.0%}"
            progress(f"{name}, admit {admit}")
            with contextlib.ExitStack() as stack:
                run = _Run(stack, scan.capacity, admit)
                requests, hits = run.one_pass() if share is None else run.mixed(scan, share)
                yield Washed(
                    scan=name,
                    admit=admit,
                    requests=requests,
                    hits=hits,
                    fills=run.cache.fills,
                    not_admitted=run.cache.not_admitted,
                )


class _Run:
    """One cache, which is empty at first."""

    def __init__(self, stack: contextlib.ExitStack, capacity: int, admit: Admit):
        bench = Bench(stack, capacity=capacity, admit=admit)
        self.cache = Cache(bench.fastpath.store, bench.clock, 86_400)
        self._capacity = capacity
        self._fastpath = bench.fastpath
        self._clock = bench.clock
        self._sweep()
        head = bytearray(frame(bytes(_SIZE))[:-_SIZE])
        head[_CHECKSUM] = bytes(2)
        self._head = bytes(head)
        self._asked = 0

    def mixed(self, scan: Scan, share: float) -> tuple[int, int]:
        """Hot requests by Zipf's law, before each a random number of a scan's; returns the counted
        hot requests and their hits."""
        random = np.random.default_rng(scan.seed)
        choice = Choice(draw="zipf", exponent=scan.exponent)
        order = keys_drawn(scan.keys, scan.hot, choice, random).tolist()
        others = random.geometric(1 - share, scan.hot) - 1
        fresh, warm, hits = itertools.count(scan.keys), scan.hot // 3, 0
        for number, (key, before) in enumerate(zip(order, others.tolist(), strict=True)):
            if number == warm:
                hits = self._hits()
            self.ask(itertools.islice(fresh, before))
            self.ask([key])
        return scan.hot - warm, self._hits() - hits

    def one_pass(self) -> tuple[int, int]:
        """Ask three times for a hot set, then for a scan; returns the hot set's size and how many
        of it are still hits."""
        hot = range(max(1, int(HOT_SET * self._capacity)))
        for _ in range(3):
            self.ask(hot)
        self.ask(range(len(hot), len(hot) + PASS * self._capacity))
        before = self._hits()
        self.ask(hot)
        return len(hot), self._hits() - before

    def _hits(self) -> int:
        return self._fastpath.verdicts(Hook.XDP)[Verdict.HIT]

    def _sweep(self) -> None:
        self._fastpath.store.sweep(self._clock.now())

    def ask(self, keys: Iterable[int]) -> None:
        """Ask for keys, and fill each miss."""
        for key in keys:
            payload = key.to_bytes(_SIZE, "big")
            result = libbpf.test_run(self._fastpath.program, self._head + payload)
            if result.retval == libbpf.XDP_PASS:
                self.cache.fill(payload, payload, self.cache.take(payload))
            elif result.retval != libbpf.XDP_TX:
                raise ExperimentError(f"the program returned {result.retval}")
            self._asked += 1
            if self._asked % SWEEP_EVERY == 0:
                self._sweep()
