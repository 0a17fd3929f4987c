# SPDX-License-Identifier: Apache-2.0
"""The three published claims about filters in the kernel, each with the outcome of a run."""

from __future__ import annotations

from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters.model import Series
from carom.lab.experiments.filters.series import KERNEL, SERIES
from carom.lab.experiments.filters.stats import Figure, Table
from carom.lab.show import words
from carom.lab.show.verdicts import outcome, side
from carom.lab.stats.estimates import Estimate

TIMES: dict[str, Figure] = {
    "wall time": filter_stats.wall,
    "the server's CPU time": filter_stats.server_cpu,
    "the machine's CPU time": filter_stats.machine_cpu,
}


def most_invalid(table: Table) -> float:
    """The highest share below 100 % that was measured: 99 by default."""
    return max((percent for percent in table.percents if percent < 100), default=table.percents[-1])


def sentences(table: Table) -> list[str]:
    """Each claim with its outcome at the largest number of packets, series by series."""
    if not table.packets:
        return []
    return [
        f"The published claims, at {table.packets[-1]:,} packets. Counted are the shares of "
        "invalid packets whose 95 % interval lies on one side:",
        "1. Filtering in the kernel takes less time than in userspace.",
        *(line for name in TIMES for line in _less_time(table, name)),
        "2. It loses fewer packets.",
        *_less_loss(table),
        "3. Its gain grows with the share of invalid packets.",
        *(line for name in TIMES for line in _growth(table, name)),
    ]


def _less_time(table: Table, name: str) -> list[str]:
    """0 % invalid is left out: there is nothing to gain."""
    lines, sides = [], []
    for series in _kernel(table):
        gains = {
            percent: table.gain(TIMES[name], (series, table.packets[-1], percent))
            for percent in table.percents
            if percent > 0
        }
        decided = [side(gain, 1) for gain in gains.values()]
        sides += decided
        at = most_invalid(table)
        lines.append(
            f"      {SERIES.words(series)}: {outcome(decided)}; at {at:g} % invalid "
            f"userspace takes {words.bracket(gains.get(at))} times as much"
        )
    return [f"   {name}, all places: {outcome(sides)}", *lines]


def _less_loss(table: Table) -> list[str]:
    """100 % invalid is left out: there is nothing to lose."""
    lines, sides = [], []
    for series in _kernel(table):
        saved = {
            percent: table.saved(filter_stats.loss, (series, table.packets[-1], percent))
            for percent in table.percents
            if 0 < percent < 100
        }
        decided = [side(difference, 0) for difference in saved.values()]
        sides += decided
        at = most_invalid(table)
        lines.append(
            f"      {SERIES.words(series)}: {outcome(decided)}; at {at:g} % invalid "
            f"{points(saved.get(at))} percentage points fewer"
        )
    return [f"   PUTs lost, all places: {outcome(sides)}", *lines]


def _growth(table: Table, name: str) -> list[str]:
    """Judged by the slope of the gain's logarithm over all measured shares."""
    lines, sides = [], []
    for series in _kernel(table):
        grown = table.growth(TIMES[name], series, table.packets[-1])
        sides.append(side(grown, 1))
        lines.append(
            f"      {SERIES.words(series)}: {outcome(sides[-1:])}; from 0 to 100 % invalid "
            f"the gain becomes {words.bracket(grown)} times as large"
        )
    return [f"   {name}, all places: {outcome(sides)}", *lines]


def points(estimate: Estimate | None) -> str:
    """A difference of shares in percentage points: `31.5 (30.2 to 32.8)`."""
    if estimate is None:
        return "-"
    value, *ends = (None if end is None else f"{100 * end:.1f}" for end in estimate)
    return f"{value} ({ends[0]} to {ends[1]})" if all(ends) else f"{value}"


def _kernel(table: Table) -> list[Series]:
    return [series for series in KERNEL if series in table.series]
