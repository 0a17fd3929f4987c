# SPDX-License-Identifier: Apache-2.0
"""Estimates from repetitions: means, paired ratios and the break-even hit rate, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carom.lab.record import Cell, Repetition, RoundTrips

CONFIDENCE = 0.95
RESAMPLES = 10_000

Figure = Callable[[RoundTrips], float]
"""A figure of a repetition, such as its p50 or its mean, ns."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval; the ends are None for a single repetition."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def margin(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        low, high = (None if end is None else end * factor for end in self[1:])
        return Estimate(self.value * factor, low, high)


class Summary(NamedTuple):
    """A cell over its repetitions: the mean of each figure, times in nanoseconds.

    `n`, `lost` and `wrong` are totals; times are NaN when no repetition had a reply.
    """

    cell: Cell
    p50: Estimate
    p90: Estimate
    p99: Estimate
    p999: Estimate
    mean: Estimate
    stddev: Estimate
    rate: Estimate
    """Replies a second."""
    n: int
    lost: int
    wrong: int
    repetitions: int


def t_quantile(n: int) -> float:
    """The two-sided 95 % point of Student's t for a mean of `n`."""
    from scipy.special import stdtrit  # takes longer to import than commands that estimate nothing

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def mean(values: Sequence[float]) -> Estimate:
    """The mean with its t interval; NaN without values, no interval for a single one."""
    if not values:
        return Estimate(math.nan)
    centre = float(np.mean(values))
    if len(values) == 1:
        return Estimate(centre)
    margin = t_quantile(len(values)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(centre, centre - margin, centre + margin)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The geometric mean of the paired ratios, with the t interval of their logarithms.

    Only the geometric mean does not depend on which side is called the base (Fleming and Wallace
    1986). The interval of the logarithms is transformed back (Bland and Altman 1996). As rounds
    are interleaved, what slows a whole round cancels. ValueError for lengths that differ or a
    value that is not positive.
    """
    if len(numerators) != len(denominators):
        raise ValueError("a paired ratio needs as many numerators as denominators")
    if any(value <= 0 for value in (*numerators, *denominators)):
        raise ValueError("a ratio of times needs positive times")
    logs = mean([math.log(a / b) for a, b in zip(numerators, denominators, strict=True)])
    return Estimate(*(None if end is None else math.exp(end) for end in logs))  # type: ignore[arg-type]


def break_even(
    no_hook: Sequence[float], hit: Sequence[float], miss: Sequence[float], *, seed: int = 0
) -> Estimate:
    """The hit rate above which a cache saves time: (miss - no_hook) / (miss - hit), from 0 to 1.

    0 when a miss costs nothing, 1 when no hit rate pays. Each of the three has one time for each
    repetition, in the same order; their means are compared. The interval resamples whole
    repetitions (seeded bootstrap). Its percentiles are spread further the fewer repetitions there
    are ("expanded percentile interval", Hesterberg 2015); with three, it is the resamples' range.
    ValueError for lengths that differ or are 0.
    """
    times = np.array([no_hook, hit, miss], dtype=float)
    n = times.shape[1]
    if n == 0:
        raise ValueError("a break-even hit rate needs a repetition")
    value = float(_break_even(times.mean(axis=1)))
    if n == 1:
        return Estimate(value)
    draws = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    return _expanded(value, _break_even(times[:, draws].mean(axis=2)), n)


def independent_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0
) -> Estimate:
    """The ratio of the geometric means of unpaired repetitions: those of two runs.

    The interval resamples each side by itself (seeded bootstrap), with percentiles spread as in
    `break_even`, for the side with fewer repetitions. ValueError for a value that is not positive,
    or a side without values.
    """
    sides = [np.array(side, dtype=float) for side in (numerators, denominators)]
    if not all(side.size and (side > 0).all() for side in sides):
        raise ValueError("a ratio needs positive values on both sides")
    over, under = (np.log(side) for side in sides)
    value = float(np.exp(over.mean() - under.mean()))
    n = min(over.size, under.size)
    if n == 1:
        return Estimate(value)
    draws = np.random.default_rng(seed)
    means = [
        logs[draws.integers(logs.size, size=(RESAMPLES, logs.size))].mean(axis=1)
        for logs in (over, under)
    ]
    return _expanded(value, np.exp(means[0] - means[1]), n)


def _expanded(value: float, resampled: NDArray[np.float64], n: int) -> Estimate:
    """The expanded percentile interval of a figure of `n` repetitions."""
    from scipy.special import ndtr

    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t_quantile(n)))
    low, high = np.quantile(resampled, (tail, 1 - tail)).tolist()
    return Estimate(value, min(low, value), max(high, value))


class Ranks(NamedTuple):
    """Two samples by their ranks: Mann and Whitney's two-sided p, and Cliff's delta.

    `delta` runs from -1 (all of the second are below all of the first) to 1 (all are above).
    """

    p: float
    delta: float


def ranks(first: Sequence[float], second: Sequence[float]) -> Ranks:
    """Whether the second sample is above or below the first (Mann and Whitney 1947, Cliff 1993).

    ValueError if one is empty.
    """
    from scipy.stats import mannwhitneyu  # takes as long to import as all the rest

    if not len(first) or not len(second):
        raise ValueError("ranks need values on both sides")
    if len({*first, *second}) == 1:
        return Ranks(1.0, 0.0)
    test = mannwhitneyu(second, first, alternative="two-sided")
    delta = 2 * float(test.statistic) / (len(first) * len(second)) - 1
    return Ranks(float(test.pvalue), delta)


def _break_even(times: NDArray[np.float64]) -> NDArray[np.float64]:
    no_hook, hit, miss = times
    cost, gain = miss - no_hook, miss - hit
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.select([cost <= 0, hit >= no_hook], [0.0, 1.0], cost / gain)


def by_cell(repetitions: Iterable[Repetition]) -> dict[Cell, list[Repetition]]:
    """The repetitions of each cell in order of index; cells in order of first appearance."""
    cells: dict[Cell, list[Repetition]] = {}
    for repetition in sorted(repetitions, key=lambda repetition: repetition.index):
        cells.setdefault(repetition.cell, []).append(repetition)
    return cells


def paired(figure: Figure, *cells: Sequence[Repetition]) -> list[list[float]]:
    """The figure of each cell's repetitions, only of those in which every cell had a reply.

    Rounds are interleaved, so that equal indices were measured at about the same time.
    """
    by_index = [
        {
            repetition.index: figure(repetition.round_trips)
            for repetition in cell
            if repetition.round_trips.count
        }
        for cell in cells
    ]
    common = sorted(set.intersection(*(set(times) for times in by_index))) if by_index else []
    return [[times[index] for index in common] for times in by_index]


def summarise(repetitions: Iterable[Repetition]) -> list[Summary]:
    """One summary for each cell, in order of first appearance."""
    return [_summary(cell, measured) for cell, measured in by_cell(repetitions).items()]


def _summary(cell: Cell, repetitions: Sequence[Repetition]) -> Summary:
    all_trips = [repetition.round_trips for repetition in repetitions]
    answered = [trips for trips in all_trips if trips.count]
    return Summary(
        cell=cell,
        p50=mean([trips.p50 for trips in answered]),
        p90=mean([trips.p90 for trips in answered]),
        p99=mean([trips.p99 for trips in answered]),
        p999=mean([trips.p999 for trips in answered]),
        mean=mean([trips.mean for trips in answered]),
        stddev=mean([trips.stddev for trips in answered]),
        rate=mean([trips.rate for trips in all_trips]),
        n=sum(trips.count for trips in all_trips),
        lost=sum(trips.lost for trips in all_trips),
        wrong=sum(trips.wrong for trips in all_trips),
        repetitions=len(all_trips),
    )
