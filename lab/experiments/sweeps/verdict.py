# SPDX-License-Identifier: Apache-2.0
"""Sentences that several sweeps share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from carom.lab.experiments.sweeps.stats import Measured, Row
from carom.lab.record import Task, Wait
from carom.lab.show.verdicts import judgement

if TYPE_CHECKING:
    from carom.lab.experiments.sweeps.sweep import Sweep

TITLES: dict[Task, str] = {"bounce": "A bounce", "hit": "A hit", "miss": "A miss with its fill"}


def at_both_ends(
    sweep: Sweep[Any], measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]
) -> Iterator[str]:
    """Each hook's gain at the least and at the greatest value of what was varied."""
    assert sweep.axis
    ends = list(dict.fromkeys((rows[0], rows[-1])))
    for series in measured.others():
        gains = [(row, sweep.gain(measured, series, row)) for row in ends]
        judgements = "; ".join(
            f"{sweep.axis.counted(row.x or 0)}{_by_tc(measured, series, row)}: {judgement(gain)}"
            for row, gain in gains
            if gain
        )
        if judgements:
            how = f"{sweep.gained}, {wait}"
            yield f"{TITLES[task]} at {sweep.series.words(series)} ({how}). {judgements}."


def _by_tc(measured: Measured, series: str, row: Row) -> str:
    """The remark beside a figure of XDP in which TC answered."""
    return " (by TC)" if measured.by_tc(series, row) else ""
