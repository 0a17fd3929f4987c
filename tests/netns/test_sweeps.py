# SPDX-License-Identifier: Apache-2.0
"""The sweeps, in short, on real packets: every hook answers, and every request is accounted for."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from carom.lab import registry, report
from carom.lab import results as storage
from carom.lab.experiments.sweeps.series import SERIES
from netns.process import lab_run

DEADLINE = 200
TWO = ("--series", "userspace,xdp_native")
OWN: dict[str, tuple[str, ...]] = {
    "hooks": ("--waits", "blocking"),
    "sizes": ("--sizes", "1,1232", *TWO),
    "clients": ("--clients", "1,5", *TWO),
    "knee": ("--rates", "2000,1e8"),
    "minutes": ("--windows", "3", *TWO),
}
POINTS: dict[str, int] = {"hooks": 3, "sizes": 4, "clients": 2, "knee": 2, "minutes": 3}


@pytest.mark.parametrize("name", OWN)
def test_a_sweep(tmp_path: Path, name: str) -> None:
    short = ("--repetitions", "1", "--seconds", "0.1", "--keys", "50", "--output", str(tmp_path))
    done = lab_run(name, *OWN[name], *short, deadline=DEADLINE)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert str(folder) in done.stdout and "XDP native" in done.stdout
    found = storage.load(folder)
    assert found.complete
    series = [one for one in SERIES if TWO[1] not in OWN[name] or one in TWO[1].split(",")]
    assert len({one.cell for one in found.measurements}) == POINTS[name] * len(series)
    for one in found.measurements:
        trips = one.round_trips
        assert trips.count > 0 and trips.wrong == 0
        if one.cell.series != "userspace" and one.cell.task != "bounce":
            hits = 0 if one.cell.task == "miss" else trips.count
            hits -= one.verdicts.get("pass_checksum", 0)  # which cannot be told
            assert one.counted_hits is not None and one.counted_hits >= hits
        if name != "knee" or one.cell.rate == 2000:
            # In a stall requests are lost, or come too late to be counted: no more than were due.
            assert one.due and trips.count + trips.lost <= one.due
            assert name != "knee" or one.due == pytest.approx(200, abs=20)
        else:
            assert one.offered and one.offered < 0.95 * 1e8
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert {row["series"] for row in rows} == set(series)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """A new experiment is one file, and a line in a list."""
    text = (Path(__file__).resolve().parents[2] / "docs/new-experiment.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "prefixes.py").write_text(source)
    start = (
        "import sys, carom.lab.experiments.sweeps as sweeps\n"
        f"sweeps.__path__.append({str(tmp_path)!r})\n"
        "from carom.lab import registry\n"
        "registry._MODULES += ('sweeps.prefixes',)\n"
        "from carom.cli import main\n"
        "main()\n"
    )
    options = ("--short", "--repetitions", "1", "--seconds", "0.1", "--keys", "50")
    argv = [sys.executable, "-P", "-c", start, "lab", "run", "prefixes", *options]
    argv += ["--prefixes", "1,150", *TWO, "--output", str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.glob("*.png")} == {"prefixes-hit.png"}
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert {float(row["prefixes"]) for row in rows} == {1, 150}
    assert "150 prefixes" in done.stdout
    gone = storage.load(folder)  # by a carom that does not know it
    page = report.page([(folder, gone)], tmp_path / "page.html")
    assert "at 150" in " ".join(case.cell for case, _ in registry.of(gone).cases(gone))
    assert "Round-trip times" in page
