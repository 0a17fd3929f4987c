# SPDX-License-Identifier: Apache-2.0
"""What the filter experiments say: gains paired by repetition, losses, and the knees of rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from carom.lab.experiments.filters.model import FilterRun, Series
from carom.lab.experiments.filters.series import BASE
from carom.lab.stats.estimates import Estimate, mean, ratio

KNEE_LOSS = 0.001
"""What a rate may lose and still count as one without loss."""

Figure = Callable[[FilterRun], float]
Point = tuple[Series, int, float]
"""A series, a number of packets and the percent of them that are invalid."""


def wall(one: FilterRun) -> float:
    """Seconds a packet until the server has done all."""
    return one.per_packet(one.wall_seconds)


def server_cpu(one: FilterRun) -> float:
    """CPU seconds of the server's process a packet."""
    return one.per_packet(one.server_cpu_seconds)


def machine_cpu(one: FilterRun) -> float:
    """CPU seconds of the whole machine a packet."""
    return one.per_packet(one.machine_cpu_seconds)


def loss(one: FilterRun) -> float:
    """The share of PUTs that were lost."""
    return one.loss


def done(one: FilterRun) -> float:
    """PUTs done a second."""
    return one.done_rate


def grid(runs: Iterable[FilterRun]) -> Table:
    """The runs of the grid, sent as fast as it goes."""
    return Table(one for one in runs if not one.cell.knee)


def slowest(every: Iterable[FilterRun]) -> tuple[float, Table] | None:
    """The lowest rate at which the knee was looked for, and its runs: there the load is equal."""
    runs = [one for one in every if one.cell.knee and one.cell.rate]
    if not runs:
        return None
    rate = min(one.cell.rate for one in runs)
    return rate, Table(one for one in runs if one.cell.rate == rate)


class Table:
    """Runs by point and repetition."""

    def __init__(self, runs: Iterable[FilterRun]):
        self._runs: dict[Point, dict[int, FilterRun]] = {}
        for one in runs:
            at = one.cell.series, one.cell.packets, one.cell.percent
            self._runs.setdefault(at, {})[one.index] = one
        self.packets = sorted({packets for _, packets, _ in self._runs})
        self.percents = sorted({percent for _, _, percent in self._runs})
        self.series = list(dict.fromkeys(series for series, _, _ in self._runs))

    def mean(self, figure: Figure, at: Point) -> Estimate:
        """The mean over repetitions; NaN where there is none."""
        return mean([figure(one) for one in self._runs.get(at, {}).values()])

    def _pairs(self, figure: Figure, at: Point) -> dict[int, tuple[float, float]]:
        """Userspace's figure and this series', by repetition."""
        ours = self._runs.get(at, {})
        theirs = self._runs.get((BASE, *at[1:]), {})
        return {
            index: (figure(theirs[index]), figure(ours[index]))
            for index in sorted(ours.keys() & theirs.keys())
        }

    def gain(self, figure: Figure, at: Point) -> Estimate | None:
        """Userspace's over this series', paired; None where a time was too short to be seen."""
        pairs = list(self._pairs(figure, at).values())
        if not pairs or min(min(pair) for pair in pairs) <= 0:
            return None
        return ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def saved(self, figure: Figure, at: Point) -> Estimate | None:
        """Userspace's less this series', paired."""
        pairs = list(self._pairs(figure, at).values())
        return mean([theirs - ours for theirs, ours in pairs]) if pairs else None

    def growth(self, figure: Figure, series: Series, packets: int) -> Estimate | None:
        """What the gain is multiplied by from 0 to 100 % invalid.

        In each repetition a line is laid through the logarithms of the gains by least squares; the
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
        found = mean(slopes)
        return Estimate(*(None if end is None else math.exp(end) for end in found))  # type: ignore[arg-type]


def _slope(points: Iterable[tuple[float, float]]) -> float:
    x, y = np.array(list(points)).T
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


class Knee(NamedTuple):
    """The highest rate without loss: as asked for (0: as fast as it goes) and as it was reached."""

    rate: float
    reached: float
    fastest: bool
    """No faster one was tried."""


def knees(runs: Iterable[FilterRun]) -> dict[tuple[Series, float], Knee | None]:
    """The knee of each series and percent, by all repetitions' packets.

    Every lower rate was without loss as well; None where already the lowest one lost.
    """
    steps: dict[tuple[Series, float], dict[float, list[FilterRun]]] = {}
    for one in runs:
        if one.cell.knee:
            at = steps.setdefault((one.cell.series, one.cell.percent), {})
            at.setdefault(one.cell.rate or math.inf, []).append(one)
    return {at: _knee(rates) for at, rates in sorted(steps.items())}


def _knee(rates: dict[float, list[FilterRun]]) -> Knee | None:
    found = None
    for rate in sorted(rates):
        runs = rates[rate]
        sent = sum(one.sent_puts for one in runs)
        if sum(one.lost for one in runs) > KNEE_LOSS * sent:
            break
        reached = float(np.mean([one.cell.packets / one.send_seconds for one in runs]))
        found = Knee(0.0 if rate == math.inf else rate, reached, rate == max(rates))
    return found
