# SPDX-License-Identifier: Apache-2.0
"""One measurement at the client's host: send, and ask until the server has done everything."""

from __future__ import annotations

import contextlib
import os
import time

from carom.errors import ExperimentError
from carom.lab.clients.behaviours import KEY, Choice, Step
from carom.lab.clients.keyvalue import Client, Options, Result
from carom.lab.experiments.filters.model import Filled
from carom.lab.hosts import cpu_time
from carom.protocols.kv import Command

_GET = Choice(name="frigg", packets=0)  # frigg without its packets
_PATIENCE = 1.0  # seconds for a server that has nothing to do
_GIVE_UP = 60.0  # seconds after the last packet
_QUIET = 0.02  # seconds for replies to repeated GETs


def fill(address: str, port: int, choice: Choice, rate: float, pid: int | None, cpu: int) -> Filled:
    """Run a behaviour of PUTs of 1 after a `reset`, against the server `pid`.

    Without a pid the server is on another machine, and its CPU time is 0 here.
    Raises ExperimentError when the server no longer replies.
    """
    os.sched_setaffinity(0, {cpu})
    sending = _Sending()
    with contextlib.closing(Client(address, port, Options(rate=rate))) as client:
        server, machine = _server_time(pid), cpu_time.of_machine()
        start = time.perf_counter()
        results = [client.run(choice, sending.tell)]
        while results[-1].values[-1] is None:
            if time.perf_counter() - sending.end > _GIVE_UP:
                raise ExperimentError(f"{address} port {port} has not replied for {_GIVE_UP:g} s")
            results.append(client.run(_GET))
        wall = time.perf_counter() - start
        server = _server_time(pid) - server
        machine = cpu_time.of_machine() - machine
        time.sleep(_QUIET)
        results.append(client.run(_GET))  # counts what has come late
    return _filled(results, sending.end - start, wall, server, machine)


def _server_time(pid: int | None) -> float:
    return 0.0 if pid is None else cpu_time.of_process(pid)


class _Sending:
    """`end` is when the last packet before the GET was sent."""

    end = 0.0

    def tell(self, step: Step, reply: bytes | None) -> None:
        if step.word in ("PUT", "BAD"):
            self.end = time.perf_counter()


def _filled(
    results: list[Result], send: float, wall: float, server: float, machine: float
) -> Filled:
    values = [value for result in results for value in result.values if value is not None]
    if len(set(values)) > 1:
        raise ExperimentError(f"the server replied before it had done every PUT: {values}")
    puts = sum(result.sent_puts for result in results)
    return Filled(
        sent_puts=puts,
        sent_invalid=sum(result.sent_invalid for result in results),
        sent_others=sum(result.sent_valid for result in results) - puts,
        replies=len(values) + sum(result.late for result in results),
        value=values[0],
        send_seconds=send,
        wall_seconds=wall,
        server_cpu_seconds=server,
        machine_cpu_seconds=machine,
    )


def reset(address: str, port: int) -> None:
    """Set the key's value to 0, and wait until the server has nothing left to do.

    It is 0 and not absent, because a GET of an absent key has no reply to wait for.
    """
    empty = (
        Step("DELETE", Command(b"DELETE", KEY).encode()),
        Step("PUT", Command(b"PUT", KEY, 0).encode()),
        Step("GET", Command(b"GET", KEY).encode()),
    )
    with contextlib.closing(Client(address, port, Options(patience=_PATIENCE))) as client:
        for _ in range(round(_GIVE_UP / _PATIENCE)):
            if client.go(empty).values == [0]:
                return
    raise ExperimentError(
        f"{address} port {port} does not reply", hint="is it up, and does its filter accept GET?"
    )
