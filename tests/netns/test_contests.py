# SPDX-License-Identifier: Apache-2.0
"""Every contest, in short, on real packets: each subject gets its figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from carom.lab.experiments.contests.contests import CONTESTS, PER_CPU
from netns.process import lab_run

DEADLINE = 200


@pytest.mark.parametrize("name", CONTESTS)
def test_a_contest(tmp_path: Path, name: str) -> None:
    if name == "memcached" and not shutil.which("memcached"):
        pytest.skip("memcached is not installed")
    short = ("--repetitions", "1", "--seconds", "0.2", "--output", str(tmp_path))
    keys = () if name == "beside" else ("--keys", "50")
    done = lab_run(name, *short, *keys, "--json", deadline=DEADLINE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"]
    (folder,) = tmp_path.iterdir()
    assert str(folder) == said["folder"]
    results = json.loads((folder / "results.json").read_text())
    measured = {one["subject"]: one["figures"] for one in results["measurements"]}
    assert measured.keys() == {subject.name for subject in CONTESTS[name].subjects}
    # Where kernel threads cannot be seen (a PID namespace), nor can be what they take.
    kthreadd = Path("/proc/2/comm")
    hidden = not kthreadd.exists() or kthreadd.read_text() != "kthreadd\n"
    for figures in measured.values():
        assert all(value > 0 for value in figures.values())
        wanted = {bar.figure for bar in CONTESTS[name].bars}
        assert wanted - ({PER_CPU} if hidden else set()) <= figures.keys()
