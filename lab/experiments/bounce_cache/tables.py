# SPDX-License-Identifier: Apache-2.0
"""A run as tables: every cell, what XDP gains, what a miss costs."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carom.lab.experiments.bounce_cache.comparison import MissCost, Speedup, miss_costs, speedups
from carom.lab.experiments.bounce_cache.conclusion import conclusion
from carom.lab.model import Cell, Results
from carom.lab.show import words
from carom.lab.show.sheets import Row, Sheet, fill
from carom.lab.stats.estimates import Estimate, Summary, summarise

WIDE = 96
"""Columns from which the tables leave nothing out."""
LEFT_OUT = ("p90", "stddev", "n", "which is")
"""What they leave out below that, beside the interval of the ratios to the same wait."""
TELLING = ("size", "s", "hits")
"""What is left out where it is the same in every row."""


def show(results: Results, console: Console) -> None:
    """Print the tables of a run, how to read them, and what they say in words."""
    for table in tables(results, console.width):
        console.print(table, "")
    for note in notes(results, console.width):
        console.print(Text(note, style="dim"))
    console.print()
    for line in conclusion(results):
        console.print(Text(line, style="bold"))


def tables(results: Results, width: int = 100) -> list[Table]:
    """The tables of a run for a terminal of that many columns; those only that have rows."""
    return [_table(one, width) for one in sheets(results, wide=width >= WIDE)]


def sheets(results: Results, *, wide: bool = True) -> list[Sheet]:
    """The tables of a run, those only that have rows; if not `wide`, without what is left out."""
    summaries = sorted(summarise(results), key=lambda one: words.order(one.cell))
    grid = [_figures(one) for one in summaries if one.cell.series not in words.MISS_COST]
    costs = [_figures(one) for one in summaries if one.cell.series in words.MISS_COST]
    made = {
        "Round-trip times, µs": grid,
        "Speedup: userspace time / XDP time": [_speedup(one, wide) for one in speedups(results)],
        "The cost of a miss: round-trip times, µs": costs,
        "The cost of a miss: p50 / p50 without a hook": [
            _miss_cost(one) for one in miss_costs(results)
        ],
    }
    return [_sheet(title, rows, wide) for title, rows in made.items() if rows]


def notes(results: Results, width: int = 100) -> list[str]:
    """What a reader has to know to read the tables."""
    said = [
        words.repetitions(results.repetitions),
        "± is the p50's interval.",
        "Speedups are of p50; between 0 and 100 % hits, where p50 is one or the other, of means.",
        "Published speedups are of means, on other machines.",
        "* includes this machine's idle wake-up.",
        words.place(results.environment, results.client_environment),
    ]
    if width < WIDE:
        said.append(f"With {WIDE} columns or more: p90, stddev, n and every interval.")
    wrong = sum(one.round_trips.wrong for one in results.repetitions)
    if wrong:
        said.append(f"{wrong} replies had other bytes than expected.")
    return said


def _cell(cell: Cell) -> Row:
    return {
        "series": words.series(cell),
        "wait": cell.wait,
        "size": f"{cell.size or ''}",
        "s": f"{cell.seconds:g}" if cell.seconds else "",
        "hits": words.percent(cell.hit_rate) if cell.hit_rate is not None else "",
    }


def _figures(one: Summary) -> Row:
    return {
        **_cell(one.cell),
        "p50": words.micro(one.p50.value),
        "±": words.micro(one.p50.margin),
        "p90": words.micro(one.p90.value),
        "p99": words.micro(one.p99.value),
        "p99.9": words.micro(one.p999.value),
        "mean": words.micro(one.mean.value),
        "stddev": words.micro(one.stddev.value),
        "n": words.amount(one.n),
        "lost": words.amount(one.lost),
        "replies/s": words.amount(one.rate.value),
    }


def _speedup(one: Speedup, wide: bool) -> Row:
    same, means = one.against_same_wait, one.means_against_same_wait
    return {
        **_cell(one.cell),
        "wait": _starred(one.cell.wait),
        "vs fastest": words.bracket(one.against_fastest),
        "which is": _starred(one.fastest.wait) if one.against_fastest else "",
        "same wait": words.bracket(same if wide or not same else Estimate(same.value)),
        "means": words.times(means.value) if means else "-",
        "published": words.times(one.published) if one.published else "-",
    }


def _miss_cost(one: MissCost) -> Row:
    return {
        "wait": one.wait,
        "never hits": words.bracket(one.never_hits),
        "miss and fill": words.bracket(one.miss_and_fill),
        "hit": words.bracket(one.hit),
        "break-even hits": _percent(one.break_even),
    }


def _percent(share: Estimate | None) -> str:
    return f"{words.bracket(share, 100)} %" if share else "-"


def _starred(wait: str) -> str:
    return f"{wait}*" if wait == "blocking" else wait


def _sheet(title: str, rows: Sequence[Row], wide: bool) -> Sheet:
    """A table of the rows, which are sorted by series and wait."""
    headings = [
        name
        for name in rows[0]
        if (wide or name not in LEFT_OUT)
        and (name not in TELLING or len({row[name] for row in rows}) > 1)
    ]
    kept = [{name: row[name] for name in headings} for row in rows]
    names = sum(name in ("series", "wait") for name in headings)
    return Sheet(title, kept, names, grouped="series" in headings)


def _table(sheet: Sheet, width: int) -> Table:
    """A sheet for a terminal of that many columns."""
    needed = sum(
        2 + max(len(name), *(len(row[name]) for row in sheet.rows)) for name in sheet.headings
    )
    table = Table(
        title=sheet.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1 if needed <= width else 0, 0, 0),
    )
    for number, name in enumerate(sheet.headings):
        table.add_column(name, justify="left" if number < sheet.names else "right", no_wrap=True)
    fill(table, sheet)
    return table
