# SPDX-License-Identifier: Apache-2.0
"""Clients: hits, and replies a second, against the number of clients that ask at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from carom.lab.cells import CLIENTS
from carom.lab.experiment import Needs
from carom.lab.experiments.sweeps import tables
from carom.lab.experiments.sweeps.plots import CPU, LOG_TIMES, REPLIES
from carom.lab.experiments.sweeps.series import BASE
from carom.lab.experiments.sweeps.stats import Measured, Row, cpu, replies
from carom.lab.experiments.sweeps.sweep import Settings as Common
from carom.lab.experiments.sweeps.sweep import Sweep, trial
from carom.lab.experiments.sweeps.verdict import at_both_ends
from carom.lab.record import Cell, Task, Wait
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Estimate
from carom.lab.trial import Trial
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of clients; by default both ends block, as services do."""

    clients: Annotated[
        tuple[int, ...], Option("How many clients at once.", 1, 64, "1,4,16", order="rising")
    ] = (1, 2, 4, 8, 16)


class Clients(Sweep[Settings]):
    """Closed-loop clients, each a process, that share one CPU; the server has another."""

    name = "clients"
    description = "RTT of a hit, and replies a second, against the clients that ask at once"
    axis = CLIENTS
    needs = Needs(apart=True)
    gained = "replies a second"
    gains = "Each one's replies a second / userspace's"
    panels = (REPLIES._replace(log=False), CPU, *LOG_TIMES)
    about = "All clients share a CPU: where that is the limit, a hook could answer more than shown."
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5, clients=(1, 4, 16))

    def cells(self, settings: Settings, series: str, wait: Wait) -> Iterator[Trial]:
        """A trial for each number of clients."""
        for clients in settings.clients:
            cell = Cell(series=series, wait=wait, task="hit", clients=clients)
            yield trial(settings, cell, clients=clients, apart=True)

    def gain(self, measured: Measured, series: str, row: Row) -> Estimate | None:
        """The series' replies a second over userspace's."""
        return measured.ratio(replies, series, BASE, row)

    def say(self, measured: Measured, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        """The gain with the fewest and with the most clients."""
        return at_both_ends(self, measured, task, wait, rows)

    def sheets(self, measured: Measured) -> list[Sheet]:
        """Gains, replies, times, and the server's CPU time."""
        return [
            tables.gains(self, measured),
            tables.rates(measured),
            *tables.times(measured),
            tables.sheet(measured, "The server's CPU time, µs a reply", cpu, tables.micro),
        ]


EXPERIMENT = Clients()
