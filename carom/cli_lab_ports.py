# SPDX-License-Identifier: Apache-2.0
"""`carom lab run concurrency demux`: the experiments with four ports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from carom.cli_lab_run import tell_files, wide_console
from carom.errors import ExperimentError, UsageError
from carom.lab import port_plots, port_tables, results
from carom.lab.port_grid import SHORT, Settings
from carom.lab.port_run import run
from carom.lab.ports import Name


def settings_of(name: Name, given: dict[str, Any], *, short: bool) -> Settings:
    """What was asked for, over what stands for it. Raises UsageError."""
    seconds = given.get("seconds", ())
    if len(seconds) > 1:
        raise UsageError(f"{name} measures for one time, not several", hint="--seconds 2")
    values = msgspec.to_builtins(SHORT[name] if short else Settings())
    values.update(given, **({"seconds": seconds[0]} if seconds else {}))
    strange = sorted(values.keys() - set(Settings.__struct_fields__))
    if strange:
        own = "--loops" if name == "concurrency" else "--sleeps, --queue"
        raise UsageError(
            f"{name} has no --{strange[0].replace('_', '-')}",
            hint=f"it has {own}, --seconds, --repetitions, --mode and --seed",
        )
    try:
        return msgspec.convert(values, Settings).checked()
    except msgspec.ValidationError as error:
        raise UsageError(f"wrong option: {error}") from error


def run_ports(
    name: Name, settings: Settings, output: Path, bar: Any, make_pair: Any, *, json: bool
) -> bool:
    """Run, write and show one; False when it was interrupted."""
    with bar:

        def progress(series: str, index: int) -> None:
            said = f"{name} {index + 1}/{settings.repetitions} {series}"
            bar.update(bar.task_ids[0], advance=1, description=said)

        found = run(name, settings, progress, make_pair)
    if not found.repetitions:
        raise ExperimentError(found.stopped or "interrupted before anything was measured")
    folder = results.write(found, output)
    pictures = port_plots.plot(found, folder)
    if not json:
        port_tables.show(found, wide_console())
    what = "results, histograms and plots"
    tell_files(what, folder, pictures, found, json=json)
    return found.complete
