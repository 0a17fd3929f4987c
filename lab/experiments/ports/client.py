# SPDX-License-Identifier: Apache-2.0
"""A client of one of four ports: one request after the other, every reply checked."""

from __future__ import annotations

import functools

import msgspec

from carom.lab.clients.ping import Options, Ping, ping
from carom.lab.experiments.ports.grid import Settings, plan
from carom.lab.experiments.ports.ports import Name, expected

_PATIENCE = 30.0  # seconds for a reply: the first waits for a process to start


def ask(
    name: Name,
    address: str,
    which: int,
    port: int,
    settings: Settings,
    *,
    cpu: int,
    seconds: float | None,
) -> Ping:
    """Ask as the client of port number `which` (from 0 on), at `port`; without `seconds`, once.

    What is expected is computed beforehand: Python takes longer for it than a round trip.
    """
    requests = plan(name, which, settings.seed)
    expect = functools.cache(functools.partial(expected, name, which, settings.loops[which]))
    for number in range(requests.first, requests.first + requests.keys):
        expect(requests.payload(number))
    if seconds is None:
        requests = msgspec.structs.replace(requests, draw="sequential")
    options = Options(
        count=1 if seconds is None else None, seconds=seconds, timeout=_PATIENCE, cpu=cpu
    )
    return ping(address, port, requests, options, expect)
