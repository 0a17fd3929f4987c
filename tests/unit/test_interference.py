# SPDX-License-Identifier: Apache-2.0
"""Interference: where each part runs, and how a run is shown; also one that ended early."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from carom.lab import registry
from carom.lab.experiments.contests.interference import Places
from carom.lab.experiments.contests.interference_shown import (
    LIMITED,
    MOST,
    NONE,
    PLAIN,
    TREATMENTS,
    VICTIMS,
    name_of,
)
from carom.lab.record import Cell, Repetition, Run
from carom.lab.testbed import CPUs
from unit import fake_results

SHOWN = registry.named("interference")
LOADS = (0.0, 50_000.0, MOST)
P50_US = {NONE: (40, 60, 200), PLAIN: (40, 50, 80), LIMITED: (40, 45, 90)}


def timed(cell: Cell, index: int, micros: float) -> Repetition:
    """A repetition whose p50 is so long, beside 20,000 hits a second where there is a load."""
    made = fake_results.repetition(cell, index, n=200)
    times = {"p50": micros * 1e3, "p99": micros * 3e3, "seconds": 0.5}
    trips = msgspec.structs.replace(made.round_trips, **times)
    hits = 10_000 if cell.x else 0
    return msgspec.structs.replace(
        made, round_trips=trips, verdicts={"hit": hits}, offered=(cell.x or 0) / 2
    )


def run(**loads: tuple[float, ...]) -> Run[Repetition]:
    """Of all treatments, or of those that are named, at these loads."""
    made = fake_results.run("interference", [], repetitions=3)
    made.settings |= {"max_hits_per_cpu": 20_000, "seconds": 0.5}
    chosen = loads or dict.fromkeys(TREATMENTS, LOADS)
    made.measurements = [
        timed(
            Cell(series=name_of(name, victim), wait="blocking", x=load),
            index,
            (1 + number) * P50_US[name][LOADS.index(load)] * (1 + index / 100),
        )
        for index in range(3)
        for name, some in chosen.items()
        for number, victim in enumerate(VICTIMS)
        for load in some
    ]
    return made


def test_sentences() -> None:
    """One for each victim and treatment, with what each load does to it."""
    said = SHOWN.sentences(run())
    assert len(said) == 9
    (one,) = [line for line in said if line.startswith("A server on the same CPU, carom:")]
    assert "p50 80.80 µs alone" in one
    assert "101.0 µs beside 50.0k a second, 1.25 (1.25-1.25) times as long (p99 303.0)" in one
    assert "161.6 µs beside as many as go, 2.00 (2.00-2.00)" in one


def test_tables() -> None:
    sheets = {sheet.title: sheet.rows for sheet in SHOWN.tables(run())}
    p50 = sheets["p50 round trip, µs"]
    assert [row["load/s"] for row in p50] == ["0", "50.0k", "most"] * 3
    assert p50[1]["no carom"].startswith("60.60 ±")
    assert {row["carom"] for row in sheets["Without a reply in time"]} == {"0 %"}
    first, _ = sheets["The load: sent a second in all, and hits a second while others were asked"]
    assert (first["sent, carom"], first["hits, carom, hits limited"]) == ("25.0k", "20.0k")
    assert "hits, no carom" not in first
    assert "--max-hits-per-cpu 20,000" in SHOWN.notes(run())[0]


def test_the_published_growth() -> None:
    """Two victims have one; without that load there is nothing to compare."""
    ((title, rows, *_),) = SHOWN.published(run())
    assert "50,000 hits a second" in title
    assert [row["by"] for row in rows] == ["1.51", "1.54"]
    assert [row["which is by"] for row in rows] == ["1.25 (1.25-1.25)"] * 2
    where = SHOWN.where(run())
    assert where and where.rows[2]["this run"] == "0, 50.0k, most requests a second"
    ((_, rows, *_),) = SHOWN.published(run(**{PLAIN: (0.0, MOST)}))
    assert {row["which is by"] for row in rows} == {"-"}


@pytest.mark.parametrize(
    "part",
    [run(), run(**{PLAIN: LOADS}), run(**{NONE: (0.0,)}), run(**{LIMITED: (MOST,)}), run(none=())],
    ids=["whole", "one", "alone", "most", "nothing"],
)
def test_a_run_that_ended_early_is_shown(part: Run[Repetition], tmp_path: Path) -> None:
    assert SHOWN.sentences(part)
    tables, paths = SHOWN.tables(part), SHOWN.plots(part, tmp_path)
    assert bool(tables) == bool(paths) == bool(part.measurements)
    assert all(path.stat().st_size > 10_000 for path in paths)
    assert len(list(SHOWN.rows(part))) == len(part.measurements)
    assert {case.cell.count("beside") for case, _ in SHOWN.cases(part)} <= {1}


@pytest.mark.parametrize(
    ("cpus", "places"),
    [
        (CPUs(True, (0, 1), (0, 1)), (0, 0, 1, 0)),
        (CPUs(True, (0, 1, 2), (0, 1, 2)), (0, 1, 2, 0)),
        (CPUs(True, (0, 1, 2, 3), (0, 1, 2, 3)), (0, 1, 3, 2)),
        (CPUs(False, (0,), (0,)), (0, 0, 0, 0)),
        (CPUs(False, (0, 1), (0, 1)), (0, 1, 1, 0)),
        (CPUs(False, (4, 5), (0, 1, 2)), (4, 5, 2, 0)),
    ],
)
def test_cpus(cpus: CPUs, places: tuple[int, int, int, int]) -> None:
    """The server's is its own; the others share only where there are too few."""
    assert tuple(Places.of(cpus)) == places
