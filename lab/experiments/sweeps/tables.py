# SPDX-License-Identifier: Apache-2.0
"""The sweeps as tables: a row for each point, a column for each way of answering."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console

from carom.lab.experiments.sweeps import verdict as sweep_verdict
from carom.lab.experiments.sweeps.grid import APART, Name, Series
from carom.lab.experiments.sweeps.stats import (
    Figure,
    Row,
    Sweep,
    cpu,
    offered,
    p50,
    p99,
    replies,
    unanswered,
)
from carom.lab.model import Results
from carom.lab.show import words
from carom.lab.show.sheets import Row as Line
from carom.lab.show.sheets import Sheet, drawn, text
from carom.lab.stats.estimates import Estimate

HEADINGS: dict[Name, str] = {
    "hooks": "",
    "sizes": "bytes",
    "clients": "clients",
    "knee": "asked/s",
    "minutes": "from",
}
"""What is varied."""

_MARGIN = 0.0005  # of a share that is shown in percent


def show(results: Results, console: Console) -> None:
    """Print what was measured, and what it says."""
    for sheet in sheets(results):
        console.print(text(sheet.title))
        console.print(drawn(sheet), "")
    console.print(text(about(results)))
    console.print()
    for line in sweep_verdict.sentences(results):
        console.print(text(line), style="bold")


def sheets(results: Results) -> list[Sheet]:
    """The tables of a sweep, those only that have rows."""
    sweep = Sweep(results)
    times = [
        _sheet(sweep, "p50 round trip, µs", p50, _micro),
        _sheet(sweep, "p99 round trip, µs", p99, _micro),
    ]
    rates = [
        _sheet(sweep, "Replies a second", replies, _amount),
        _sheet(sweep, "Requests without a reply in time", unanswered, _percent),
    ]
    made = [_ratios(sweep), *times]
    if sweep.name == "knee":
        asked = _sheet(sweep, "Requests a second that were sent or skipped", offered, _amount)
        made = [_knees(sweep), *rates, asked, *times]
    if sweep.name == "clients":
        made = [_ratios(sweep), rates[0], *times]
    if sweep.name == "minutes":
        made = [_steady(sweep), *made]
    if sweep.name in APART:
        made.append(_sheet(sweep, "The server's CPU time, µs a reply", cpu, _micro))
    return [one for one in made if one.rows]


def about(results: Results) -> str:
    """What a reader has to know to read the tables."""
    sweep = Sweep(results)
    said = [
        words.repetitions(results.repetitions),
        f"Each measurement took {results.settings['seconds']:g} s.",
    ]
    if any(row.wait == "blocking" for row in sweep.rows):
        said.append("Blocking includes a CPU's wake-up where it had nothing to do.")
    if sweep.name in APART:
        said.append("Either host has a CPU of its own, which deals with what that host receives.")
    if sweep.name == "clients":
        said.append("All clients share one: where that is the limit, a hook gives more than shown.")
    if any(sweep.by_tc(series, row) for series in sweep.series for row in sweep.rows):
        said.append("(TC): XDP had no room for the reply, and TC answered.")
    said.append("Every reply's bytes and the kernel's counts checked.")
    said.append(words.place(results.environment, results.client_environment))
    return " ".join(said)


def point(sweep: Sweep, row: Row) -> Line:
    """What a row is about: what is the same in all of them is left out."""
    line: Line = {}
    if len({one.task for one in sweep.rows}) > 1:
        line["task"] = row.task
    if len({one.wait for one in sweep.rows}) > 1:
        line["wait"] = row.wait
    if row.x is not None:
        line[HEADINGS[sweep.name]] = varied(sweep.name, row.x)
    return line or {"task": row.task}


def varied(name: Name, x: float) -> str:
    """A value of what is varied, in words."""
    if name == "knee":
        return words.amount(x)
    return f"{x:g} s" if name == "minutes" else f"{x:,.0f}"


def _sheet(sweep: Sweep, title: str, figure: Figure, show: Callable[[Estimate], str]) -> Sheet:
    rows = []
    names = 1
    for row in sweep.rows:
        line = point(sweep, row)
        names = len(line)
        for series in sweep.series:
            value = show(sweep.mean(figure, series, row))
            line[words.SERIES[series]] = value + _by_tc(sweep, series, row)
        rows.append(line)
    return Sheet(title, rows, names, grouped=names > 1)


def _ratios(sweep: Sweep) -> Sheet:
    """What each hook gains over userspace: in time, or with several clients in replies."""
    rows = []
    names = 1
    for row in sweep.rows:
        line = point(sweep, row)
        names = len(line)
        for series in (one for one in sweep.series if one != sweep_verdict.BASE):
            value = words.bracket(sweep_verdict.gain(sweep, series, row))
            line[words.SERIES[series]] = value + _by_tc(sweep, series, row)
        if len(line) > names and sweep_verdict.BASE in sweep.series:
            rows.append(line)
    title = "Userspace's p50 / each one's p50"
    if sweep.name == "clients":
        title = "Each one's replies a second / userspace's"
    return Sheet(title, rows, names, grouped=names > 1)


def _by_tc(sweep: Sweep, series: Series, row: Row) -> str:
    return " (TC)" if sweep.by_tc(series, row) else ""


def _knees(sweep: Sweep) -> Sheet:
    """How far each series came."""
    rows = []
    for (_, wait), group in sweep.groups().items():
        for series in sweep.series:
            knee = sweep.knee(series, group)
            if knee is None:
                continue
            more = sweep.most_ratio(series, sweep_verdict.BASE, group)
            rows.append(
                {
                    "series": words.SERIES[series],
                    "wait": wait,
                    "99.9 % answered up to, /s": sweep_verdict.reach(knee),
                    "most replies/s": _amount(knee.most),
                    "by userspace's": "" if series == sweep_verdict.BASE else words.bracket(more),
                }
            )
    return Sheet("How far each came", rows, names=2)


def _steady(sweep: Sweep) -> Sheet:
    """How even each series was."""
    rows = []
    for (_, wait), group in sweep.groups().items():
        for series in sweep.series:
            found = sweep.steady(series, group)
            if found:
                rows.append(
                    {
                        "series": words.SERIES[series],
                        "wait": wait,
                        "last third / first": words.bracket(found.drift),
                        "slowest part / middle": words.bracket(found.slowest),
                    }
                )
    return Sheet("How steady the p50 was", rows, names=2)


def _micro(of: Estimate) -> str:
    return words.measured(of, words.micro)


def _amount(of: Estimate) -> str:
    return words.measured(of, words.amount)


def _percent(of: Estimate) -> str:
    if math.isnan(of.value):
        return "-"
    margin = f" ±{100 * of.margin:.1f}" if of.margin and of.margin > _MARGIN else ""
    small = 0 < of.value < _MARGIN
    return f"{100 * of.value:.{3 if small else 1}f}{margin} %" if of.value else "0"
