# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as tables for the terminal, the published numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Rich

from carom.lab import port_verdict, published_tables, words
from carom.lab.model import Results
from carom.lab.port_grid import SERIES
from carom.lab.port_stats import Table, middle
from carom.lab.ports import Name
from carom.lab.stats import Estimate, Figure

BASE: dict[Name, str] = {"concurrency": "xdp", "demux": "processes"}
"""The series that the others are divided by."""

FIGURES: dict[str, Figure] = {
    "Mean": middle,
    "p50": lambda trips: trips.p50,
    "p99": lambda trips: trips.p99,
}


def show(results: Results, console: Console) -> None:
    """Print what was measured, and what it says."""
    table = Table(results)
    base = BASE[table.name]
    for name, figure in FIGURES.items():
        console.print(f"{name} round trip, µs")
        console.print(times(table, figure), "")
    console.print(f"Ratio of means: each by {SERIES[table.name][base]}, and the published ratio")
    console.print(ratios(table, base), "")
    console.print("What became of every request")
    console.print(accounts(table), "")
    for line in port_verdict.sentences(table):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("\n" + _about(results), highlight=False)


def times(table: Table, figure: Figure) -> Rich:
    """A figure of every series and socket, with its margin."""
    found = _table("socket", "work", *(SERIES[table.name][one] for one in table.series))
    for socket in table.sockets:
        row = (_margin(table.mean(figure, (one, socket))) for one in table.series)
        found.add_row(str(socket), work(table.name, table.amounts, socket), *row)
    return found


def ratios(table: Table, base: str) -> Rich:
    """Every other series' mean by the base's, with the published ratio where there is one."""
    others = [one for one in table.series if one != base]
    published = {
        one
        for one in others
        if published_tables.port_ratio(table.name, (one, 1), (base, 1)) is not None
    }
    heads = [
        head
        for one in others
        for head in (SERIES[table.name][one], *(["published"] if one in published else []))
    ]
    found = _table("socket", *heads)
    for socket in table.sockets:
        row = []
        for one in others:
            row.append(words.bracket(table.ratio((one, socket), (base, socket))))
            if one in published:
                theirs = published_tables.port_ratio(table.name, (one, socket), (base, socket))
                row.append("-" if theirs is None else words.times(theirs))
        found.add_row(str(socket), *row)
    return found


def accounts(table: Table) -> Rich:
    """Requests and replies of each series, and the CPU time that a reply took its server."""
    found = _table("", "sent", "answered", "late", "lost", "wrong", "CPU µs a reply")
    for series in table.series:
        one = table.totals(series)
        counts = (one.sent, one.answered, one.late, one.lost, one.wrong)
        name = SERIES[table.name][series]
        found.add_row(name, *(f"{count:,}" for count in counts), words.micro(one.cpu))
    return found


def work(name: Name, each: Sequence[float], socket: int) -> str:
    """What a request of a socket costs, in words."""
    amount = each[socket - 1]
    return f"{amount:,.0f} loops" if name == "concurrency" else f"{1e3 * amount:g} ms"


def _margin(of: Estimate) -> str:
    margin = "" if of.margin is None else f" ±{words.micro(of.margin)}"
    return words.micro(of.value) + margin


def _about(results: Results) -> str:
    where = results.environment
    rounds = len({one.index for one in results.repetitions})
    but = ", but for one process alone" if results.experiment == "demux" else ""
    return (
        f"{rounds} interleaved rounds of {results.settings['seconds']:g} s, 95 % intervals "
        f"(Student's t; ratios paired by round). Four closed-loop clients at once{but}; "
        "each host on a CPU of its own; every reply's bytes and every count checked. "
        "Published: two VMs, so only ratios compare. "
        f"Pair {where.pair}: {where.driver}, XDP {where.mode or 'not attached'}; "
        f"Linux {where.kernel}; "
        f"{where.cpus} CPUs, {where.cpu}; load average {where.load_average[0]:.1f} before."
    )


def _table(*headings: str) -> Rich:
    table = Rich(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(headings):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table
