# SPDX-License-Identifier: Apache-2.0
"""A run on disk: results.json, a flat results.csv and one histogram a cell.

`results.json` is the run, whole and read back by `load`; the others are for other programs.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from carom.errors import ExperimentError
from carom.lab.experiments.filters import model as filter_model
from carom.lab.experiments.filters.model import FilterResults, FilterRun
from carom.lab.model import SCHEMA, Contest, Repetition, Results, RoundTrips
from carom.lab.show import words
from carom.lab.stats.distribution import merge
from carom.lab.stats.estimates import by_cell

NAME = "results.json"


Run = Results | Contest | FilterResults
"""A run of any experiment."""

_KINDS: dict[str, tuple[Any, int]] = {
    "repetitions": (Results, SCHEMA),
    "measurements": (Contest, SCHEMA),
    "runs": (FilterResults, filter_model.SCHEMA),
}
"""What a run is read as, by what only that kind has, and the schema that is read."""


_FOLDER = re.compile(r"(?P<time>\d{8}T\d{6}Z)-(?P<experiment>.+?)(-(?P<number>\d+))?")


class _Head(msgspec.Struct):
    schema: int
    repetitions: Any = None
    measurements: Any = None
    runs: Any = None


def check(root: Path) -> None:
    """See that a run can be written into `root`, and make that. Raises ExperimentError."""
    with _refusals(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass


def write(run: Run, root: Path = Path("results")) -> Path:
    """Write a run into a new directory `<UTC time>-<experiment>` of `root`, and return that.

    results.csv has a line for each repetition, measurement or figure. results.json comes last,
    each file in one step: a directory that has one is whole. ExperimentError if the disk refuses.
    """
    with _refusals(root):
        folder = _new_folder(root, run)
        if isinstance(run, Results):
            (folder / "histograms").mkdir()
            for cell, repetitions in by_cell(run).items():
                put(folder / "histograms" / f"{words.file_name(cell)}.hgrm", _hgrm(repetitions))
        put(folder / "results.csv", _csv(run).encode())
        put(folder / NAME, _json(run))
    return folder


def _filter_row(experiment: str, one: FilterRun) -> dict[str, object]:
    row = msgspec.to_builtins(one)
    at = {**row.pop("cell"), "index": row.pop("index")}
    return {"experiment": experiment, **at, **row, "lost": one.lost, "loss": one.loss}


@contextlib.contextmanager
def _refusals(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExperimentError(
            f"cannot write the results under {root}: {error.strerror}",
            hint="choose a directory that you may write to and that has room",
        ) from error


def _json(run: Run) -> bytes:
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def load(path: Path) -> Run:
    """Read a run of any experiment back from its directory or its results.json.

    ExperimentError if it is missing, cut short, not ours, or of another schema.
    """
    file = path / NAME if path.is_dir() else path
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ExperimentError(
            f"cannot read {file}: {error.strerror}",
            hint=f"name a directory that `carom lab run` wrote, or its {NAME}",
        ) from error
    try:
        head = msgspec.json.decode(text, type=_Head)
        kinds = [kind for name, kind in _KINDS.items() if getattr(head, name) is not None]
        kind, schema = kinds[0] if kinds else _KINDS["repetitions"]
        if head.schema == schema:
            run: Run = msgspec.json.decode(text, type=kind)
            return run
    except (msgspec.ValidationError, RecursionError) as error:
        raise ExperimentError(f"{file} is not a run of carom's lab: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(
            f"{file} is damaged or was cut short: {error}",
            hint="run the experiment again, or take the figures from results.csv beside it",
        ) from error
    raise ExperimentError(
        f"{file} has schema {head.schema}; this carom reads {schema}",
        hint="read it with the carom that wrote it (`environment.carom` in the file)",
    )


def newest(root: Path) -> list[Path]:
    """The newest run of each experiment in a folder, by experiment.

    ExperimentError if there is none.
    """
    found: dict[str, tuple[tuple[str, int], Path]] = {}
    for file in root.glob(f"*/{NAME}"):
        named = _FOLDER.fullmatch(file.parent.name)
        if named:
            age = named["time"], int(named["number"] or 1)
            found[named["experiment"]] = max(
                found.get(named["experiment"], (age, file.parent)), (age, file.parent)
            )
    if not found:
        raise ExperimentError(
            f"there is no run in {root}",
            hint="make one with `carom lab run`, name one, or name another folder with --results",
        )
    return [path for _, (_, path) in sorted(found.items())]


def _new_folder(root: Path, run: Run) -> Path:
    started = datetime.fromisoformat(run.started).astimezone(UTC)
    name = f"{started:%Y%m%dT%H%M%SZ}-{run.experiment}"
    root.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = root / (name + suffix)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(17, "a thousand runs of this second are there", str(root / name))


def put(path: Path, content: bytes) -> None:
    """Write a file so that, whenever we are interrupted, it is there whole or not at all.

    OSError if the disk refuses.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _hgrm(repetitions: list[Repetition]) -> bytes:
    """HdrHistogram's percentile table over a cell's repetitions, in nanoseconds."""
    histogram = merge(one.round_trips.histogram for one in repetitions)
    if not histogram.get_total_count():
        return b"# no replies\n"
    table = io.BytesIO()
    histogram.output_percentile_distribution(table, 1)
    return table.getvalue()


def _csv(run: Run) -> str:
    table = io.StringIO()
    rows = list(_rows(run))
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _rows(run: Run) -> Iterator[dict[str, object]]:
    match run:
        case Results():
            yield from (_row(run.experiment, one) for one in run.repetitions)
        case FilterResults():
            yield from (_filter_row(run.experiment, one) for one in run.runs)
        case Contest():
            for one in run.measurements:
                at = {"experiment": run.experiment, "subject": one.subject, "repetition": one.index}
                yield from (
                    {**at, "figure": name, "value": value} for name, value in one.figures.items()
                )


def _row(experiment: str, one: Repetition) -> dict[str, object]:
    trips = one.round_trips
    return {
        "experiment": experiment,
        "series": one.cell.series,
        "wait": one.cell.wait,
        "hit_rate": one.cell.hit_rate,
        "size_bytes": one.cell.size,
        "duration_s": one.cell.seconds,
        "socket": one.cell.socket,
        "task": one.cell.task,
        "clients": one.cell.clients,
        "asked_per_s": one.cell.rate,
        "since_s": one.cell.since,
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
    figures = ("mean", "stddev", "minimum", "maximum", "p50", "p90", "p99", "p999")
    return {f"{prefix}{name}_ns": getattr(trips, name, None) for name in figures}
