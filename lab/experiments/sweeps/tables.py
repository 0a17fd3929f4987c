# SPDX-License-Identifier: Apache-2.0
"""The sweeps as tables: a row for each point, a column for each series."""

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

_MARGIN = 0.0005  # below this share, a percentage gets more digits, and a margin is left out


def notes(sweep: Sweep[Any], measured: Measured, run: Run[Repetition]) -> list[str]:
    """What a reader has to know to read the tables."""
    sentences = [
        words.repetitions(run.measurements),
        f"Each measurement took {run.settings['seconds']:g} s.",
    ]
    if any(row.wait == "blocking" for row in measured.rows):
        sentences.append("Blocking includes a CPU's wake-up where it had nothing to do.")
    if sweep.needs.apart:
        sentences.append("Each host has a CPU of its own, which also receives its packets.")
    if sweep.about:
        sentences.append(sweep.about)
    if any(measured.by_tc(series, row) for series in measured.series for row in measured.rows):
        sentences.append("(TC): XDP had no room for the reply, and TC answered.")
    sentences.append("Every reply's bytes and the kernel's counts checked.")
    sentences.append(words.place(run.environment, run.client_environment))
    return [" ".join(sentences)]


def point(measured: Measured, row: Row) -> Line:
    """The columns that name a row, without those that are the same in all rows."""
    line: Line = {}
    if len({other.task for other in measured.rows}) > 1:
        line["task"] = row.task
    if len({other.wait for other in measured.rows}) > 1:
        line["wait"] = row.wait
    if row.x is not None and measured.axis:
        line[measured.axis.heading] = measured.axis.entry(row.x)
    return line or {"task": row.task}


def times(measured: Measured) -> list[Sheet]:
    """Round trips: p50 and p99."""
    return [
        sheet(measured, "p50 round trip, µs", p50, micro),
        sheet(measured, "p99 round trip, µs", p99, micro),
    ]


def rates(measured: Measured) -> Sheet:
    """Replies a second."""
    return sheet(measured, "Replies a second", replies, amount)


def sheet(measured: Measured, title: str, figure: Figure, show: Callable[[Estimate], str]) -> Sheet:
    """A table of a figure of each series in each row."""
    rows = []
    names = 1
    for row in measured.rows:
        line = point(measured, row)
        names = len(line)
        for series in measured.series:
            value = show(measured.mean(figure, series, row))
            line[SERIES.words(series)] = value + _by_tc(measured, series, row)
        rows.append(line)
    return Sheet(title, rows, names, grouped=names > 1)


def gains(sweep: Sweep[Any], measured: Measured) -> Sheet:
    """A table of each hook's gain over userspace."""
    rows = []
    names = 1
    for row in measured.rows:
        line = point(measured, row)
        names = len(line)
        for series in measured.others():
            value = words.bracket(sweep.gain(measured, series, row))
            line[SERIES.words(series)] = value + _by_tc(measured, series, row)
        if len(line) > names and BASE in measured.series:
            rows.append(line)
    return Sheet(sweep.gains, rows, names, grouped=names > 1)


def _by_tc(measured: Measured, series: str, row: Row) -> str:
    return " (TC)" if measured.by_tc(series, row) else ""


def micro(estimate: Estimate) -> str:
    """An estimate in microseconds."""
    return words.measured(estimate, words.micro)


def amount(estimate: Estimate) -> str:
    """An estimate of a count or a rate."""
    return words.measured(estimate, words.amount)


def percent(estimate: Estimate) -> str:
    """An estimate of a share, in percent."""
    if math.isnan(estimate.value):
        return "-"
    margin = (
        f" ±{100 * estimate.margin:.1f}" if estimate.margin and estimate.margin > _MARGIN else ""
    )
    small = 0 < estimate.value < _MARGIN
    return f"{100 * estimate.value:.{3 if small else 1}f}{margin} %" if estimate.value else "0"
