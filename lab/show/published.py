# SPDX-License-Identifier: Apache-2.0
"""The tables of published experiments, to stand beside ours.

Bounce, cache, concurrency and demux (Sickler 2022) were measured on two VirtualBox machines with
one CPU each: ratios within them compare with ratios within our runs, times do not. The filters
(Kierkegaard and Willén 2025) were socket filters: `kernel` compares with our `socket`.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class BounceRow(NamedTuple):
    """Mean round trip of a run of `seconds`, and its standard deviation over ten runs (ms)."""

    seconds: float
    series: str
    mean_ms: float
    stddev_ms: float


_PORT_PATHS = {
    "userspace": "userspace",
    "xdp": "xdp",
    "userspace_alone": "alone",
    "userspace_concurrent": "processes",
    "xdp_queue_daemon_threads": "queue",
}
"""What the published experiments with four ports called our series."""


class CacheRow(NamedTuple):
    """Mean round trip (ms) and replies a second at a hit rate (0 to 1)."""

    hit_rate: float
    series: str
    mean_ms: float
    rate: float


_SICKLER = {
    "authors": "Sickler 2022",
    "hosts": "two virtual machines (VirtualBox) on one host",
    "CPUs": "1 for each machine",
    "memory": "4 GB for each machine",
    "distribution": "Ubuntu 20.04",
    "kernel": "5.13",
    "userspace": "blocks for its packet",
    "time": "means over whole runs (time / packets)",
}
_KIERKEGAARD_WILLEN = {
    "authors": "Kierkegaard and Willén 2025",
    "hook": "socket filter",
    "server": "in Rust; losses also in Haskell",
    "rate": "as fast as it goes",
    "repetitions": "2 to 10",
    "time": "whole runs, with 2 s of start-up",
}
WHERE: dict[str, dict[str, str]] = {
    "bounce": _SICKLER,
    "cache": _SICKLER,
    "concurrency": _SICKLER,
    "demux": _SICKLER,
    "filter-throughput": _KIERKEGAARD_WILLEN,
    "filter-loss": _KIERKEGAARD_WILLEN,
    "filter-throughput-loss": _KIERKEGAARD_WILLEN,
}
"""How and on what the experiments that were published were measured, as far as is known."""

FILTER_START_UP = 2.0
"""Seconds of start-up that every published time of the filters has in it."""

_FILTER_RESOLUTION = 0.05  # seconds: shorter times, rounded to 5 ms, have no ratio worth a name


class FilterLossRow(NamedTuple):
    """The share of PUTs lost (0 to 1) by a server, filtering in `kernel` or `userspace`."""

    server: str
    percent: float
    packets: int
    path: str
    loss: float


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
        for row in _rows("bounce_rtt.csv")
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
        for row in _rows("cache_hit_rate.csv")
    )


@cache
def ports(experiment: str) -> dict[tuple[str, int], float]:
    """Mean round trips (ms) of concurrency or demux, by our name of the series and the socket."""
    return {
        (_PORT_PATHS[row["path"]], int(row["socket"])): float(row["rtt_mean_ms"])
        for row in _rows(f"{experiment}.csv")
    }


def port_ratio(experiment: str, over: tuple[str, int], under: tuple[str, int]) -> float | None:
    """The mean of one series and socket over another's; None where one is not published."""
    means = ports(experiment)
    return means[over] / means[under] if over in means and under in means else None


@cache
def filter_seconds() -> dict[tuple[int, float, str], float]:
    """Wall time by packets, percent invalid and path, without the start-up."""
    return {
        (int(row["packets"]), float(row["invalid_percent"]), row["path"]): max(
            0.0, float(row["wall_s"]) - FILTER_START_UP
        )
        for row in _rows("filter_throughput_rust.csv")
    }


def filter_ratio(packets: int, percent: float) -> float | None:
    """Userspace time over kernel time; None where it is not published or too short to tell."""
    times = filter_seconds()
    pair = [times.get((packets, percent, path), 0.0) for path in ("userspace", "kernel")]
    return pair[0] / pair[1] if min(pair) >= _FILTER_RESOLUTION else None


@cache
def filter_loss() -> tuple[FilterLossRow, ...]:
    """The published loss of packets."""
    return tuple(
        FilterLossRow(
            row["server"],
            float(row["invalid_percent"]),
            int(row["packets"]),
            row["path"],
            float(row["loss_percent"]) / 100,
        )
        for row in _rows("filter_packet_loss.csv")
    )


def bounce_ratio(seconds: float | None = None) -> float:
    """Userspace mean over XDP mean: of the runs of that duration, or of all if it has none."""
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
    """Mean of the base over mean of the series; None at hit rates that were not published."""
    means = {(row.series, row.hit_rate): row.mean_ms for row in cache_hit_rate()}
    try:
        return means[base_series, base_hit_rate] / means[series, hit_rate]
    except KeyError:
        return None


def _rows(name: str) -> list[dict[str, str]]:
    text = files("carom.lab").joinpath("published", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
