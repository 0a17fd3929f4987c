# SPDX-License-Identifier: Apache-2.0
"""Experiments that measure round trips: what a run of any of them has on disk, and as a table."""

from __future__ import annotations

import io
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
from carom.lab.stats.distribution import merge, together
from carom.lab.stats.estimates import Summary, by_cell, summarise

WIDE = 96
"""Columns from which a terminal's tables leave nothing out."""
_LEFT_OUT = ("p90", "stddev", "n", "which is")
_TELLING = (SIZE.heading, SECONDS.heading, HIT_RATE.heading)
"""What is left out where it is the same in every row."""


class ShownRoundTrips(Shown[Repetition]):
    """Any run that measured round trips, by series, waits and what it varied."""

    measures = Repetition
    series: SeriesOf = SeriesOf(())

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """The round trips of every cell."""
        rows = [figures(self.series, one) for one in self.summaries(run)]
        return sheets({"Round-trip times, µs": rows}, width)

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """Nothing: what is compared is the experiment's own."""
        return [f"Nothing is compared in {run.experiment}: its figures are in the table."]

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """How often, how paired, and where."""
        return [
            words.repetitions(run.measurements),
            words.place(run.environment, run.client_environment),
        ]

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """None."""
        return []

    def summaries(self, run: Run[Repetition]) -> list[Summary]:
        """One a cell, in order of display."""
        return sorted(summarise(run.measurements), key=lambda one: self.series.order(one.cell))

    # On disk

    def rows(self, run: Run[Repetition]) -> Iterator[dict[str, object]]:
        """A line a repetition."""
        return (_row(run.experiment, self.series, one) for one in run.measurements)

    def files(self, run: Run[Repetition]) -> Iterator[tuple[str, bytes]]:
        """HdrHistogram's percentile table of each cell, over its repetitions, in nanoseconds."""
        for cell, repetitions in by_cell(run.measurements).items():
            yield f"histograms/{self.series.file_name(cell)}.hgrm", _hgrm(repetitions)

    # Compared with another run

    def cases(self, run: Run[Repetition]) -> Iterator[tuple[Case, float]]:
        """The p50, or the mean between 0 and 100 % hits, where p50 is one or the other."""
        wholes = sorted(_wholes(run), key=lambda one: self.series.order(one.cell))
        for one in wholes:
            name, trips = self.series.name(one.cell), one.round_trips
            mixed = one.cell.hit_rate is not None and 0 < one.cell.hit_rate < 1
            if trips.count:
                time = trips.mean if mixed else trips.p50
                yield Case(name, "mean, µs" if mixed else "p50, µs"), time / 1e3
            if one.due:
                answered = share(trips.count, one.due)
                yield Case(name, "answered, share", larger_is_better=True, share=True), answered


class RoundTripExperiment(ShownRoundTrips, Experiment[S, Repetition]):
    """An experiment that measures round trips."""


def identity(series: SeriesOf, cell: Cell) -> Row:
    """The columns that say which cell a row is about."""
    return {
        "series": series.words(cell.series),
        "wait": cell.wait,
        SIZE.heading: f"{cell.size or ''}",
        SECONDS.heading: SECONDS.entry(cell.seconds) if cell.seconds else "",
        HIT_RATE.heading: "" if cell.hit_rate is None else HIT_RATE.entry(cell.hit_rate),
    }


def figures(series: SeriesOf, one: Summary) -> Row:
    """A cell's row, times in microseconds."""
    return {
        **identity(series, one.cell),
        "p50": words.micro(one.p50.value),
        "±": words.micro(one.p50.margin),
        "p90": words.micro(one.p90.value),
        "p99": words.micro(one.p99.value),
        "p99.9": words.micro(one.p999.value),
        "mean": words.micro(one.mean.value),
        "stddev": words.micro(one.stddev.value),
        "n": words.amount(one.n),
        "lost": words.amount(one.lost),
        "replies/s": words.amount(one.rate.value),
    }


def sheets(made: dict[str, list[Row]], width: int | None) -> list[Sheet]:
    """Tables of cells by title, those only that have rows; without what `width` has no room for."""
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
    """The parts of a long measurement, which hang together, as one."""
    parts: dict[tuple[Cell, int], list[Repetition]] = {}
    for one in run.measurements:
        cell = msgspec.structs.replace(one.cell, since=None)
        parts.setdefault((cell, one.index), []).append(one)
    return [_whole(cell, many) for (cell, _), many in parts.items()]


def _whole(cell: Cell, parts: Sequence[Repetition]) -> Repetition:
    first, *others = (msgspec.structs.replace(one, cell=cell) for one in parts)
    if not others:
        return first
    trips = together([one.round_trips for one in parts])
    return msgspec.structs.replace(
        first, round_trips=trips, skipped=sum(one.skipped for one in parts)
    )


def _hgrm(repetitions: list[Repetition]) -> bytes:
    histogram = merge(one.round_trips.histogram for one in repetitions)
    if not histogram.get_total_count():
        return b"# no replies\n"
    table = io.BytesIO()
    histogram.output_percentile_distribution(table, 1)
    return table.getvalue()


def _row(experiment: str, series: SeriesOf, one: Repetition) -> dict[str, object]:
    trips = one.round_trips
    return {
        "experiment": experiment,
        "series": one.cell.series,
        "wait": one.cell.wait,
        **{axis.column: axis.of(one.cell) for axis in series.axes},
        "repetition": one.index,
        "replies": trips.count,
        "lost": trips.lost,
        "duplicated": trips.duplicated,
        "reordered": trips.reordered,
        "wrong": trips.wrong,
        "measured_s": trips.seconds,
        "replies_per_s": trips.rate,
        **_times("", trips),
        **_times("corrected_", trips.corrected),
        "planned_hits": one.planned_hits,
        "counted_hits": one.counted_hits,
        "counted_misses": one.counted_misses,
        "server_cpu_s": one.server_cpu_seconds,
        "skipped": one.skipped,
        "offered_per_s": one.offered,
    }


def _times(prefix: str, trips: RoundTrips | None) -> dict[str, object]:
    names = ("mean", "stddev", "minimum", "maximum", "p50", "p90", "p99", "p999")
    return {f"{prefix}{name}_ns": getattr(trips, name, None) for name in names}
