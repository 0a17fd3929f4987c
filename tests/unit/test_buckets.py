# SPDX-License-Identifier: Apache-2.0
"""The load generator's histogram: where a round trip goes, and what is reported of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom.lab.clients.buckets import BUCKETS, Tally, bounds, bucket
from carom.lab.stats.distribution import decode, round_trips

BOUND = 2**37
EXACT = 128
"""Round trips below it have a bucket each, ns."""


@given(st.integers(0, BOUND - 1))
def test_a_round_trip_lies_in_its_bucket(ns: int) -> None:
    low, high = bounds(bucket(ns))
    assert low <= ns <= high
    assert high - low <= low / 64
    assert ns >= EXACT or low == high == ns


def test_buckets_follow_each_other_without_a_gap() -> None:
    ends = [bounds(index) for index in range(BUCKETS)]
    assert ends[0][0] == 0
    assert ends[-1][1] == BOUND - 1
    assert all(low == high + 1 for (_, high), (low, _) in itertools.pairwise(ends))


def tally(samples: list[int]) -> Tally:
    counts = np.bincount([bucket(ns) for ns in samples], minlength=BUCKETS).astype(np.uint64)
    return Tally(counts, sum(samples), min(samples, default=0), max(samples, default=0))


@given(st.lists(st.integers(1, 30 * 10**9), min_size=1, max_size=300))
def test_figures_are_those_of_the_samples(samples: list[int]) -> None:
    exact = round_trips(samples, lost=1, duplicated=2, reordered=3, wrong=4, seconds=5.0)
    found = tally(samples).round_trips(lost=1, duplicated=2, reordered=3, wrong=4, seconds=5.0)
    for name in ("count", "lost", "duplicated", "reordered", "wrong", "seconds", "minimum"):
        assert getattr(found, name) == getattr(exact, name), name
    assert found.maximum == exact.maximum
    assert found.mean == pytest.approx(exact.mean)
    for name in ("p50", "p90", "p99", "p999"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.008, abs=0.5)
    assert decode(found.histogram).get_total_count() == len(samples)


def test_standard_deviation() -> None:
    samples = [1_000_000, 2_000_000, 2_500_000] * 1000
    exact = round_trips(samples, lost=0, duplicated=0, reordered=0, wrong=0, seconds=1.0)
    found = tally(samples).round_trips(lost=0, duplicated=0, reordered=0, wrong=0, seconds=1.0)
    assert found.stddev == pytest.approx(exact.stddev, rel=0.02)


def test_without_replies_every_figure_is_zero() -> None:
    found = tally([]).round_trips(lost=7, duplicated=0, reordered=0, wrong=0, seconds=1.0)
    assert (found.count, found.lost, found.p50, found.mean, found.stddev) == (0, 7, 0, 0, 0)
