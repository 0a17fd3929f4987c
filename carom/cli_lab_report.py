# SPDX-License-Identifier: Apache-2.0
"""`carom lab report` and `carom lab compare`: what was measured, shown and compared."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from carom.cli_lab_run import wide_console
from carom.cli_options import Json, missing
from carom.errors import ExperimentError, UsageError

_MISSED = 3
_NAME = "report.html"


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders of runs; none: the newest of each."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; else report.html beside the runs."),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder in which runs are looked for.")] = Path(
        "results"
    ),
    json: Json = False,
) -> None:
    """Show runs as one HTML page that needs nothing else: conclusion, tables, plots, data."""
    try:
        from carom.lab import report as page
        from carom.lab.results import newest
    except ImportError as error:
        missing(error)

    chosen = runs or newest(results)
    file = output or _beside(chosen[0])
    shown = page.write(chosen, file)
    if json:
        written = {"file": str(file), "runs": [str(run) for run in shown]}
        print(msgspec.json.encode(written).decode())
        return
    print(f"report: {file}")
    for run in shown:
        print(f"  {run}")


def _beside(run: Path) -> Path:
    """Where a run's report goes: `results/report.html` for `results/RUN` and files in it."""
    folder = run if run.is_dir() else run.parent
    return folder / ".." / _NAME if folder.name in ("", "..") else folder.with_name(_NAME)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a run: what was before.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same experiment.")],
    threshold: Annotated[
        float, typer.Option(help="By what share B may be worse; 3 is the exit code if it is more.")
    ] = 0.05,
    json: Json = False,
) -> None:
    """Say cell by cell whether run B is faster or slower than run A."""
    try:
        from carom.lab import compare as comparing
        from carom.lab.report import sensible
        from carom.lab.results import load
    except ImportError as error:
        missing(error)

    if not 0 <= threshold < math.inf:
        raise UsageError(f"threshold {threshold:g} is out of range", hint="--threshold 0.05")
    runs = load(a), load(b)
    with sensible():
        comparison = comparing.compare(*runs, threshold)
    if json:
        print(msgspec.json.encode({"a": str(a), "b": str(b), **_builtins(comparison)}).decode())
    else:
        _show(comparison)
    if comparison.worse:
        raise typer.Exit(_MISSED)
    if not comparison.tells:
        raise ExperimentError(
            "nothing can be told of these two runs",
            hint=f"a comparison takes {comparing.ENOUGH} repetitions of each: --repetitions "
            f"{comparing.ENOUGH}, or more",
        )


def _builtins(comparison: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(comparison), "worse": comparison.worse}


def _show(comparison: Any) -> None:
    """Warnings to stderr; the table, how to read it, and the verdict to stdout."""
    from carom.lab.compare import sheet
    from carom.lab.show.sheets import drawn, text

    console = wide_console()
    for warning in comparison.warnings:
        print(f"warning: {text(warning)}", file=sys.stderr)
    console.print(drawn(sheet(comparison.outcomes)), "")
    for line in (
        "B / A with its 95 % interval (bootstrap); effect: Cliff's delta, from -1 to 1.",
        "A difference is shown where the interval leaves out 1 and Mann and Whitney's p is below"
        " 0.05; one figure in twenty may pass for different by chance.",
    ):
        console.print(text(line))
    console.print()
    console.print(text(comparison.verdict))
