# SPDX-License-Identifier: Apache-2.0
"""What everybody has to find who runs bounce and cache on two machines with native XDP."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from carom.lab.record import Repetition, Run


def check_bounce(found: Run[Repetition]) -> list[str]:
    """What is wrong with a run of bounce: nothing where XDP, in native mode, is faster."""
    wrong = _common(found)
    p50 = {
        series: fmean(
            one.round_trips.p50 for one in found.measurements if one.cell.series == series
        )
        for series in ("userspace", "xdp")
    }
    if not p50["xdp"] < p50["userspace"]:
        wrong.append(
            f"XDP takes {p50['xdp'] / 1000:.0f} us (p50), userspace {p50['userspace'] / 1000:.0f}"
        )
    return wrong


def check_cache(found: Run[Repetition]) -> list[str]:
    """What is wrong with a run of cache: nothing where RTT falls and hit rates are exact."""
    wrong = _common(found)
    for series in ("userspace_cache", "xdp_cache"):
        mean = {
            rate: fmean(
                one.round_trips.mean
                for one in found.measurements
                if (one.cell.series, one.cell.hit_rate) == (series, rate)
            )
            for rate in sorted(_rates(found))
        }
        for low, high in pairwise(mean):
            if not mean[high] < mean[low]:
                wrong.append(f"{series}: RTT does not fall from a hit rate of {low:g} to {high:g}")
    for one in found.measurements:
        if one.counted_hits != one.planned_hits:
            counts = f"{one.planned_hits} hits planned, {one.counted_hits} counted"
            wrong.append(f"{one.cell.series}: {counts}")
    return wrong


def _common(found: Run[Repetition]) -> list[str]:
    wrong = [] if found.complete else ["it was not run to its end"]
    if found.environment.mode != "native":
        wrong.append(f"XDP was attached in mode {found.environment.mode}")
    return wrong


def _rates(found: Run[Repetition]) -> set[float]:
    return {one.cell.hit_rate for one in found.measurements if one.cell.hit_rate is not None}
