# SPDX-License-Identifier: Apache-2.0
"""A client of one of four ports: one request after the other, every reply checked."""

from __future__ import annotations

import functools

import msgspec

from carom.lab.clients.ping import Options, Ping, ping
from carom.lab.clients.requests import Plan
from carom.lab.experiments.ports.ports import Name, expected

KEYS = 100
"""How many different requests each client has."""

_PATIENCE = 30.0  # seconds for a reply: the first waits for a process to start


def ask(
    name: Name,
    address: str,
    which: int,
    port: int,
    *,
    loops: int,
    seed: int,
    cpu: int,
    seconds: float | None,
) -> Ping:
    """Ask as the client of port number `which` (from 0 on), at `port`; without `seconds`, once.

    What is expected is computed beforehand: Python takes longer for it than a round trip.
    """
    requests = plan(name, which, seed)
    expect = functools.cache(functools.partial(expected, name, which, loops))
    for number in range(requests.first, requests.first + requests.keys):
        expect(requests.payload(number))
    if seconds is None:
        requests = msgspec.structs.replace(requests, draw="sequential")
    options = Options(
        count=1 if seconds is None else None, seconds=seconds, timeout=_PATIENCE, cpu=cpu
    )
    return ping(address, port, requests, options, expect)


def plan(name: Name, which: int, seed: int) -> Plan:
    """What the client of a port asks: a number of four bytes, or seven digits.

    The first digit names the port, from 1 on, for those that see nothing else of it.
    """
    if name == "concurrency":
        return Plan(size=(4, 4), first=1, keys=KEYS, seed=seed + which)
    first = (which + 1) * 10**6
    # One request a block: a client looks at the clock between blocks, and these take long.
    return Plan(form="decimal", size=(7, 7), first=first, keys=KEYS, seed=seed + which, block_min=1)
