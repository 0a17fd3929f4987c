# SPDX-License-Identifier: Apache-2.0
"""The conclusion of a run in words, for or against XDP."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from carom.lab.experiments.bounce_cache.comparison import (
    MissCost,
    Speedup,
    headline,
    miss_costs,
    speedups,
)
from carom.lab.experiments.bounce_cache.series import SERIES
from carom.lab.record import Repetition, Run
from carom.lab.show import words
from carom.lab.show.verdicts import judgement
from carom.lab.stats.estimates import Estimate, summarise


def conclusion(run: Run[Repetition]) -> list[str]:
    """Two lines, three with the cost of a miss: figures with their 95 % intervals."""
    compared = speedups(run)
    lead = headline(compared)
    lines = [_headline(lead, run), *_blocking(lead, compared)] if lead else []
    lines += [_miss(cost) for cost in miss_costs(run)[-1:]]
    return lines or [words.TOO_LITTLE]


def _headline(lead: Speedup, run: Run[Repetition]) -> str:
    """XDP against the fastest userspace server: the fairest comparison."""
    summaries = {summary.cell: summary for summary in summarise(run.measurements)}
    fast, slow = summaries[lead.cell], summaries[lead.fastest]
    fast_us, slow_us = (
        words.micro((summary.p50 if lead.figure == "p50" else summary.mean).value)
        for summary in (fast, slow)
    )
    hits = "" if lead.cell.hit_rate is None else f" at {words.percent(lead.cell.hit_rate)} hits"
    return (
        f"{SERIES.words(lead.cell.series)}{hits} takes {fast_us} µs ({lead.figure}), the fastest"
        f" userspace server ({lead.fastest.wait}) {slow_us} µs: {judgement(lead.against_fastest)};"
        f" p99 {words.micro(fast.p99.value)} against {words.micro(slow.p99.value)} µs."
    )


def _blocking(lead: Speedup, compared: Sequence[Speedup]) -> list[str]:
    """The same against a server that blocks, with what that ratio includes, and the published."""
    blocking = replace(lead.cell, wait="blocking")
    for speedup in compared:
        if speedup.cell == blocking and speedup.against_same_wait:
            means = speedup.means_against_same_wait
            published = ""
            if means and speedup.published:
                ours, theirs = words.times(means.value), words.times(speedup.published)
                published = f" Ratio of means {ours}, published {theirs}."
            text = f"Against a server that blocks: {judgement(speedup.against_same_wait)}, which"
            if speedup == lead:
                text = "That is against a server that blocks, and"
            return [f"{text} includes this machine's idle wake-up.{published}"]
    return []


def _miss(cost: MissCost) -> str:
    """What an attached cache costs on a miss, and the hit rate above which it pays."""
    costs = [
        f"{words.times(ratio.value)} ({words.interval(ratio)}){name}"
        for name, ratio in (("", cost.never_hits), (" with the fill", cost.miss_and_fill))
        if ratio
    ]
    takes = " and ".join(costs) or "an unmeasured number of"
    return (
        f"A miss takes {takes} times the p50 without a hook ({cost.wait});"
        f" {_break_even(cost.break_even)}."
    )


def _break_even(rate: Estimate | None) -> str:
    if rate is None:
        return "its break-even hit rate was not measured"
    interval = words.interval(rate, words.percent)
    if rate.value >= 1:
        return f"the cache pays at no hit rate (break-even: {interval})"
    if rate.value <= 0:
        return f"the cache pays at any hit rate (break-even: {interval})"
    return f"the cache pays above a hit rate of {words.percent(rate.value)} ({interval})"
