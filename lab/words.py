# SPDX-License-Identifier: Apache-2.0
"""Names and numbers as a reader of tables, plots and conclusions sees them."""

from __future__ import annotations

import math

from carom.lab.model import Cell, Environment, Wait
from carom.lab.stats import Estimate

SERIES = {
    "userspace": "userspace",
    "xdp": "XDP",
    "userspace_cache": "userspace cache",
    "xdp_cache": "XDP cache",
    "xdp_over_userspace_cache": "XDP+userspace",
    "no_hook": "no hook",
    "never_hits": "never hits",
    "miss_and_fill": "miss and fill",
    "xdp_hit": "hit",
}
"""A short name of each series, in the order in which they are shown."""

MISS_COST = ("no_hook", "never_hits", "miss_and_fill", "xdp_hit")
"""The series that measure what a miss costs."""

WAITS: tuple[Wait, ...] = ("blocking", "one-cpu", "spin")
"""The ways of waiting for a packet, in the order in which they are shown."""


def series(cell: Cell) -> str:
    """The short name of a cell's series."""
    return SERIES.get(cell.series, cell.series)


def order(cell: Cell) -> tuple[int, int, int, float, float]:
    """A sort key: by series, wait, payload size, duration and hit rate."""
    names = list(SERIES)
    place = names.index(cell.series) if cell.series in names else len(names)
    rate = -1.0 if cell.hit_rate is None else cell.hit_rate
    return place, WAITS.index(cell.wait), cell.size or 0, cell.seconds or 0.0, rate


def micro(ns: float | None) -> str:
    """Nanoseconds as microseconds, without the unit, to three digits or more."""
    if ns is None or math.isnan(ns):
        return "-"
    us = ns / 1e3
    return f"{us:,.{2 if abs(us) < 100 else 1 if abs(us) < 1000 else 0}f}"


def percent(share: float) -> str:
    """A share as a percentage, to a tenth where it has one: `37.5 %`, `100 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def amount(number: float) -> str:
    """A count or a rate in at most five characters: `812`, `9,431`, `14.2k`, `1.23M`."""
    if math.isnan(number):
        return "-"
    if number < 9_999.5:
        return f"{number:,.0f}"
    return f"{times(number / 1e3)}k" if number < 999_500 else f"{times(number / 1e6)}M"


def times(ratio: float) -> str:
    """A ratio to three digits: `1.69`, `16.9`."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def bracket(estimate: Estimate | None, scale: float = 1.0) -> str:
    """A ratio, times `scale`, with its interval if it has one: `1.69 (1.65-1.73)`."""
    if estimate is None or math.isnan(estimate.value):
        return "-"
    value, low, high = (None if end is None else times(scale * end) for end in estimate)
    return f"{value} ({low}-{high})" if low and high else f"{value}"


def client(where: Environment | None) -> str:
    """What there is to say of a client that is another machine than the server."""
    if where is None:
        return ""
    return f" The client: {where.driver}; Linux {where.kernel}; {where.cpus} CPUs, {where.cpu}."
