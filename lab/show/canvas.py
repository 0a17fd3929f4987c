# SPDX-License-Identifier: Apache-2.0
"""What all plots have in common: the page, its caption, and bars for intervals.

matplotlib is imported where something is drawn: that takes longer than most commands of the lab.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from carom.lab.record import Wait
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 8.0
DPI = 190
"""1,520 pixels: legible also where a page shows 1,000."""
GREY = "#595959"
DASHES: dict[Wait, str] = {"blocking": "-", "one-cpu": "--", "spin": ":"}
"""The line of each wait."""
IDLE = "Blocking includes this machine's idle wake-up."


def page(
    height: float, rows: int = 1, columns: int = 1, *, shared: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of this height (inches), and its axes row by row; a row may share its scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    share: Literal["row", "none"] = "row" if rows > 1 and shared else "none"
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, sharey=share).flat)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#dddddd", linewidth=0.7)
        panel.set_axisbelow(True)
    return figure, axes


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> bool:
    """Make a scale logarithmic, if it can show anything that is drawn; returns whether it did."""
    drawn = (axes.xaxis if which == "x" else axes.yaxis).get_data_interval()
    if not 0 < drawn[1] < math.inf:
        return False
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    return True


def mark(axis: Axis, shown: Callable[[float], str], steps: Sequence[int] = ()) -> None:
    """Label a log scale's ticks as `shown`, and nothing between; `steps` says where in a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if steps:
        axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(lambda value, _: shown(value))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, caption: str, path: Path) -> Path:
    """Write a figure with a caption below it; returns the path."""
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=GREY)
    figure.savefig(path)
    return path


def what_bars_are(estimates: Iterable[Estimate]) -> str:
    """The caption that says what the bars are, if there are any."""
    if any(estimate.margin is not None for estimate in estimates):
        return "Bars and bands: 95 % intervals over repetitions."
    return "One repetition: no intervals."


def margins(estimates: Sequence[Estimate]) -> NDArray[np.float64]:
    """How far each interval reaches down and up: 2 rows, NaN where there is no interval."""
    down = [
        math.nan if estimate.low is None else estimate.value - estimate.low
        for estimate in estimates
    ]
    up = [
        math.nan if estimate.high is None else estimate.high - estimate.value
        for estimate in estimates
    ]
    return np.array([down, up])
