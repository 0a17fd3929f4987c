# SPDX-License-Identifier: Apache-2.0
"""What an experiment measures: the record that results.json is made of.

Times are nanoseconds unless a name says otherwise. `SCHEMA` rises when a record changes in a way
that an older reader would misread; `schema1.py` reads the one before.
"""

from __future__ import annotations

from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec

SCHEMA = 2

Wait = Literal["blocking", "one-cpu", "spin"]

Task = Literal["bounce", "hit", "miss"]
"""A request that is sent back, one that the cache holds, or one that the server has to answer."""


class RoundTrips(msgspec.Struct, kw_only=True, frozen=True):
    """The whole distribution of one client's round trips, and its requests by outcome.

    `histogram` is an HdrHistogram (3 significant digits, 1 ns to 60 s) in its V2 compressed
    base64 form; the other figures are computed from the exact samples (of several clients, their
    percentiles from the histogram).
    """

    count: int
    """Requests whose own, right reply came in time: the samples of the distribution."""
    lost: int
    duplicated: int
    reordered: int
    """Replies that came after their request had been given up."""
    wrong: int
    """Replies with other bytes than expected."""
    seconds: float
    mean: float
    stddev: float
    minimum: float
    maximum: float
    p50: float
    p90: float
    p99: float
    p999: float
    histogram: str
    corrected: RoundTrips | None = None
    """With a set rate: timed from when each request was due (coordinated omission corrected)."""

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.count / self.seconds if self.seconds else 0.0


class Measurement(Protocol):
    """What the record of any measurement has; it is a msgspec struct."""

    MEASURED: ClassVar[str]
    """The kind of measurement, as a run's record names it."""

    @property
    def index(self) -> int:
        """The repetition of the experiment, from 0 on."""


M = TypeVar("M", bound=Measurement)


class Cell(msgspec.Struct, kw_only=True, frozen=True):
    """One point of a grid of round trips: a series, and a value on each axis (`cells.AXES`)."""

    series: str
    wait: Wait
    hit_rate: float | None = None
    size: int | None = None
    """Request payload, bytes."""
    seconds: float | None = None
    """How long a repetition measured, where the published experiment varies it."""
    socket: int | None = None
    """Which socket was asked, from 1 on, in the experiments with four ports."""
    task: Task | None = None
    """What is asked, in the sweeps."""
    clients: int | None = None
    """How many closed-loop clients asked at once, where that varies."""
    rate: float | None = None
    """Requests a second to be sent, whether replies come or not."""
    since: float | None = None
    """When this part of a long measurement began, in seconds from the measurement's start."""
    x: float | None = None
    """What the experiment varies, where no other field has it; its own axis describes it."""


class Repetition(msgspec.Struct, kw_only=True, frozen=True):
    """The round trips of one cell."""

    MEASURED: ClassVar[str] = "round-trips"

    cell: Cell
    index: int
    round_trips: RoundTrips
    planned_hits: int | None = None
    counted_hits: int | None = None
    """Hits in the kernel's counters during this measurement (userspace series: in the server's)."""
    counted_misses: int | None = None
    verdicts: dict[str, int] = {}
    """By how much the kernel's counters rose, by verdict."""
    server_cpu_seconds: float | None = None
    skipped: int = 0
    """With a rate: requests that were due but not sent, as too many were still unanswered."""
    offered: float | None = None
    """With a rate: requests a second that were sent or skipped."""

    @property
    def due(self) -> int:
        """All requests that should have had a reply."""
        trips = self.round_trips
        return trips.count + trips.lost + trips.reordered + trips.wrong + self.skipped


class Environment(msgspec.Struct, kw_only=True, frozen=True):
    """What an experiment ran on: what a reader needs to compare runs."""

    carom: str
    kernel: str
    distribution: str
    cpu: str
    cpus: int
    memory_bytes: int
    pair: str
    driver: str
    mode: str | None
    offloads: dict[str, bool]
    versions: dict[str, str]
    load_average: tuple[float, float, float]


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """One measurement of one subject of a contest; the names of figures include their units."""

    MEASURED: ClassVar[str] = "figures"

    subject: str
    index: int
    figures: dict[str, float]


class Run(msgspec.Struct, Generic[M], kw_only=True):
    """One run of one experiment: how and where it was made, and its measurements.

    `measured` is the kind of all its measurements (their `MEASURED`).
    """

    schema: int = SCHEMA
    experiment: str
    measured: str
    started: str
    """ISO 8601, UTC."""
    seed: int
    command: str
    settings: dict[str, bool | int | float | str | list[float | str]]
    environment: Environment
    complete: bool
    """False when the run was interrupted: it has what was measured until then."""
    stopped: str | None = None
    """The error that ended it early; None also after Ctrl-C."""
    client_environment: Environment | None = None
    """The client's environment, where it differs from the server's."""
    measurements: list[M]
