# SPDX-License-Identifier: Apache-2.0
"""The contests: hits under full load, memcached with carom and without, and the service beside."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from carom.errors import ExperimentError
from carom.lab.clients import load, ping
from carom.lab.clients.requests import Plan
from carom.lab.course import apart, attached, facing, spent
from carom.lab.experiments.contests.contest import PORT, Bar, Event, Ground, Subject
from carom.lab.model import RoundTrips
from carom.protocols.memcached import PORT as MEMCACHED_PORT
from carom.xdp.link import Mode

RATE, PER_CPU = "replies/s", "replies/CPU-s"
BLOCKING, SPINNING = "p50 blocking, µs", "p50 spinning, µs"
BULK = "TCP, Gbit/s"
_BULK_PORT = 51143
_OUTSTANDING = 128  # requests at once: no queue on the way is longer
_WARM_RATE = 20_000.0

_WAYS = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "TC": ("--hook", "tc"),
}
"""How carom is attached, and with which options."""

_HITS = Plan(size=(32, 32))
_GETS = Plan(form="memcached", size=(20, 20))
_MEMCACHED = "carom.lab.experiments.contests.memcached:values"


def _each_way(prefix: str, measure: Callable[..., dict[str, float]]) -> Iterator[Subject]:
    """A subject for each way to attach carom, measured with its options."""
    for way, options in _WAYS.items():
        yield Subject(
            prefix + way, functools.partial(lambda ground, how: measure(ground, *how), how=options)
        )


@contextlib.contextmanager
def _serving(ground: Ground, *arguments: str, command: str = "serve") -> Iterator[int]:
    """A carom on the server's host; its pid."""
    host = ground.pair.server
    where = ["-i", host.interface, "--bind", host.address]
    if command == "serve":
        where += ["--cpu", str(ground.server_cpu)]
    arguments = (*where, "--ttl", "1h", *arguments)
    with facing(ground.pair, ground.client, arguments):
        pid = ground.server.call("serve", arguments=arguments, command=command)["pid"]
    try:
        yield pid
    finally:
        ground.server.call("stop", pid=pid)


def _load(ground: Ground, plan: Plan, app: str, port: int, *, warm: bool = False) -> load.Load:
    """Every key once, or as much as it takes for as long as asked."""
    options = load.Options(
        count=plan.keys if warm else None,
        seconds=None if warm else ground.settings.seconds,
        rate=_WARM_RATE if warm else None,
        source_ports=_OUTSTANDING,
        cpu=ground.client_cpu,
        timeout=0.5,
    )
    done = ground.client.load(
        ground.pair.client.interface, ground.pair.server.address, port, plan, options, app
    )
    if done.round_trips.wrong or not done.round_trips.count:
        raise ExperimentError(
            f"{done.round_trips.wrong} of {done.sent} replies were wrong, "
            f"{done.round_trips.count} right"
        )
    return done


def _full(ground: Ground, plan: Plan, app: str, port: int, pids: list[int]) -> dict[str, float]:
    """Replies a second, and a second of the server's CPU, under full load."""
    cpus = ground.client_cpu, ground.server_cpu
    with apart(ground.pair, ground.client, ground.server, cpus):
        begin = ground.server.call("cpu_seconds", pids=pids)
        done = _load(ground, plan, app, port)
        busy = spent(begin, ground.server.call("cpu_seconds", pids=pids))
    found = {RATE: done.round_trips.rate}
    if busy is None:
        return found
    if busy <= 0:  # the kernel's threads are told apart by when they came
        raise ExperimentError(
            "the server's CPU time was not counted: what its interface receives had another thread",
            hint="does another experiment run on this machine? let it end first",
        )
    return {**found, PER_CPU: done.round_trips.count / busy}


def _keys(ground: Ground, plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, keys=ground.settings.keys)


def _userspace(ground: Ground, wait: Literal["block", "spin"]) -> dict[str, float]:
    plan = _keys(ground, _HITS)
    with _serving(ground, "-p", str(PORT), "--hook", "none", "--wait", wait) as pid:
        return _full(ground, plan, "echo", PORT, [pid])


def _swap(ground: Ground, mode: Mode) -> dict[str, float]:
    with attached(ground.server, ground.pair.server.interface, "swap", mode):
        return _full(ground, _keys(ground, _HITS), "echo", PORT, [])


def _hits(ground: Ground, *arguments: str) -> dict[str, float]:
    plan = _keys(ground, _HITS)
    with _serving(ground, "-p", str(PORT), *arguments) as pid:
        _load(ground, plan, "echo", PORT, warm=True)
        before = ground.server.call("status", pid=pid)["verdicts"]["hit"]
        found = _full(ground, plan, "echo", PORT, [pid])
        hits = ground.server.call("status", pid=pid)["verdicts"]["hit"] - before
    if hits < found[RATE] * ground.settings.seconds * 0.999:
        raise ExperimentError(f"only {hits} replies were hits")
    return found


LOAD = Event(
    description="replies a second and a CPU-second under full load: userspace, hits, bare swaps",
    subjects=(
        Subject("userspace, blocking", functools.partial(_userspace, wait="block")),
        Subject("userspace, spinning", functools.partial(_userspace, wait="spin")),
        Subject("bare swap, native", functools.partial(_swap, mode="native")),
        Subject("bare swap, generic", functools.partial(_swap, mode="generic")),
        *_each_way("hits, ", _hits),
    ),
    bars=(
        *(
            Bar(
                f"hits, {mode}: a CPU-second, by the fastest userspace",
                PER_CPU,
                f"hits, {mode}",
                ("userspace, blocking", "userspace, spinning"),
                at_least=None if mode == "TC" else 8,
            )
            for mode in _WAYS
        ),
        *(
            Bar(
                f"hits, {mode}: a second, by bare swaps",
                RATE,
                f"hits, {mode}",
                (f"bare swap, {mode}",),
                at_least=0.8,
            )
            for mode in ("native", "generic")
        ),
    ),
)


def _ask(ground: Ground, plan: Plan, app: str, port: int, *, spin: bool) -> RoundTrips:
    options = ping.Options(
        count=None,
        seconds=ground.settings.seconds / 2,
        wait="spin" if spin else "block",
        cpu=ground.client_cpu,
    )
    address = ground.pair.server.address
    trips = ground.client.ping(address, port, plan, options, app).round_trips
    if trips.wrong or trips.lost:
        raise ExperimentError(f"{trips.wrong} replies were wrong, {trips.lost} lost")
    return trips


def _gets(ground: Ground, pids: list[int], *arguments: str) -> dict[str, float]:
    """What a memcached gives: GETs at full load, and one by one."""
    plan = _keys(ground, _GETS)
    found = _full(ground, plan, _MEMCACHED, MEMCACHED_PORT, pids)
    with facing(ground.pair, ground.client, arguments):
        for name, spin in ((BLOCKING, False), (SPINNING, True)):
            trips = _ask(ground, plan, _MEMCACHED, MEMCACHED_PORT, spin=spin)
            found[name] = trips.p50 / 1e3
    return found


@contextlib.contextmanager
def _memcached(ground: Ground) -> Iterator[int]:
    plan = msgspec.to_builtins(_keys(ground, _GETS))
    address = ground.pair.server.address
    argv = ["memcached", "-u", "nobody", "-t", "1", "-l", address]
    argv += ["-p", str(MEMCACHED_PORT), "-U", str(MEMCACHED_PORT)]
    filling = {"address": address, "port": MEMCACHED_PORT, "plan": plan}
    fill = "experiments.contests.memcached:fill"
    pid = ground.server.call("start", argv=argv, ready=fill, arguments=filling)
    try:
        ground.server.call("pin", pid=pid, cpu=ground.server_cpu)
        yield pid
    finally:
        ground.server.call("stop", pid=pid)


def _alone(ground: Ground) -> dict[str, float]:
    with _memcached(ground) as pid:
        return _gets(ground, [pid])


def _fronted(ground: Ground, *arguments: str) -> dict[str, float]:
    front = ("--protocol", "memcached", "-p", str(MEMCACHED_PORT))
    with (
        _memcached(ground) as pid,
        _serving(ground, *front, *arguments, command="front") as carom,
    ):
        plan = _keys(ground, _GETS)
        _load(ground, plan, _MEMCACHED, MEMCACHED_PORT, warm=True)
        return _gets(ground, [pid, carom], *arguments)


MEMCACHED = Event(
    description="GETs of a memcached with carom before it and without: under load, and one by one",
    programs=("memcached",),
    subjects=(
        Subject("memcached", _alone),
        *_each_way("carom, ", _fronted),
    ),
    bars=tuple(
        bar
        for name in (f"carom, {way}" for way in _WAYS)
        for bar in (
            Bar(
                f"{name}: GETs a second",
                RATE,
                name,
                ("memcached",),
                at_least=8 if name == "carom, native" else None,
            ),
            Bar(f"{name}: GETs a CPU-second", PER_CPU, name, ("memcached",)),
            Bar(
                f"{name}: p50 blocking, without / with", BLOCKING, "memcached", (name,), at_least=8
            ),
            Bar(
                f"{name}: p50 spinning, without / with",
                SPINNING,
                "memcached",
                (name,),
                at_least=1.5,
            ),
        )
    ),
)


@contextlib.contextmanager
def _around(ground: Ground, arguments: tuple[str, ...], bare: Mode | None) -> Iterator[None]:
    """A carom that nobody asks, or in its place a bare program that passes everything."""
    with contextlib.ExitStack() as stack:
        if bare:
            interface = ground.pair.server.interface
            stack.enter_context(attached(ground.server, interface, "pass", bare))
        elif arguments:
            stack.enter_context(_serving(ground, "-p", str(PORT), *arguments))
        stack.enter_context(facing(ground.pair, ground.client, arguments))
        yield


def _beside(ground: Ground, *arguments: str, bare: Mode | None = None) -> dict[str, float]:
    """What is beside it: a plain server and a TCP stream."""
    beside = PORT + 1
    address = ground.pair.server.address
    plain = ("-p", str(beside), "--hook", "none", "--wait", "spin")
    with _serving(ground, *plain), _around(ground, arguments, bare):
        trips = _ask(ground, _HITS, "echo", beside, spin=True)
        found = {SPINNING: trips.p50 / 1e3}
    with _around(ground, arguments, bare):
        seconds = ground.settings.seconds / 2
        sent: Any = ground.client.call("stream", address=address, port=_BULK_PORT, seconds=seconds)
    return {**found, BULK: sent * 8 / 1e9}


def _beside_bare(ground: Ground, mode: Mode) -> dict[str, float]:
    return _beside(ground, *_WAYS[mode], bare=mode)


def _listen(ground: Ground) -> None:
    ground.server.call("sink", address=ground.pair.server.address, port=_BULK_PORT)


BESIDE = Event(
    description="what an attached carom costs a service and a TCP stream on the same interface",
    subjects=(
        Subject("no carom", _beside),
        Subject("bare native", functools.partial(_beside_bare, mode="native")),
        Subject("bare generic", functools.partial(_beside_bare, mode="generic")),
        *_each_way("", _beside),
    ),
    bars=(
        *(
            bar
            for name in _WAYS
            for bar in (
                Bar(
                    f"{name}: p50 of UDP, with / without",
                    SPINNING,
                    name,
                    ("no carom",),
                    at_most=1.05,
                ),
                Bar(f"{name}: TCP, with / without", BULK, name, ("no carom",)),
            )
        ),
        *(
            bar
            for name in ("native", "generic")
            for bar in (
                Bar(
                    f"{name}: p50 of UDP, with / bare",
                    SPINNING,
                    name,
                    (f"bare {name}",),
                    at_most=1.05,
                ),
                Bar(f"{name}: TCP, with / bare", BULK, name, (f"bare {name}",)),
            )
        ),
    ),
    prepare=_listen,
)

CONTESTS = {"load": LOAD, "memcached": MEMCACHED, "beside": BESIDE}
