# SPDX-License-Identifier: Apache-2.0
"""A run of concurrency or demux by series and socket: times, ratios, and totals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from carom.lab.record import Repetition, RoundTrips, Run
from carom.lab.stats.estimates import Estimate, Figure, by_cell, mean, paired, ratio

At = tuple[str, int]
"""A series and a socket, from 1 on."""


def middle(trips: RoundTrips) -> float:
    """The mean, which is what was published."""
    return trips.mean


class Totals(NamedTuple):
    """All requests of a series by outcome; `cpu` is the server's CPU time per reply, ns, or NaN."""

    sent: int
    answered: int
    late: int
    lost: int
    wrong: int
    cpu: float


class Table:
    """All measurements of a run, by series and socket."""

    def __init__(self, run: Run[Repetition], series: Iterable[str], amounts: Sequence[float]):
        self.amounts = amounts
        """The amount of work of each socket."""
        self._cells = {
            (cell.series, cell.socket or 0): repetitions
            for cell, repetitions in by_cell(run.measurements).items()
        }
        self.series = [name for name in series if any(at[0] == name for at in self._cells)]
        self.sockets = sorted({socket for _, socket in self._cells})

    def mean(self, figure: Figure, at: At) -> Estimate:
        """A figure's mean over the repetitions."""
        trips = [repetition.round_trips for repetition in self._cells.get(at, ())]
        return mean([figure(trip_times) for trip_times in trips if trip_times.count])

    def ratio(self, over: At, under: At, figure: Figure = middle) -> Estimate | None:
        """One's figure over the other's, paired by repetition; None where none is paired."""
        if over not in self._cells or under not in self._cells:
            return None
        pairs = paired(figure, self._cells[over], self._cells[under])
        return ratio(*pairs) if pairs[0] else None

    def totals(self, series: str) -> Totals:
        """The totals of a series, over all sockets and repetitions."""
        all_repetitions: list[Repetition] = [
            repetition
            for at, repetitions in self._cells.items()
            if at[0] == series
            for repetition in repetitions
        ]
        trips = [repetition.round_trips for repetition in all_repetitions]
        answered = sum(times.count for times in trips)
        late, lost, wrong = (
            sum(getattr(times, name) for times in trips) for name in ("reordered", "lost", "wrong")
        )
        busy = [repetition.server_cpu_seconds for repetition in all_repetitions]
        known = [seconds for seconds in busy if seconds is not None]
        return Totals(
            sent=answered + late + lost + wrong,
            answered=answered,
            late=late,
            lost=lost,
            wrong=wrong,
            cpu=1e9 * sum(known) / answered if answered and len(known) == len(busy) else math.nan,
        )
