# SPDX-License-Identifier: Apache-2.0
"""The sweeps as tables: a row for each point, a column for each way of answering."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from carom.lab.experiments.sweeps.series import BASE, SERIES
from carom.lab.experiments.sweeps.stats import Figure, Measured, Row, p50, p99, replies
from carom.lab.record import Repetition, Run
from carom.lab.show import words
from carom.lab.show.sheets import Row as Line
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from carom.lab.experiments.sweeps.sweep import Sweep

_MARGIN = 0.0005  # of a share that is shown in percent


def notes(sweep: Sweep[Any], found: Measured, run: Run[Repetition]) -> list[str]:
    """What a reader has to know to read the tables."""
    said = [
        words.repetitions(run.measurements),
        f"Each measurement took {run.settings['seconds']:g} s.",
    ]
    if any(row.wait == "blocking" for row in found.rows):
        said.append("Blocking includes a CPU's wake-up where it had nothing to do.")
    if sweep.needs.apart:
        said.append("Either host has a CPU of its own, which deals with what that host receives.")
    if sweep.about:
        said.append(sweep.about)
    if any(found.by_tc(series, row) for series in found.series for row in found.rows):
        said.append("(TC): XDP had no room for the reply, and TC answered.")
    said.append("Every reply's bytes and the kernel's counts checked.")
    said.append(words.place(run.environment, run.client_environment))
    return [" ".join(said)]


def point(found: Measured, row: Row) -> Line:
    """What a row is about: what is the same in all of them is left out."""
    line: Line = {}
    if len({one.task for one in found.rows}) > 1:
        line["task"] = row.task
    if len({one.wait for one in found.rows}) > 1:
        line["wait"] = row.wait
    if row.x is not None and found.axis:
        line[found.axis.heading] = found.axis.entry(row.x)
    return line or {"task": row.task}


def times(found: Measured) -> list[Sheet]:
    """The round trips."""
    return [
        sheet(found, "p50 round trip, µs", p50, micro),
        sheet(found, "p99 round trip, µs", p99, micro),
    ]


def rates(found: Measured) -> Sheet:
    """The replies."""
    return sheet(found, "Replies a second", replies, amount)


def sheet(found: Measured, title: str, figure: Figure, show: Callable[[Estimate], str]) -> Sheet:
    """A figure of each series at each point."""
    rows = []
    names = 1
    for row in found.rows:
        line = point(found, row)
        names = len(line)
        for series in found.series:
            value = show(found.mean(figure, series, row))
            line[SERIES.words(series)] = value + _by_tc(found, series, row)
        rows.append(line)
    return Sheet(title, rows, names, grouped=names > 1)


def gains(sweep: Sweep[Any], found: Measured) -> Sheet:
    """What each hook gains over userspace."""
    rows = []
    names = 1
    for row in found.rows:
        line = point(found, row)
        names = len(line)
        for series in found.others():
            value = words.bracket(sweep.gain(found, series, row))
            line[SERIES.words(series)] = value + _by_tc(found, series, row)
        if len(line) > names and BASE in found.series:
            rows.append(line)
    return Sheet(sweep.gains, rows, names, grouped=names > 1)


def _by_tc(found: Measured, series: str, row: Row) -> str:
    return " (TC)" if found.by_tc(series, row) else ""


def micro(of: Estimate) -> str:
    """An estimate in microseconds."""
    return words.measured(of, words.micro)


def amount(of: Estimate) -> str:
    """An estimate of a count or a rate."""
    return words.measured(of, words.amount)


def percent(of: Estimate) -> str:
    """An estimate of a share, in percent."""
    if math.isnan(of.value):
        return "-"
    margin = f" ±{100 * of.margin:.1f}" if of.margin and of.margin > _MARGIN else ""
    small = 0 < of.value < _MARGIN
    return f"{100 * of.value:.{3 if small else 1}f}{margin} %" if of.value else "0"
