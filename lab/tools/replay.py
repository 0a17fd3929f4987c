# SPDX-License-Identifier: Apache-2.0
"""What a cache would have done with a capture, by the fast path's own programs.

Each request of the capture runs on the programs and maps (BPF_PROG_TEST_RUN), at the capture's own
time in whole seconds. A request that is a miss is filled with the reply that the server gave, when
it gave it. So what is counted is what a carom would have answered, with these exceptions: replies
that the capture does not have are not learned; what voids at the server's sockets other than
requests over UDP (TCP, writes that come by other doors) is not seen; and rates, allow-lists and
sources that are never answered are not applied.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import ipaddress
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from carom.daemon.cache import Cache, Token
from carom.daemon.fastpath import FastPath
from carom.daemon.learning import Learner
from carom.daemon.places import Place
from carom.daemon.store import Admit, Policy
from carom.kernel import libbpf
from carom.kernel.abi import REPLY_MAX, Hook
from carom.lab.tools.bench import MAC, SERVER, frame
from carom.protocols.spec import Spec

_LOOPBACK = 1  # its ifindex: a test run's frames come from there
_UDP_CHECK = 40  # where it is in a frame of IPv4: 0 says that there is none
_START = 1000  # seconds of the programs' clock at the capture's first request
_SWEEP_EVERY = 60  # seconds from one sweep to the next; a running carom sweeps each second


@functools.cache
def _head(length: int) -> bytes:
    """What is before a payload of a length in a request's frame; it has no UDP checksum."""
    return frame(bytes(length))[:_UDP_CHECK] + b"\0\0"


class Exchange(NamedTuple):
    """A request, when it came (seconds from the first one on), and its reply, if there is one."""

    at: float
    request: bytes
    replied: float = 0.0
    reply: bytes | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache of a size with a most TTL would have done with a capture.

    `verdicts` counts requests; `entries` and `memory` (bytes, with what finds entries) are at the
    end; `hit_ns` and `miss_ns` are medians of single runs, which find the CPU's caches cold, 0 for
    none.
    """

    capacity: int
    ttl: int
    requests: int
    hits: int
    verdicts: dict[str, int]
    entries: int
    memory: int
    hit_ns: float
    miss_ns: float

    @property
    def hit_ratio(self) -> float:
        """Hits by requests, 0 to 1."""
        return self.hits / self.requests if self.requests else 0.0


def replay(
    asked: Sequence[Exchange],
    protocol: Spec,
    capacity: int,
    ttl: int,
    *,
    admit: Admit = "second",
    policy: Policy = "lru",
    amplify: int = 0,
    max_reply: int = REPLY_MAX,
) -> Replayed:
    """Replay requests with a cache of so many entries, whose replies live `ttl` seconds at most.

    A reply is given if it is no longer than `amplify` requests (0: any) and `max_reply` bytes.
    Raises UsageError, PrivilegeError, CompileError, VerifierError.
    """
    with contextlib.ExitStack() as stack:
        world = _World(stack, protocol, capacity, ttl, admit, policy)
        world.answer(multiple=amplify, max_reply=max_reply)
        world.run(asked)
        return world.result(capacity, ttl, len(asked))


class _World:
    """A fast path whose clock is the capture's, and one service."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        protocol: Spec,
        capacity: int,
        ttl: int,
        admit: Admit,
        policy: Policy,
    ):
        self._fastpath = stack.enter_context(
            FastPath(
                languages=[protocol],
                capacity=capacity,
                admit=admit,
                policy=policy,
                test_clock=True,
            )
        )
        self._learner = Learner(self._fastpath)
        self._protocol, self._ttl = protocol, ttl
        self._clock = _Seconds(self._fastpath)
        self._cache = Cache(self._fastpath.store, self._clock, ttl, protocol.number, protocol)
        self._times: dict[bool, list[int]] = {True: [], False: []}
        self._swept = 0.0
        self._fastpath.lease[0] = 2**64 - 1

    def answer(self, multiple: int, max_reply: int) -> None:
        """Answer requests, by these limits."""
        self._fastpath.answer_at(
            [
                Place(
                    address=ipaddress.IPv4Address(SERVER[0]),
                    port=SERVER[1],
                    ifindex=_LOOPBACK,
                    mac=bytes.fromhex(MAC.replace(":", "")),
                    mtu=1500,
                    service=self._protocol.number,
                    protocol=self._protocol,
                    multiple=multiple,
                    max_reply=max_reply,
                )
            ]
        )

    def run(self, asked: Sequence[Exchange]) -> None:
        """Ask all requests; have each miss's reply learned when it came."""
        coming: list[tuple[float, int, Token | int | None]] = []
        for number, one in enumerate(asked):
            while coming and coming[0][0] <= one.at:
                at, earlier, token = heapq.heappop(coming)
                self._learned(at, asked[earlier], token)
            self._be(one.at)
            token = self._taken(one.request)
            if not self._is_hit(one) and one.reply is not None:
                heapq.heappush(coming, (one.replied, number, token))
        for at, number, token in sorted(coming):
            self._learned(at, asked[number], token)

    def _taken(self, request: bytes) -> Token | int | None:
        """What a request takes before it goes up, in case it does."""
        if self._protocol.learned:
            return int(self._fastpath.store.voids[0])
        return self._cache.take(request)

    def _be(self, at: float) -> None:
        """It is so many seconds after the first request."""
        self._clock.be(at)
        if at - self._swept >= _SWEEP_EVERY:
            self._swept = at
            self._fastpath.store.sweep(self._clock.now())

    def _is_hit(self, one: Exchange) -> bool:
        run = libbpf.test_run(self._fastpath.program, _head(len(one.request)) + one.request)
        hit = run.retval == libbpf.XDP_TX
        self._times[hit].append(run.nanoseconds)
        return hit

    def _learned(self, at: float, one: Exchange, token: Token | int | None) -> None:
        """The server's reply to a miss comes."""
        assert one.reply is not None
        self._be(at)
        if isinstance(token, int):
            self._learner.learn(self._protocol, one.request, one.reply, token=token, ttl=self._ttl)
        else:
            self._cache.fill(one.request, one.reply, token)

    def result(self, capacity: int, ttl: int, requests: int) -> Replayed:
        """What became of them."""
        store = self._fastpath.store
        store.sweep(self._clock.now())
        verdicts = self._fastpath.verdicts(Hook.XDP)
        hit_ns, miss_ns = (statistics.median(self._times[hit] or [0]) for hit in (True, False))
        return Replayed(
            capacity=capacity,
            ttl=ttl,
            requests=requests,
            hits=len(self._times[True]),
            verdicts={one.name.lower(): count for one, count in verdicts.items() if count},
            entries=len(store),
            memory=store.memory,
            hit_ns=hit_ns,
            miss_ns=miss_ns,
        )


class _Seconds:
    """A clock that says what it is told, in the programs as here; a jiffy is a second."""

    def __init__(self, fastpath: FastPath):
        self._cell = fastpath.clock
        self.be(0.0)

    def be(self, seconds: float) -> None:
        """Have it so many seconds after the start."""
        self._cell[0] = _START + int(seconds)

    def now(self) -> int:
        """Seconds, as the programs see them."""
        return int(self._cell[0])

    def ticks(self, seconds: float) -> int:
        """Whole seconds."""
        return max(1, round(seconds))

    def seconds(self, ticks: int) -> float:
        """The same number."""
        return float(ticks)
