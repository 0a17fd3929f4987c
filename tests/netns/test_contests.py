# SPDX-License-Identifier: Apache-2.0
"""Every contest, in short, on real packets: each subject gets its figures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from carom.lab import registry
from carom.lab.experiments.contests.contest import Contest
from carom.lab.experiments.contests.ways import PER_CPU
from netns.process import lab_run

DEADLINE = 200
CONTESTS = {name: one for name, one in registry.experiments().items() if isinstance(one, Contest)}


@pytest.mark.parametrize("name", CONTESTS)
def test_a_contest(tmp_path: Path, name: str) -> None:
    missing = [program for program in CONTESTS[name].needs.programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    # A memcached that gets no CPU for so long has no figures.
    seconds = "1" if name == "memcached" else "0.2"
    short = ("--repetitions", "1", "--seconds", seconds, "--output", str(tmp_path))
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


@pytest.mark.parametrize(
    ("names", "program", "said"),
    [
        (("load", "memcached"), "memcached", "memcached is not installed"),
        (("bounce", "concurrency", "demux"), "cc", "cc is not installed"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_measured(
    tmp_path: Path, names: tuple[str, ...], program: str, said: str
) -> None:
    """All that is on the PATH is there, but for one program."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for path in Path(folder).glob("*"):
            if path.name != program and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    output = tmp_path / "results"
    done = lab_run(*names, "--output", str(output), deadline=DEADLINE, PATH=str(programs))
    assert done.returncode == 1
    assert f"{said} on the server's host, and {names[1]} needs it" in done.stderr
    assert not list(output.iterdir())
