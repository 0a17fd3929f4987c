# SPDX-License-Identifier: Apache-2.0
"""Estimates in words: a difference is claimed only where an interval shows it."""

from __future__ import annotations

from collections.abc import Sequence

from carom.lab.show import words
from carom.lab.stats.estimates import Estimate


def judgement(ratio: Estimate | None) -> str:
    """A ratio in words; a difference is claimed only where the interval leaves out 1."""
    if ratio is None:
        return "not compared"
    text = f"{words.times(ratio.value)} times as fast ({words.interval(ratio)})"
    if ratio.low is None or ratio.high is None or ratio.low > 1:
        return text
    return f"slower, {text}" if ratio.high < 1 else f"no difference shown, {text}"


def side(estimate: Estimate | None, middle: float) -> int:
    """1 or -1 where the whole interval is above or below `middle`; else 0."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return 0
    return int(estimate.low > middle) - int(estimate.high < middle)


def outcome(sides: Sequence[int]) -> str:
    """The outcome of a claim in words. A side is 1 for the claim, -1 against it, 0 neither."""
    yes, no, tries = sides.count(1), sides.count(-1), len(sides)
    if tries and yes == tries:
        return f"holds ({yes} of {tries})"
    if tries and no == tries:
        return f"the opposite holds ({no} of {tries})"
    if yes and no:
        return f"mixed: for it {yes}, against it {no} of {tries}"
    if yes or no:
        return f"{'holds' if yes else 'the opposite holds'} in part ({yes or no} of {tries})"
    return f"not shown either way (0 of {tries})"
