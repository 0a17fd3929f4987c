# SPDX-License-Identifier: Apache-2.0
"""Experiments that measure round trips: the files and the tables that all of them have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from carom.lab.cells import HIT_RATE, SECONDS, SIZE, SeriesOf
from carom.lab.experiment import Experiment, S
from carom.lab.record import Cell, Repetition, RoundTrips, Run
from carom.lab.show import words
from carom.lab.show.sheets import Row, Sheet
from carom.lab.shown import Shown
from carom.lab.stats.cases import Case, share
from carom.lab.stats.distribution import merge, table, together
from carom.lab.stats.estimates import Summary, by_cell, summarise

WIDE = 96
"""How many columns a terminal needs for the whole tables."""
_LEFT_OUT = ("p90", "stddev", "n", "which is")
_TELLING = (SIZE.heading, SECONDS.heading, HIT_RATE.heading)
"""Columns that are left out where every row has the same."""


class ShownRoundTrips(Shown[Repetition]):
    """Any run that measured round trips, by series, waits and what it varied."""

    measures = Repetition
    series: SeriesOf = SeriesOf(())

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """The round trips of every cell."""
        rows = [figures(self.series, summary) for summary in self.summaries(run)]
        return sheets({"Round-trip times, µs": rows}, width)

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """A plain run compares nothing: its experiment does."""
        return [f"Nothing is compared in {run.experiment}: its figures are in the table."]

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """The repetitions, how they are paired, and where they were measured."""
        return [
            words.repetitions(run.measurements),
            words.place(run.environment, run.client_environment),
        ]

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """A plain run has no plots: its experiment draws them."""
        return []

    def summaries(self, run: Run[Repetition]) -> list[Summary]:
        """A summary of each cell, in order of display."""
        return sorted(
            summarise(run.measurements), key=lambda summary: self.series.order(summary.cell)
        )

    # On disk

    def rows(self, run: Run[Repetition]) -> Iterator[dict[str, object]]:
        """A line for each record of a repetition."""
        return (_row(run.experiment, self.series, repetition) for repetition in run.measurements)

    def files(self, run: Run[Repetition]) -> Iterator[tuple[str, bytes]]:
        """HdrHistogram's percentile table of each cell, over its repetitions, in nanoseconds."""
        for cell, repetitions in by_cell(run.measurements).items():
            yield f"histograms/{self.series.file_name(cell)}.hgrm", _hgrm(repetitions)

    # Compared with another run

    def cases(self, run: Run[Repetition]) -> Iterator[tuple[Case, float]]:
        """The p50; the mean between 0 and 100 % hits, where p50 is that of a hit or of a miss."""
        wholes = sorted(_wholes(run), key=lambda repetition: self.series.order(repetition.cell))
        for repetition in wholes:
            name, trips = self.series.name(repetition.cell), repetition.round_trips
            mixed = repetition.cell.hit_rate is not None and 0 < repetition.cell.hit_rate < 1
            if trips.count:
                time = trips.mean if mixed else trips.p50
                yield Case(name, "mean, µs" if mixed else "p50, µs"), time / 1e3
            if repetition.due:
                answered = share(trips.count, repetition.due)
                yield Case(name, "answered, share", larger_is_better=True, share=True), answered


class RoundTripExperiment(ShownRoundTrips, Experiment[S, Repetition]):
    """An experiment that measures round trips."""


def identity(series: SeriesOf, cell: Cell) -> Row:
    """The columns that name a row's cell."""
    return {
        "series": series.words(cell.series),
        "wait": cell.wait,
        SIZE.heading: f"{cell.size or ''}",
        SECONDS.heading: SECONDS.entry(cell.seconds) if cell.seconds else "",
        HIT_RATE.heading: "" if cell.hit_rate is None else HIT_RATE.entry(cell.hit_rate),
    }


def figures(series: SeriesOf, summary: Summary) -> Row:
    """A cell's row, times in microseconds."""
    return {
        **identity(series, summary.cell),
        "p50": words.micro(summary.p50.value),
        "±": words.micro(summary.p50.margin),
        "p90": words.micro(summary.p90.value),
        "p99": words.micro(summary.p99.value),
        "p99.9": words.micro(summary.p999.value),
        "mean": words.micro(summary.mean.value),
        "stddev": words.micro(summary.stddev.value),
        "n": words.amount(summary.n),
        "lost": words.amount(summary.lost),
        "replies/s": words.amount(summary.rate.value),
    }


def sheets(made: dict[str, list[Row]], width: int | None) -> list[Sheet]:
    """Tables of cells by title; none without rows, and only the columns that fit into `width`."""
    wide = width is None or width >= WIDE
    return [_sheet(title, rows, wide=wide) for title, rows in made.items() if rows]


def _sheet(title: str, rows: Sequence[Row], *, wide: bool) -> Sheet:
    """A table of rows that are sorted by series and wait."""
    headings = [
        name
        for name in rows[0]
        if (wide or name not in _LEFT_OUT)
        and (name not in _TELLING or len({row[name] for row in rows}) > 1)
    ]
    kept = [{name: row[name] for name in headings} for row in rows]
    names = sum(name in ("series", "wait") for name in headings)
    return Sheet(title, kept, names, grouped="series" in headings)


def _wholes(run: Run[Repetition]) -> list[Repetition]:
    """The repetitions, with the parts of each long measurement put together."""
    parts: dict[tuple[Cell, int], list[Repetition]] = {}
    for part in run.measurements:
        cell = msgspec.structs.replace(part.cell, since=None)
        parts.setdefault((cell, part.index), []).append(part)
    return [_whole(cell, same) for (cell, _), same in parts.items()]


def _whole(cell: Cell, parts: Sequence[Repetition]) -> Repetition:
    first, *others = (msgspec.structs.replace(part, cell=cell) for part in parts)
    if not others:
        return first
    trips = together([part.round_trips for part in parts])
    return msgspec.structs.replace(
        first, round_trips=trips, skipped=sum(part.skipped for part in parts)
    )


def _hgrm(repetitions: list[Repetition]) -> bytes:
    histogram = merge(repetition.round_trips.histogram for repetition in repetitions)
    if not histogram.get_total_count():
        return b"# no replies\n"
    return table(histogram).encode()


def _row(experiment: str, series: SeriesOf, repetition: Repetition) -> dict[str, object]:
    trips = repetition.round_trips
    return {
        "experiment": experiment,
        "series": repetition.cell.series,
        "wait": repetition.cell.wait,
        **{axis.column: axis.of(repetition.cell) for axis in series.axes},
        "repetition": repetition.index,
        "replies": trips.count,
        "lost": trips.lost,
        "duplicated": trips.duplicated,
        "reordered": trips.reordered,
        "wrong": trips.wrong,
        "measured_s": trips.seconds,
        "replies_per_s": trips.rate,
        **_times("", trips),
        **_times("corrected_", trips.corrected),
        "planned_hits": repetition.planned_hits,
        "counted_hits": repetition.counted_hits,
        "counted_misses": repetition.counted_misses,
        "server_cpu_s": repetition.server_cpu_seconds,
        "skipped": repetition.skipped,
        "offered_per_s": repetition.offered,
    }


def _times(prefix: str, trips: RoundTrips | None) -> dict[str, object]:
    names = ("mean", "stddev", "minimum", "maximum", "p50", "p90", "p99", "p999")
    return {f"{prefix}{name}_ns": getattr(trips, name, None) for name in names}
