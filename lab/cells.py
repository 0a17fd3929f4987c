# SPDX-License-Identifier: Apache-2.0
"""Cells of round trips: the axes along which they differ, their series, and what they are called.

All that is said of an axis anywhere (a column, a heading, a scale, a file's name) is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

from carom.lab.record import Cell, Task, Wait
from carom.lab.show import words

WAITS: tuple[Wait, ...] = get_args(Wait)
"""The ways of waiting for a packet, in the order in which they are shown."""

TASKS: tuple[Task, ...] = get_args(Task)


class Axis(NamedTuple):
    """One thing that a grid varies, beside its series and waits."""

    field: str
    """Of a cell."""
    column: str
    """In results.csv."""
    heading: str
    """Of a table's column."""
    label: str
    """Below a plot."""
    line: Callable[[Any], str]
    """A value in a cell's name: `16 B`."""
    file: Callable[[Any], str]
    """The same in a file's name: `16bytes`."""
    entry: Callable[[Any], str] = "{:,.0f}".format
    """A value below the heading: `16`."""
    unit: str = ""
    """In the plural, where a sentence counts it."""
    log: bool = False
    """Whether plots have it on a log scale."""

    def counted(self, value: float) -> str:
        """A value in a sentence: `1 byte`, `16 bytes`."""
        return f"{value:,.0f} {self.unit if value != 1 else self.unit.removesuffix('s')}"

    def of(self, cell: Cell) -> Any:
        """A cell's value; None where it has none."""
        return getattr(cell, self.field)


def _percent(rate: float) -> str:
    return f"{100 * rate:g} % hits"


TASK = Axis("task", "task", "task", "task", str, str, entry=str)
SOCKET = Axis("socket", "socket", "socket", "socket", "socket {}".format, "socket{}".format)
HIT_RATE = Axis(
    "hit_rate",
    "hit_rate",
    "hits",
    "hit rate, %",
    line=_percent,
    file=lambda rate: f"hits{100 * rate:g}",
    entry=words.percent,
)
SIZE = Axis(
    "size",
    "size_bytes",
    "bytes",
    "payload, bytes (log scale)",
    line="{} B".format,
    file="{}bytes".format,
    unit="bytes",
    log=True,
)
CLIENTS = Axis(
    "clients",
    "clients",
    "clients",
    "clients at once (log scale)",
    line="{} clients".format,
    file="{}clients".format,
    unit="clients",
    log=True,
)
RATE = Axis(
    "rate",
    "asked_per_s",
    "asked/s",
    "requests a second, asked for (log scale)",
    line="{:,.0f}/s".format,
    file="{:.0f}persecond".format,
    entry=words.amount,
    log=True,
)
SINCE = Axis(
    "since",
    "since_s",
    "from",
    "seconds since the start",
    line="from {:g} s".format,
    file="from{:g}s".format,
    entry="{:g} s".format,
)
SECONDS = Axis(
    "seconds",
    "duration_s",
    "s",
    "seconds of measuring",
    line="{:g} s".format,
    file="{:g}s".format,
    entry="{:g}".format,
)

AXES = (TASK, SOCKET, HIT_RATE, SIZE, CLIENTS, RATE, SINCE, SECONDS)
"""In the order in which cells are named and sorted."""

X = Axis("x", "x", "x", "x", line="at {:g}".format, file="at{:g}".format, entry="{:g}".format)
"""The own axis of an experiment that is not known here."""


class Series(NamedTuple):
    """One way of answering that an experiment compares with others."""

    name: str
    """In records."""
    words: str
    """In tables, plots and sentences."""
    colour: str
    """Of Okabe and Ito's palette, which colour-blind readers can tell apart."""
    marker: str = "o"


class SeriesOf(dict[str, Series]):
    """An experiment's series by name, in the order in which they are shown, and its axes."""

    def __init__(self, series: Iterable[Series], *own: Axis):
        super().__init__((one.name, one) for one in series)
        self.axes = (*AXES, *(own or (X,)))
        """Those that every experiment may have, and its own."""

    def words(self, name: str) -> str:
        """How a series is shown; one that is not known here, as the record has it."""
        return self[name].words if name in self else name

    def name(self, cell: Cell) -> str:
        """What a cell is called in one line: `XDP cache, spin, 37.5 % hits`."""
        values = [axis.line(axis.of(cell)) for axis in self._of(cell)]
        return ", ".join([self.words(cell.series), cell.wait, *values])

    def file_name(self, cell: Cell) -> str:
        """A name for files about a cell: `xdp_cache-spin-hits37.5`."""
        values = [axis.file(axis.of(cell)) for axis in self._of(cell)]
        return "-".join([cell.series, cell.wait, *values])

    def _of(self, cell: Cell) -> list[Axis]:
        return [axis for axis in self.axes if axis.of(cell) is not None]

    def order(self, cell: Cell) -> tuple[float, ...]:
        """A sort key: by task, series, wait, and then what varies, from the smallest on."""
        names = list(self)
        values = (axis.of(cell) for axis in self.axes if axis != TASK)
        return (
            TASKS.index(cell.task) if cell.task else -1,
            names.index(cell.series) if cell.series in self else len(names),
            WAITS.index(cell.wait),
            *(-1.0 if value is None else value for value in values),
        )
