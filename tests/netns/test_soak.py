# SPDX-License-Identifier: Apache-2.0
"""Ten minutes at full load, with 1,000,000 keys of a memcached and a few writes: nothing grows.

Memory, descriptors and maps are what they were, no reply is wrong, and nearly all are hits. How
long hits take at the beginning and at the end is printed, with intervals. CAROM_SOAK has another
number of seconds.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from carom import apps
from carom.lab.clients import load
from carom.lab.clients.buckets import Tally
from carom.lab.clients.load import Generator
from carom.lab.clients.mix import Choice, Mix, planned
from carom.lab.clients.ping import pinned
from carom.lab.clients.requests import Plan
from carom.lab.experiments.contests import memcached_client
from carom.lab.stats.estimates import Estimate, independent_ratio, mean
from carom.protocols.memcached import HEADER, PORT
from netns import line as lines
from netns.line import Line
from netns.memcache import Memcached
from netns.process import INTERFACE, Carom

KEYS = 1_000_000
WRITTEN = 1_000
SHARE = 0.0002
"""So many of the keys are also written, by this share of requests. What is asked next is a miss."""

SECONDS = float(os.environ.get("CAROM_SOAK", "600"))
WINDOWS = 60
COMPARED = WINDOWS // 6
"""Windows at the beginning, and at the end."""

PLAN = Plan(form="memcached", size=(20, 20), keys=KEYS)
OPTIONS = load.Options(source_ports=16_384, first_port=40_000, rate=None, timeout=2.0)
"""A port that was given up has no reply any more, however long a server on a busy machine takes:
one that came would be taken for a wrong reply to the next request."""

AT_ONCE, PAUSE = 32, 0.002
"""While the cache is being filled: requests at a time, and seconds in between."""

BURST = 4096
"""Later: requests in one call."""

ROUNDS = 20
"""The most times that all keys are asked for until nearly all are hits."""

HEAP_GROWTH = 2 << 20
"""Bytes that the daemon's own memory may differ by: Python takes it in pieces of 1 MB."""

ANY_RATE = ("--prefix-rate", "0", "--total-rate", "0", "--amplify", "0")


class Held(NamedTuple):
    """What a daemon has: its own memory, and of maps, in bytes; how many descriptors and maps."""

    heap: int
    shared: int
    maps_memory: int
    descriptors: int
    maps: int

    @classmethod
    def of(cls, pid: int) -> Held:
        """Now."""
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+): +(\d+) kB", rollup, re.M)}
        infos = [info.read_text() for info in Path(f"/proc/{pid}/fdinfo").iterdir()]
        maps = {
            found[2]: int(found[1])
            for info in infos
            if (found := re.search(r"^memlock:\t(\d+)\nmap_id:\t(\d+)", info, re.M))
        }
        heap = sizes["Anonymous"]
        return cls(heap, sizes["Pss"] - heap, sum(maps.values()), len(infos), len(maps))


class Window(NamedTuple):
    """A part of the time: replies, those a second, and the 99th percentile of round trips, us."""

    replies: int
    rate: float
    p99: float


class Asking:
    """The load, from the client's namespace; each request has one right reply."""

    def __init__(self, generator: Generator):
        self._generator = generator
        self._before = self._tally()

    def _tally(self) -> Tally:
        return self._generator.tally()[1]

    @property
    def outcomes(self) -> dict[str, int]:
        """Replies so far, by what they were."""
        return self._generator.tally()[0]

    def each_key(self) -> None:
        """Ask for all keys, so slowly that a server's socket mostly has room for what it misses."""
        sent, end = self._generator.counter, self._generator.counter("reads") + KEYS
        while sent("reads") < end:
            self._generator.send(AT_ONCE)
            time.sleep(PAUSE)

    def window(self, seconds: float) -> Window:
        """Ask as fast as possible."""
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            self._generator.send(BURST)
        took = time.monotonic() - begin
        before, self._before = self._before, self._tally()
        counts = self._before.counts - before.counts
        trips = Tally(counts, 0, 0, 2**62).round_trips(
            lost=0, duplicated=0, reordered=0, wrong=0, seconds=took
        )
        return Window(trips.count, trips.count / took, trips.p99 / 1e3)


def _requests() -> Mix:
    """Gets of all keys in turn, and sets of some, of the values that they have already."""
    gets = planned(PLAN)
    keys = [get[HEADER.size :].split()[1] for get in gets[:: KEYS // WRITTEN]]
    sets = [HEADER.pack(1, 0, 1, 0) + _set(key) for key in keys]
    return Mix(gets, sets, Choice(draw="sequential", writes=SHARE))


def _set(key: bytes, how: bytes = b"") -> bytes:
    value = memcached_client.value_of(key)
    return b"set %b 0 0 %d%b\r\n%b\r\n" % (key, len(value), how, value)


def _fill(line: Line, mix: Mix) -> None:
    """Have the server store all keys."""
    with line.client.call(lambda: socket.create_connection((line.address, PORT))) as tcp:
        for at in range(0, KEYS, 1_000):
            some = mix.requests[at : min(at + 1_000, KEYS)]
            keys = [get[HEADER.size :].split()[1] for get in some]
            tcp.sendall(b"".join(_set(key, b" noreply") for key in keys))
        tcp.sendall(b"version\r\n")
        assert tcp.recv(64).startswith(b"VERSION")


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """A pair of this file's own, for the client brings a program of its own."""
    with lines.bare() as line:
        yield line


def _asked(line: Line, carom: Carom, mix: Mix) -> tuple[list[tuple[Held, Window]], dict[str, int]]:
    """What the daemon has after each window of a load, and the outcomes of all; in the client's
    namespace."""
    to = load.target(INTERFACE, line.address, PORT)
    expect = apps.expectation(f"{memcached_client.__name__}:values")
    with pinned(0), Generator(to, mix, OPTIONS, expect) as generator:
        generator.attach(to.interface, "native")
        asking = Asking(generator)
        for _ in range(ROUNDS):
            hits = carom.counters()["hit"]
            asking.each_key()
            if carom.counters()["hit"] - hits > 0.99 * KEYS:
                break
        asking.window(SECONDS / WINDOWS)  # what is taken by first use is there
        found = []
        for _ in range(WINDOWS):
            window = asking.window(SECONDS / WINDOWS)
            found.append((Held.of(carom.pid), window))
        return found, {**asking.outcomes, "lost": generator.counter("reads_lost")}


def _shown(estimate: Estimate, digits: int = 1) -> str:
    value, low, high = (f"{one:.{digits}f}" for one in estimate)
    return f"{value} ({low} to {high})"


@pytest.mark.timeout(3 * SECONDS + 1800)
def test_nothing_grows(line: Line, long_form: bool) -> None:
    if not long_form:
        pytest.skip("it takes a quarter of an hour of both CPUs: --long (./run life)")
    mix = _requests()
    with Memcached(line.server, addresses="0.0.0.0", options=("-m", "512")):
        _fill(line, mix)
        arguments = ("--mode", "native", "--ttl", "1h", "--capacity", str(KEYS), *ANY_RATE)
        with lines.met(line):
            carom = Carom(line.server, *arguments, command="front")
        with carom:
            found, outcomes = line.client.call(lambda: _asked(line, carom, mix))
            status = carom.status()
    held, windows = zip(*found, strict=True)
    first, last = held[:COMPARED], held[-COMPARED:]
    for one in (held[0], held[WINDOWS // 2], held[-1]):
        print(one)
    p99s = [[window.p99 for window in part] for part in (windows[:COMPARED], windows[-COMPARED:])]
    print(f"p99 us, at first {_shown(mean(p99s[0]))}, at last {_shown(mean(p99s[1]))}")
    print(f"p99, last / first {_shown(independent_ratio(p99s[1], p99s[0]), 3)}")
    rates = [window.rate for window in windows]
    print(f"{sum(one.replies for one in windows):,} replies, {statistics.median(rates):,.0f}/s")
    print({name: n for name, n in status["verdicts"].items() if n}, status["cache"])

    print(outcomes)

    def middle(part: tuple[Held, ...], name: str) -> float:
        return statistics.median(getattr(one, name) for one in part)

    assert outcomes["answered"] and not outcomes["wrong"] and not outcomes["duplicated"]
    assert {(one.descriptors, one.maps) for one in held} == {(held[0].descriptors, held[0].maps)}
    assert abs(middle(last, "heap") - middle(first, "heap")) <= HEAP_GROWTH
    for name in ("shared", "maps_memory"):
        assert middle(last, name) == pytest.approx(middle(first, name), rel=0.01), name
    assert status["cache"]["entries"] <= KEYS
    assert status["verdicts"]["hit"] > 0.9 * np.sum([one.replies for one in windows])
