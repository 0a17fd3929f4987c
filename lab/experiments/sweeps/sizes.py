# SPDX-License-Identifier: Apache-2.0
"""Sizes: a bounce and a hit, against the payload's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from carom.kernel.abi import REPLY_SAFE
from carom.lab.cells import SIZE
from carom.lab.experiment import Waits
from carom.lab.experiments.sweeps.stats import Measured, Row
from carom.lab.experiments.sweeps.sweep import Settings as Common
from carom.lab.experiments.sweeps.sweep import Sweep, trial
from carom.lab.experiments.sweeps.verdict import at_both_ends
from carom.lab.record import Cell, Task, Wait
from carom.lab.trial import Trial
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of sizes."""

    # Spinning: no CPU's wake-up hides a packet's cost.
    waits: Waits = ("spin",)
    sizes: Annotated[
        tuple[int, ...],
        Option("Bytes of a payload.", 1, REPLY_SAFE, "1,64,1200", order="rising"),
    ] = (1, 16, 64, 128, 256, 512, 1024, REPLY_SAFE)


class Sizes(Sweep[Settings]):
    """A bounce's request and reply, or a hit's reply, has the size.

    A hit's request is short: a key has 256 bytes at most.
    """

    name = "sizes"
    description = "RTT of a bounce and a hit, against payloads of 1 to 1,232 bytes"
    axis = SIZE
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5, sizes=(1, 128, 512, REPLY_SAFE))

    def cells(self, settings: Settings, series: str, wait: Wait) -> Iterator[Trial]:
        """Two trials for each size: a bounce and a hit."""
        for size in settings.sizes:
            yield trial(settings, Cell(series=series, wait=wait, task="bounce", size=size))
            yield trial(settings, Cell(series=series, wait=wait, task="hit", size=size))

    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """The gain with the shortest and with the longest payload."""
        return at_both_ends(self, measured, task, wait, rows)


EXPERIMENT = Sizes()
