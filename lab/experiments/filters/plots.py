# SPDX-License-Identifier: Apache-2.0
"""The filter experiments as PNG files, with the published curves beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carom.lab.experiments.filters import published
from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters.model import FilterRun, Series
from carom.lab.experiments.filters.series import SERIES
from carom.lab.experiments.filters.stats import Figure, Table
from carom.lab.experiments.filters.verdict import most_invalid
from carom.lab.record import Run
from carom.lab.show.canvas import margins, mark, page, save, what_bars_are
from carom.lab.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_ASIDE = 1.06
_SERVERS = {"rust": "-", "haskell": ":"}
SUBTRACTED = "Published times without their 2 s of start-up; those below 10 ms are not drawn."

At = Callable[[Series], list[tuple[float, Estimate]]]
"""The points of a series: each its place on the horizontal axis, and its value."""


def plot(run: Run[FilterRun], folder: Path, *, times: bool, losses: bool) -> list[Path]:
    """Draw times, losses, or both; returns the files written."""
    table = filter_stats.grid(run.measurements)
    if not table.packets:
        return []
    written = []
    if times:
        paced = filter_stats.slowest(run.measurements)
        written += [cpu(table, paced, folder / "cpu.png"), wall(table, folder / "wall.png")]
    if losses and min(table.percents) < 100:
        written.append(loss(table, folder / "loss.png"))
    return written


def cpu(table: Table, paced: tuple[float, Table] | None, path: Path) -> Path:
    """CPU time per packet against the share of invalid packets: the server's, the machine's.

    The server's also at an equal rate, where that was measured.
    """
    panels = [
        ("the server's process", table, filter_stats.server_cpu),
        ("the whole machine", table, filter_stats.machine_cpu),
    ]
    if paced:
        panels.insert(1, (f"the same at {paced[0]:,.0f}/s", paced[1], filter_stats.server_cpu))
    figure, all_axes = page(4.2, 1, len(panels))
    for axes, (title, shown, time) in zip(all_axes, panels, strict=True):
        points = _by_percent(shown, _micro(time), shown.packets[-1])
        _lines(axes, shown, points)
        axes.set_title(title, loc="left")
        _percents(axes)
        values = [
            estimate.value
            for line in shown.series
            for _, estimate in points(line)
            if estimate.value > 0
        ]
        axes.set_ylim(0, 1.4 * max(values, default=1.0))  # wide intervals must not squeeze the rest
    all_axes[0].set_ylabel("CPU time a packet, µs")
    _heading(figure, all_axes[0], f"CPU time, {table.packets[-1]:,} packets")
    note = "The machine's includes the client's sending and other programs."
    return save(figure, f"{_bars_of(table)} {note}", path)


def wall(table: Table, path: Path) -> Path:
    """Wall time against packets at the most invalid ones, ours and the published."""
    figure, (left, right) = page(4.2, 1, 2)
    percent = most_invalid(table)
    _lines(left, table, _by_packets(table, _whole, percent), apart=True)
    for name, series in published.PATHS.items():
        times = published.seconds()
        points = [
            (packets, seconds)
            for (packets, at, where), seconds in times.items()
            if (at, where) == (percent, name) and seconds >= 0.01
        ]
        _published(right, points, series, "-")
    left.set_title("this run", loc="left")
    right.set_title("published (socket filter, Rust)", loc="left")
    for axes in (left, right):
        _packets(axes)
        axes.set_yscale("log")
        mark(axes.yaxis, lambda seconds: f"{seconds:g}")
    left.set_ylabel("wall time, s (log scale)")
    _heading(figure, left, f"Wall time, {percent:g} % invalid")
    return save(figure, f"{_bars_of(table)} {SUBTRACTED}", path)


def loss(table: Table, path: Path) -> Path:
    """PUTs lost against the share of invalid packets and against packets; the published beside."""
    figure, (share, share_theirs, count, count_theirs) = page(6.6, 2, 2, shared=False)
    packets, percent = table.packets[-1], _middle(table)
    percents = [value for value in table.percents if value < 100]
    _lines(share, table, _by_percent(table, _lost, packets, percents))
    _lines(count, table, _by_packets(table, _lost, percent), apart=True)
    rows = published.loss()
    for server, dashes in _SERVERS.items():
        for name, series in published.PATHS.items():
            same = [row for row in rows if (row.server, row.path) == (server, name)]
            by_percent = [(at.percent, 100 * at.loss) for at in same if at.packets == packets]
            by_packets = [(at.packets, 100 * at.loss) for at in same if at.percent == percent]
            label = f"{server.capitalize()}, {name}"
            _published(share_theirs, by_percent, series, dashes, label)
            _published(count_theirs, by_packets, series, dashes)
    for axes in (share, share_theirs):
        axes.set_title("this run" if axes is share else "published, own scale", loc="left")
        axes.set_ylabel(f"PUTs lost, %, of {packets:,} packets" if axes is share else "")
        _percents(axes)
    for axes in (count, count_theirs):
        axes.set_ylabel(f"PUTs lost, %, {percent:g} % invalid" if axes is count else "")
        _packets(axes)
    top = min(102.0, max(2.0, *(axes.get_ylim()[1] for axes in (share, count))))
    for axes in (share, count):  # one scale, to compare them
        axes.set_ylim(-0.02 * top, top)
    for axes in (share_theirs, count_theirs):
        axes.set_ylim(-0.02 * axes.get_ylim()[1], max(1.0, axes.get_ylim()[1]))
    share_theirs.legend(frameon=False, fontsize=8)
    _heading(figure, share, "Loss, sent as fast as possible")
    return save(figure, _bars_of(table), path)


def _middle(table: Table) -> float:
    """50 % invalid, or the nearest share that was measured."""
    return min(table.percents, key=lambda percent: abs(percent - 50))


def _micro(figure: Figure) -> Figure:
    return lambda measured: 1e6 * figure(measured)


def _whole(measured: FilterRun) -> float:
    return measured.wall_seconds


def _lost(measured: FilterRun) -> float:
    return 100 * measured.loss


def _by_percent(
    table: Table, figure: Figure, packets: int, percents: list[float] | None = None
) -> At:
    chosen = table.percents if percents is None else percents
    return lambda series: [
        (percent, table.mean(figure, (series, packets, percent))) for percent in chosen
    ]


def _by_packets(table: Table, figure: Figure, percent: float) -> At:
    return lambda series: [
        (packets, table.mean(figure, (series, packets, percent))) for packets in table.packets
    ]


def _lines(axes: Axes, table: Table, points: At, *, apart: bool = False) -> None:
    """A line for each series, each shifted a little; by a factor with `apart` (log scale)."""
    for series in (name for name in SERIES if name in table.series):
        curve = points(series)
        estimates = [estimate for _, estimate in curve]
        aside = list(SERIES).index(series) - (len(SERIES) - 1) / 2  # so that no point hides another
        axes.errorbar(
            [x * _ASIDE**aside if apart else x + aside for x, _ in curve],
            [estimate.value for estimate in estimates],
            yerr=margins(estimates),
            color=SERIES[series].colour,
            marker=SERIES[series].marker,
            markersize=5,
            linewidth=1.6,
            capsize=3,
            label=SERIES.words(series),
        )


def _published(
    axes: Axes, points: Sequence[tuple[float, float]], series: Series, dashes: str, label: str = ""
) -> None:
    if points:
        x, values = zip(*sorted(points), strict=True)
        axes.plot(
            x,
            values,
            dashes,
            color=SERIES[series].colour,
            marker=SERIES[series].marker,
            markersize=5,
            linewidth=1.6,
            label=label or None,
        )
    else:
        axes.annotate("not published", (0.5, 0.5), xycoords="axes fraction", ha="center")


def _percents(axes: Axes) -> None:
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlim(-4, 104)
    axes.set_xlabel("invalid packets, %")
    axes.set_ylim(bottom=0)


def _packets(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("packets (log scale)")


def _bars_of(table: Table) -> str:
    first = [(series, table.packets[-1], table.percents[0]) for series in table.series]
    return what_bars_are(table.mean(filter_stats.wall, point) for point in first)


def _heading(figure: Canvas, axes: Axes, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
