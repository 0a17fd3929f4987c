# SPDX-License-Identifier: Apache-2.0
"""Means, ratios and break-even rates, against textbook figures and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom.lab.experiments.bounce_cache.comparison import headline, miss_costs, speedups
from carom.lab.record import Cell
from carom.lab.stats.estimates import break_even, mean, paired, ratio, summarise
from unit import fake_results as fake

TIMES = st.lists(st.floats(1e3, 1e7), min_size=2, max_size=10)


def test_mean_has_the_t_interval_of_the_textbook() -> None:
    estimate = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.value == 3
    assert estimate.margin == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert mean([4.0]) == (4.0, None, None)
    assert math.isnan(mean([]).value)


def test_mean_interval_covers_the_truth_in_about_95_of_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        estimate = mean(rng.normal(10, 2, 4).tolist())
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= 10 <= estimate.high
    assert 920 <= covered <= 980


@given(TIMES)
def test_ratio_of_a_series_with_itself_is_1(times: list[float]) -> None:
    assert ratio(times, times) == (1.0, 1.0, 1.0)


@given(TIMES, st.randoms())
def test_ratio_turned_round_is_the_inverse(times: list[float], random: object) -> None:
    others = [2 * time + 1 for time in reversed(times)]
    ahead, back = ratio(others, times), ratio(times, others)
    assert back.low is not None and back.high is not None
    assert ahead == pytest.approx((1 / back.value, 1 / back.high, 1 / back.low))


def test_a_paired_ratio_ignores_what_slows_a_whole_round() -> None:
    estimate = ratio([20.0, 200.0, 40.0], [10.0, 100.0, 20.0])
    assert estimate == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(("slow", "fast"), [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_ratio_refuses_what_it_cannot_pair(slow: list[float], fast: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio"):
        ratio(slow, fast)


def test_break_even_is_where_the_mix_costs_as_much_as_no_hook() -> None:
    no_hook, hit, miss = [12.0, 12.2, 11.8], [7.0, 7.1, 6.9], [13.0, 13.3, 12.7]
    rate = break_even(no_hook, hit, miss)
    assert rate.value * 7 + (1 - rate.value) * 13 == pytest.approx(12)
    assert rate.low is not None and rate.high is not None
    assert rate.low <= rate.value <= rate.high
    assert rate == break_even(no_hook, hit, miss)


@pytest.mark.parametrize(
    ("no_hook", "hit", "miss", "expected"),
    [(12, 7, 12, 0), (12, 7, 11, 0), (12, 12, 13, 1), (12, 14, 13, 1), (12, 14, 14, 1)],
)
def test_break_even_is_0_where_misses_are_free_and_1_where_hits_gain_nothing(
    no_hook: float, hit: float, miss: float, expected: float
) -> None:
    assert break_even([no_hook], [hit], [miss]) == (expected, None, None)


@given(TIMES)
def test_break_even_lies_between_0_and_1(times: list[float]) -> None:
    back = list(reversed(times))
    rate = break_even(times, back, [time * 1.01 for time in back])
    assert rate.low is not None and rate.high is not None
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_break_even_needs_a_repetition() -> None:
    with pytest.raises(ValueError, match="repetition"):
        break_even([], [], [])


def test_summary_counts_every_repetition_but_times_only_answered_ones() -> None:
    cell = Cell(series="xdp", wait="spin")
    results = fake.run("bounce", [cell], repetitions=2)
    results.measurements.append(fake.repetition(cell, 2, n=0))
    (summary,) = summarise(results.measurements)
    assert (summary.n, summary.repetitions) == (4000, 3)
    assert (
        summary.p50.value == mean([one.round_trips.p50 for one in results.measurements[:2]]).value
    )


def test_repetitions_pair_by_index_whatever_was_interrupted() -> None:
    first, second = (Cell(series=series, wait="spin") for series in ("userspace", "xdp"))
    some = [fake.repetition(first, index) for index in (0, 1, 2)]
    others = [fake.repetition(second, index) for index in (2, 1)]
    pairs = paired(lambda trips: trips.p50, some, others)
    assert pairs == [
        [some[1].round_trips.p50, some[2].round_trips.p50],
        [others[1].round_trips.p50, others[0].round_trips.p50],
    ]


def test_bounce_is_compared_with_the_fastest_userspace_and_with_the_same_wait() -> None:
    found = speedups(fake.run("bounce", fake.bounce_cells()))
    assert [one.fastest.wait for one in found] == ["spin"] * 3
    blocking, _, spin = found
    assert blocking.against_fastest and blocking.against_same_wait and spin.against_fastest
    assert blocking.against_same_wait.value == pytest.approx(120 / 8.5, rel=0.05)
    assert blocking.against_fastest.value == pytest.approx(12 / 8.5, rel=0.05)
    assert spin.published == pytest.approx(1.186, abs=0.001)
    lead = headline(found)
    assert lead and lead.cell.wait == "spin"


def test_the_cache_is_compared_at_its_hit_rate_but_over_userspace_with_its_hits() -> None:
    found = {
        (one.cell.series, one.cell.wait, one.cell.hit_rate): one
        for one in speedups(fake.run("cache", fake.cache_cells()))
    }
    half = found["xdp_cache", "blocking", 0.5]
    assert (half.figure, half.fastest.hit_rate) == ("mean", 0.5)
    assert half.published == pytest.approx(1.24469965 / 1.20716574)
    over = found["xdp_over_userspace_cache", "blocking", 0.0]
    assert over.against_same_wait
    assert over.against_same_wait.value == pytest.approx(1, rel=0.05)
    assert over.against_fastest is None, "its server blocks, the fastest spins"
    assert found["xdp_cache", "spin", 1.0].figure == "p50"


def test_miss_cost_and_break_even_of_a_run() -> None:
    (cost,) = miss_costs(fake.run("cache", fake.cache_cells()))
    assert cost.wait == "spin" and cost.never_hits and cost.miss_and_fill and cost.break_even
    assert cost.never_hits.value == pytest.approx(1.04, rel=0.03)
    assert cost.break_even.value == pytest.approx(1.08 / (13.08 - 7.1), rel=0.4)


def test_what_was_not_measured_is_not_compared() -> None:
    assert speedups(fake.run("bounce", [Cell(series="xdp", wait="spin")])) == []
    (cost,) = miss_costs(fake.run("cache", [Cell(series="no_hook", wait="spin")]))
    assert (cost.never_hits, cost.miss_and_fill, cost.break_even) == (None, None, None)
