# SPDX-License-Identifier: Apache-2.0
"""The published filters (Kierkegaard and Willén 2025): socket filters.

Their `kernel` is our `socket`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from carom.lab.experiments.filters import stats
from carom.lab.experiments.filters.model import FilterRun, Series
from carom.lab.record import Run
from carom.lab.show import words
from carom.lab.show.published import ratio as beside
from carom.lab.show.published import rows
from carom.lab.show.sheets import Row, Sheet

PATHS: dict[str, Series] = {"userspace": "userspace", "kernel": "socket"}
"""The published paths, and our series that does the same."""

WHERE = {
    "authors": "Kierkegaard and Willén 2025",
    "hook": "socket filter",
    "server": "in Rust; losses also in Haskell",
    "rate": "as fast as possible",
    "repetitions": "2 to 10",
    "time": "whole runs, with 2 s of start-up",
}
"""How and on what they measured, as far as is known."""

START_UP = 2.0
"""Seconds of start-up that every published time of the filters includes."""

_RESOLUTION = 0.05  # seconds: shorter times, rounded to 5 ms, give no useful ratio


class LossRow(NamedTuple):
    """The share of PUTs lost (0 to 1) by a server, filtering in `kernel` or `userspace`."""

    server: str
    percent: float
    packets: int
    path: str
    loss: float


@cache
def seconds() -> dict[tuple[int, float, str], float]:
    """Wall time (s) by packets, percent invalid and path, without the start-up."""
    return {
        (int(row["packets"]), float(row["invalid_percent"]), row["path"]): max(
            0.0, float(row["wall_s"]) - START_UP
        )
        for row in rows("filter_throughput_rust.csv")
    }


def ratio(packets: int, percent: float) -> float | None:
    """Userspace time over kernel time; None where it is not published or too short."""
    times = seconds()
    pair = [times.get((packets, percent, path), 0.0) for path in ("userspace", "kernel")]
    return pair[0] / pair[1] if min(pair) >= _RESOLUTION else None


@cache
def loss() -> tuple[LossRow, ...]:
    """The published loss of packets."""
    return tuple(
        LossRow(
            row["server"],
            float(row["invalid_percent"]),
            int(row["packets"]),
            row["path"],
            float(row["loss_percent"]) / 100,
        )
        for row in rows("filter_packet_loss.csv")
    )


def walls(run: Run[FilterRun]) -> Sheet:
    """Wall times of the two published paths, and the gain by filtering in the kernel."""
    table = stats.grid(run.measurements)
    theirs = seconds()
    lines: list[Row] = []
    for packets in table.packets:
        for percent in table.percents:
            theirs_gain = ratio(packets, percent)
            gain = table.gain(stats.wall, ("socket", packets, percent))
            if theirs_gain is None or gain is None:
                continue
            row = {"packets": f"{packets:,}", "invalid": f"{percent:g} %"}
            for path, series in PATHS.items():
                ours = table.mean(stats.wall, (series, packets, percent))
                row[f"{series}, s"] = words.times(ours.value * packets)
                row[f"published {path}, s"] = words.times(theirs[packets, percent, path])
            row |= {
                "gain": words.bracket(gain),
                "published gain": words.times(theirs_gain),
                "ratio": beside(gain.value / theirs_gain),
            }
            lines.append(row)
    title = "Wall time of userspace and the socket filter, and the gain, beside the published"
    return Sheet(title, lines, grouped=True)
