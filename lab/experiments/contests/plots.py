# SPDX-License-Identifier: Apache-2.0
"""A contest as a plot: each figure of each subject, from 0, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from carom.lab.experiments.contests.judging import figures
from carom.lab.record import Figures, Run
from carom.lab.show import words
from carom.lab.show.canvas import margins, page, save, what_bars_are
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#0072B2"
_ACROSS = 2
_LONGEST = 40  # letters of a name: a longer one would leave no room for the panel


def plot(run: Run[Figures], folder: Path) -> list[Path]:
    """`figures.png`: a panel for each figure; returns the files written."""
    means = figures(run.measurements)
    names = list(dict.fromkeys(name for by_name in means.values() for name in by_name))
    if not names:
        return []
    rows = -(-len(names) // _ACROSS)
    height = rows * (1.2 + 0.28 * len(means))
    canvas, panels = page(height, rows, min(len(names), _ACROSS), shared=False)
    for axes, name in zip(panels, names, strict=False):
        by_subject = {
            subject: by_name[name] for subject, by_name in means.items() if name in by_name
        }
        _panel(axes, name, by_subject)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    bars = what_bars_are(estimate for by_name in means.values() for estimate in by_name.values())
    return [save(canvas, bars, folder / "figures.png")]


def _panel(axes: Axes, name: str, by_subject: dict[str, Estimate]) -> None:
    """A dot for each subject, the first at the top."""
    from matplotlib.ticker import MaxNLocator

    subjects = list(reversed(by_subject))
    heights = list(range(len(subjects)))
    estimates = [by_subject[subject] for subject in subjects]
    axes.errorbar(
        [estimate.value for estimate in estimates],
        heights,
        xerr=margins(estimates),
        color=COLOUR,
        marker="o",
        linestyle="none",
        capsize=4,
    )
    axes.set_yticks(
        heights, [words.plain(subject)[:_LONGEST] for subject in subjects], parse_math=False
    )
    axes.set_ylim(-0.6, len(subjects) - 0.4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    if max((estimate.value for estimate in estimates), default=0) >= 10_000:
        axes.xaxis.set_major_formatter(lambda value, _: words.amount(value))
    axes.set_title(words.plain(name)[:_LONGEST], loc="left", weight="bold", parse_math=False)
