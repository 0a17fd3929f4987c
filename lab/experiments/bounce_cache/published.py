# SPDX-License-Identifier: Apache-2.0
"""The published bounce and cache (Sickler 2022), and their figures beside a run's."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from carom.lab.show.published import rows


class BounceRow(NamedTuple):
    """Mean round trip of a run of `seconds`, and its standard deviation over ten runs (ms)."""

    seconds: float
    series: str
    mean_ms: float
    stddev_ms: float


class CacheRow(NamedTuple):
    """Mean round trip (ms) and replies a second at a hit rate (0 to 1)."""

    hit_rate: float
    series: str
    mean_ms: float
    rate: float


@cache
def bounce() -> tuple[BounceRow, ...]:
    """The published bounce experiment."""
    return tuple(
        BounceRow(
            float(row["duration_s"]),
            row["path"],
            float(row["rtt_mean_ms"]),
            float(row["rtt_stddev_ms"]),
        )
        for row in rows("bounce_rtt.csv")
    )


@cache
def cache_hit_rate() -> tuple[CacheRow, ...]:
    """The published cache experiment."""
    return tuple(
        CacheRow(
            float(row["hit_rate"]),
            row["path"],
            float(row["rtt_mean_ms"]),
            float(row["throughput_pps"]),
        )
        for row in rows("cache_hit_rate.csv")
    )


def bounce_ratio(seconds: float | None = None) -> float:
    """Userspace mean over XDP mean, of the runs of that duration if there are any, else of all."""
    table = bounce()
    chosen = [row for row in table if row.seconds == seconds] or table
    means = {
        series: [row.mean_ms for row in chosen if row.series == series]
        for series in ("userspace", "xdp")
    }
    return sum(means["userspace"]) / sum(means["xdp"])


def cache_ratio(
    series: str, hit_rate: float, *, base_series: str, base_hit_rate: float
) -> float | None:
    """The base's mean over the series' mean; None at hit rates that were not published."""
    means = {(row.series, row.hit_rate): row.mean_ms for row in cache_hit_rate()}
    try:
        return means[base_series, base_hit_rate] / means[series, hit_rate]
    except KeyError:
        return None
