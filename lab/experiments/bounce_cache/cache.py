# SPDX-License-Identifier: Apache-2.0
"""Cache: round trips against the hit rate, in userspace and by XDP; and the cost of a miss."""

from __future__ import annotations

from typing import Annotated

import msgspec

from carom.lab.cells import WAITS
from carom.lab.clients.requests import Plan
from carom.lab.experiment import Keys, Mode, Seconds, Waits
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.bounce_cache.shown import BounceCache
from carom.lab.record import Cell, Wait
from carom.lab.trial import Counter, Trial
from carom.settings import Option
from carom.settings import seconds as duration


class Settings(Common, frozen=True, kw_only=True):
    """The settings of cache; the defaults are the published ones.

    `work` is how long the server works on a miss, in seconds; `size` is a request's bytes (None:
    32 for the cost of a miss, otherwise as few as tell the keys apart).
    """

    hit_rates: Annotated[
        tuple[float, ...], Option("Shares of hits.", low=0, high=1, order="once")
    ] = (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)
    waits: Waits = WAITS
    inner_waits: tuple[Wait, ...] = WAITS
    """The waits in which hit rates other than the lowest and the highest are measured."""
    miss_waits: tuple[Wait, ...] = WAITS
    """The waits in which the cost of a miss is measured."""
    seconds: Seconds = 30.0
    keys: Keys = 8
    work: Annotated[
        float, Option("What a miss costs.", low=0, high=60, example="2ms", read=duration, unit=" s")
    ] = 0.002
    size: Annotated[int | None, Option("Bytes of a request.", low=1, high=256, example="32")] = None
    mode: Mode = "auto"


class Cache(BounceCache[Settings]):
    """Three series over the hit rate; four for the cost of a miss."""

    name = "cache"
    description = "RTT against the hit rate, three series, and the cost of a miss (Sickler 2022)"
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5, inner_waits=("blocking",), miss_waits=("spin",))

    def trials(self, settings: Settings) -> list[Trial]:
        """The hit rates, then the cost of a miss."""
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
    """How many of the keys are cached: the hit rate's share of them, as published.

    At least one where there are hits, and not all where there are misses.
    """
    if rate in (0, 1):
        return round(rate * keys)
    return min(max(round(rate * keys), 1), keys - 1)


def _hit_rate(settings: Settings, rate: float, wait: Wait) -> list[Trial]:
    keys, size = settings.keys, settings.size or (1 if settings.keys < 256 else 2)
    hot = cached_keys(rate, keys)
    everything = Plan(size=(size, size), keys=keys, draw="sequential")
    # At a hit rate of 0, the cache's only entry is a key that is never asked for again.
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
            seconds=settings.seconds,
            counter=counter,
            warm=warm_plans,
        )
        for series, server, warm_plans, counter in rows
    ]


def _miss_cost(settings: Settings) -> list[Trial]:
    """No hook, against an attached cache that misses, that misses and fills, and that hits.

    The server does no work, which would hide the hook's cost, and its handler does the same in all
    four.
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
            seconds=settings.seconds,
            counter=counter,
            warm=warm,
            all_hit=series == "xdp_hit",
            fills=series == "miss_and_fill",
        )
        for wait in settings.waits
        if wait in settings.miss_waits
        for series, server, app, plan, counter, warm in rows
    ]


EXPERIMENT = Cache()
