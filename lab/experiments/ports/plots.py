# SPDX-License-Identifier: Apache-2.0
"""Concurrency and demux as a PNG file: this run, and the published run on its own scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.ports import PORTS
from carom.lab.experiments.ports.stats import At, Table, middle
from carom.lab.show.canvas import logarithmic, margins, mark, page, save, what_bars_are
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from carom.lab.experiments.ports.four import FourPorts

SOCKETS = [which + 1 for which in PORTS]

Figure = Callable[[At], Estimate]

_WIDTH = 0.6
"""The width that a socket's points take side by side; sockets are 1 apart."""


def plot(experiment: FourPorts[Any], table: Table, folder: Path) -> list[Path]:
    """Draw the run; returns the files written."""
    if not table.series:
        return []
    figure, (ours, theirs) = page(4.4, 1, 2)
    amounts = table.amounts
    theirs_amounts = experiment.amounts(
        msgspec.to_builtins(experiment.full)
    )  # our defaults are theirs
    estimates = [
        _points(ours, experiment, series, _measured(experiment, table)) for series in table.series
    ]
    known = published.means(experiment.name)
    for series in (name for name in table.series if (name, 1) in known):
        _points(theirs, experiment, series, _known(experiment, theirs_amounts), legend=False)
    asleep = experiment.asleep(1.0) > 0
    heading = "mean round trip" + (" beyond the sleep" if asleep else "")
    ours.set_ylabel(f"{heading}, µs{' (log scale)' if asleep else ''}")
    theirs.set_ylabel(f"the same, ms{' (log scale)' if asleep else ''}")
    for axes, work, title in (
        (ours, amounts, "this run"),
        (theirs, theirs_amounts, "published (two VMs)"),
    ):
        axes.set_title(title, loc="left")
        axes.set_xticks(
            SOCKETS, [f"{socket}\n{experiment.amount(work[socket - 1])}" for socket in SOCKETS]
        )
        axes.set_xlabel("socket, and its work")
        if asleep and logarithmic(axes, "y"):
            mark(axes.yaxis, lambda value: f"{value:g}", (1, 2, 5))
        elif not asleep:
            axes.set_ylim(bottom=0)
    title = f"{experiment.name.capitalize()}: four ports"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    handles, labels = ours.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    caption = what_bars_are(estimate for series in estimates for estimate in series)
    return [save(figure, caption, folder / f"{experiment.name}.png")]


def _measured(experiment: FourPorts[Any], table: Table) -> Figure:
    """This run's figure, in microseconds."""

    def figure(at: At) -> Estimate:
        less = experiment.asleep(table.amounts[at[1] - 1])
        value, low, high = (
            None if end is None else (end - less) / 1e3 for end in table.mean(middle, at)
        )
        assert value is not None
        return Estimate(value, low, high)

    return figure


def _known(experiment: FourPorts[Any], amounts: Sequence[float]) -> Figure:
    """The published figure, in milliseconds."""
    known = published.means(experiment.name)
    return lambda at: Estimate(known[at] - experiment.asleep(amounts[at[1] - 1]) / 1e6)


def _points(
    axes: Axes,
    experiment: FourPorts[Any],
    series: str,
    figure: Figure,
    *,
    legend: bool = True,
) -> list[Estimate]:
    """Draw a point for each socket, beside those of other series."""
    names = list(experiment.series)
    aside = _WIDTH * ((names.index(series) + 0.5) / len(names) - 0.5)
    estimates = [figure((series, socket)) for socket in SOCKETS]
    axes.errorbar(
        [socket + aside for socket in SOCKETS],
        [estimate.value for estimate in estimates],
        yerr=margins(estimates),
        color=experiment.series[series].colour,
        marker=experiment.series[series].marker,
        linestyle="none",
        markersize=6,
        capsize=3,
        label=experiment.series.words(series) if legend else None,
    )
    return estimates
