# SPDX-License-Identifier: Apache-2.0
"""Grids of experiments: every published cell, and plans that can be exact."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from carom.errors import ExperimentError, UsageError
from carom.lab import registry
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.bounce_cache import bounce
from carom.lab.experiments.bounce_cache.bounce import EXPERIMENT as BOUNCE
from carom.lab.experiments.bounce_cache.cache import EXPERIMENT as CACHE
from carom.lab.experiments.bounce_cache.cache import Settings
from carom.lab.record import Repetition
from carom.lab.stats.distribution import round_trips
from carom.lab.trial import Asked, Trial
from carom.lab.trial import checked as accounted


def test_the_default_cache_grid_is_the_published_one() -> None:
    cells = {
        (t.cell.series, t.cell.hit_rate)
        for t in CACHE.trials(Settings())
        if t.cell.hit_rate is not None
    }
    series = ("userspace_cache", "xdp_cache", "xdp_over_userspace_cache")
    assert cells == set(itertools.product(series, (0, 0.25, 0.375, 0.5, 0.75, 1)))
    assert all(
        "--work 0.002000" in " ".join(t.server)
        for t in CACHE.trials(Settings())
        if t.cell.hit_rate is not None
    )


def test_the_default_bounce_grid_is_the_published_one() -> None:
    seconds = {t.seconds for t in BOUNCE.trials(bounce.Settings())}
    assert seconds == {15, 30, 45, 60}
    assert bounce.Settings().repetitions == Settings().repetitions == 10


@pytest.mark.parametrize("rate", [0, 0.01, 0.25, 0.3, 0.375, 0.99, 1])
def test_hot_keys_are_as_many_as_the_cache_takes(rate: float) -> None:
    for trial in CACHE.trials(Settings(hit_rates=(rate,))):
        if trial.cell.series != "xdp_cache":
            continue
        capacity = int(trial.server[trial.server.index("--capacity") + 1])
        assert trial.plan.checked().hot == (capacity if rate else 0)
        assert trial.warm[0].keys == capacity
        warmed = {trial.warm[0].payload(trial.warm[0].first + n) for n in range(capacity)}
        asked = {p for b in itertools.islice(trial.plan.blocks(), 5) for p in b.payloads}
        assert bool(warmed & asked) == (rate > 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(hit_rates=(1.2,)), "hit-rates 1.2 is out of range"),
        (Settings(hit_rates=()), "hit-rates must name at least one"),
        (Settings(hit_rates=(0.5, 0.5)), "hit-rates has something twice"),
        (Settings(waits=("spin", "spin")), "waits has something twice"),
        (Settings(repetitions=0), "repetitions 0"),
        (Settings(seconds=0), "seconds 0"),
        (Settings(keys=1), "keys 1"),
        (Settings(size=300), "size 300"),
        (Settings(work=-1), "work -1"),
        (bounce.Settings(seconds=(1.0, 0.0)), "seconds 0"),
        (bounce.Settings(size=0), "size 0"),
    ],
)
def test_wrong_settings_are_named(settings: Common, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings.checked()


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(UsageError, match="quux"):
        registry.named("quux")


def checked(trial: Trial, *counted: Any) -> Repetition:
    return accounted(trial, *counted, "a cell")


def status(hits: int, misses: int) -> dict[str, object]:
    return {"verdicts": {"hit": hits, "miss": misses}, "cpu_seconds": 0.0, "userspace_cache": None}


def asked(sent: int, hot: int, wrong: int = 0, lost: int = 0) -> Asked:
    samples = [1000] * (sent - lost)
    trips = round_trips(samples, lost=lost, duplicated=0, reordered=0, wrong=wrong, seconds=1.0)
    return Asked(sent, hot, trips)


def test_counts_must_equal_the_plan() -> None:
    trial = next(t for t in CACHE.trials(Settings()) if t.cell.series == "xdp_cache")
    before, ping = status(5, 7), asked(40, 10)
    one = checked(trial, 0, ping, before, status(15, 37), 0.5)
    assert (one.planned_hits, one.counted_hits, one.counted_misses) == (10, 10, 30)
    assert one.verdicts == {"hit": 10, "miss": 30}
    assert one.server_cpu_seconds == 0.5
    with pytest.raises(ExperimentError, match="planned 10 hits and 30 misses, counted 9 and 31"):
        checked(trial, 0, ping, before, status(14, 38), 0.5)
    with pytest.raises(ExperimentError, match="wrong bytes"):
        checked(trial, 0, asked(40, 10, wrong=1), before, status(15, 37), 0.5)


def test_what_is_lost_may_have_been_counted_or_not_but_nothing_that_nobody_sent() -> None:
    trial = next(t for t in CACHE.trials(Settings()) if t.cell.series == "xdp_cache")
    for hits, misses in ((30, 10), (20, 10), (30, 0), (25, 5)):
        after = status(5 + hits, 7 + misses)
        one = checked(trial, 0, asked(40, 30, lost=10), status(5, 7), after, 0.1)
        assert (one.counted_hits, one.due) == (hits, 40)
    for hits, misses in ((19, 10), (31, 10), (30, 11)):
        after = status(5 + hits, 7 + misses)
        with pytest.raises(ExperimentError, match=f"counted {hits} and {misses}"):
            checked(trial, 0, asked(40, 30, lost=10), status(5, 7), after, 0.1)


def test_a_checksum_that_cannot_be_told_is_left_to_the_server() -> None:
    trial = next(t for t in CACHE.trials(Settings()) if t.cell.series == "xdp_cache")
    before = {**status(0, 0), "verdicts": {"hit": 0, "miss": 0, "pass_checksum": 0}}
    after = {**before, "verdicts": {"hit": 28, "miss": 10, "pass_checksum": 2}}
    assert checked(trial, 0, asked(40, 30), before, after, 0.1).counted_hits == 28
    after = {**before, "verdicts": {"hit": 27, "miss": 10, "pass_checksum": 2}}
    with pytest.raises(ExperimentError, match="counted 27 and 10"):
        checked(trial, 0, asked(40, 30), before, after, 0.1)


def test_misses_that_are_to_be_filled_are() -> None:
    trial = next(t for t in CACHE.trials(Settings()) if t.fills)
    for fills in (40, 39):
        before, after = ({**status(0, n), "cache": {"fills": n and fills}} for n in (0, 40))
        if fills == 40:
            checked(trial, 0, asked(40, 0), before, after, 0.1)
        else:
            with pytest.raises(ExperimentError, match="of 40 misses 39 were filled"):
                checked(trial, 0, asked(40, 0), before, after, 0.1)


def test_settings_survive_json() -> None:
    for one in registry.experiments().values():
        for settings in (one.full, one.short):
            assert settings.checked() == settings
            plain = msgspec.json.decode(msgspec.json.encode(settings))
            assert msgspec.convert(plain, type(settings)) == settings
