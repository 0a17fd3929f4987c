# SPDX-License-Identifier: Apache-2.0
"""Several closed-loop clients at once, each a process, and their round trips put together."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.synchronize import Barrier

import msgspec

from carom import apps
from carom.errors import ExperimentError
from carom.kernel import signals
from carom.lab.clients.ping import Options, Ping, ping
from carom.lab.clients.requests import Plan
from carom.lab.stats.distribution import together

_PATIENCE = 30.0  # seconds for all of them to start

_gate: Barrier


def crowd(address: str, port: int, plan: Plan, options: Options, app: str, clients: int) -> Ping:
    """Ask as `ping` does, by `clients` clients at once, each with a seed of its own.

    They start together. The result has the requests of all (see `distribution.together`), over the
    whole time of the slowest: while one client is between two requests, others are answered.
    Raises ExperimentError when one of them is lost, or does not end.
    """
    context = multiprocessing.get_context("fork")  # a copy has all modules and payloads already
    plan.checked().prepare()
    plans = [msgspec.structs.replace(plan, seed=plan.seed + n) for n in range(clients)]
    gate = context.Barrier(clients)
    with signals.ended_at_once():
        workers = context.Pool(clients, _enter, (gate,))
    with workers as pool:
        asked = pool.starmap_async(
            _ask, [(address, port, own_plan, options, app) for own_plan in plans], chunksize=1
        )
        pool.close()
        try:
            pings: list[Ping] = asked.get(2 * _PATIENCE + (options.seconds or 0) + options.timeout)
        except (multiprocessing.TimeoutError, threading.BrokenBarrierError) as error:
            raise ExperimentError(
                f"not all of {clients} clients began and ended",
                hint="was one killed? is there enough memory for them?",
            ) from error
        pool.join()
    return Ping(
        sent=sum(result.sent for result in pings),
        hot=sum(result.hot for result in pings),
        complete=all(result.complete for result in pings),
        round_trips=together([result.round_trips for result in pings]),
    )


def _enter(gate: Barrier) -> None:
    global _gate
    _gate = gate


def _ask(address: str, port: int, plan: Plan, options: Options, app: str) -> Ping:
    expect = apps.expectation(app)
    _gate.wait(_PATIENCE)
    result = ping(address, port, plan, options, expect)
    trips = msgspec.structs.replace(result.round_trips, seconds=result.wall)
    return msgspec.structs.replace(result, round_trips=trips)
