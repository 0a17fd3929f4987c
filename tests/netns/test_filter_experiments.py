# SPDX-License-Identifier: Apache-2.0
"""The filter experiments, in short, on real packets: every one is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from carom.lab.experiments.filters.model import FilterRun
from carom.lab.experiments.filters.series import SERIES
from carom.lab.record import Run
from netns.process import lab_run

DEADLINE = 200
PACKETS, PERCENTS = (100, 1000), (0.0, 99.0, 100.0)


@pytest.mark.parametrize("options", [(), ("--behaviour", "frey", "--equal-length")])
def test_both_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    names = ("filter-throughput",) if options else ("filter-throughput", "filter-loss")
    grid = ("--packets", "100,1000", "--percents", "0,99,100", "--repetitions", "1")
    where = ("--json", "--output", str(tmp_path))
    done = lab_run(*names, "--short", *where, *grid, *options, deadline=DEADLINE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (folder,) = tmp_path.iterdir()
    assert said == {"folder": str(folder), "complete": True}
    files = {path.name for path in folder.iterdir()}
    both = {"loss.png"} if not options else set()
    assert files == {"results.json", "results.csv", "cpu.png", "wall.png"} | both
    found = msgspec.json.decode((folder / "results.json").read_bytes(), type=Run[FilterRun])
    measured = [one for one in found.measurements if not one.cell.knee]
    assert sorted((one.cell.series, one.cell.packets, one.cell.percent) for one in measured) == (
        sorted((series, *at) for series in SERIES for at in _points())
    )
    assert len(found.measurements) - len(measured) == (0 if options else 5 * 9)
    for one in found.measurements:
        invalid = round(one.cell.packets * one.cell.percent / 100)
        assert (one.sent_puts, one.sent_invalid) == (one.cell.packets - invalid, invalid)
        assert one.value + one.lost == one.sent_puts
        assert one.checked() is one
        if one.cell.series == "userspace":
            assert one.sent == one.lost_before + one.lost_at_socket + one.received
            continue
        # What the filter saw is what was sent, and it was right about every packet that came.
        assert one.rejected_valid == one.accepted_invalid == 0
        assert one.rejected_invalid + one.accepted_valid == one.sent - one.lost_before
        # A GET whose reply is late is sent again: then one of two replies is read by nobody.
        assert one.replies <= one.received - one.value <= one.sent_others
        assert one.lost <= one.lost_before + one.lost_between + one.lost_at_socket


def _points() -> list[tuple[int, float]]:
    return [(packets, percent) for packets in PACKETS for percent in PERCENTS]
