# SPDX-License-Identifier: Apache-2.0
"""Demux: four ports with work that sleeps: processes, queues, and packets steered to sockets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from carom.lab.cells import Series, SeriesOf
from carom.lab.experiments.ports.claims import claim
from carom.lab.experiments.ports.four import FourPorts
from carom.lab.experiments.ports.four import Settings as Common
from carom.lab.experiments.ports.ports import Work
from carom.lab.experiments.ports.stats import Table
from carom.settings import Option

_STEERED = ("reuseport", "sk_lookup", "cpumap")
"""The series in which a program chooses the open socket that a packet reaches."""


class Settings(Common, frozen=True, kw_only=True):
    """The settings of demux."""

    sleeps: Annotated[
        tuple[float, float, float, float], Option("The work of each port, in seconds.", 0, 0.5)
    ] = (0.02, 0.01, 0.002, 0.0045)
    queue: Annotated[int, Option("The entries of a queue.", 1, 1_000_000)] = 10_200


class Demux(FourPorts[Settings]):
    """Ways to bring a packet to the process that answers it."""

    name = "demux"
    description = (
        "four ports, work that sleeps: four processes, XDP with queues and threads, and "
        "packets steered to open sockets (Sickler 2022)"
    )
    series = SeriesOf(
        (
            Series("alone", "one process alone", "#999999", "."),
            Series("processes", "processes", "#D55E00", "o"),
            Series("queue", "XDP, queue, threads", "#0072B2", "s"),
            Series("reuseport", "SO_REUSEPORT", "#009E73", "D"),
            Series("sk_lookup", "sk_lookup", "#CC79A7", "^"),
            Series("cpumap", "XDP, cpumap", "#56B4E9", "v"),
        )
    )
    base = "processes"
    shared = frozenset({"reuseport"})
    alone = frozenset({"alone"})
    counted_by = {"queue": "queued"}  # noqa: RUF012
    full = Settings()
    short = Settings(repetitions=3, seconds=1.0)

    def work(self, settings: Settings) -> Work:
        """Work that sleeps."""
        return Work(sleeps=settings.sleeps, queue=settings.queue, mode=settings.mode)

    def amounts(self, settings: Mapping[str, Any]) -> Sequence[float]:
        """The sleep of each port, in seconds."""
        sleeps: Sequence[float] = settings["sleeps"]
        return sleeps

    def amount(self, amount: float) -> str:
        """An amount of work: `20 ms`."""
        return f"{1e3 * amount:g} ms"

    def asleep(self, amount: float) -> float:
        """All of the work is sleep."""
        return 1e9 * amount

    def claims(self, table: Table) -> Iterator[str]:
        """The published claims, and what their author hoped for."""

        def compared(title: str, over: str, under: str) -> str:
            return claim(self.name, table, title, over, under)

        yield "The published claims; counted are sockets whose 95 % interval lies on one side:"
        yield compared(
            "1. Queues, polling and threads take longer than processes", "queue", "processes"
        )
        yield compared(
            "2. A process takes longer beside three others than alone", "processes", "alone"
        )
        yield "The author's hope: a packet reaches an open socket as if it had come up the stack."
        for series in (name for name in _STEERED if name in table.series):
            name = self.series.words(series)
            yield compared(f"3. {name} takes longer than processes", series, "processes")
            yield compared(f"   Queues take longer than {name}", "queue", series)


EXPERIMENT = Demux()
