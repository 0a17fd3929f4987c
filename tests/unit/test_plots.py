# SPDX-License-Identifier: Apache-2.0
"""Plots are written, are not blank, and do without cells that are missing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from carom.lab.experiments.bounce_cache import plots
from carom.lab.experiments.bounce_cache.series import SERIES
from carom.lab.record import Cell
from unit import fake_results as fake


def drawn(path: Path) -> tuple[int, set[str]]:
    """The width of a picture, and which of the palette's colours it shows."""
    pixels = np.rint(255 * imread(path)[..., :3]).astype(np.uint32)
    numbers = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    seen = {f"#{number:06X}" for number in numbers}
    return pixels.shape[1], seen & {one.colour for one in SERIES.values()}


def colours(*series: str) -> set[str]:
    return {SERIES[one].colour for one in series}


def test_bounce_is_one_picture_of_both_series(tmp_path: Path) -> None:
    (path,) = plots.plot(fake.run("bounce", fake.bounce_cells()), tmp_path)
    assert path == tmp_path / "bounce.png"
    width, shown = drawn(path)
    assert width >= 1000
    assert shown == colours("userspace", "xdp")


def test_cache_draws_curves_where_there_are_several_hit_rates(tmp_path: Path) -> None:
    written = plots.plot(fake.run("cache", fake.cache_cells()), tmp_path)
    names = [path.name for path in written]
    assert names == ["cache-blocking.png", "cache-hits.png", "misses-spin.png"]
    of = dict(zip(names, (drawn(path)[1] for path in written), strict=True))
    three = ("userspace_cache", "xdp_cache", "xdp_over_userspace_cache")
    assert of["cache-blocking.png"] == colours(*three)
    assert of["misses-spin.png"] == colours("no_hook", "never_hits", "miss_and_fill", "xdp_hit")


def test_the_full_grid_has_a_picture_a_wait(tmp_path: Path) -> None:
    written = plots.cache(fake.run("cache", fake.cache_cells(full=True)), tmp_path)
    assert {path.name for path in written} >= {f"cache-{wait}.png" for wait in fake.WAITS}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn from here on, in place of their files."""
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, *_: drawn.append(figure))
    return drawn


def test_the_distribution_passes_through_the_percentiles(
    tmp_path: Path, figures: list[Figure]
) -> None:
    cell = Cell(series="xdp", wait="spin")
    results = fake.run("bounce", [cell], repetitions=1)
    plots.bounce(results, tmp_path)
    times, nines = figures[0].axes[0].lines[0].get_data()
    trips = results.measurements[0].round_trips
    found = np.interp([math.log10(2), 1], np.asarray(nines), np.asarray(times))
    np.testing.assert_allclose(found, [trips.p50 / 1e3, trips.p90 / 1e3], rtol=0.005)
    assert max(times) >= trips.p999 / 1e3


def test_both_panels_of_a_row_have_one_scale(tmp_path: Path, figures: list[Figure]) -> None:
    plots.cache(fake.run("cache", fake.cache_cells()), tmp_path)
    ours, published, below, published_below = figures[0].axes
    assert ours.get_ylim() == published.get_ylim()
    assert below.get_ylim() == published_below.get_ylim()
    assert ours.get_ylim()[0] == 0
    assert ours.get_ylim()[1] > 2, "the 2 ms of a miss are in sight"
    assert below.get_ylim()[1] > 100_000, "and so are a second's hits"


@pytest.mark.parametrize("missing", ["xdp_cache", "userspace_cache", "miss_and_fill", "no_hook"])
def test_a_missing_series_leaves_the_others(tmp_path: Path, missing: str) -> None:
    cells = [cell for cell in fake.cache_cells() if cell.series != missing]
    results = fake.run("cache", cells, repetitions=1, complete=False)
    written = [path.name for path in plots.plot(results, tmp_path)]
    assert written[:2] == ["cache-blocking.png", "cache-hits.png"]
    assert ("misses-spin.png" in written) == (missing != "no_hook")


@pytest.mark.parametrize("experiment", ["bounce", "cache"])
def test_nothing_measured_draws_nothing(tmp_path: Path, experiment: str) -> None:
    assert plots.plot(fake.run(experiment, []), tmp_path) == []


def test_a_cell_without_a_reply_is_left_out(tmp_path: Path) -> None:
    results = fake.run("bounce", [Cell(series="userspace", wait="spin")])
    results.measurements.append(fake.repetition(Cell(series="xdp", wait="spin"), 0, n=0))
    (path,) = plots.plot(results, tmp_path)
    assert drawn(path)[1] == colours("userspace")


def test_several_durations_are_pooled(tmp_path: Path) -> None:
    results = fake.run("bounce", fake.bounce_cells((15.0, 30.0)), repetitions=1)
    assert len(plots.plot(results, tmp_path)) == 1
