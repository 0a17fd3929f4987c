# SPDX-License-Identifier: Apache-2.0
"""The grid of the filter experiments: packets, the share of invalid ones, and rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from carom.errors import UsageError
from carom.filters.names import NAMES, SAYS, Name
from carom.lab import limits
from carom.lab.experiments.filters.model import SERIES, FilterCell, Series

PACKETS = (100, 1_000, 10_000, 100_000, 1_000_000)
FULL = (*PACKETS, 10_000_000)
PERCENTS = (0.0, 1.0, 25.0, 50.0, 75.0, 99.0, 100.0)

_BOTH = "filter-throughput-loss"

DESCRIPTIONS = {
    "filter-throughput": "time and CPU time against invalid packets, rejected at each hook "
    "(Kierkegaard and Willén 2025)",
    "filter-loss": "PUTs lost, rejecting at each hook, and the highest rate without loss "
    "(Kierkegaard and Willén 2025)",
    _BOTH: "both, by one set of runs",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the experiments are run with; the defaults are published, but for 10^7 packets."""

    packets: tuple[int, ...] = PACKETS
    percents: tuple[float, ...] = PERCENTS
    repetitions: int = 10
    filter: Name = "robust-valid-command"
    behaviour: Literal["frigg", "frey"] = "frigg"
    equal_length: bool = False
    rates: tuple[float, ...] = (20_000.0, 40_000.0, 80_000.0, 160_000.0, 0.0)
    """Rates among which the knee is looked for, rising; 0 is as fast as it goes."""
    knee_percents: tuple[float, ...] = (0.0, 50.0, 99.0)
    knee_packets: int = 100_000
    knee_repetitions: int = 3
    seed: int = 1

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        if not self.packets or not all(1 <= one <= 10**8 for one in self.packets):
            raise UsageError("packets must be from 1 to 100,000,000", hint="--packets 100,1000")
        if not self.percents or not all(0 <= one <= 100 for one in self.percents):
            raise UsageError("percents must lie from 0 to 100", hint="--percents 0,50,99")
        rising = sorted(set(self.rates), key=lambda rate: rate or math.inf)
        if not rising or list(self.rates) != rising or not all(0 <= one <= 1e8 for one in rising):
            raise UsageError(
                "rates must be packets a second, rising; 0, as fast as it goes, is the last",
                hint="--rates 20000,80000,0",
            )
        limits.check(self.repetitions)
        limits.check_once("packets", self.packets)
        limits.check_once("percents", self.percents)
        if self.filter in _UNFIT:
            others = ", ".join(one for one in NAMES if one not in _UNFIT)
            raise UsageError(
                f"{self.filter} would reject PUTs that are to be counted: {SAYS[self.filter]}",
                hint=f"these are fit: {others}",
            )
        return self


_UNFIT = ("reject", "existing-key", "limited-puts")

_SHORT = Settings(
    packets=(100, 1_000, 10_000),
    percents=(0.0, 50.0, 99.0),
    repetitions=3,
    rates=(20_000.0, 80_000.0, 0.0),
    knee_packets=5_000,
    knee_repetitions=2,
)


def options(name: str) -> tuple[str, ...]:
    """The settings that can be chosen for an experiment."""
    own = () if name == "filter-throughput" else ("rates",)
    shared = ("packets", "percents", "repetitions", "filter", "behaviour", "equal_length", "seed")
    return (*own, *shared)


def standard(name: str, *, short: bool) -> Settings:
    """What stands where nothing else is chosen; `short` takes less than a minute."""
    return _SHORT if short else Settings()


def together(names: Sequence[str]) -> list[str]:
    """The names of experiments, but where both of these are among them the one that is both."""
    both = list(DESCRIPTIONS)[:2]
    if not set(both) <= set(names):
        return list(dict.fromkeys(names))
    return list(dict.fromkeys(_BOTH if name in both else name for name in names))


def cells(settings: Settings, series: Series, index: int, *, knee: bool) -> list[FilterCell]:
    """What one server is measured at in one repetition."""
    grid = [
        FilterCell(series=series, percent=percent, packets=packets)
        for packets in settings.packets
        for percent in settings.percents
    ]
    if not knee:
        return grid
    # At the slowest rate the series are compared as well: it has every repetition.
    rates = settings.rates if index < settings.knee_repetitions else settings.rates[:1]
    return grid + [
        FilterCell(
            series=series, percent=percent, packets=settings.knee_packets, rate=rate, knee=True
        )
        for percent in settings.knee_percents
        for rate in rates
    ]


def total(settings: Settings, *, knee: bool) -> int:
    """How many measurements a run makes."""
    return sum(
        len(cells(settings, series, index, knee=knee))
        for index in range(settings.repetitions)
        for series in SERIES
    )
