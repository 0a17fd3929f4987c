# SPDX-License-Identifier: Apache-2.0
"""A run of concurrency or demux as a table: what series and sockets took, and their ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from carom.lab.record import Repetition, RoundTrips, Run
from carom.lab.stats.estimates import Estimate, Figure, by_cell, mean, paired, ratio

At = tuple[str, int]
"""A series and a socket, from 1 on."""


def middle(trips: RoundTrips) -> float:
    """The mean: what was published."""
    return trips.mean


class Totals(NamedTuple):
    """What became of all requests of a series; the server's CPU time a reply in ns, or NaN."""

    sent: int
    answered: int
    late: int
    lost: int
    wrong: int
    cpu: float


class Table:
    """Everything that was measured, by series and socket."""

    def __init__(self, run: Run[Repetition], series: Iterable[str], amounts: Sequence[float]):
        self.amounts = amounts
        """Each socket's work."""
        self._cells = {
            (cell.series, cell.socket or 0): found
            for cell, found in by_cell(run.measurements).items()
        }
        self.series = [one for one in series if any(at[0] == one for at in self._cells)]
        self.sockets = sorted({socket for _, socket in self._cells})

    def mean(self, figure: Figure, at: At) -> Estimate:
        """A figure of the round trips, over the repetitions."""
        trips = [one.round_trips for one in self._cells.get(at, ())]
        return mean([figure(one) for one in trips if one.count])

    def ratio(self, over: At, under: At, figure: Figure = middle) -> Estimate | None:
        """One by the other, paired by repetition; None where they have none in common."""
        if over not in self._cells or under not in self._cells:
            return None
        pairs = paired(figure, self._cells[over], self._cells[under])
        return ratio(*pairs) if pairs[0] else None

    def totals(self, series: str) -> Totals:
        """Over all sockets and repetitions."""
        found: list[Repetition] = [
            one for at, every in self._cells.items() if at[0] == series for one in every
        ]
        trips = [one.round_trips for one in found]
        answered = sum(one.count for one in trips)
        late, lost, wrong = (
            sum(getattr(one, name) for one in trips) for name in ("reordered", "lost", "wrong")
        )
        busy = [one.server_cpu_seconds for one in found]
        known = [one for one in busy if one is not None]
        return Totals(
            sent=answered + late + lost + wrong,
            answered=answered,
            late=late,
            lost=lost,
            wrong=wrong,
            cpu=1e9 * sum(known) / answered if answered and len(known) == len(busy) else math.nan,
        )
