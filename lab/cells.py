# SPDX-License-Identifier: Apache-2.0
"""Cells of round trips: the axes along which they differ, their series, and their names.

All that any output needs of an axis (a column, a heading, a scale, a file's name) stands here.
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
    """The field of `Cell` that has its value."""
    column: str
    """Its column in results.csv."""
    heading: str
    """Its column in tables."""
    label: str
    """What stands below a plot's axis."""
    line: Callable[[Any], str]
    """A value in a cell's name: `16 B`."""
    file: Callable[[Any], str]
    """A value in a file's name: `16bytes`."""
    entry: Callable[[Any], str] = "{:,.0f}".format
    """A value below the heading: `16`."""
    unit: tuple[str, str] = ("", "")
    """The unit for sentences: of one, and of more."""
    log: bool = False
    """Whether plots have it on a log scale."""

    def counted(self, value: float) -> str:
        """A value in a sentence: `1 byte`, `16 bytes`."""
        return f"{value:,.0f} {self.unit[value != 1]}"

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
    unit=("byte", "bytes"),
    log=True,
)
CLIENTS = Axis(
    "clients",
    "clients",
    "clients",
    "clients at once (log scale)",
    line="{} clients".format,
    file="{}clients".format,
    unit=("client", "clients"),
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
"""The axis of an experiment that this carom does not know."""


class Series(NamedTuple):
    """One way of answering that an experiment compares with others."""

    name: str
    """Its name in records."""
    words: str
    """Its name in tables, plots and sentences."""
    colour: str
    """A colour of Okabe and Ito's palette, which colour-blind readers can tell apart."""
    marker: str = "o"


class SeriesOf(dict[str, Series]):
    """An experiment's series by name, in the order in which they are shown, and its axes."""

    def __init__(self, series: Iterable[Series], *own: Axis):
        super().__init__((way.name, way) for way in series)
        self.axes = (*AXES, *(own or (X,)))
        """The axes that every experiment may have, and its own."""

    def words(self, name: str) -> str:
        """The name of a series as it is shown; of an unknown series, the record's name."""
        return self[name].words if name in self else name

    def name(self, cell: Cell) -> str:
        """A cell's name in one line: `XDP cache, spin, 37.5 % hits`."""
        values = [axis.line(axis.of(cell)) for axis in self._of(cell)]
        return ", ".join([self.words(cell.series), cell.wait, *values])

    def file_name(self, cell: Cell) -> str:
        """A name for files about a cell: `xdp_cache-spin-hits37.5`."""
        values = [axis.file(axis.of(cell)) for axis in self._of(cell)]
        return "-".join([cell.series, cell.wait, *values])

    def _of(self, cell: Cell) -> list[Axis]:
        return [axis for axis in self.axes if axis.of(cell) is not None]

    def order(self, cell: Cell) -> tuple[float, ...]:
        """A sort key: by task, series, wait, then by each other axis, ascending."""
        names = list(self)
        values = (axis.of(cell) for axis in self.axes if axis != TASK)
        return (
            TASKS.index(cell.task) if cell.task else -1,
            names.index(cell.series) if cell.series in self else len(names),
            WAITS.index(cell.wait),
            *(-1.0 if value is None else value for value in values),
        )
