# SPDX-License-Identifier: Apache-2.0
"""The subjects of a contest, the bars for their figures, and which bars were met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from carom.lab.record import Figures
from carom.lab.stats.estimates import Estimate, mean, ratio
from carom.lab.testbed import Bed


class Subject(NamedTuple):
    """One participant; `measure` sets it up, returns its figures, and removes it."""

    name: str
    measure: Callable[[Bed[Any]], dict[str, float]]


class Bar(NamedTuple):
    """A comparison of one figure: that of `over` divided by the best of `under`."""

    title: str
    figure: str
    over: str
    under: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None


class Judged(NamedTuple):
    """A bar, the best subject of its `under`, and the ratio to that."""

    bar: Bar
    against: str
    ratio: Estimate

    @property
    def met(self) -> bool | None:
        """Whether the ratio itself, not its interval, meets the bar; None if it asks nothing."""
        low, high = self.bar.at_least, self.bar.at_most
        if low is None and high is None:
            return None
        return (low is None or self.ratio.value >= low) and (
            high is None or self.ratio.value <= high
        )


def figures(measurements: Sequence[Figures]) -> dict[str, dict[str, Estimate]]:
    """The mean of each figure of each subject, with its interval; subjects by name."""
    subjects = sorted({measurement.subject for measurement in measurements})
    return {
        subject: {
            figure: mean(list(values.values()))
            for figure, values in _of(measurements, subject).items()
        }
        for subject in subjects
    }


def judge(measurements: Sequence[Figures], bars: Sequence[Bar]) -> list[Judged]:
    """The result of each bar whose subjects were measured; ratios are paired by repetition."""
    means = figures(measurements)
    judged = []
    for bar in bars:
        rivals = [rival for rival in bar.under if bar.figure in means.get(rival, {})]
        if bar.figure not in means.get(bar.over, {}) or not rivals:
            continue
        best = max if larger_is_better(bar.figure) else min
        against = best(rivals, key=lambda rival: means[rival][bar.figure].value)
        ours, theirs = (_of(measurements, subject)[bar.figure] for subject in (bar.over, against))
        rounds = sorted(ours.keys() & theirs.keys())
        if rounds:
            paired = ratio([ours[n] for n in rounds], [theirs[n] for n in rounds])
            judged.append(Judged(bar, against, paired))
    return judged


def _of(measurements: Sequence[Figures], subject: str) -> dict[str, dict[int, float]]:
    by_figure: dict[str, dict[int, float]] = {}
    for measurement in measurements:
        for figure, value in measurement.figures.items():
            if measurement.subject == subject:
                by_figure.setdefault(figure, {})[measurement.index] = value
    return by_figure


def larger_is_better(figure: str) -> bool:
    """Whether a figure is a rate and not a time."""
    return figure.endswith(("/s", "-s"))
