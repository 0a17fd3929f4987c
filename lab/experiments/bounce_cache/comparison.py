# SPDX-License-Identifier: Apache-2.0
"""Which cells are compared: XDP with userspace, and a miss with no hook at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from carom.lab.cells import WAITS
from carom.lab.experiments.bounce_cache import published as published_tables
from carom.lab.experiments.bounce_cache.series import BASES, SERIES
from carom.lab.record import Cell, Repetition, RoundTrips, Run, Wait
from carom.lab.stats.estimates import Estimate, Figure, break_even, by_cell, mean, paired, ratio


class Speedup(NamedTuple):
    """How many times as fast an XDP cell is as userspace: userspace time over its time.

    `figure` is what is compared: p50, or the mean at hit rates between 0 and 1, where p50 would be
    that of a hit or of a miss. None is a comparison that was not measured.
    """

    cell: Cell
    figure: Literal["p50", "mean"]
    fastest: Cell
    """The fastest userspace cell, in any wait."""
    against_fastest: Estimate | None
    """None also where userspace serves part of the XDP cell's requests in a slower wait."""
    against_same_wait: Estimate | None
    means_against_same_wait: Estimate | None
    """The ratio of means, as the published tables have it."""
    published: float | None
    """The published ratio of means at this hit rate, or for this duration."""


class MissCost(NamedTuple):
    """The cost of a miss in one wait: p50 over the p50 without any hook."""

    wait: Wait
    never_hits: Estimate | None
    miss_and_fill: Estimate | None
    hit: Estimate | None
    break_even: Estimate | None
    """The hit rate above which the cache saves time; its misses fill."""


def p50(round_trips: RoundTrips) -> float:
    """The median of one repetition, ns."""
    return round_trips.p50


def average(round_trips: RoundTrips) -> float:
    """The mean of one repetition, ns."""
    return round_trips.mean


def speedups(run: Run[Repetition]) -> list[Speedup]:
    """The speedup of every XDP cell that has a userspace cell to compare with, as displayed."""
    cells = by_cell(run.measurements)
    candidates = (
        _speedup(cell, cells) for cell in sorted(cells, key=SERIES.order) if cell.series in BASES
    )
    return [speedup for speedup in candidates if speedup]


def headline(candidates: Sequence[Speedup]) -> Speedup | None:
    """The comparison to lead with: XDP in the wait in which userspace is fastest.

    Of several payload sizes or durations the first; of hit rates the highest.
    """
    fair = [speedup for speedup in candidates if speedup.cell.wait == speedup.fastest.wait]
    fair = fair or [speedup for speedup in candidates if speedup.against_fastest]
    return max(fair, key=lambda speedup: speedup.cell.hit_rate or 0.0, default=None)


def miss_costs(run: Run[Repetition]) -> list[MissCost]:
    """The cost of a miss for each wait in which a server without a hook was measured."""
    costs = []
    for wait in WAITS:
        series = {
            cell.series: repetitions
            for cell, repetitions in by_cell(run.measurements).items()
            if cell.wait == wait
        }
        if "no_hook" in series:
            costs.append(_miss_cost(wait, series))
    return costs


def _speedup(cell: Cell, cells: dict[Cell, list[Repetition]]) -> Speedup | None:
    mixed = cell.hit_rate is not None and 0 < cell.hit_rate < 1
    figure = average if mixed else p50
    bases = [base for base in cells if _comparable(cell, base) and any(paired(figure, cells[base]))]
    if not bases or not any(paired(figure, cells[cell])):
        return None
    fastest = min(bases, key=lambda base: mean(paired(figure, cells[base])[0]).value)
    alone = cell.hit_rate in (None, 1.0)
    same = next((cells[base] for base in bases if base.wait == cell.wait), None)
    return Speedup(
        cell=cell,
        figure="mean" if mixed else "p50",
        fastest=fastest,
        against_fastest=(
            _ratio(figure, cells[fastest], cells[cell])
            if alone or cell.wait == fastest.wait
            else None
        ),
        against_same_wait=_ratio(figure, same, cells[cell]),
        means_against_same_wait=_ratio(average, same, cells[cell]),
        published=_published(cell),
    )


def _comparable(cell: Cell, base: Cell) -> bool:
    return (base.series, base.hit_rate, base.size, base.seconds) == (
        BASES[cell.series],
        _base_hit_rate(cell),
        cell.size,
        cell.seconds,
    )


def _base_hit_rate(cell: Cell) -> float | None:
    """The hit rate of the cell to compare with.

    XDP over a userspace cache is compared with that cache alone, which always hits.
    """
    return 1.0 if cell.series == "xdp_over_userspace_cache" else cell.hit_rate


def _published(cell: Cell) -> float | None:
    base_hit_rate = _base_hit_rate(cell)
    if cell.hit_rate is None or base_hit_rate is None:
        return published_tables.bounce_ratio(cell.seconds) if cell.series == "xdp" else None
    return published_tables.cache_ratio(
        cell.series,
        cell.hit_rate,
        base_series=BASES[cell.series],
        base_hit_rate=base_hit_rate,
    )


def _ratio(
    figure: Figure, slow: Sequence[Repetition] | None, fast: Sequence[Repetition] | None
) -> Estimate | None:
    if not slow or not fast:
        return None
    slow_times, fast_times = paired(figure, slow, fast)
    return ratio(slow_times, fast_times) if slow_times else None


def _miss_cost(wait: Wait, series: dict[str, list[Repetition]]) -> MissCost:
    no_hook, miss, hit = (series.get(name) for name in ("no_hook", "miss_and_fill", "xdp_hit"))
    times = paired(p50, no_hook or [], hit or [], miss or [])
    return MissCost(
        wait=wait,
        never_hits=_ratio(p50, series.get("never_hits"), no_hook),
        miss_and_fill=_ratio(p50, miss, no_hook),
        hit=_ratio(p50, hit, no_hook),
        break_even=break_even(*times) if times[0] else None,
    )
