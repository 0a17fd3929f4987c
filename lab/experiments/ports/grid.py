# SPDX-License-Identifier: Apache-2.0
"""The experiments with four ports: who answers there, and how long each port's work takes."""

from __future__ import annotations

import msgspec

from carom.errors import UsageError
from carom.lab import limits
from carom.lab.clients.requests import Plan
from carom.lab.experiments.ports.ports import Name
from carom.lab.model import Cell
from carom.xdp.link import ModeOption

KEYS = 100
"""How many different requests each client has."""

_LOOPS_MAX = 20_000  # of all four: the verifier walks through every one
_QUEUE_MAX = 1_000_000

SERIES: dict[Name, dict[str, str]] = {
    "concurrency": {
        "userspace": "processes, C",
        "python": "processes, Python",
        "xdp": "XDP",
    },
    "demux": {
        "alone": "one process alone",
        "processes": "processes",
        "queue": "XDP, queue, threads",
        "reuseport": "SO_REUSEPORT",
        "sk_lookup": "sk_lookup",
        "cpumap": "XDP, cpumap",
    },
}
"""The series of each experiment, in the order in which they are shown, and their short names."""

DESCRIPTIONS: dict[str, str] = {
    "concurrency": "four ports, work in a loop: four processes against one XDP program "
    "(Sickler 2022)",
    "demux": "four ports, work that sleeps: four processes, XDP with queues and threads, and "
    "packets steered to open sockets (Sickler 2022)",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What they are run with; the defaults are the published ones.

    `loops` (concurrency) and `sleeps` in seconds (demux) are each port's work, `queue` the entries
    of a queue, `seconds` how long a repetition measures.
    """

    loops: tuple[int, int, int, int] = (1400, 1000, 10, 500)
    sleeps: tuple[float, float, float, float] = (0.02, 0.01, 0.002, 0.0045)
    queue: int = 10_200
    seconds: float = 30.0
    repetitions: int = 15
    mode: ModeOption = "auto"
    seed: int = 1

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        if min(self.loops) < 0 or sum(self.loops) > _LOOPS_MAX:
            raise UsageError(
                "loops are out of range", hint=f"from 0 on, at most {_LOOPS_MAX:,} in all"
            )
        if not all(0 <= one <= 0.5 for one in self.sleeps):
            raise UsageError("sleeps are out of range", hint="0 to 0.5 seconds each")
        if not 1 <= self.queue <= _QUEUE_MAX:
            raise UsageError(f"queue {self.queue} is out of range", hint=f"1 to {_QUEUE_MAX:,}")
        limits.check(self.repetitions, self.seconds)
        return self


def options(name: Name) -> tuple[str, ...]:
    """The settings that can be chosen for an experiment."""
    own = ("loops",) if name == "concurrency" else ("sleeps", "queue")
    return (*own, "seconds", "repetitions", "mode", "seed")


def standard(name: Name, *, short: bool) -> Settings:
    """What stands where nothing else is chosen; `short` takes about half a minute."""
    if not short:
        return Settings()
    return Settings(repetitions=5 if name == "concurrency" else 3, seconds=1.0)


def plan(name: Name, which: int, seed: int) -> Plan:
    """What the client of a port asks: a number of four bytes, or seven digits.

    The first digit names the port, from 1 on, for those that see nothing else of it.
    """
    if name == "concurrency":
        return Plan(size=(4, 4), first=1, keys=KEYS, seed=seed + which)
    first = (which + 1) * 10**6
    # One request a block: a client looks at the clock between blocks, and these take long.
    return Plan(form="decimal", size=(7, 7), first=first, keys=KEYS, seed=seed + which, block_min=1)


def cell(series: str, which: int) -> Cell:
    """Where a port's round trips belong."""
    return Cell(series=series, wait="blocking", socket=which + 1)


def steps(name: Name, settings: Settings) -> int:
    """How many measurements a run makes."""
    return len(SERIES[name]) * settings.repetitions
