# SPDX-License-Identifier: Apache-2.0
"""A contest as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from carom.lab import words
from carom.lab.contest import Bar, Judged, figures, judge
from carom.lab.model import Contest
from carom.lab.stats import Estimate


def show(contest: Contest, bars: Sequence[Bar], console: Console) -> None:
    """Print what was measured, and what came of each comparison."""
    console.print(_figures(contest), "")
    console.print(_judged(judge(contest, bars)), "")
    rounds = len({one.index for one in contest.measurements})
    where = contest.environment
    console.print(
        f"{rounds} interleaved rounds, 95 % intervals (Student's t; ratios paired by round). "
        f"Pair {where.pair}: {where.driver}; Linux {where.kernel}; {where.cpus} CPUs, {where.cpu}."
        f"{words.client(contest.client_environment)}"
    )


def _figures(contest: Contest) -> Table:
    means = figures(contest)
    names = list(dict.fromkeys(name for one in means.values() for name in one))
    table = _table("", *names)
    for subject, found in means.items():
        table.add_row(subject, *(_amount(name, found[name]) for name in names))
    return table


def _amount(name: str, of: Estimate) -> str:
    margin = "" if of.margin is None else f" ±{_number(name, of.margin)}"
    return _number(name, of.value) + margin


def _number(name: str, value: float) -> str:
    return words.amount(value) if name.endswith(("/s", "-s")) else words.times(value)


def _judged(judged: Sequence[Judged]) -> Table:
    table = _table("ratio", "", "asked for", "", "against")
    for one in judged:
        asked = one.bar.at_least or one.bar.at_most
        sign = "≥" if one.bar.at_least else "≤"
        table.add_row(
            one.bar.title,
            words.bracket(one.ratio),
            f"{sign} {asked:g}" if asked else "",
            {True: "met", False: "missed", None: ""}[one.met],
            one.against,
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(headings):
        table.add_column(name, justify="left" if not number else "right")
    return table
