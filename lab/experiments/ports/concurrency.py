# SPDX-License-Identifier: Apache-2.0
"""Concurrency: four ports with work in a loop, by four processes and by one XDP program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from carom.errors import UsageError
from carom.lab.cells import Series, SeriesOf
from carom.lab.experiment import Needs
from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.claims import claim, more_work
from carom.lab.experiments.ports.four import FourPorts
from carom.lab.experiments.ports.four import Settings as Common
from carom.lab.experiments.ports.ports import Work
from carom.lab.experiments.ports.stats import Table
from carom.lab.show import words
from carom.settings import Option

_LOOPS_MAX = 20_000  # of all four together: the verifier walks through every iteration


class Settings(Common, frozen=True, kw_only=True):
    """The settings of concurrency."""

    loops: Annotated[
        tuple[int, int, int, int], Option("The work of each port, in loops.", 0, _LOOPS_MAX)
    ] = (
        1400,
        1000,
        10,
        500,
    )

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        super().checked()
        if sum(self.loops) > _LOOPS_MAX:
            raise UsageError(
                "loops are out of range", hint=f"from 0 on, at most {_LOOPS_MAX:,} in all"
            )
        return self


class Concurrency(FourPorts[Settings]):
    """Processes in C, processes in Python, and one XDP program."""

    name = "concurrency"
    description = (
        "four ports, work in a loop: four processes against one XDP program (Sickler 2022)"
    )
    needs = Needs({"cc": "gcc libc6-dev"}, apart=True)
    series = SeriesOf(
        (
            Series("userspace", "processes, C", "#D55E00", "o"),
            Series("python", "processes, Python", "#E69F00", "s"),
            Series("xdp", "XDP", "#0072B2", "D"),
        )
    )
    base = "xdp"
    counted_by = {"xdp": "answered"}  # noqa: RUF012
    full = Settings()
    short = Settings(repetitions=5, seconds=1.0)

    def work(self, settings: Settings) -> Work:
        """Work in loops."""
        return Work(loops=settings.loops, mode=settings.mode)

    def amounts(self, settings: Mapping[str, Any]) -> Sequence[float]:
        """The loops of each port."""
        loops: Sequence[float] = settings["loops"]
        return loops

    def amount(self, amount: float) -> str:
        """An amount of work: `1,400 loops`."""
        return f"{amount:,.0f} loops"

    def claims(self, table: Table) -> Iterator[str]:
        """The published claims, each with its outcome."""
        yield "The published claims; counted are sockets whose 95 % interval lies on one side:"
        title = "1. One XDP program answers sooner than four processes in C"
        yield claim(self.name, table, title, "userspace", "xdp")
        if "python" in table.series:
            title = "   The same against four in Python"
            yield claim(self.name, table, title, "python", "xdp")
        by_work = sorted(table.sockets, key=lambda socket: table.amounts[socket - 1])
        most, least = by_work[-1], by_work[0]
        for series in ("userspace", "xdp"):
            ratio = table.ratio((series, most), (series, least))
            theirs = published.ratio(self.name, (series, most), (series, least))
            known = "" if theirs is None else f" (published {words.times(theirs)})"
            if ratio:
                yield (
                    f"2. {self.series.words(series)}: socket {most} takes {words.bracket(ratio)} "
                    f"times as long as socket {least}{known}: {more_work(ratio)}."
                )


EXPERIMENT = Concurrency()
