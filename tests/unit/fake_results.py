# SPDX-License-Identifier: Apache-2.0
"""Made-up runs with the shape and about the times of real ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from carom.lab.record import Cell, Environment, Repetition, Run, Wait
from carom.lab.stats.distribution import round_trips

WAITS: tuple[Wait, ...] = ("blocking", "one-cpu", "spin")
HIT_RATES = (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)
USERSPACE_US = {"blocking": 120.0, "one-cpu": 20.0, "spin": 12.0}
XDP_US = {"blocking": 8.5, "one-cpu": 7.4, "spin": 7.1}
WORK_US = 2000.0

ENVIRONMENT = Environment(
    carom="0.1.0",
    kernel="6.1.0-9-amd64",
    distribution="Debian GNU/Linux 12 (bookworm)",
    cpu="Example CPU @ 3.00GHz",
    cpus=4,
    memory_bytes=16 << 30,
    pair="netns",
    driver="veth",
    mode="native",
    offloads={"tx-checksum-ip-generic": True},
    versions={"python": "3.11.2"},
    load_average=(0.1, 0.2, 0.3),
)


def median_us(cell: Cell, hit: bool) -> float:
    """What a request of this kind takes, in microseconds."""
    slow, fast = USERSPACE_US[cell.wait], XDP_US[cell.wait]
    match cell.series:
        case "userspace" | "no_hook":
            return slow
        case "never_hits":
            return 1.04 * slow
        case "miss_and_fill":
            return 1.09 * slow
        case "userspace_cache":
            return slow if hit else slow + WORK_US
        case "xdp_cache":
            return fast if hit else slow + WORK_US
        case "xdp_over_userspace_cache":
            return fast if hit else slow
    return fast


def repetition(cell: Cell, index: int, *, n: int = 2000, seed: int = 1) -> Repetition:
    """One measurement of a cell; round `index` is as a whole a little faster or slower."""
    rng = np.random.default_rng([seed, index, *repr(cell).encode()])
    hits = round(n * (1.0 if cell.hit_rate is None else cell.hit_rate))
    medians = np.array([median_us(cell, True)] * hits + [median_us(cell, False)] * (n - hits))
    drift = 1 + 0.01 * np.sin(index)
    jitter = rng.lognormal(0, 0.06, n) * rng.lognormal(0, 0.01)
    tail = np.where(rng.random(n) < 0.01, rng.exponential(60.0, n), 0.0)
    samples = (1e3 * (medians * drift * jitter + tail)).astype(np.int64)
    return Repetition(
        cell=cell,
        index=index,
        round_trips=round_trips(
            samples,
            lost=0,
            duplicated=0,
            reordered=0,
            wrong=0,
            seconds=float(samples.sum()) / 1e9,
        ),
        planned_hits=hits if cell.hit_rate is not None else None,
        counted_hits=hits if cell.hit_rate is not None else None,
        verdicts={"hit": hits},
    )


def run(
    experiment: str, cells: Iterable[Cell], *, repetitions: int = 3, complete: bool = True
) -> Run[Repetition]:
    """A run of these cells, interleaved by rounds."""
    cells = list(cells)
    return Run(
        experiment=experiment,
        measured=Repetition.MEASURED,
        started="2026-01-02T03:04:05+00:00",
        seed=1,
        command=f"carom lab run {experiment}",
        settings={"hit_rates": list(HIT_RATES), "work": "2ms", "keys": 8, "verify": True},
        environment=ENVIRONMENT,
        complete=complete,
        measurements=[repetition(cell, index) for index in range(repetitions) for cell in cells],
    )


def bounce_cells(seconds: Iterable[float | None] = (None,)) -> list[Cell]:
    """The bounce experiment's grid."""
    return [
        Cell(series=series, wait=wait, size=32, seconds=duration)
        for duration in seconds
        for series in ("userspace", "xdp")
        for wait in WAITS
    ]


def cache_cells(*, full: bool = False) -> list[Cell]:
    """The cache experiment's grid: in the short form every hit rate only for `blocking`."""
    grid = [
        Cell(series=series, wait=wait, hit_rate=hit_rate, size=1)
        for wait in WAITS
        for hit_rate in HIT_RATES
        for series in ("userspace_cache", "xdp_cache", "xdp_over_userspace_cache")
        if full or wait == "blocking" or hit_rate in (0.0, 1.0)
    ]
    costs = [
        Cell(series=series, wait="spin", size=1)
        for series in ("no_hook", "never_hits", "miss_and_fill", "xdp_hit")
    ]
    return grid + costs
