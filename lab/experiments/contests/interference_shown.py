# SPDX-License-Identifier: Apache-2.0
"""Interference as tables, sentences and a plot: who waits how long, beside how many hits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carom.lab.cells import Axis, Series, SeriesOf
from carom.lab.record import Repetition, Run
from carom.lab.round_trips import ShownRoundTrips
from carom.lab.show import words
from carom.lab.show.canvas import IDLE, margins, mark, page, save, what_bars_are
from carom.lab.show.published import where as beside
from carom.lab.show.sheets import Row, Sheet
from carom.lab.stats.estimates import Estimate, by_cell, mean, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE, PLAIN, LIMITED = "none", "carom", "limited"
MOST = 1e9
"""The load that stands for: as much as goes."""

PUBLISHED_LOAD = 50_000.0
PUBLISHED = {"miss": (40.6, 61.5), "neighbour": (57.9, 89.0)}
"""Round trips without hits and beside PUBLISHED_LOAD of them a second, µs, published elsewhere."""


WHERE = {
    "authors": "others",
    "hosts": "not known here",
    "load": f"{PUBLISHED_LOAD:,.0f} hits a second",
    "time": "round trips; of which kind is not known here",
}
"""What is known of the published figures."""

TREATMENTS = {
    NONE: Series(NONE, "no carom", "#D55E00", "o"),
    PLAIN: Series(PLAIN, "carom", "#0072B2", "s"),
    LIMITED: Series(LIMITED, "carom, hits limited", "#009E73", "^"),
}
VICTIMS = {
    "miss": "a miss of the service",
    "neighbour": "a server on the same CPU",
    "elsewhere": "a server on another CPU",
}
"""Who is asked beside the hits."""

_ASIDE = 0.08
"""From one treatment's points to the next one's, of the distance between two loads."""

Figure = Callable[[Repetition], float]


def name_of(treatment: str, victim: str) -> str:
    """The series of a treatment and a victim, as records name it."""
    return f"{treatment}_{victim}"


def _amount(load: float) -> str:
    return "most" if load >= MOST else words.amount(load)


LOAD = Axis(
    "x",
    column="load_per_s",
    heading="load/s",
    label="requests a second to the service",
    line=lambda load: f"beside {_amount(load)}/s",
    file=lambda load: f"beside{_amount(load)}",
    entry=_amount,
)


def _p50(repetition: Repetition) -> float:
    return repetition.round_trips.p50 if repetition.round_trips.count else math.nan


def _p99(repetition: Repetition) -> float:
    return repetition.round_trips.p99 if repetition.round_trips.count else math.nan


def _lost(repetition: Repetition) -> float:
    return 1 - repetition.round_trips.count / repetition.due if repetition.due else math.nan


def _hits(repetition: Repetition) -> float:
    seconds = repetition.round_trips.seconds
    return repetition.verdicts.get("hit", 0) / seconds if seconds else math.nan


def _sent(repetition: Repetition) -> float:
    return math.nan if repetition.offered is None else repetition.offered


class _Table:
    """A run's repetitions by treatment, victim and load."""

    def __init__(self, run: Run[Repetition]):
        self._cells = {
            (cell.series, cell.x or 0.0): repetitions
            for cell, repetitions in by_cell(run.measurements).items()
        }
        self.loads = sorted({load for _, load in self._cells})
        self.victims = [one for one in VICTIMS if any(self._of(name, one) for name in TREATMENTS)]
        self.treatments = [
            name for name in TREATMENTS if any(self._of(name, one) for one in VICTIMS)
        ]

    def _of(self, treatment: str, victim: str) -> bool:
        return any(series == name_of(treatment, victim) for series, _ in self._cells)

    def at(self, treatment: str, victim: str, load: float) -> list[Repetition]:
        """The repetitions of one point."""
        return self._cells.get((name_of(treatment, victim), load), [])

    def mean(self, figure: Figure, treatment: str, victim: str, load: float) -> Estimate:
        """A figure's mean; NaN where there is none."""
        return _mean(figure, self.at(treatment, victim, load))

    def of_all(self, figure: Figure, treatment: str, load: float) -> Estimate:
        """The same over all victims."""
        return _mean(figure, [one for name in VICTIMS for one in self.at(treatment, name, load)])

    def grown(self, figure: Figure, treatment: str, victim: str, load: float) -> Estimate | None:
        """How many times as long as without a load; None where nothing is paired."""
        over, under = (
            {one.index: figure(one) for one in self.at(treatment, victim, at) if figure(one) > 0}
            for at in (load, 0.0)
        )
        common = sorted(over.keys() & under.keys())
        if not common:
            return None
        return ratio([over[index] for index in common], [under[index] for index in common])


def _mean(figure: Figure, repetitions: Sequence[Repetition]) -> Estimate:
    values = [figure(repetition) for repetition in repetitions]
    return mean([value for value in values if not math.isnan(value)])


class ShownInterference(ShownRoundTrips):
    """How a run of interference is shown."""

    series = SeriesOf(
        (
            way._replace(name=name_of(name, victim), words=f"{one}, {way.words}")
            for victim, one in VICTIMS.items()
            for name, way in TREATMENTS.items()
        ),
        LOAD,
    )
    axis = LOAD

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """Round trips, losses, and what the load was."""
        table = _Table(run)
        sheets = [
            _of_victims(table, "p50 round trip, µs", _p50, _micro),
            _of_victims(table, "p99 round trip, µs", _p99, _micro),
            _of_victims(table, "Without a reply in time", _lost, _percent),
            _of_loads(table),
        ]
        return [sheet for sheet in sheets if sheet.rows]

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """What each victim has of the hits."""
        table = _Table(run)
        return [
            sentence
            for victim in table.victims
            for treatment in table.treatments
            for sentence in _said(table, treatment, victim)
        ] or [words.TOO_LITTLE]

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """How it was measured."""
        limit = run.settings.get("max_hits_per_cpu", 0)
        return [
            f"{words.repetitions(run.measurements)} Each measurement took "
            f"{run.settings['seconds']:g} s, one request after the other, blocking. Hits limited: "
            f"--max-hits-per-cpu {limit:,}. At most: 128 requests outstanding. The service and the "
            "server on its CPU share that with the thread that receives for both. Where there are "
            "fewer than four CPUs, who asks, the load's sender and the other server share one. "
            f"{words.place(run.environment, run.client_environment)}"
        ]

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """`interference.png`: p50 above p99, a panel for each victim."""
        table = _Table(run)
        return [_plot(table, folder / "interference.png")] if table.victims else []

    def published(self, run: Run[Repetition]) -> list[Sheet]:
        """The published growth, beside this run's p50."""
        table = _Table(run)
        rows: list[Row] = []
        for victim, (alone, with_hits) in PUBLISHED.items():
            p50s = [
                words.micro(table.mean(_p50, PLAIN, victim, load).value)
                for load in (0.0, PUBLISHED_LOAD)
            ]
            rows.append(
                {
                    "who": VICTIMS[victim],
                    "published, alone": f"{alone:g}",
                    "beside": f"{with_hits:g}",
                    "by": words.times(with_hits / alone),
                    "this run, alone": p50s[0],
                    "and beside": p50s[1],
                    "which is by": words.bracket(table.grown(_p50, PLAIN, victim, PUBLISHED_LOAD)),
                }
            )
        title = f"Beside {PUBLISHED_LOAD:,.0f} hits a second, µs: published elsewhere, and p50 here"
        return [Sheet(title, rows)]

    def where(self, run: Run[Repetition]) -> Sheet:
        """What is known of how both were measured."""
        loads = ", ".join(LOAD.entry(load) for load in _Table(run).loads)
        return beside(run, WHERE, load=f"{loads} requests a second", time="p50 of round trips")


def _micro(estimate: Estimate) -> str:
    return words.measured(estimate, words.micro)


def _percent(estimate: Estimate) -> str:
    return "-" if math.isnan(estimate.value) else words.percent(estimate.value)


def _of_victims(
    table: _Table, title: str, figure: Figure, show: Callable[[Estimate], str]
) -> Sheet:
    rows = [
        {
            "who": VICTIMS[victim],
            LOAD.heading: LOAD.entry(load),
            **{
                TREATMENTS[name].words: show(table.mean(figure, name, victim, load))
                for name in table.treatments
            },
        }
        for victim in table.victims
        for load in table.loads
    ]
    return Sheet(title, rows, names=2, grouped=True)


def _of_loads(table: _Table) -> Sheet:
    """What was sent, and how much of it the kernel answered."""
    rows = []
    for load in table.loads[1:] if table.loads[:1] == [0.0] else table.loads:
        row = {LOAD.heading: LOAD.entry(load)}
        for name in table.treatments:
            way = TREATMENTS[name].words
            row[f"sent, {way}"] = words.amount(table.of_all(_sent, name, load).value)
            if name != NONE:
                row[f"hits, {way}"] = words.amount(table.of_all(_hits, name, load).value)
        rows.append(row)
    return Sheet("The load: sent a second in all, and hits a second while others were asked", rows)


def _said_load(load: float) -> str:
    return "as many as go" if load >= MOST else f"{words.amount(load)} a second"


def _said(table: _Table, treatment: str, victim: str) -> Iterator[str]:
    """The growth of p50 and p99 at each load, in a sentence."""
    parts = []
    for load in table.loads:
        grown = table.grown(_p50, treatment, victim, load)
        if not load or not grown:
            continue
        p99 = table.mean(_p99, treatment, victim, load).value
        parts.append(
            f"{words.micro(table.mean(_p50, treatment, victim, load).value)} µs beside "
            f"{_said_load(load)}, {words.bracket(grown)} times as long (p99 {words.micro(p99)})"
        )
    if not parts:
        return
    alone = table.mean(_p50, treatment, victim, 0.0).value
    who = VICTIMS[victim]
    yield (
        f"{who[0].upper()}{who[1:]}, {TREATMENTS[treatment].words}: p50 {words.micro(alone)} µs "
        f"alone; {'; '.join(parts)}."
    )


def _plot(table: _Table, path: Path) -> Path:
    """Loads are as far from each other as from none: they span orders of magnitude."""
    figure, panels = page(6.2, 2, len(table.victims))
    shown: list[Estimate] = []
    across = len(table.victims)
    for row, (title, of) in enumerate((("p50", _p50), ("p99", _p99))):
        panels_of = panels[row * across : (row + 1) * across]
        drawn: list[Estimate] = []
        for axes, victim in zip(panels_of, table.victims, strict=True):
            drawn += _panel(axes, table, of, victim)
            axes.set_title(f"{title}, {VICTIMS[victim]}", loc="left", fontsize=9)
        _scale(panels_of[0], drawn)
        shown += drawn
    for axes in panels[across:]:
        axes.set_xlabel(LOAD.label, fontsize=9)
    for axes in panels[::across]:
        axes.set_ylabel("round trip, µs (log scale)", fontsize=9)
    figure.suptitle("Interference: beside hits", x=0.01, ha="left", weight="bold")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    return save(figure, f"{what_bars_are(shown)} {IDLE}", path)


def _panel(axes: Axes, table: _Table, figure: Figure, victim: str) -> list[Estimate]:
    shown = []
    for number, name in enumerate(table.treatments):
        aside = _ASIDE * (number - (len(table.treatments) - 1) / 2)
        curve = [
            (place + aside, table.mean(figure, name, victim, load).scaled(1e-3))
            for place, load in enumerate(table.loads)
        ]
        curve = [(place, one) for place, one in curve if not math.isnan(one.value)]
        estimates = [one for _, one in curve]
        shown += estimates
        axes.errorbar(
            [place for place, _ in curve],
            [one.value for one in estimates],
            yerr=margins(estimates),
            color=TREATMENTS[name].colour,
            marker=TREATMENTS[name].marker,
            markersize=5,
            linewidth=1.6,
            capsize=3,
            label=TREATMENTS[name].words,
        )
    axes.set_xticks(range(len(table.loads)), [LOAD.entry(load) for load in table.loads], fontsize=8)
    return shown


def _scale(axes: Axes, drawn: Sequence[Estimate]) -> None:
    """The scale of a row of panels: a wide interval must not set it."""
    if not drawn:
        return
    axes.set_yscale("log")
    axes.set_ylim(min(one.value for one in drawn) / 2, max(one.value for one in drawn) * 2)
    mark(axes.yaxis, lambda value: f"{value:,.0f}", (1, 2, 5))
