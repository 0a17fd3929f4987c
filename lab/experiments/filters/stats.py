# SPDX-License-Identifier: Apache-2.0
"""Figures of the filter experiments: gains paired by repetition, losses, and knees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from carom.lab.experiments.filters.model import FilterRun, Series
from carom.lab.experiments.filters.series import BASE
from carom.lab.stats.estimates import Estimate, mean, ratio

KNEE_LOSS = 0.001
"""The share of PUTs that a rate may lose and still count as without loss."""

Figure = Callable[[FilterRun], float]
Point = tuple[Series, int, float]
"""A series, a number of packets and the percent of them that are invalid."""


def wall(measured: FilterRun) -> float:
    """Seconds per packet until the server has done everything."""
    return measured.per_packet(measured.wall_seconds)


def server_cpu(measured: FilterRun) -> float:
    """CPU seconds of the server's process per packet."""
    return measured.per_packet(measured.server_cpu_seconds)


def machine_cpu(measured: FilterRun) -> float:
    """CPU seconds of the whole machine per packet."""
    return measured.per_packet(measured.machine_cpu_seconds)


def loss(measured: FilterRun) -> float:
    """The share of PUTs that were lost."""
    return measured.loss


def done(measured: FilterRun) -> float:
    """PUTs done a second."""
    return measured.done_rate


def grid(runs: Iterable[FilterRun]) -> Table:
    """The measurements of the grid, sent as fast as possible."""
    return Table(measured for measured in runs if not measured.cell.knee)


def slowest(runs: Iterable[FilterRun]) -> tuple[float, Table] | None:
    """The lowest rate of the knee's search, and its measurements: all series had the same load."""
    paced = [measured for measured in runs if measured.cell.knee and measured.cell.rate]
    if not paced:
        return None
    rate = min(measured.cell.rate for measured in paced)
    return rate, Table(measured for measured in paced if measured.cell.rate == rate)


class Table:
    """Measurements by point and repetition."""

    def __init__(self, runs: Iterable[FilterRun]):
        self._runs: dict[Point, dict[int, FilterRun]] = {}
        for measured in runs:
            at = measured.cell.series, measured.cell.packets, measured.cell.percent
            self._runs.setdefault(at, {})[measured.index] = measured
        self.packets = sorted({packets for _, packets, _ in self._runs})
        self.percents = sorted({percent for _, _, percent in self._runs})
        self.series = list(dict.fromkeys(series for series, _, _ in self._runs))

    def mean(self, figure: Figure, at: Point) -> Estimate:
        """The mean over repetitions; NaN without any."""
        return mean([figure(measured) for measured in self._runs.get(at, {}).values()])

    def _pairs(self, figure: Figure, at: Point) -> dict[int, tuple[float, float]]:
        """Userspace's figure and this series', by repetition."""
        ours = self._runs.get(at, {})
        theirs = self._runs.get((BASE, *at[1:]), {})
        return {
            index: (figure(theirs[index]), figure(ours[index]))
            for index in sorted(ours.keys() & theirs.keys())
        }

    def gain(self, figure: Figure, at: Point) -> Estimate | None:
        """Userspace's figure over this series', paired; None where a time was measured as 0."""
        pairs = list(self._pairs(figure, at).values())
        if not pairs or min(min(pair) for pair in pairs) <= 0:
            return None
        return ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def saved(self, figure: Figure, at: Point) -> Estimate | None:
        """Userspace's figure minus this series', paired."""
        pairs = list(self._pairs(figure, at).values())
        return mean([theirs - ours for theirs, ours in pairs]) if pairs else None

    def growth(self, figure: Figure, series: Series, packets: int) -> Estimate | None:
        """The factor by which the gain grows from 0 to 100 % invalid.

        In each repetition, a line is fitted to the logarithms of the gains by least squares; the
        interval is that of its slope over repetitions.
        """
        by_index: dict[int, list[tuple[float, float]]] = {}
        for percent in self.percents:
            for index, pair in self._pairs(figure, (series, packets, percent)).items():
                if min(pair) <= 0:
                    return None
                by_index.setdefault(index, []).append((percent / 100, math.log(pair[0] / pair[1])))
        slopes = [_slope(points) for points in by_index.values() if len(points) > 1]
        if not slopes:
            return None
        slope = mean(slopes)
        return Estimate(*(None if end is None else math.exp(end) for end in slope))  # type: ignore[arg-type]


def _slope(points: Iterable[tuple[float, float]]) -> float:
    x, y = np.array(list(points)).T
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


class Knee(NamedTuple):
    """The highest rate without loss: the one asked for (0: as fast as possible) and the reached."""

    rate: float
    reached: float
    fastest: bool
    """Whether no faster rate was tried."""


def knees(runs: Iterable[FilterRun]) -> dict[tuple[Series, float], Knee | None]:
    """The knee of each series and percent, by the packets of all repetitions.

    Every lower rate was without loss too; None where the lowest rate already lost.
    """
    steps: dict[tuple[Series, float], dict[float, list[FilterRun]]] = {}
    for measured in runs:
        if measured.cell.knee:
            at = steps.setdefault((measured.cell.series, measured.cell.percent), {})
            at.setdefault(measured.cell.rate or math.inf, []).append(measured)
    return {at: _knee(rates) for at, rates in sorted(steps.items())}


def _knee(rates: dict[float, list[FilterRun]]) -> Knee | None:
    knee = None
    for rate in sorted(rates):
        runs = rates[rate]
        sent = sum(measured.sent_puts for measured in runs)
        if sum(measured.lost for measured in runs) > KNEE_LOSS * sent:
            break
        reached = float(
            np.mean([measured.cell.packets / measured.send_seconds for measured in runs])
        )
        knee = Knee(0.0 if rate == math.inf else rate, reached, rate == max(rates))
    return knee
