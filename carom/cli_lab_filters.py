# SPDX-License-Identifier: Apache-2.0
"""`carom lab run filter-throughput filter-loss`: one set of runs for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from carom.cli_lab_run import tell_files, wide_console
from carom.errors import ExperimentError, UsageError
from carom.lab import filter_plots, filter_tables, results
from carom.lab.filter_grid import FULL, NAMES_OF_BOTH, SHORT, Settings
from carom.lab.filter_run import run

_OPTIONS = (
    "--packets, --percents, --repetitions, --filter, --behaviour, --equal-length, --full, --seed"
)


def settings_of(name: str, given: dict[str, Any], *, short: bool, full: bool) -> Settings:
    """What was asked for, over what stands for it. Raises UsageError."""
    values = msgspec.to_builtins(SHORT if short else Settings())
    if full:
        values["packets"] = FULL
    strange = sorted(given.keys() - set(Settings.__struct_fields__))
    if strange:
        raise UsageError(
            f"{name} has no --{strange[0].replace('_', '-')}", hint=f"it has {_OPTIONS}"
        )
    try:
        return msgspec.convert({**values, **given}, Settings).checked()
    except msgspec.ValidationError as error:
        raise UsageError(f"wrong option: {error}") from error


def name_of(names: Sequence[str]) -> str:
    """What the run of these experiments is called: of both, `filter-throughput-loss`."""
    chosen = [one for one in NAMES_OF_BOTH if one in names]
    return chosen[0] if len(chosen) == 1 else "filter-throughput-loss"


def run_filters(
    name: str, settings: Settings, output: Path, bar: Any, make_pair: Any, *, json: bool
) -> bool:
    """Run, write and show; False when it was interrupted."""
    with bar:

        def progress(cell: Any, index: int) -> None:
            said = (
                f"{name} {index + 1}/{settings.repetitions} {cell.series} "
                f"{cell.percent:g} % of {cell.packets:,}"
            )
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, settings, progress, make_pair)
    if not found.runs:
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write_filters(found, output)
    pictures = filter_plots.plot(found, folder)
    if not json:
        filter_tables.show(found, wide_console())
    tell_files("results and plots", folder, pictures, found, json=json)
    return found.complete
