# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as a PNG file: this run, and the published one on its own scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from carom.lab.experiments.ports.grid import SERIES, Settings
from carom.lab.experiments.ports.ports import PORTS, Name
from carom.lab.experiments.ports.stats import At, Table, middle
from carom.lab.experiments.ports.tables import work
from carom.lab.model import Results
from carom.lab.show import published as published_tables
from carom.lab.show.canvas import logarithmic, margins, page, save, what_bars_are
from carom.lab.stats.estimates import Estimate

COLOURS = {
    "userspace": "#D55E00",
    "python": "#E69F00",
    "xdp": "#0072B2",
    "alone": "#999999",
    "processes": "#D55E00",
    "queue": "#0072B2",
    "reuseport": "#009E73",
    "sk_lookup": "#CC79A7",
    "cpumap": "#56B4E9",
}
MARKERS = dict(zip(COLOURS, "osD" + ".osD^v", strict=True))

SOCKETS = [which + 1 for which in PORTS]

Figure = Callable[[At], Estimate]

_WIDTH = 0.6
"""Of the room that a socket's points take, side by side."""


def plot(results: Results, folder: Path) -> list[Path]:
    """Draw the run; returns the files written."""
    table = Table(results)
    if not table.series:
        return []
    figure, (ours, theirs) = page(4.4, 1, 2)
    each, published = table.amounts, _published_amounts(table.name)
    estimates = [_points(ours, table, series, _measured(table, each)) for series in table.series]
    known = published_tables.ports(table.name)
    for series in (one for one in table.series if (one, 1) in known):
        _points(theirs, table, series, _known(table.name, published), legend=False)
    asleep = table.name == "demux"
    what = "mean round trip" + (" beyond the sleep" if asleep else "")
    ours.set_ylabel(f"{what}, µs{' (log scale)' if asleep else ''}")
    theirs.set_ylabel(f"the same, ms{' (log scale)' if asleep else ''}")
    for axes, of, title in ((ours, each, "this run"), (theirs, published, "published (two VMs)")):
        axes.set_title(title, loc="left")
        axes.set_xticks(SOCKETS, [f"{one}\n{work(table.name, of, one)}" for one in SOCKETS])
        axes.set_xlabel("socket, and its work")
        if asleep and logarithmic(axes, "y"):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif not asleep:
            axes.set_ylim(bottom=0)
    title = f"{table.name.capitalize()}: four ports"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    handles, labels = ours.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    caption = what_bars_are(one for series in estimates for one in series)
    return [save(figure, caption, folder / f"{table.name}.png")]


def _published_amounts(name: Name) -> list[float]:
    """The work of the published runs: it is our default."""
    return [
        float(one) for one in (Settings().loops if name == "concurrency" else Settings().sleeps)
    ]


def _asleep(name: Name, each: list[float], socket: int) -> float:
    """Nanoseconds of a round trip that are sleep."""
    return 1e9 * each[socket - 1] if name == "demux" else 0.0


def _measured(table: Table, each: list[float]) -> Figure:
    """Ours, in microseconds."""

    def figure(at: At) -> Estimate:
        less = _asleep(table.name, each, at[1])
        value, low, high = (
            None if one is None else (one - less) / 1e3 for one in table.mean(middle, at)
        )
        assert value is not None
        return Estimate(value, low, high)

    return figure


def _known(name: Name, each: list[float]) -> Figure:
    """The published, in milliseconds."""
    known = published_tables.ports(name)
    return lambda at: Estimate(known[at] - _asleep(name, each, at[1]) / 1e6)


def _points(
    axes: Axes,
    table: Table,
    series: str,
    figure: Figure,
    *,
    legend: bool = True,
) -> list[Estimate]:
    """A point a socket, beside those of other series."""
    names = list(SERIES[table.name])
    aside = _WIDTH * ((names.index(series) + 0.5) / len(names) - 0.5)
    found = [figure((series, socket)) for socket in SOCKETS]
    axes.errorbar(
        [socket + aside for socket in SOCKETS],
        [one.value for one in found],
        yerr=margins(found),
        color=COLOURS[series],
        marker=MARKERS[series],
        linestyle="none",
        markersize=6,
        capsize=3,
        label=SERIES[table.name][series] if legend else None,
    )
    return found
