# SPDX-License-Identifier: Apache-2.0
"""A run on disk: results.json, a flat results.csv and one histogram a cell.

`load` reads the whole run back from `results.json`; the other files are for other programs.
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
from carom.lab import registry, schema1
from carom.lab.record import SCHEMA, Run

NAME = "results.json"


_FOLDER = re.compile(r"(?P<time>\d{8}T\d{6}Z)-(?P<experiment>.+?)(-(?P<number>\d+))?")


class _Head(msgspec.Struct):
    schema: int
    measured: str = ""


def check(root: Path) -> None:
    """Make `root` if it is absent. Raises ExperimentError if no run can be written into it."""
    with _refusals(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass


def write(run: Run[Any], root: Path = Path("results")) -> Path:
    """Write a run into a new directory `<UTC time>-<experiment>` of `root`; returns its path.

    results.csv has a line for each measurement or figure. Each file is written in one step, and
    results.json last: a directory that has it is complete. ExperimentError if the disk refuses.
    """
    shown = registry.of(run)
    with _refusals(root):
        folder = _new_folder(root, run)
        for name, content in shown.files(run):
            (folder / name).parent.mkdir(exist_ok=True)
            put(folder / name, content)
        put(folder / "results.csv", _csv(list(shown.rows(run))))
        put(folder / NAME, _json(run))
    return folder


@contextlib.contextmanager
def _refusals(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExperimentError(
            f"cannot write the results under {root}: {error.strerror}",
            hint="choose a directory that you may write to and that has room",
        ) from error


def _json(run: Run[Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"


def load(path: Path) -> Run[Any]:
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
        if head.schema == schema1.SCHEMA:
            plain = schema1.upgraded(msgspec.json.decode(text))
            upgraded: Run[Any] = msgspec.convert(plain, _as(plain["measured"], file))
            return upgraded
        if head.schema == SCHEMA:
            run: Run[Any] = msgspec.json.decode(text, type=_as(head.measured, file))
            return run
    except (msgspec.ValidationError, RecursionError) as error:
        raise ExperimentError(f"{file} is not a run of carom's lab: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(
            f"{file} is damaged or was cut short: {error}",
            hint="run the experiment again, or take the figures from results.csv beside it",
        ) from error
    raise ExperimentError(
        f"{file} has schema {head.schema}; this carom reads {schema1.SCHEMA} and {SCHEMA}",
        hint="read it with the carom that wrote it (`environment.carom` in the file)",
    )


def _as(measured: str, file: Path) -> Any:
    """The type of a run of this kind. Raises ExperimentError for an unknown kind."""
    kinds = registry.kinds()
    if measured not in kinds:
        raise ExperimentError(
            f"{file} is not a run of carom's lab: it measured {measured!r}",
            hint=f"this carom knows {', '.join(kinds)}",
        )
    return Run[kinds[measured].measures]  # type: ignore[misc]


def newest(root: Path) -> list[Path]:
    """The newest run of each experiment in a folder, by experiment.

    ExperimentError if there is none.
    """
    runs: dict[str, tuple[tuple[str, int], Path]] = {}
    for file in root.glob(f"*/{NAME}"):
        named = _FOLDER.fullmatch(file.parent.name)
        if named:
            age = named["time"], int(named["number"] or 1)
            runs[named["experiment"]] = max(
                runs.get(named["experiment"], (age, file.parent)), (age, file.parent)
            )
    if not runs:
        raise ExperimentError(
            f"there is no run in {root}",
            hint="make one with `carom lab run`, name one, or name another folder with --results",
        )
    return [path for _, (_, path) in sorted(runs.items())]


def _new_folder(root: Path, run: Run[Any]) -> Path:
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
    raise FileExistsError(17, "it has a thousand runs of this second", str(root / name))


def put(path: Path, content: bytes) -> None:
    """Write a file in one step: after an interruption it is complete or absent.

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


def _csv(rows: list[dict[str, object]]) -> bytes:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode()
