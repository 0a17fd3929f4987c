# SPDX-License-Identifier: Apache-2.0
"""What was claimed, or hoped for, of four ports, and what a run says of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carom.lab.experiments.filters.verdict import outcome, side
from carom.lab.experiments.ports.grid import SERIES
from carom.lab.experiments.ports.stats import Table
from carom.lab.show import published as published_tables
from carom.lab.show import words
from carom.lab.stats.estimates import Estimate

STEERED = ("reuseport", "sk_lookup", "cpumap")
"""The series in which a packet reaches an open socket by a program's choice."""


def sentences(table: Table) -> list[str]:
    """Each claim with what came of it: counted are sockets whose whole interval is on one side."""
    return list(_CLAIMS[table.name](table))


def _concurrency(table: Table) -> Iterator[str]:
    yield "The published claims; counted are sockets whose 95 % interval lies on one side:"
    yield _claim(
        table, "1. One XDP program answers sooner than four processes in C", "userspace", "xdp"
    )
    if "python" in table.series:
        yield _claim(table, "   The same against four in Python", "python", "xdp")
    by_work = sorted(table.sockets, key=lambda socket: table.amounts[socket - 1])
    most, least = by_work[-1], by_work[0]
    for series in ("userspace", "xdp"):
        found = table.ratio((series, most), (series, least))
        theirs = published_tables.port_ratio(table.name, (series, most), (series, least))
        known = "" if theirs is None else f" (published {words.times(theirs)})"
        if found:
            yield (
                f"2. {SERIES[table.name][series]}: socket {most} takes {words.bracket(found)} "
                f"times as long as socket {least}{known}: {_said(found)}."
            )


def _demux(table: Table) -> Iterator[str]:
    yield "The published claims; counted are sockets whose 95 % interval lies on one side:"
    yield _claim(
        table, "1. Queues, polling and threads take longer than processes", "queue", "processes"
    )
    yield _claim(
        table, "2. A process takes longer beside three others than alone", "processes", "alone"
    )
    yield "The author's hope: a packet reaches an open socket as if it had come up the stack."
    for series in (one for one in STEERED if one in table.series):
        name = SERIES[table.name][series]
        yield _claim(table, f"3. {name} takes longer than processes", series, "processes")
        yield _claim(table, f"   Queues take longer than {name}", "queue", series)


_CLAIMS = {"concurrency": _concurrency, "demux": _demux}


def _claim(table: Table, claim: str, over: str, under: str) -> str:
    """A claim that one series takes longer than another, at every socket."""
    found = [table.ratio((over, socket), (under, socket)) for socket in table.sockets]
    ratios = ", ".join(words.bracket(one) for one in found)
    theirs = [
        published_tables.port_ratio(table.name, (over, socket), (under, socket))
        for socket in table.sockets
    ]
    known = ", ".join(words.times(one) for one in theirs if one is not None)
    said = f"{claim}: {outcome(_sides(found))}; {ratios} times as long"
    return said + (f" (published {known})." if known else ".")


def _sides(found: Sequence[Estimate | None]) -> list[int]:
    return [side(one, 1) for one in found]


def _said(found: Estimate) -> str:
    return {1: "more work takes longer", 0: "no difference shown", -1: "more work takes less"}[
        side(found, 1)
    ]
