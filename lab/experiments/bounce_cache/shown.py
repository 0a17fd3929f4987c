# SPDX-License-Identifier: Apache-2.0
"""How runs of bounce and cache are shown: sentences, tables, plots, and published figures."""

from __future__ import annotations

from pathlib import Path

from carom.lab.cells import HIT_RATE, SECONDS
from carom.lab.experiment import S
from carom.lab.experiments.bounce_cache import plots, published, tables
from carom.lab.experiments.bounce_cache.comparison import speedups
from carom.lab.experiments.bounce_cache.conclusion import conclusion
from carom.lab.experiments.bounce_cache.series import SERIES
from carom.lab.record import Cell, Repetition, Run
from carom.lab.show import words
from carom.lab.show.published import SICKLER, ratio
from carom.lab.show.published import where as beside
from carom.lab.show.sheets import Row, Sheet
from carom.lab.stats.estimates import summarise
from carom.lab.trial import TrialExperiment

WAIT = "blocking"
"""How the published servers waited: times of other waits have no published counterpart."""


class BounceCache(TrialExperiment[S]):
    """What bounce and cache have in common."""

    series = SERIES

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """XDP against userspace, and the cost of a miss."""
        return conclusion(run)

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """Every cell, the speedup by XDP, and the cost of a miss."""
        return tables.tables(run, width)

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return tables.notes(run, width)

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """Distributions, curves over the hit rate, the cost of a miss."""
        return plots.plot(run, folder)

    def published(self, run: Run[Repetition]) -> list[Sheet]:
        """Means and ratios of means, beside the published ones."""
        return [sheet for sheet in (_means(run), _speedups(run)) if sheet.rows]

    def where(self, run: Run[Repetition]) -> Sheet:
        """How and on what this run and Sickler's were measured."""
        waits = {repetition.cell.wait for repetition in run.measurements}
        return beside(
            run,
            SICKLER,
            userspace="blocks" if waits == {WAIT} else "blocks, and other ways",
            time="every round trip",
        )


def _published_mean(cell: Cell) -> float | None:
    """The published mean (ms), of runs of the same duration if there are any, else of all."""
    if cell.hit_rate is not None:
        at = {(row.series, row.hit_rate): row.mean_ms for row in published.cache_hit_rate()}
        return at.get((cell.series, cell.hit_rate))
    rows = [row for row in published.bounce() if row.series == cell.series]
    rows = [row for row in rows if row.seconds == cell.seconds] or rows
    return sum(row.mean_ms for row in rows) / len(rows) if rows else None


def _means(run: Run[Repetition]) -> Sheet:
    rows: list[Row] = []
    for summary in sorted(
        summarise(run.measurements), key=lambda summary: SERIES.order(summary.cell)
    ):
        theirs = _published_mean(summary.cell)
        if theirs and summary.cell.wait == WAIT and summary.n:
            rows.append(
                {
                    **_cell(summary.cell),
                    "this run": words.micro(summary.mean.value),
                    "published": words.micro(1e6 * theirs),
                    "ratio": ratio(summary.mean.value / (1e6 * theirs)),
                }
            )
    return Sheet(f"Mean round trips, µs, beside the published ({WAIT})", rows, grouped=True)


def _speedups(run: Run[Repetition]) -> Sheet:
    rows: list[Row] = []
    for speedup in speedups(run):
        ours = speedup.means_against_same_wait
        if ours and speedup.published:
            rows.append(
                {
                    **_cell(speedup.cell),
                    "wait": speedup.cell.wait,
                    "this run": words.bracket(ours),
                    "published": words.times(speedup.published),
                    "ratio": ratio(ours.value / speedup.published),
                }
            )
    title = "Userspace time / XDP time, of means, beside the published"
    return Sheet(title, rows, grouped=True)


def _cell(cell: Cell) -> Row:
    row = {"series": SERIES.words(cell.series)}
    if cell.hit_rate is not None:
        row[HIT_RATE.heading] = HIT_RATE.entry(cell.hit_rate)
    elif cell.seconds:
        row[SECONDS.heading] = SECONDS.entry(cell.seconds)
    return row
