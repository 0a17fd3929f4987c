# SPDX-License-Identifier: Apache-2.0
"""A run is written whole and read back; what is not one is refused by name."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carom.errors import ExperimentError
from carom.lab import results as storage
from carom.lab.hosts.environment import environment
from carom.lab.record import Cell, Repetition, Run
from carom.lab.stats.distribution import round_trips
from unit import fake_results as fake

CELLS = st.builds(
    Cell,
    series=st.sampled_from(["userspace", "xdp_cache"]),
    wait=st.sampled_from(fake.WAITS),
    hit_rate=st.none() | st.sampled_from(fake.HIT_RATES),
    size=st.none() | st.integers(1, 256),
    seconds=st.none() | st.sampled_from([0.5, 15.0]),
)
REPETITIONS = st.builds(
    Repetition,
    cell=CELLS,
    index=st.integers(0, 9),
    round_trips=st.builds(
        round_trips,
        st.lists(st.integers(1, 10**9), max_size=5),
        lost=st.integers(0, 9),
        duplicated=st.integers(0, 9),
        reordered=st.integers(0, 9),
        wrong=st.integers(0, 9),
        seconds=st.floats(0.1, 60),
    ),
    planned_hits=st.none() | st.integers(0, 99),
    verdicts=st.dictionaries(st.sampled_from(["hit", "miss"]), st.integers(0, 99)),
)


@pytest.fixture(scope="module")
def bounce() -> Run[Repetition]:
    return fake.run("bounce", fake.bounce_cells(), repetitions=2)


@given(st.lists(REPETITIONS, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_run_comes_back_as_it_was(repetitions: list[Repetition], complete: bool) -> None:
    run = fake.run("cache", [], complete=complete)
    run.measurements = repetitions
    with TemporaryDirectory() as root:
        folder = storage.write(run, Path(root))
        assert storage.load(folder) == storage.load(folder / "results.json") == run


def test_the_folder_is_named_after_start_and_experiment(
    tmp_path: Path, bounce: Run[Repetition]
) -> None:
    root = tmp_path / "made" / "here"
    first, second = storage.write(bounce, root), storage.write(bounce, root)
    assert first.name == "20260102T030405Z-bounce"
    assert second.name == "20260102T030405Z-bounce-2"
    assert {path.name for path in first.iterdir()} == {"results.json", "results.csv", "histograms"}


def test_csv_has_a_line_a_repetition_and_units(tmp_path: Path, bounce: Run[Repetition]) -> None:
    text = (storage.write(bounce, tmp_path) / "results.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(bounce.measurements) == 12
    for row, repetition in zip(rows, bounce.measurements, strict=True):
        assert (row["series"], row["wait"]) == (repetition.cell.series, repetition.cell.wait)
        assert float(row["p999_ns"]) == repetition.round_trips.p999
        assert float(row["replies_per_s"]) == pytest.approx(repetition.round_trips.rate)
        assert row["hit_rate"] == row["corrected_p50_ns"] == ""


def test_histograms_are_percentile_tables_of_all_repetitions(
    tmp_path: Path, bounce: Run[Repetition]
) -> None:
    folder = storage.write(bounce, tmp_path) / "histograms"
    spin = Cell(series="xdp", wait="spin", size=32)
    assert len(list(folder.iterdir())) == 6
    text = (folder / "xdp-spin-32bytes.hgrm").read_text()
    assert text.split()[:2] == ["Value", "Percentile"]
    assert "TotalCount     =     4000.000" in text
    fastest = float(text.splitlines()[2].split()[0])
    times = [one.round_trips.minimum for one in bounce.measurements if one.cell == spin]
    assert fastest == pytest.approx(min(times), rel=1e-3), "in nanoseconds"


def test_a_cell_without_replies_has_a_histogram_file_too(tmp_path: Path) -> None:
    run = fake.run("bounce", [])
    run.measurements.append(fake.repetition(Cell(series="xdp", wait="spin"), 0, n=0))
    folder = storage.write(run, tmp_path)
    assert (folder / "histograms" / "xdp-spin.hgrm").read_text() == "# no replies\n"


def test_an_interrupted_write_leaves_no_torn_file(
    tmp_path: Path, bounce: Run[Repetition], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write(bounce, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nowhere.*No such file") as error:
        storage.load(tmp_path / "nowhere")
    assert error.value.hint


def test_a_torn_run_is_called_damaged(tmp_path: Path, bounce: Run[Repetition]) -> None:
    file = storage.write(bounce, tmp_path) / "results.json"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ExperimentError, match="cut short"):
        storage.load(file)


def test_another_schema_is_refused_by_number(tmp_path: Path, bounce: Run[Repetition]) -> None:
    file = storage.write(bounce, tmp_path) / "results.json"
    file.write_text(json.dumps({"schema": 99, "experiment": {"other": "shape"}}))
    with pytest.raises(ExperimentError, match="schema 99; this carom reads 1 and 2"):
        storage.load(file)


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema": 1, "experiment": 5}', '"text"'])
def test_other_json_is_not_taken_for_a_run(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ExperimentError, match="not a run of carom's lab"):
        storage.load(file)


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path, bounce: Run[Repetition]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="cannot write the results under"):
        storage.write(bounce, tmp_path / "file")


def test_the_environment_is_this_machine_and_survives_json(tmp_path: Path) -> None:
    run = fake.run("bounce", [])
    run.environment = environment("netns", "veth", None, {"tx": False})
    assert run.environment.kernel == os.uname().release
    assert run.environment.cpus == os.cpu_count()
    assert run.environment.memory_bytes > 1 << 20
    assert run.environment.versions["python"]
    assert storage.load(storage.write(run, tmp_path)).environment == run.environment
