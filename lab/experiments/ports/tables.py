# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as tables, the published numbers beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.stats import Table, middle
from carom.lab.record import Repetition, Run
from carom.lab.show import words
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Figure

if TYPE_CHECKING:
    from carom.lab.experiments.ports.four import FourPorts

FIGURES: dict[str, Figure] = {
    "Mean": middle,
    "p50": lambda trips: trips.p50,
    "p99": lambda trips: trips.p99,
}


def sheets(of: FourPorts[Any], table: Table) -> list[Sheet]:
    """Round trips of every series and socket, their ratios, and what became of each request."""
    return [
        *(_times(of, table, name, figure) for name, figure in FIGURES.items()),
        _ratios(of, table),
        _accounts(of, table),
    ]


def _times(of: FourPorts[Any], table: Table, name: str, figure: Figure) -> Sheet:
    """A figure of every series and socket, with its margin."""
    rows = [
        {
            "socket": str(socket),
            "work": of.amount(table.amounts[socket - 1]),
            **{
                of.series.words(one): words.measured(table.mean(figure, (one, socket)), words.micro)
                for one in table.series
            },
        }
        for socket in table.sockets
    ]
    return Sheet(f"{name} round trip, µs", rows, names=2)


def _ratios(of: FourPorts[Any], table: Table) -> Sheet:
    """Every other series' mean by the base's, with the published ratio where there is one."""
    rows = []
    for socket in table.sockets:
        row = {"socket": str(socket)}
        for one in table.series:
            if one == of.base:
                continue
            row[of.series.words(one)] = words.bracket(table.ratio((one, socket), (of.base, socket)))
            theirs = published.ratio(of.name, (one, socket), (of.base, socket))
            if theirs is not None:
                row[f"published {of.series.words(one)}"] = words.times(theirs)
        rows.append(row)
    return Sheet(f"Ratio of means: each by {of.series.words(of.base)}, and the published", rows)


def _accounts(of: FourPorts[Any], table: Table) -> Sheet:
    """Requests and replies of each series, and the CPU time that a reply took its server."""
    rows = []
    for series in table.series:
        one = table.totals(series)
        rows.append(
            {
                "series": of.series.words(series),
                "sent": f"{one.sent:,}",
                "answered": f"{one.answered:,}",
                "late": f"{one.late:,}",
                "lost": f"{one.lost:,}",
                "wrong": f"{one.wrong:,}",
                "CPU µs a reply": words.micro(one.cpu),
            }
        )
    return Sheet("What became of every request", rows)


def about(of: FourPorts[Any], run: Run[Repetition]) -> str:
    """What a reader has to know to read the tables."""
    but = ", but for one process alone" if of.alone else ""
    return (
        f"{words.repetitions(run.measurements)} "
        f"Each measurement took {run.settings['seconds']:g} s. "
        f"Four closed-loop clients at once{but}; "
        "each host on a CPU of its own; every reply's bytes and every count checked. "
        "Published: two VMs, so only ratios compare. "
        f"{words.place(run.environment, run.client_environment)}"
    )
