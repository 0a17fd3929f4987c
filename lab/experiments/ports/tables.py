# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as tables for the terminal, the published numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from carom.lab.experiments.ports import verdict as port_verdict
from carom.lab.experiments.ports.grid import SERIES
from carom.lab.experiments.ports.ports import Name
from carom.lab.experiments.ports.stats import Table, middle
from carom.lab.model import Results
from carom.lab.show import published as published_tables
from carom.lab.show import words
from carom.lab.show.sheets import Sheet, drawn
from carom.lab.stats.estimates import Figure

BASE: dict[Name, str] = {"concurrency": "xdp", "demux": "processes"}
"""The series that the others are divided by."""

FIGURES: dict[str, Figure] = {
    "Mean": middle,
    "p50": lambda trips: trips.p50,
    "p99": lambda trips: trips.p99,
}


def show(results: Results, console: Console) -> None:
    """Print what was measured, and what it says."""
    for sheet in sheets(results):
        console.print(sheet.title, highlight=False)
        console.print(drawn(sheet), "")
    for line in port_verdict.sentences(Table(results)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("\n" + about(results), highlight=False)


def sheets(results: Results) -> list[Sheet]:
    """Round trips of every series and socket, their ratios, and what became of each request."""
    table = Table(results)
    return [
        *(_times(table, name, figure) for name, figure in FIGURES.items()),
        _ratios(table, BASE[table.name]),
        _accounts(table),
    ]


def _times(table: Table, name: str, figure: Figure) -> Sheet:
    """A figure of every series and socket, with its margin."""
    rows = [
        {
            "socket": str(socket),
            "work": work(table.name, table.amounts, socket),
            **{
                SERIES[table.name][one]: words.measured(
                    table.mean(figure, (one, socket)), words.micro
                )
                for one in table.series
            },
        }
        for socket in table.sockets
    ]
    return Sheet(f"{name} round trip, µs", rows, names=2)


def _ratios(table: Table, base: str) -> Sheet:
    """Every other series' mean by the base's, with the published ratio where there is one."""
    rows = []
    for socket in table.sockets:
        row = {"socket": str(socket)}
        for one in table.series:
            if one == base:
                continue
            row[SERIES[table.name][one]] = words.bracket(table.ratio((one, socket), (base, socket)))
            theirs = published_tables.port_ratio(table.name, (one, socket), (base, socket))
            if theirs is not None:
                row[f"published {SERIES[table.name][one]}"] = words.times(theirs)
        rows.append(row)
    return Sheet(f"Ratio of means: each by {SERIES[table.name][base]}, and the published", rows)


def _accounts(table: Table) -> Sheet:
    """Requests and replies of each series, and the CPU time that a reply took its server."""
    rows = []
    for series in table.series:
        one = table.totals(series)
        rows.append(
            {
                "series": SERIES[table.name][series],
                "sent": f"{one.sent:,}",
                "answered": f"{one.answered:,}",
                "late": f"{one.late:,}",
                "lost": f"{one.lost:,}",
                "wrong": f"{one.wrong:,}",
                "CPU µs a reply": words.micro(one.cpu),
            }
        )
    return Sheet("What became of every request", rows)


def work(name: Name, each: Sequence[float], socket: int) -> str:
    """What a request of a socket costs, in words."""
    amount = each[socket - 1]
    return f"{amount:,.0f} loops" if name == "concurrency" else f"{1e3 * amount:g} ms"


def about(results: Results) -> str:
    """What a reader has to know to read the tables."""
    but = ", but for one process alone" if results.experiment == "demux" else ""
    return (
        f"{words.repetitions(results.repetitions)} "
        f"Each measurement took {results.settings['seconds']:g} s. "
        f"Four closed-loop clients at once{but}; "
        "each host on a CPU of its own; every reply's bytes and every count checked. "
        "Published: two VMs, so only ratios compare. "
        f"{words.place(results.environment, results.client_environment)}"
    )
