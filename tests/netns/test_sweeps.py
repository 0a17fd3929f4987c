# SPDX-License-Identifier: Apache-2.0
"""The sweeps, in short, on real packets: every hook answers, and every request is accounted for."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

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
        if name != "knee":
            assert one.due == trips.count and one.skipped == 0
        elif one.cell.rate == 2000:
            assert one.due == trips.count == pytest.approx(200, abs=20)
        else:
            assert one.offered and one.offered < 0.95 * 1e8
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert {row["series"] for row in rows} == set(series)
