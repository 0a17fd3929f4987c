# SPDX-License-Identifier: Apache-2.0
"""What `./run test-vm` asks of its results, on made-up ones."""

from __future__ import annotations

import re

import msgspec
import pytest
from vm.bars import check_bounce, check_cache

from carom.lab.record import Cell, Repetition, Run
from unit import fake_results as fake


def blocking(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.wait == "blocking"]


@pytest.fixture
def bounce() -> Run[Repetition]:
    return fake.run("bounce", blocking(fake.bounce_cells()))


@pytest.fixture
def cache() -> Run[Repetition]:
    return fake.run("cache", blocking(fake.cache_cells()))


def changed(one: Repetition, **values: object) -> Repetition:
    return msgspec.structs.replace(one, **values)


def test_results_as_they_should_be_pass(bounce: Run[Repetition], cache: Run[Repetition]) -> None:
    assert check_bounce(bounce) == []
    assert check_cache(cache) == []


def test_xdp_has_to_be_native_and_faster(bounce: Run[Repetition]) -> None:
    bounce.environment = msgspec.structs.replace(bounce.environment, mode="generic")
    other = {"userspace": "xdp", "xdp": "userspace"}
    bounce.measurements = [
        changed(one, cell=msgspec.structs.replace(one.cell, series=other[one.cell.series]))
        for one in bounce.measurements
    ]
    mode, slower = check_bounce(bounce)
    assert mode == "XDP was attached in mode generic"
    assert re.match(r"XDP takes 12\d us \(p50\), userspace 9$", slower)


def test_round_trips_have_to_fall_with_the_hit_rate(cache: Run[Repetition]) -> None:
    cache.measurements = [
        changed(one, cell=msgspec.structs.replace(one.cell, hit_rate=1 - one.cell.hit_rate))
        for one in cache.measurements
        if one.cell.hit_rate in (0, 1)
    ]
    assert check_cache(cache) == [
        f"{series}: RTT does not fall from a hit rate of 0 to 1"
        for series in ("userspace_cache", "xdp_cache")
    ]


def test_hit_rates_have_to_be_exact(cache: Run[Repetition]) -> None:
    one = cache.measurements[0]
    cache.measurements[0] = changed(one, planned_hits=10, counted_hits=9)
    assert check_cache(cache) == [f"{one.cell.series}: 10 hits planned, 9 counted"]


def test_a_run_that_was_cut_short_does_not_pass(bounce: Run[Repetition]) -> None:
    bounce.complete = False
    assert check_bounce(bounce) == ["it was not run to its end"]
