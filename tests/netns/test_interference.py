# SPDX-License-Identifier: Apache-2.0
"""Interference, in short, on real packets: who is asked misses, and the load beside it hits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carom.lab.experiments.contests.interference_shown import MOST, TREATMENTS, VICTIMS, name_of
from netns.process import lab_run

DEADLINE, LIMIT = 300, 3_000


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_it(tmp_path: Path, mode: str) -> None:
    short = ("--repetitions", "1", "--seconds", "0.2", "--loads", "10000", "--mode", mode)
    limit = ("--max-hits-per-cpu", str(LIMIT))
    done = lab_run(
        *("interference", *short, *limit, "--output", str(tmp_path), "--json"), deadline=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"]
    folder = Path(said["folder"])
    assert (folder / "interference.png").exists()
    results = json.loads((folder / "results.json").read_text())
    assert results["environment"]["mode"] == mode
    found = {(one["cell"]["series"], one["cell"]["x"]): one for one in results["measurements"]}
    cells = {(name_of(name, who), x) for name in TREATMENTS for who in VICTIMS for x in LOADS}
    assert found.keys() == cells
    for (series, load), one in found.items():
        assert one["round_trips"]["count"]
        assert bool(one["offered"]) == bool(load)
        hits, beyond = (one["verdicts"].get(name, 0) for name in ("hit", "pass_cpu"))
        assert bool(hits) == (load > 0 and not series.startswith("none"))
        assert bool(beyond) <= (load > 0 and series.startswith("limited"))
    beside = [one["verdicts"] for (name, x), one in found.items() if x and "limited" in name]
    assert any("pass_cpu" in verdicts for verdicts in beside)


LOADS = (0.0, 10_000.0, MOST)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--loads", "0"), "loads 0"),
        (("--loads", "2000,1000"), "must rise"),
        (("--loads", "x"), "x"),
        (("--max-hits-per-cpu", "0"), "max-hits-per-cpu 0"),
        (("--mode", "tc"), "tc"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, str], said: str) -> None:
    done = lab_run("interference", *options, "--output", str(tmp_path), deadline=DEADLINE)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
