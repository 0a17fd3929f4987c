# SPDX-License-Identifier: Apache-2.0
"""The sweeps: ways of answering compared at every hook, while one thing is varied.

They are what the authors of the published experiments named as missing: other hooks, payload
sizes, several clients, offered load, and runs of minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import msgspec

from carom.errors import UsageError
from carom.kernel.abi import REPLY_SAFE
from carom.lab import limits
from carom.lab.clients.requests import Plan
from carom.lab.experiments.bounce_cache.grid import WAITS, Counter, Trial
from carom.lab.model import Cell, Task, Wait

Series = Literal["userspace", "tc", "xdp_generic", "xdp_native"]
SERIES: tuple[Series, ...] = get_args(Series)
Name = Literal["hooks", "sizes", "clients", "knee", "minutes"]

SIZES = (1, 16, 64, 128, 256, 512, 1024, REPLY_SAFE)
CLIENTS = (1, 2, 4, 8, 16)
RATES = (10e3, 20e3, 40e3, 60e3, 80e3, 120e3, 160e3, 240e3, 320e3, 480e3, 640e3, 960e3, 1.28e6)

DESCRIPTIONS: dict[Name, str] = {
    "hooks": "RTT of a bounce, a hit and a miss: userspace, TC, generic and native XDP",
    "sizes": "the same of a bounce and a hit, against payloads of 1 to 1,232 bytes",
    "clients": "the same of a hit, and replies a second, against clients that ask at once",
    "knee": "replies and losses of each against the requests a second that are offered",
    "minutes": "the same of a hit over minutes: does it stay so?",
}

_AT: dict[Series, list[str]] = {
    "userspace": ["--hook", "none"],
    "tc": ["--hook", "tc"],
    "xdp_generic": ["--mode", "generic"],
    "xdp_native": ["--mode", "native"],
}
_REQUEST = 32
"""Bytes of a request, where sizes are not what varies."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the sweeps are run with.

    `seconds` is how long each measurement lasts; `rates` are requests a second; `windows` how many
    measurements follow each other before one server.
    """

    series: tuple[Series, ...] = SERIES
    waits: tuple[Wait, ...] = ("blocking", "spin")
    sizes: tuple[int, ...] = SIZES
    clients: tuple[int, ...] = CLIENTS
    rates: tuple[float, ...] = RATES
    windows: int = 30
    seconds: float = 10.0
    repetitions: int = 10
    keys: int = 1000
    seed: int = 1

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        for name in ("series", "waits", "sizes", "clients", "rates"):
            if not getattr(self, name):
                raise UsageError(f"{name} must name at least one", hint=f"leave --{name} out")
        for name in ("sizes", "clients", "rates"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise UsageError(f"{name} must rise", hint="from the smallest on, each once")
        if not all(1 <= one <= REPLY_SAFE for one in self.sizes):
            raise UsageError(
                f"sizes must lie from 1 to {REPLY_SAFE} bytes",
                hint="--sizes 1,64,1200; the kernel gives no longer replies to any host",
            )
        if not all(1 <= one <= 64 for one in self.clients):
            raise UsageError("clients must be from 1 to 64", hint="--clients 1,4,16")
        if not all(1 <= one <= 1e8 for one in self.rates):
            raise UsageError("rates must be from 1 to 100,000,000", hint="--rates 10000,100000")
        if not 2 <= self.windows <= 10_000:
            raise UsageError(f"windows {self.windows} is out of range", hint="2 to 10000")
        limits.check(self.repetitions, self.seconds)
        if not 2 <= self.keys <= 10_000:
            raise UsageError(f"keys {self.keys} is out of range", hint="2 to 10000")
        return self


_WAITS: dict[Name, tuple[Wait, ...]] = {
    "hooks": ("blocking", "spin"),
    # Spinning hides nothing of a packet's cost behind a CPU that has to wake up.
    "sizes": ("spin",),
    # Several clients on one CPU, and a server under load or for minutes, wait as services do.
    "clients": ("blocking",),
    "knee": ("blocking",),
    "minutes": ("blocking",),
}

APART = ("clients",)
"""Those in which either host has a CPU of its own."""

_OPTIONS: dict[Name, tuple[str, ...]] = {
    "hooks": (),
    "sizes": ("sizes",),
    "clients": ("clients",),
    "knee": ("rates",),
    "minutes": ("windows",),
}
"""What each has of its own."""

_SHORT: dict[Name, dict[str, Any]] = {
    "hooks": {},
    "sizes": {"sizes": (1, 128, 512, REPLY_SAFE)},
    "clients": {"clients": (1, 4, 16)},
    "knee": {"rates": (20e3, 80e3, 160e3, 480e3, 960e3)},
    "minutes": {"windows": 6},
}


def options(name: Name) -> tuple[str, ...]:
    """The settings that can be chosen for one of the sweeps."""
    return (*_OPTIONS[name], "series", "waits", "seconds", "repetitions", "keys", "seed")


def standard(name: Name, *, short: bool) -> Settings:
    """What stands where nothing else is chosen; `short` is half a minute of measuring or so."""
    values: dict[str, Any] = {"waits": _WAITS[name]}
    if name == "minutes":
        values |= {"repetitions": 3}
    if short:
        values |= {"repetitions": 3, "seconds": 0.5, **_SHORT[name]}
    return Settings(**values)


def trials(name: Name, settings: Settings) -> list[Trial]:
    """The grid of a sweep. Raises UsageError for a wrong setting."""
    settings.checked()
    if name in APART and "one-cpu" in settings.waits:
        raise UsageError(
            f"{name} has no wait one-cpu: its client and its server need a CPU each",
            hint="--waits blocking,spin",
        )
    return [
        trial
        for wait in WAITS
        if wait in settings.waits
        for series in SERIES
        if series in settings.series
        for trial in _GRIDS[name](settings, series, wait)
    ]


def _hooks(settings: Settings, series: Series, wait: Wait) -> Iterator[Trial]:
    for task in get_args(Task):
        yield _trial(settings, Cell(series=series, wait=wait, task=task))


def _sizes(settings: Settings, series: Series, wait: Wait) -> Iterator[Trial]:
    """A bounce is as long as its request; a hit's request is short, and its reply as long as said.

    (A key has 256 bytes at most.)
    """
    for size in settings.sizes:
        yield _trial(settings, Cell(series=series, wait=wait, task="bounce", size=size))
        yield _trial(settings, Cell(series=series, wait=wait, task="hit", size=size))


def _clients(settings: Settings, series: Series, wait: Wait) -> Iterator[Trial]:
    for clients in settings.clients:
        cell = Cell(series=series, wait=wait, task="hit", clients=clients)
        yield _trial(settings, cell, clients=clients, apart=True)


def _knee(settings: Settings, series: Series, wait: Wait) -> Iterator[Trial]:
    for rate in settings.rates:
        cell = Cell(series=series, wait=wait, task="hit", rate=rate)
        yield _trial(settings, cell, rate=rate)


def _minutes(settings: Settings, series: Series, wait: Wait) -> Iterator[Trial]:
    yield _trial(settings, Cell(series=series, wait=wait, task="hit"), windows=settings.windows)


_GRIDS = {
    "hooks": _hooks,
    "sizes": _sizes,
    "clients": _clients,
    "knee": _knee,
    "minutes": _minutes,
}


def _trial(settings: Settings, cell: Cell, **how: Any) -> Trial:
    """How a cell is measured: the same requests and the same service in every series."""
    plans = {
        "bounce": _bounced(settings, cell.size or _REQUEST),
        "hit": _every(settings, cell),
        "miss": Plan(size=(_REQUEST, _REQUEST), draw="unique"),
    }
    assert cell.task
    arguments, counter = _server(cell)
    return Trial(
        cell=cell,
        server=arguments,
        plan=plans[cell.task],
        seconds=settings.seconds,
        counter=counter,
        warm=(_once(plans["hit"]),) if cell.task == "hit" else (),
        fills=cell.task == "miss" and counter == "hit",
        optional=cell.series == "xdp_native",
        app=_app(cell),
        **how,
    )


def _server(cell: Cell) -> tuple[list[str], Counter]:
    """The options of a cell's server, and where its hits are counted."""
    arguments = [*_AT[cell.series], "--app", _app(cell)]  # type: ignore[index]
    if cell.series == "userspace":
        return arguments, "none"
    if cell.task == "bounce":
        return [*arguments, "--fast", "bounce"], "bounce"
    cached = ["--ttl", "24h", "--capacity", "16384", "--admit", "always", "--amplify", "0"]
    return [*arguments, *cached], "hit"


def _app(cell: Cell) -> str:
    """A hit's reply is as long as its request asks for, where the size is what varies."""
    return "sized" if cell.task == "hit" and cell.size is not None else "kept"


def _bounced(settings: Settings, size: int) -> Plan:
    keys = min(settings.keys, 256 ** min(size, 8))
    return Plan(size=(size, size), keys=keys, seed=settings.seed)


def _every(settings: Settings, cell: Cell) -> Plan:
    """Requests that are all in the cache, in random order."""
    size = (_REQUEST, _REQUEST)
    first = 0 if cell.size is None else cell.size << _LENGTH_SHIFT
    keys = settings.keys
    return Plan(size=size, first=first, keys=keys, hot=keys, hot_share=1.0, seed=settings.seed)


def _once(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, draw="sequential", hot=0, hot_share=None)


_LENGTH_SHIFT = 48
"""A request's number is its first 8 bytes, and `apps.sized` takes the reply's length of the first
2."""
