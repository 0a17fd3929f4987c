# SPDX-License-Identifier: Apache-2.0
"""A run as PNG files: distributions, curves over the hit rate, the cost of a miss.

Colour and marker tell the series, the line's style tells the wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carom.lab.cells import WAITS
from carom.lab.experiments.bounce_cache import published as published_tables
from carom.lab.experiments.bounce_cache.comparison import MissCost, miss_costs
from carom.lab.experiments.bounce_cache.series import MISS_COST, SERIES
from carom.lab.record import Repetition, Run, Wait
from carom.lab.show import words
from carom.lab.show.canvas import DASHES, GREY, IDLE, margins, mark, page, save, what_bars_are
from carom.lab.stats.distribution import merge, points
from carom.lab.stats.estimates import Estimate, by_cell, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = ("userspace_cache", "xdp_cache", "xdp_over_userspace_cache")
"""The series that have a hit rate."""

PERCENTILES = (0.0, 50.0, 90.0, 99.0, 99.9)


class Point(NamedTuple):
    """A mean round trip (ms) and a throughput (replies a second) at a hit rate."""

    hit_rate: float
    milliseconds: Estimate
    rate: Estimate


Values = NDArray[np.int64]
Curves = dict[str, list[Point]]
"""The points of each series, by rising hit rate."""


def plot(run: Run[Repetition], folder: Path) -> list[Path]:
    """Draw every plot that this run has cells for; returns the files written."""
    return [*bounce(run, folder), *cache(run, folder), *misses(run, folder)]


def bounce(run: Run[Repetition], folder: Path) -> list[Path]:
    """`bounce.png`: the distribution of round trips of each series and wait."""
    cells = _pooled(run, ("userspace", "xdp"), hit_rate=None)
    means = {
        name: [1e3 * row.mean_ms for row in published_tables.bounce() if row.series == name]
        for name in ("userspace", "xdp")
    }
    published = ", ".join(
        f"{SERIES.words(name)} {min(times):.0f} to {max(times):.0f} µs"
        for name, times in means.items()
    )
    caption = (
        f"{IDLE} Published means, on two virtual machines:\n"
        f"{published}, ratio {words.times(published_tables.bounce_ratio())}."
    )
    return _distribution(cells, "Bounce", caption, folder / "bounce.png")


def cache(run: Run[Repetition], folder: Path) -> list[Path]:
    """Round trip and throughput against the hit rate, and the distribution of hits.

    `cache-WAIT.png`, beside the published curves, for each wait with three hit rates or more;
    `cache-hits.png` for 100 % hits.
    """
    written = []
    for wait in WAITS:
        curves = _curves(run, wait)
        if any(len(curve) > 2 for curve in curves.values()):
            written.append(_hit_rates(curves, wait, folder / f"cache-{wait}.png"))
    hits = _pooled(run, ("userspace_cache", "xdp_cache"), hit_rate=1.0)
    return written + _distribution(hits, "Cache at 100 % hits", IDLE, folder / "cache-hits.png")


def misses(run: Run[Repetition], folder: Path) -> list[Path]:
    """`misses-WAIT.png`: p50 without a hook, of a miss and of a hit, and where the cache pays."""
    summaries = {
        (summary.cell.series, summary.cell.wait): summary
        for summary in summarise(run.measurements)
        if summary.n
    }
    written = []
    for cost in miss_costs(run):
        keys = [(name, cost.wait) for name in MISS_COST if (name, cost.wait) in summaries]
        medians = {key[0]: summaries[key].p50.scaled(1e-3) for key in keys}
        if len(medians) > 1:
            written.append(_misses(medians, cost, folder / f"misses-{cost.wait}.png"))
    return written


def _pooled(
    run: Run[Repetition], series: Sequence[str], *, hit_rate: float | None
) -> dict[tuple[str, Wait], tuple[Values, Values]]:
    """Values (ns) and counts of each series and wait, over repetitions, durations and sizes."""
    pooled: dict[tuple[str, Wait], list[str]] = {}
    for cell, repetitions in by_cell(run.measurements).items():
        if cell.series in series and cell.hit_rate == hit_rate:
            encoded = [
                repetition.round_trips.histogram
                for repetition in repetitions
                if repetition.round_trips.count
            ]
            pooled.setdefault((cell.series, cell.wait), []).extend(encoded)
    ordered = sorted(pooled, key=lambda key: (series.index(key[0]), WAITS.index(key[1])))
    return {key: points(merge(pooled[key])) for key in ordered if pooled[key]}


def _curves(run: Run[Repetition], wait: Wait) -> Curves:
    """The run's points of each series in one wait."""
    curves: Curves = {name: [] for name in _CURVES}
    for summary in summarise(run.measurements):
        cell = summary.cell
        if cell.series in curves and cell.wait == wait and cell.hit_rate is not None and summary.n:
            point = Point(cell.hit_rate, summary.mean.scaled(1e-6), summary.rate)
            curves[cell.series].append(point)
    return {name: sorted(curve) for name, curve in curves.items() if curve}


def _published_curves() -> Curves:
    curves: Curves = {name: [] for name in _CURVES}
    for row in published_tables.cache_hit_rate():
        point = Point(row.hit_rate, Estimate(row.mean_ms), Estimate(row.rate))
        curves[row.series].append(point)
    return curves


def _distribution(
    cells: dict[tuple[str, Wait], tuple[Values, Values]], title: str, caption: str, path: Path
) -> list[Path]:
    """Percentiles on a scale of nines, from the fastest to 99.9 %, over time on a log scale."""
    if not cells:
        return []
    figure, (axes,) = page(4.6)
    for (series, wait), (values, counts) in cells.items():
        below = np.concatenate(([0.0], np.cumsum(counts)[:-1])) / counts.sum()
        kept = below <= PERCENTILES[-1] / 100
        axes.plot(
            values[kept] / 1e3,
            _nines(below[kept]),
            color=SERIES[series].colour,
            linestyle=DASHES[wait],
            linewidth=2.2,
            label=f"{SERIES.words(series)}, {wait}",
        )
    axes.set_xscale("log")
    mark(axes.xaxis, lambda us: f"{us:g}", (1, 2, 5))
    axes.set_xlabel("round-trip time, µs (log scale)")
    axes.set_ylabel("percentile of requests")
    axes.set_yticks(_nines(np.array(PERCENTILES) / 100), [f"{p:g} %" for p in PERCENTILES])
    axes.set_ylim(0, 3)
    figure.legend(loc="outside right upper", frameon=False)
    axes.set_title(f"{title}: round-trip times", loc="left", weight="bold")
    return [save(figure, caption, path)]


def _hit_rates(curves: Curves, wait: Wait, path: Path) -> Path:
    """Four panels on the same scales: this run and the published, round trip above throughput."""
    figure, axes = page(6.2, 2, 2)
    for column, (name, side_curves) in enumerate(
        (("this run", curves), ("published (two VMs)", _published_curves()))
    ):
        above, below = axes[column], axes[column + 2]
        _lines(above, side_curves, lambda point: point.milliseconds)
        _lines(below, side_curves, lambda point: point.rate)
        above.set_title(name, loc="left")
        below.set_xlabel("hit rate, %")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("mean round trip, ms")
    axes[2].set_yscale("log")
    mark(axes[2].yaxis, lambda rate: f"{rate:,.0f}", (1, 2, 5))
    axes[2].set_ylabel("replies a second (log scale)")
    figure.suptitle(f"Cache, {wait}", x=0.01, ha="left", weight="bold")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    bars = what_bars_are(point.rate for curve in curves.values() for point in curve)
    return save(figure, f"{bars} {IDLE}" if wait == "blocking" else bars, path)


def _lines(axes: Axes, curves: Curves, figure: Callable[[Point], Estimate]) -> None:
    for name, curve in curves.items():
        estimates = [figure(point) for point in curve]
        axes.errorbar(
            [100 * point.hit_rate for point in curve],
            [estimate.value for estimate in estimates],
            yerr=margins(estimates),
            color=SERIES[name].colour,
            marker=SERIES[name].marker,
            markersize=6,
            linewidth=1.8,
            capsize=3,
            label=SERIES.words(name),
        )
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlim(-4, 104)


def _misses(medians: dict[str, Estimate], cost: MissCost, path: Path) -> Path:
    """Left: p50 of each, from 0. Right: the p50s weighted by the hit rate, against it."""
    figure, (dots, *right) = page(3.9, 1, 2 if cost.break_even else 1)
    names = list(reversed(medians))
    longest = max(median.value for median in medians.values())
    for height, name in enumerate(names):
        median = medians[name]
        dots.errorbar(
            median.value,
            height,
            xerr=margins([median]),
            color=SERIES[name].colour,
            marker="o",
            markersize=5,
            elinewidth=1.8,
            capsize=6,
        )
        dots.annotate(
            f"{words.micro(1e3 * median.value)} µs",
            (median.value, height),
            xytext=(0, 12),
            ha="center" if median.value > 0.1 * longest else "left",
            textcoords="offset points",
        )
    dots.set_yticks(range(len(names)), [SERIES.words(name) for name in names])
    dots.set_ylim(-0.5, len(names) - 0.4)
    dots.set_xlim(0, 1.2 * longest)
    dots.set_xlabel("p50 round trip, µs")
    dots.set_title(f"Cost of a miss, {cost.wait}", loc="left", weight="bold")
    if cost.break_even:
        _break_even(right[0], medians, cost.break_even)
    bars = what_bars_are(medians.values())
    return save(figure, f"{bars} {IDLE}" if cost.wait == "blocking" else bars, path)


def _break_even(axes: Axes, medians: dict[str, Estimate], rate: Estimate) -> None:
    """Lines of hits mixed with misses, and of no hook, and the interval in which they cross."""
    miss, hit, no_hook = (medians[name].value for name in ("miss_and_fill", "xdp_hit", "no_hook"))
    at = 0.97 if rate.value < 0.75 else 0.4  # away from where the lines cross
    up = 5 if miss + at * (hit - miss) <= no_hook else -13
    for name, series, ends, offset in (
        ("no hook", "no_hook", (no_hook, no_hook), up),
        ("cache", "xdp_hit", (miss, hit), -8 - up),
    ):
        axes.plot([0, 100], ends, color=SERIES[series].colour, linewidth=2.2)
        axes.annotate(
            name,
            (100 * at, ends[0] + at * (ends[1] - ends[0])),
            xytext=(0, offset),
            textcoords="offset points",
            ha="right",
            color=SERIES[series].colour,
        )
    if rate.low is not None and rate.high is not None:
        axes.axvspan(100 * rate.low, 100 * rate.high, color="#bbbbbb", alpha=0.6, linewidth=0)
    axes.axvline(100 * rate.value, color=GREY, linestyle="--")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.2 * max(miss, no_hook, hit))
    axes.set_xlabel("hit rate, %")
    axes.set_ylabel("p50s weighted by hit rate, µs")
    pays = f"Pays above {words.percent(rate.value)} hits" if rate.value else "Pays at any hit rate"
    title = pays if rate.value < 1 else "Pays at no hit rate"
    axes.set_title(title, loc="left", weight="bold")


def _nines(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """A share of requests on a scale where 90 %, 99 % and 99.9 % are 1, 2 and 3."""
    return -np.log10(1 - share)
