# SPDX-License-Identifier: Apache-2.0
"""Samples become exact figures and a histogram that gives them back."""

from __future__ import annotations

import io
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carom.errors import ExperimentError
from carom.lab.record import RoundTrips
from carom.lab.stats.distribution import decode, merge, points, round_trips, table, together

NS = st.integers(1, 60_000_000_000)
SAMPLES = st.lists(NS, min_size=1, max_size=300)


def measured(samples: list[int]) -> RoundTrips:
    return round_trips(samples, lost=3, duplicated=2, reordered=1, wrong=4, seconds=2.0)


def test_figures_of_a_known_series() -> None:
    trips = measured(list(range(1, 1001)))
    assert (trips.p50, trips.p90, trips.p99, trips.p999) == (500, 900, 990, 999)
    assert (trips.minimum, trips.maximum, trips.mean, trips.count) == (1, 1000, 500.5, 1000)
    assert trips.stddev == pytest.approx(math.sqrt(1000 * 1001 / 12))
    assert (trips.lost, trips.duplicated, trips.reordered, trips.wrong) == (3, 2, 1, 4)
    assert trips.rate == 500


def test_without_samples_every_figure_is_0() -> None:
    trips = measured([])
    assert trips.count == 0
    assert {trips.mean, trips.stddev, trips.p50, trips.p999, trips.maximum} == {0}
    values, counts = points(decode(trips.histogram))
    assert len(values) == len(counts) == 0


def test_one_sample_has_no_spread() -> None:
    trips = measured([7000])
    assert (trips.p50, trips.p999, trips.stddev) == (7000, 7000, 0)


@given(SAMPLES)
def test_figures_are_ordered_and_occurred(samples: list[int]) -> None:
    trips = measured(samples)
    percentiles = [trips.p50, trips.p90, trips.p99, trips.p999]
    assert [trips.minimum, *percentiles, trips.maximum] == sorted(
        [trips.minimum, *percentiles, trips.maximum]
    )
    assert set(percentiles) <= set(samples)
    assert trips.minimum <= trips.mean <= trips.maximum


@given(SAMPLES)
def test_percentile_is_the_least_sample_that_enough_do_not_exceed(samples: list[int]) -> None:
    ordered = sorted(samples)
    trips = measured(samples)
    for figure, share in ((trips.p50, 50), (trips.p90, 90), (trips.p99, 99)):
        assert figure == ordered[-(-len(samples) * share // 100) - 1]


@given(SAMPLES)
def test_histogram_gives_every_sample_back_within_a_thousandth(samples: list[int]) -> None:
    values, counts = points(decode(measured(samples).histogram))
    np.testing.assert_allclose(np.repeat(values, counts), sorted(samples), rtol=1e-3)


@given(SAMPLES, SAMPLES)
def test_merged_histograms_hold_the_samples_of_both(first: list[int], second: list[int]) -> None:
    merged = merge(measured(one).histogram for one in (first, [], second))
    values, counts = points(merged)
    np.testing.assert_allclose(np.repeat(values, counts), sorted(first + second), rtol=1e-3)


def test_samples_outside_the_range_are_counted_at_its_ends() -> None:
    values, counts = points(decode(measured([0, 100_000_000_000]).histogram))
    assert counts.tolist() == [1, 1]
    assert values[0] == 1
    assert values[1] == pytest.approx(60e9, rel=1e-3)


def _own_table(encoded: str) -> str:
    written = io.BytesIO()
    decode(encoded).output_percentile_distribution(written, 1)
    return written.getvalue().decode()


@settings(max_examples=10)  # its own takes long
@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_a_table_is_the_one_that_hdrhistogram_writes(samples: list[int]) -> None:
    trips = measured(samples)
    assert table(decode(trips.histogram)) == _own_table(trips.histogram)


def test_so_is_the_table_of_samples_that_are_far_apart() -> None:
    spread = [int(1.07**n) for n in range(1, 360)]
    encoded = measured(spread + spread[:200] * 50 + [100_000_000_000]).histogram
    assert table(decode(encoded)) == _own_table(encoded)


@pytest.mark.parametrize("torn", ["", "HIST", "not a histogram", None])
def test_a_torn_histogram_is_said_to_be_one(torn: str | None) -> None:
    whole = measured([7000, 8000, 9000]).histogram
    with pytest.raises(ExperimentError, match="histogram"):
        decode(whole[: len(whole) // 2] if torn is None else torn)


@given(st.lists(st.lists(st.integers(1, 10**9), max_size=60), min_size=1, max_size=6))
def test_clients_together_are_as_one_with_all_samples(every: list[list[int]]) -> None:
    found = together([measured(one) for one in every])
    whole = measured([sample for one in every for sample in one])
    n = len(every)
    assert (found.count, found.lost, found.duplicated) == (whole.count, 3 * n, 2 * n)
    assert (found.reordered, found.wrong, found.seconds) == (n, 4 * n, 2.0)
    for figure in ("mean", "stddev", "minimum", "maximum"):
        assert getattr(found, figure) == pytest.approx(getattr(whole, figure), rel=1e-6, abs=1e-3)
    for figure in ("p50", "p90", "p99", "p999"):
        assert getattr(found, figure) == pytest.approx(getattr(whole, figure), rel=1.1e-3, abs=1)
    assert decode(found.histogram).get_total_count() == whole.count


def test_nobody_and_corrected_times_are_not_put_together() -> None:
    with pytest.raises(ValueError, match="without a rate"):
        together([])
    late = msgspec.structs.replace(measured([5]), corrected=measured([6]))
    with pytest.raises(ValueError, match="without a rate"):
        together([late])
