# SPDX-License-Identifier: Apache-2.0
"""Writers and readers at full load against a carom that fills, flushes, expires and evicts.

Every reply is one that its key had, and none is older than the last write that was acknowledged
before its request was sent.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time

import pytest

from netns.changing import KEYS, WRITE_PORT, number_of, reply_of, request_of, write_of
from netns.line import Line
from netns.process import Carom
from netns.services import PORT
from netns.torture import ASKS, READERS, Asker, Cell, Shared, crowd, enough, torture

SERVE = ("--ttl", "20ms", "--capacity", "32", "--amplify", "0")
"""Too short a life and too little room for what is asked, so entries expire and are evicted."""


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


def readers_and_writer(line: Line, shared: Shared) -> contextlib.AbstractContextManager[None]:
    """In the client's namespace, until the context is left."""
    jobs = [functools.partial(read, shared, line.address, reader) for reader in range(READERS)]
    return crowd(line.client, shared, *jobs, functools.partial(write, shared, line.address))


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("policy", ["lru", "fcfs"])
def test_nothing_stale(straight: Line, long_form: bool, hook: str, policy: str) -> None:
    """`changing` takes back what it said: no violation, whatever else happens."""
    arguments = ("--app", "changing:changing", "--hook", hook, "--policy", policy, *SERVE)
    shared = Shared(KEYS)
    with Carom(straight.server, *arguments) as carom, readers_and_writer(straight, shared):
        torture(carom, shared, enough(shared, long_form, ASKS // 100))
        counters = carom.counters()
    print(shared, {name: n for name, n in counters.items() if n})
    assert shared.violations() == (0, 0)
    assert counters["hit"] >= 0.1 * shared.asks(), "hardly any hits prove nothing"
    assert counters["fills"] >= 0.01 * shared.asks()
    assert counters["miss_void"]
    assert counters["miss_expired"]


def test_the_judges_find_what_is_stale(straight: Line) -> None:
    """`forgetful` takes nothing back: violations are found."""
    arguments = ("--app", "changing:forgetful", *SERVE)
    shared = Shared(KEYS)
    with Carom(straight.server, *arguments) as carom, readers_and_writer(straight, shared):
        torture(carom, shared, lambda: shared.cells[Cell.STALE] > 0)
    assert shared.cells[Cell.UNKNOWN] == 0
