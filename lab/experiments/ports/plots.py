# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as a PNG file: this run, and the published one on its own scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.ports import PORTS
from carom.lab.experiments.ports.stats import At, Table, middle
from carom.lab.show.canvas import logarithmic, margins, page, save, what_bars_are
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from carom.lab.experiments.ports.four import FourPorts

SOCKETS = [which + 1 for which in PORTS]

Figure = Callable[[At], Estimate]

_WIDTH = 0.6
"""Of the room that a socket's points take, side by side."""


def plot(of: FourPorts[Any], table: Table, folder: Path) -> list[Path]:
    """Draw the run; returns the files written."""
    if not table.series:
        return []
    figure, (ours, theirs) = page(4.4, 1, 2)
    each = table.amounts
    theirs_each = of.amounts(msgspec.to_builtins(of.full))  # of the published runs: our default
    estimates = [_points(ours, of, series, _measured(of, table)) for series in table.series]
    known = published.means(of.name)
    for series in (one for one in table.series if (one, 1) in known):
        _points(theirs, of, series, _known(of, theirs_each), legend=False)
    asleep = of.asleep(1.0) > 0
    what = "mean round trip" + (" beyond the sleep" if asleep else "")
    ours.set_ylabel(f"{what}, µs{' (log scale)' if asleep else ''}")
    theirs.set_ylabel(f"the same, ms{' (log scale)' if asleep else ''}")
    for axes, work, title in (
        (ours, each, "this run"),
        (theirs, theirs_each, "published (two VMs)"),
    ):
        axes.set_title(title, loc="left")
        axes.set_xticks(SOCKETS, [f"{one}\n{of.amount(work[one - 1])}" for one in SOCKETS])
        axes.set_xlabel("socket, and its work")
        if asleep and logarithmic(axes, "y"):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif not asleep:
            axes.set_ylim(bottom=0)
    title = f"{of.name.capitalize()}: four ports"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    handles, labels = ours.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    caption = what_bars_are(one for series in estimates for one in series)
    return [save(figure, caption, folder / f"{of.name}.png")]


def _measured(of: FourPorts[Any], table: Table) -> Figure:
    """Ours, in microseconds."""

    def figure(at: At) -> Estimate:
        less = of.asleep(table.amounts[at[1] - 1])
        value, low, high = (
            None if one is None else (one - less) / 1e3 for one in table.mean(middle, at)
        )
        assert value is not None
        return Estimate(value, low, high)

    return figure


def _known(of: FourPorts[Any], each: Sequence[float]) -> Figure:
    """The published, in milliseconds."""
    known = published.means(of.name)
    return lambda at: Estimate(known[at] - of.asleep(each[at[1] - 1]) / 1e6)


def _points(
    axes: Axes,
    of: FourPorts[Any],
    series: str,
    figure: Figure,
    *,
    legend: bool = True,
) -> list[Estimate]:
    """A point a socket, beside those of other series."""
    names = list(of.series)
    aside = _WIDTH * ((names.index(series) + 0.5) / len(names) - 0.5)
    found = [figure((series, socket)) for socket in SOCKETS]
    axes.errorbar(
        [socket + aside for socket in SOCKETS],
        [one.value for one in found],
        yerr=margins(found),
        color=of.series[series].colour,
        marker=of.series[series].marker,
        linestyle="none",
        markersize=6,
        capsize=3,
        label=of.series.words(series) if legend else None,
    )
    return found
