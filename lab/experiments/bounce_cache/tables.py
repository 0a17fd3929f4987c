# SPDX-License-Identifier: Apache-2.0
"""A run of bounce or cache as tables: every cell, the speedup by XDP, and the cost of a miss."""

from __future__ import annotations

from carom.lab.experiments.bounce_cache.comparison import MissCost, Speedup, miss_costs, speedups
from carom.lab.experiments.bounce_cache.series import MISS_COST, SERIES
from carom.lab.record import Repetition, Run
from carom.lab.round_trips import WIDE, figures, identity, sheets
from carom.lab.show import words
from carom.lab.show.sheets import Row, Sheet
from carom.lab.stats.estimates import Estimate, summarise


def tables(run: Run[Repetition], width: int | None) -> list[Sheet]:
    """The tables of a run that have rows; `width` is the terminal's, in columns."""
    wide = width is None or width >= WIDE
    summaries = sorted(summarise(run.measurements), key=lambda summary: SERIES.order(summary.cell))
    costs = [summary for summary in summaries if summary.cell.series in MISS_COST]
    grid = [summary for summary in summaries if summary.cell.series not in MISS_COST]
    made = {
        "Round-trip times, µs": [figures(SERIES, summary) for summary in grid],
        "Speedup: userspace time / XDP time": [
            _speedup(speedup, wide) for speedup in speedups(run)
        ],
        "The cost of a miss: round-trip times, µs": [figures(SERIES, summary) for summary in costs],
        "The cost of a miss: p50 / p50 without a hook": [
            _miss_cost(cost) for cost in miss_costs(run)
        ],
    }
    return sheets(made, width)


def notes(run: Run[Repetition], width: int | None) -> list[str]:
    """What a reader has to know to read the tables."""
    lines = [
        words.repetitions(run.measurements),
        "± is the p50's interval.",
        "Speedups are of p50; of means between 0 and 100 % hits, where p50 is a hit's or a miss's.",
        "Published speedups are of means, on other machines.",
        "* includes this machine's idle wake-up.",
        words.place(run.environment, run.client_environment),
    ]
    if width is not None and width < WIDE:
        lines.append(f"With {WIDE} columns or more: p90, stddev, n and every interval.")
    wrong = sum(repetition.round_trips.wrong for repetition in run.measurements)
    if wrong:
        lines.append(f"{wrong} replies had other bytes than expected.")
    return lines


def _speedup(speedup: Speedup, wide: bool) -> Row:
    same, means = speedup.against_same_wait, speedup.means_against_same_wait
    return {
        **identity(SERIES, speedup.cell),
        "wait": _starred(speedup.cell.wait),
        "vs fastest": words.bracket(speedup.against_fastest),
        "which is": _starred(speedup.fastest.wait) if speedup.against_fastest else "",
        "same wait": words.bracket(same if wide or not same else Estimate(same.value)),
        "means": words.times(means.value) if means else "-",
        "published": words.times(speedup.published) if speedup.published else "-",
    }


def _miss_cost(cost: MissCost) -> Row:
    return {
        "wait": cost.wait,
        "never hits": words.bracket(cost.never_hits),
        "miss and fill": words.bracket(cost.miss_and_fill),
        "hit": words.bracket(cost.hit),
        "break-even hits": _percent(cost.break_even),
    }


def _percent(share: Estimate | None) -> str:
    return f"{words.bracket(share, 100)} %" if share else "-"


def _starred(wait: str) -> str:
    return f"{wait}*" if wait == "blocking" else wait
