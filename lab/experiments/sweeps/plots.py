# SPDX-License-Identifier: Apache-2.0
"""The sweeps as PNG files: each series against what was varied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from carom.lab.cells import Axis
from carom.lab.experiments.sweeps.series import SERIES
from carom.lab.experiments.sweeps.stats import (
    Figure,
    Measured,
    Row,
    cpu,
    p50,
    p99,
    replies,
    unanswered,
)
from carom.lab.record import Task
from carom.lab.show.canvas import (
    DASHES,
    IDLE,
    logarithmic,
    margins,
    mark,
    page,
    save,
    what_bars_are,
)
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Page

    from carom.lab.experiments.sweeps.sweep import Sweep

_ASIDE = 0.16  # the shift from one series to the next, of the distance between lines of dots
_BESIDE = 2.0  # the factor by which a scale reaches beyond its least and its largest value
_DECADES = 2.5  # the length of a log scale above which only powers of ten have labels
_LEAST = 1e-5  # a share on a log scale that is drawn also for less: 0.001 %
_NO_LOSS = "Losses have no bars; less than 0.001 %, or none, is drawn as 0.001 %."


class Panel(NamedTuple):
    """The figure that one panel of a page shows."""

    title: str
    figure: Figure
    scale: float
    """The factor from the figure's unit to the panel's."""
    log: bool


TIMES = (Panel("p50 round trip, µs", p50, 1e-3, False), Panel("p99, µs", p99, 1e-3, False))
LOG_TIMES = tuple(panel._replace(log=True) for panel in TIMES)
REPLIES = Panel("replies a second", replies, 1.0, True)
CPU = Panel("the server's CPU time, µs a reply", cpu, 1e-3, False)
LOSS = Panel("without a reply in time, %", unanswered, 100.0, True)


def dots(measured: Measured, path: Path) -> Path:
    """A line for each task and wait, with a dot for each series; returns the file."""
    groups = list(measured.groups().items())
    figure, (axes,) = page(1.6 + 0.62 * len(groups))
    shown = []
    for place, series in enumerate(measured.series):
        medians = [measured.mean(p50, series, rows[0]).scaled(1e-3) for _, rows in groups]
        shown += medians
        aside = _ASIDE * ((len(measured.series) - 1) / 2 - place)
        axes.errorbar(
            [estimate.value for estimate in medians],
            [-number + aside for number in range(len(groups))],
            xerr=margins(medians),
            linestyle="none",
            capsize=3,
            **_looks(series),
        )
    names = [f"{task}, {wait}" for (task, wait), _ in groups]
    axes.set_yticks([-number for number in range(len(groups))], names)
    axes.set_ylim(0.6 - len(groups), 0.5)
    _logarithmic(axes, "x")
    values = [estimate.value for estimate in shown if not math.isnan(estimate.value)]
    if values:  # a wide interval must not set the scale
        axes.set_xlim(min(values) / _BESIDE, max(values) * _BESIDE)
    axes.set_xlabel("p50 round trip, µs (log scale)")
    return _finished(figure, axes, "Every hook", shown, path, [IDLE])


def lines(sweep: Sweep[Any], measured: Measured, task: Task, path: Path) -> Path:
    """A panel for each figure, with a curve for each series and wait; returns the file."""
    assert sweep.axis
    panels = sweep.panels
    down = -(-len(panels) // 2)
    figure, all_axes = page(1.0 + 2.9 * down, down, 2, shared=False)
    groups = {
        wait: rows for (shown_task, wait), rows in measured.groups().items() if shown_task == task
    }
    shown = []
    for axes, panel in zip(all_axes, panels, strict=False):
        for wait, rows in groups.items():
            for series in measured.series:
                looks = {"linestyle": "-"}
                if len(groups) > 1:
                    label = f"{SERIES.words(series)}, {wait}"
                    looks = {"linestyle": DASHES[wait], "label": label}
                shown += _curve(axes, measured, panel, series, rows, **looks)
        axes.set_title(panel.title + (" (log scale)" if panel.log else ""), loc="left")
        axes.set_xlabel(sweep.axis.label)
        if sweep.axis.log:
            _logarithmic(axes, "x", [row.x or 1 for rows in groups.values() for row in rows])
        if panel.log:
            _logarithmic(axes, "y")
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: _number(value))
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    notes = [IDLE] if "blocking" in groups else []
    if LOSS in panels:
        notes.append(_NO_LOSS)
    notes += _by_tc(measured, sweep.axis, next(iter(groups.values())))
    title = f"{sweep.name.capitalize()}, {task}: {' and '.join(groups)}"
    return _finished(figure, all_axes[0], title, shown, path, notes)


def _by_tc(measured: Measured, axis: Axis, rows: Sequence[Row]) -> list[str]:
    """The caption's line with the size from which TC answered for XDP; empty if it never did."""
    first = {
        SERIES.words(series): next((row for row in rows if measured.by_tc(series, row)), None)
        for series in measured.series
    }
    starts = [f"{series} from {axis.entry(row.x or 0)}" for series, row in first.items() if row]
    return (
        [f"By TC, as XDP had no room for the reply: {', '.join(starts)} bytes on."]
        if starts
        else []
    )


def _curve(
    axes: Axes, measured: Measured, panel: Panel, series: str, rows: Sequence[Row], **looks: Any
) -> list[Estimate]:
    """Draw one series' curve; in a panel of losses, less than `_LEAST` is drawn as that."""
    curve = [
        (row.x or 0.0, measured.mean(panel.figure, series, row).scaled(panel.scale))
        for row in rows
        if measured.at(series, row)
    ]
    if panel is LOSS:
        least = panel.scale * _LEAST
        curve = [(x, Estimate(max(estimate.value, least))) for x, estimate in curve]
    estimates = [estimate for _, estimate in curve]
    axes.errorbar(
        [x for x, _ in curve],
        [estimate.value for estimate in estimates],
        yerr=margins(estimates),
        linewidth=1.8,
        capsize=3,
        **{**_looks(series), **looks},
    )
    return estimates


def _looks(series: str) -> dict[str, Any]:
    return {
        "color": SERIES[series].colour,
        "marker": SERIES[series].marker,
        "markersize": 5,
        "label": SERIES.words(series),
    }


def _logarithmic(axes: Axes, which: Literal["x", "y"], ticks: Sequence[float] = ()) -> None:
    """Make a log scale with plain numbers, and with these `ticks` if they are few."""
    if not logarithmic(axes, which):
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    few, steps = sorted(set(ticks)), tuple[int, ...]()
    if 0 < len(few) <= 8 and all(b >= 1.8 * a for a, b in pairwise(few)):
        axis.set_ticks(few)
    else:
        low, high = axis.get_view_interval()
        wide = math.log10(high / low) > _DECADES if low > 0 else False
        steps = (1,) if wide else (1, 2, 5)
    mark(axis, _number, steps)


def _number(value: float) -> str:
    """A tick's label: `800`, `20k`, `1.28M`."""
    scale, unit = (1e6, "M") if value >= 1e6 else (1e3, "k") if value >= 1e4 else (1.0, "")
    return f"{value / scale:,.4g}{unit}"


def _finished(
    figure: Page,
    first: Axes,
    title: str,
    shown: Sequence[Estimate],
    path: Path,
    notes: Sequence[str],
) -> Path:
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False)
    return save(figure, "\n".join([what_bars_are(shown), *notes]), path)
