# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as tables, with the published numbers beside ours."""

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


def sheets(experiment: FourPorts[Any], table: Table) -> list[Sheet]:
    """Round trips of every series and socket, their ratios, and all requests by outcome."""
    return [
        *(_times(experiment, table, name, figure) for name, figure in FIGURES.items()),
        _ratios(experiment, table),
        _accounts(experiment, table),
    ]


def _times(experiment: FourPorts[Any], table: Table, name: str, figure: Figure) -> Sheet:
    """A figure of every series and socket, with its margin."""
    rows = [
        {
            "socket": str(socket),
            "work": experiment.amount(table.amounts[socket - 1]),
            **{
                experiment.series.words(series): words.measured(
                    table.mean(figure, (series, socket)), words.micro
                )
                for series in table.series
            },
        }
        for socket in table.sockets
    ]
    return Sheet(f"{name} round trip, µs", rows, names=2)


def _ratios(experiment: FourPorts[Any], table: Table) -> Sheet:
    """Every other series' mean over the base's, with the published ratio where there is one."""
    rows = []
    for socket in table.sockets:
        row = {"socket": str(socket)}
        for series in table.series:
            if series == experiment.base:
                continue
            row[experiment.series.words(series)] = words.bracket(
                table.ratio((series, socket), (experiment.base, socket))
            )
            theirs = published.ratio(experiment.name, (series, socket), (experiment.base, socket))
            if theirs is not None:
                row[f"published {experiment.series.words(series)}"] = words.times(theirs)
        rows.append(row)
    return Sheet(
        f"Ratio of means: each by {experiment.series.words(experiment.base)}, and the published",
        rows,
    )


def _accounts(experiment: FourPorts[Any], table: Table) -> Sheet:
    """Requests and replies of each series, and the server's CPU time per reply."""
    rows = []
    for series in table.series:
        totals = table.totals(series)
        rows.append(
            {
                "series": experiment.series.words(series),
                "sent": f"{totals.sent:,}",
                "answered": f"{totals.answered:,}",
                "late": f"{totals.late:,}",
                "lost": f"{totals.lost:,}",
                "wrong": f"{totals.wrong:,}",
                "CPU µs a reply": words.micro(totals.cpu),
            }
        )
    return Sheet("All requests by outcome", rows)


def about(experiment: FourPorts[Any], run: Run[Repetition]) -> str:
    """What a reader has to know to read the tables."""
    exception = ", except for one process alone" if experiment.alone else ""
    return (
        f"{words.repetitions(run.measurements)} "
        f"Each measurement took {run.settings['seconds']:g} s. "
        f"Four closed-loop clients at once{exception}; "
        "each host on a CPU of its own; every reply's bytes and every count checked. "
        "Published: two VMs, so only ratios compare. "
        f"{words.place(run.environment, run.client_environment)}"
    )
