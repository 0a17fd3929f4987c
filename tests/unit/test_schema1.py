# SPDX-License-Identifier: Apache-2.0
"""Runs that were recorded as schema 1, by the carom of then, are read, shown and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carom.errors import ExperimentError
from carom.lab import registry, report, results, schema1
from carom.lab.compare import compare
from carom.lab.record import SCHEMA

OLD = {path.stem: path for path in Path(__file__).with_name("schema1").glob("*.json")}
SAYS = {
    "bounce": "XDP takes 5.30 µs (p50), the fastest userspace server (spin) 8.19 µs",
    "concurrency": "One XDP program answers sooner than four processes in C",
    "filter-throughput-loss": "The published claims, at 100 packets.",
    "knee": "XDP native (blocking) answers 99.9 % of requests up to",
    "load": "hits, native: a CPU-second, by the fastest userspace",
}


def told(value: Any) -> Any:
    """A record without what it says nothing of."""
    if isinstance(value, dict):
        return {name: told(one) for name, one in value.items() if one is not None}
    return value


@pytest.mark.parametrize("name", SAYS)
def test_it_is_read_and_shown(name: str, tmp_path: Path) -> None:
    run = results.load(OLD[name])
    plain = json.loads(OLD[name].read_text())
    (many,) = (plain[one] for one in ("repetitions", "measurements", "runs") if one in plain)
    assert (run.experiment, run.schema) == (name, SCHEMA)
    assert [told(one) for one in msgspec.to_builtins(run.measurements)] == list(map(told, many))
    shown = registry.of(run)
    assert shown is registry.named(name)
    assert any(SAYS[name] in line for line in shown.sentences(run))
    assert shown.tables(run) and shown.plots(run, tmp_path)
    report.write([OLD[name]], tmp_path / "page.html")
    assert "No published" in (tmp_path / "page.html").read_text() or shown.where(run)


@pytest.mark.parametrize("name", SAYS)
def test_it_compares_with_a_run_of_today(name: str, tmp_path: Path) -> None:
    """What its settings shared with other experiments is no difference."""
    old = results.load(OLD[name])
    standing = registry.named(name).short
    settings = msgspec.to_builtins(standing) | {"repetitions": old.settings["repetitions"]}
    kept = {one: value for one, value in settings.items() if value is not None}
    new = msgspec.structs.replace(old, settings=kept | old.settings)
    again = results.load(results.write(new, tmp_path))
    found = compare(old, again)
    assert found.outcomes and not found.worse
    assert not [one for one in found.warnings if " differs" in one]


def test_what_has_no_measurements_is_none() -> None:
    with pytest.raises(msgspec.ValidationError):
        schema1.upgraded({"schema": 1, "experiment": "bounce"})


def test_of_an_experiment_that_is_gone_all_settings_stay(tmp_path: Path) -> None:
    plain = json.loads(OLD["bounce"].read_text()) | {"experiment": "gone"}
    file = tmp_path / "results.json"
    file.write_text(json.dumps(plain))
    assert results.load(file).settings == plain["settings"]
    file.write_text(json.dumps(plain | {"settings": 5}))
    with pytest.raises(ExperimentError, match="not a run"):
        results.load(file)
