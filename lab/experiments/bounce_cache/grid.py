# SPDX-License-Identifier: Apache-2.0
"""The experiments' grids: which server and client make each cell, and what must be counted."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from carom.errors import UsageError
from carom.lab import limits
from carom.lab.clients.requests import Plan
from carom.lab.model import Cell, Wait
from carom.xdp.link import ModeOption

HIT_RATES = (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)
BOUNCE_SECONDS = (15.0, 30.0, 45.0, 60.0)
WAITS: tuple[Wait, ...] = get_args(Wait)

Counter = Literal["bounce", "hit", "userspace", "none"]
"""Where the hits of a cell are counted: a verdict of the kernel's, or the server's own cache."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment is run with; the defaults are the published ones.

    `seconds` is how long one repetition measures (bounce: each of them), `work` what a miss costs
    in seconds, `size` the request's bytes (None: the experiment's own).
    """

    hit_rates: tuple[float, ...] = HIT_RATES
    inner_waits: tuple[Wait, ...] = WAITS
    """The waits in which hit rates other than the lowest and the highest are measured."""
    waits: tuple[Wait, ...] = WAITS
    miss_waits: tuple[Wait, ...] = WAITS
    """The waits in which the cost of a miss is measured."""
    seconds: tuple[float, ...] | None = None
    repetitions: int = 10
    keys: int = 8
    work: float = 0.002
    size: int | None = None
    mode: ModeOption = "auto"
    seed: int = 1

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        if not self.hit_rates or not all(0 <= rate <= 1 for rate in self.hit_rates):
            raise UsageError("hit rates must lie between 0 and 1", hint="--hit-rates 0,0.5,1")
        limits.check(self.repetitions, *self.seconds or ())
        for name in ("hit_rates", "waits", "seconds"):
            limits.check_once(name.replace("_", " "), getattr(self, name) or ())
        if not 2 <= self.keys <= 10_000:
            raise UsageError(f"keys {self.keys} is out of range", hint="2 to 10000")
        if self.size is not None and not 1 <= self.size <= 256:
            raise UsageError(f"size {self.size} is out of range", hint="1 to 256 bytes")
        return self


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How a cell is measured: the server's options, what warms it, what is asked.

    `clients` closed-loop clients ask at once (None: one, which need not be told from its agent), or
    one generator at a `rate` that no reply holds up.
    `windows` measurements follow each other. With `apart` each host's CPU deals with what that
    host receives.
    """

    cell: Cell
    server: list[str]
    plan: Plan
    seconds: float
    counter: Counter
    warm: tuple[Plan, ...] = ()
    app: str = "echo"
    clients: int | None = None
    rate: float | None = None
    windows: int = 1
    apart: bool = False
    fills: bool = False
    """Whether every miss is to be filled."""
    optional: bool = False
    """Whether its series is left out where its server is refused, as native XDP is by drivers."""


def bounce(settings: Settings) -> list[Trial]:
    """Userspace echo against XDP bounce."""
    durations = settings.seconds or BOUNCE_SECONDS
    plan = Plan(size=(settings.size or 7,) * 2, keys=1, seed=settings.seed)
    servers: dict[str, tuple[list[str], Counter]] = {
        "userspace": (["--hook", "none"], "none"),
        "xdp": (["--fast", "bounce", "--mode", settings.mode], "bounce"),
    }
    return [
        Trial(
            cell=Cell(series=series, wait=wait, size=plan.size[0], seconds=seconds),
            server=server,
            plan=plan,
            seconds=seconds,
            counter=counter,
        )
        for seconds in durations
        for wait in settings.waits
        for series, (server, counter) in servers.items()
    ]


def cache(settings: Settings) -> list[Trial]:
    """RTT against the hit rate in three series; and what a miss costs."""
    if len(settings.seconds or ()) > 1:
        raise UsageError("cache takes one of --seconds, not several", hint="--seconds 30")
    ends = {min(settings.hit_rates), max(settings.hit_rates)}
    trials = [
        trial
        for rate in settings.hit_rates
        for wait in settings.waits
        if wait in settings.inner_waits or rate in ends
        for trial in _hit_rate(settings, rate, wait)
    ]
    return trials + _miss_cost(settings)


def cached_keys(rate: float, keys: int) -> int:
    """How many of the keys are in the cache at a hit rate: as published, their share.

    But at least one where there are hits, and not all where there are misses.
    """
    if rate in (0, 1):
        return round(rate * keys)
    return min(max(round(rate * keys), 1), keys - 1)


def _hit_rate(settings: Settings, rate: float, wait: Wait) -> list[Trial]:
    keys, size = settings.keys, settings.size or (1 if settings.keys < 256 else 2)
    hot = cached_keys(rate, keys)
    everything = Plan(size=(size, size), keys=keys, draw="sequential")
    # At a hit rate of 0 a key that is never asked for again holds the only place.
    warm = (
        msgspec.structs.replace(everything, keys=hot)
        if hot
        else msgspec.structs.replace(everything, keys=1, first=keys)
    )
    plan = Plan(size=(size, size), keys=keys, hot=hot, hot_share=rate, seed=settings.seed)
    capacity = str(max(hot, 1))
    kernel = ["--mode", settings.mode, "--policy", "fcfs", "--capacity", capacity]
    work = ["--ttl", "1h", "--work", f"{settings.work:f}"]
    rows: list[tuple[str, list[str], tuple[Plan, ...], Counter]] = [
        (
            "userspace_cache",
            ["--hook", "none", "--userspace-cache", capacity],
            (warm,),
            "userspace",
        ),
        ("xdp_cache", kernel, (warm,), "hit"),
        (
            "xdp_over_userspace_cache",
            [*kernel, "--userspace-cache", str(keys + 1)],
            (warm, everything),
            "hit",
        ),
    ]
    return [
        Trial(
            cell=Cell(series=series, wait=wait, hit_rate=rate, size=size),
            server=[*server, *work],
            plan=plan,
            seconds=_seconds(settings),
            counter=counter,
            warm=warm_plans,
        )
        for series, server, warm_plans, counter in rows
    ]


def _miss_cost(settings: Settings) -> list[Trial]:
    """No hook, against a cache that is attached: missing, missing and filling, hitting.

    The server does no work, so that what the hook costs is not hidden behind it, and its handler
    does the same in all four.
    """
    size = (max(settings.size or 32, 4),) * 2
    unique = Plan(size=size, draw="unique")
    few = Plan(size=size, keys=settings.keys, draw="sequential")
    attached = ["--mode", settings.mode, "--ttl", "1h", "--admit", "always"]
    rows: list[tuple[str, list[str], str, Plan, Counter, tuple[Plan, ...]]] = [
        ("no_hook", ["--hook", "none"], "uncached", unique, "none", ()),
        ("never_hits", attached, "uncached", unique, "hit", ()),
        ("miss_and_fill", attached, "kept", unique, "hit", ()),
        ("xdp_hit", attached, "kept", few, "hit", (few,)),
    ]
    return [
        Trial(
            cell=Cell(series=series, wait=wait, size=size[0]),
            server=[*server, "--app", app],
            plan=plan,
            seconds=_seconds(settings),
            counter=counter,
            warm=warm,
            fills=series == "miss_and_fill",
        )
        for wait in settings.waits
        if wait in settings.miss_waits
        for series, server, app, plan, counter, warm in rows
    ]


def _seconds(settings: Settings) -> float:
    return (settings.seconds or (30.0,))[0]


EXPERIMENTS = {"bounce": bounce, "cache": cache}

DESCRIPTIONS = {
    "bounce": "RTT of a userspace echo against XDP bounce (Sickler 2022)",
    "cache": "RTT against the hit rate, three series, and the cost of a miss (Sickler 2022)",
}


def trials(name: str, settings: Settings) -> list[Trial]:
    """The grid of an experiment. Raises UsageError for an unknown name or a wrong setting."""
    if name not in EXPERIMENTS:
        raise UsageError(
            f"there is no experiment {name!r}", hint="there are " + ", ".join(EXPERIMENTS)
        )
    return EXPERIMENTS[name](settings.checked())


def options(name: str) -> tuple[str, ...]:
    """The settings that can be chosen for an experiment."""
    return (
        *(("hit_rates", "keys", "work") if name == "cache" else ()),
        *("waits", "seconds", "repetitions", "size", "mode", "seed"),
    )


def standard(name: str, *, short: bool) -> Settings:
    """What stands where nothing else is chosen; `short` is half a minute of measuring or so."""
    if not short:
        return Settings()
    return Settings(
        repetitions=5 if name == "bounce" else 3,
        seconds=(0.5,),
        inner_waits=("blocking",),
        miss_waits=("spin",),
    )
