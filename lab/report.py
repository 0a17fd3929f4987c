# SPDX-License-Identifier: Apache-2.0
"""Runs as one self-contained HTML page: conclusions, environments, tables, plots, raw data.

The page needs no network and no script, and its policy (CSP) forbids both. Every text from a run's
files is escaped.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2

from carom import __version__
from carom.errors import ExperimentError
from carom.lab import registry
from carom.lab.record import Run
from carom.lab.results import NAME, load, put
from carom.lab.show import facts
from carom.lab.show.sheets import Row, Sheet
from carom.lab.shown import Shown

_INDENT = 3  # spaces that make a line of a conclusion a detail of the one above


class Line(NamedTuple):
    """A line of a conclusion; the higher its level, the more it is a detail."""

    level: int
    text: str


class Link(NamedTuple):
    """A file of raw data, and its address relative to the page."""

    name: str
    address: str


class Picture(NamedTuple):
    """A plot as a data URI."""

    name: str
    address: str


class Section(NamedTuple):
    """The part of the page about one run."""

    title: str
    started: str
    conclusion: list[Line]
    warnings: list[str]
    command: str
    settings: dict[str, str]
    environment: dict[str, str]
    load: str
    sheets: list[Sheet]
    beside: list[Sheet]
    where: Sheet | None
    pictures: list[Picture]
    notes: list[str]
    data: list[Link]
    histograms: list[Link]

    @property
    def headline(self) -> str:
        """The conclusion's first line; where it has details, the first claim and its outcome."""
        claims = any(line.level for line in self.conclusion)
        return " ".join(
            line.text for line in (self.conclusion[1:3] if claims else self.conclusion[:1])
        )


def write(paths: Sequence[Path], file: Path) -> list[Path]:
    """Write the page of these runs; returns their paths, without repeats.

    ExperimentError if a run cannot be read, or the disk refuses.
    """
    chosen = list({_file(path).resolve(): path for path in paths}.values())
    text = page([(path, load(path)) for path in chosen], file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        put(file, text.encode(errors="replace"))
    except OSError as error:
        raise ExperimentError(
            f"cannot write {file}: {error.strerror}", hint="choose another file with -o"
        ) from error
    return chosen


def page(runs: Sequence[tuple[Path, Run[Any]]], file: Path) -> str:
    """The page of these runs, as HTML. Its links to raw data are relative to `file`."""
    sections = []
    for number, (path, run) in enumerate(runs, 1):
        title = f"{number}. {run.experiment}" if len(runs) > 1 else run.experiment
        try:
            with sensible():
                sections.append(_section(title, path, run, file))
        except ExperimentError as error:
            raise ExperimentError(f"{path}: {error}", hint=error.hint) from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files(__package__).joinpath("templates", "report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=", ".join(dict.fromkeys(run.experiment for _, run in runs)),
        sections=sections,
        between=_between(sections),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        carom=__version__,
    )


@contextlib.contextmanager
def sensible() -> Iterator[None]:
    """Inside, arithmetic that fails on a run's figures is an ExperimentError."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ExperimentError(
            f"the run has impossible figures: {error}",
            hint="the file was changed or damaged; run the experiment again",
        ) from error


def _section(title: str, path: Path, run: Run[Any], file: Path) -> Section:
    data, histograms = _raw(path, file)
    shown = registry.of(run)
    return Section(
        title=title,
        started=_when(run.started),
        conclusion=_conclusion(shown.sentences(run)),
        warnings=facts.warnings(run),
        command=run.command,
        settings=facts.settings(run),
        environment=facts.environment(run),
        load=", ".join(f"{average:.2f}" for average in run.environment.load_average),
        sheets=shown.tables(run),
        beside=shown.published(run),
        where=shown.where(run),
        pictures=_pictures(shown, run),
        notes=shown.notes(run),
        data=data,
        histograms=histograms,
    )


def _conclusion(lines: Sequence[str]) -> list[Line]:
    """The conclusion's lines; indented lines are details."""
    indented = [(len(line) - len(line.lstrip()), line.strip()) for line in lines]
    return [Line(min(2, -(-spaces // _INDENT)), text) for spaces, text in indented]


def _pictures(shown: Shown[Any], run: Run[Any]) -> list[Picture]:
    """The plots, drawn anew, so that they agree with the tables."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = shown.plots(run, Path(folder))
        return [Picture(picture.stem, _uri(picture)) for picture in drawn]


def _uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def _between(sections: Sequence[Section]) -> Sheet | None:
    """How the environments of the page's runs differ; None for a single run."""
    if len(sections) < 2:
        return None
    differing = facts.differences([section.environment for section in sections])
    titles = [section.title for section in sections]
    rows: list[Row] = [
        {"": name, **dict(zip(titles, values, strict=True))} for name, values in differing
    ]
    return Sheet("Where the runs of this page differ", rows, names=1 + len(titles))


def _raw(path: Path, file: Path) -> tuple[list[Link], list[Link]]:
    """Links to the run's data and plots, and to its histograms; only to files that exist."""
    main = _file(path)
    folder = main.parent
    others = [folder / "results.csv", *sorted(folder.glob("*.png"))] if main.name == NAME else []
    data = [main, *(other for other in others if other.is_file())]
    histograms = sorted((folder / "histograms").glob("*.hgrm")) if others else []
    return [_link(target, file) for target in data], [_link(target, file) for target in histograms]


def _link(target: Path, file: Path) -> Link:
    relative = os.path.relpath(target.resolve(), file.resolve().parent)
    return Link(target.name, "./" + quote(os.fsencode(relative)))


def _file(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _when(started: str) -> str:
    """`2026-01-02 03:04 UTC`, or the file's own text if that is no time."""
    try:
        return f"{datetime.fromisoformat(started).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return re.sub(r"\s+", " ", started)
