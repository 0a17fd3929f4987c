# SPDX-License-Identifier: Apache-2.0
"""Made-up runs of the filter experiments: a kernel that saves what it rejects, and loses less."""

from __future__ import annotations

from collections.abc import Iterable

from carom.lab.experiments.filters.client import Filled
from carom.lab.experiments.filters.filtering import account
from carom.lab.experiments.filters.model import FilterCell, FilterRun, Series
from carom.lab.experiments.filters.series import SERIES
from carom.lab.record import Run
from unit.fake_results import ENVIRONMENT

PERCENTS = (0.0, 50.0, 99.0, 100.0)


def one(
    series: Series,
    percent: float,
    index: int,
    *,
    packets: int = 1000,
    lost: int = 0,
    wall: float = 1.0,
    cpu: float = 1.0,
    rate: float = 0.0,
    knee: bool = False,
) -> FilterRun:
    """A run whose packets add up; `lost` PUTs found no room at the socket."""
    invalid = round(packets * percent / 100)
    puts = packets - invalid
    cell = FilterCell(series=series, percent=percent, packets=packets, rate=rate, knee=knee)
    filled = Filled(
        sent_puts=puts,
        sent_invalid=invalid,
        sent_others=2,
        replies=2,
        value=puts - lost,
        send_seconds=wall,
        wall_seconds=wall,
        server_cpu_seconds=cpu,
        machine_cpu_seconds=2 * cpu,
    )
    if series == "userspace":
        rise = {"received": packets + 2 - lost, "drops": lost}
    else:
        rise = {
            "invalid_rejected": invalid,
            "valid_accepted": puts + 2,
            "received": puts + 2 - lost,
            "drops": lost + (invalid if series == "socket" else 0),
        }
    return account(cell, index, filled, rise).checked()


def grid(indices: Iterable[int] = range(3)) -> list[FilterRun]:
    """Userspace takes 1 s of CPU and loses 10 PUTs; the kernel takes what is valid of it.

    Rounds differ by a factor, which pairing takes out.
    """
    return [
        one(
            series,
            percent,
            index,
            lost=10 if series == "userspace" and percent < 100 else 0,
            wall=index + 1,
            cpu=(index + 1) * (1.0 if series == "userspace" else 1.01 - percent / 100),
        )
        for index in indices
        for series in SERIES
        for percent in PERCENTS
    ]


def results(runs: list[FilterRun], experiment: str = "filter-throughput-loss") -> Run[FilterRun]:
    """A whole run of them."""
    return Run(
        experiment=experiment,
        measured=FilterRun.MEASURED,
        started="2026-01-02T03:04:05Z",
        seed=1,
        command="carom lab run filter-throughput filter-loss",
        settings={"behaviour": "frigg", "filter": "robust-valid-command", "equal_length": False},
        environment=ENVIRONMENT,
        complete=True,
        measurements=runs,
    )
