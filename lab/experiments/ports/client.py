# SPDX-License-Identifier: Apache-2.0
"""A client of one of the four ports: one request after the other, every reply checked."""

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

    Expected replies are computed beforehand: Python takes longer for one than a round trip does.
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
    """The requests of a port's client: a number in four bytes, or in seven digits.

    The first digit names the port, from 1 on, for a program that sees only the payload.
    """
    if name == "concurrency":
        return Plan(size=(4, 4), first=1, keys=KEYS, seed=seed + which)
    first = (which + 1) * 10**6
    # One request per block: a client reads the clock between blocks, and these requests take long.
    return Plan(form="decimal", size=(7, 7), first=first, keys=KEYS, seed=seed + which, block_min=1)
