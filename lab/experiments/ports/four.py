# SPDX-License-Identifier: Apache-2.0
"""What the experiments with four ports share: four clients at once, every request accounted for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from carom.errors import ExperimentError
from carom.lab.clients.ping import Ping
from carom.lab.experiment import Group, Mode, Needs, Seconds
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.ports import calls, plots, tables
from carom.lab.experiments.ports.ports import FIRST_PORT, PORTS, Name, Work
from carom.lab.experiments.ports.stats import Table
from carom.lab.record import Cell, Repetition, Run
from carom.lab.round_trips import RoundTripExperiment
from carom.lab.show.published import SICKLER
from carom.lab.show.published import where as beside
from carom.lab.show.sheets import Sheet
from carom.lab.testbed import Bed, spent
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of both experiments; the defaults are the published ones."""

    seconds: Seconds = 30.0
    repetitions: Annotated[int, Option("How often each cell is measured.", low=1)] = 15
    mode: Mode = "auto"


S = TypeVar("S", bound=Settings)


class FourPorts(RoundTripExperiment[S]):
    """An experiment that compares ways to answer at four ports, each with work of its own."""

    name: Name
    needs = Needs(apart=True)
    clients = len(PORTS)
    base: ClassVar[str]
    """The series that the others are divided by."""
    shared: ClassVar[frozenset[str]] = frozenset()
    """The series whose sockets all share the first port."""
    alone: ClassVar[frozenset[str]] = frozenset()
    """The series that are asked at one port after the other, not at all at once."""
    counted_by: ClassVar[Mapping[str, str]] = {}
    """The counter that counts a series' requests first, where that is not a process."""

    @abstractmethod
    def work(self, settings: S) -> Work:
        """The work of a request at each port."""

    @abstractmethod
    def amounts(self, settings: Mapping[str, Any]) -> Sequence[float]:
        """The amount of work of each port, from a run's recorded settings."""

    @abstractmethod
    def amount(self, amount: float) -> str:
        """An amount of work as text."""

    def asleep(self, amount: float) -> float:
        """How much of a round trip is sleep, ns."""
        return 0.0

    @abstractmethod
    def claims(self, table: Table) -> Iterator[str]:
        """The claims, each with the outcome of a run."""

    # Measuring

    def groups(self, settings: S, index: int) -> list[Group]:
        """A group for each series."""
        return [Group(series, (series,), optional=False) for series in self.series]

    @contextmanager
    def prepared(self, bed: Bed[S]) -> Iterator[None]:
        """Keep each host on a CPU of its own."""
        with bed.apart():
            yield

    @contextmanager
    def serving(self, bed: Bed[S], group: Group) -> Iterator[list[int]]:
        """Run a series' server; yields the pids of its processes."""
        host = bed.pair.server
        ready = bed.server.call(
            calls.SERVE,
            series=group.series,
            interface=host.interface,
            address=host.address,
            cpu=bed.cpus.apart()[1],
            work=msgspec.to_builtins(self.work(bed.settings)),
        )
        bed.modes |= {ready["mode"]} - {None}
        try:
            self._ask(bed, group.series, list(PORTS), None)  # until here they may still be starting
            yield ready["pids"]
        finally:
            bed.server.call(calls.LEAVE)

    def measure(self, bed: Bed[S], server: list[int], cell: str, index: int) -> list[Repetition]:
        """Ask at all ports; a record for each port. ExperimentError where counts do not add up."""
        groups = [[which] for which in PORTS] if cell in self.alone else [list(PORTS)]
        return [
            repetition
            for ports in groups
            for repetition in self._measure(bed, server, cell, index, ports)
        ]

    def _measure(
        self, bed: Bed[S], pids: list[int], series: str, index: int, ports: list[int]
    ) -> list[Repetition]:
        before = bed.server.call(calls.COUNTS)
        begin = bed.server.call("cpu_seconds", pids=pids)
        pings = self._ask(bed, series, ports, bed.settings.seconds)
        busy = spent(begin, bed.server.call("cpu_seconds", pids=pids))
        after = bed.server.call(calls.COUNTS)
        replies = sum(ping.round_trips.count for ping in pings)
        return [
            account(
                series,
                which,
                index,
                ping,
                {name: after[name][which] - before[name][which] for name in after},
                None if busy is None else busy * ping.round_trips.count / max(replies, 1),
                self.counted_by.get(series, "requests"),
            )
            for which, ping in zip(ports, pings, strict=True)
        ]

    def _ask(self, bed: Bed[S], series: str, ports: list[int], seconds: float | None) -> list[Ping]:
        """Ask at these ports at the same time."""
        loops = self.work(bed.settings).loops

        def ask(which: int) -> Ping:
            reply = bed.clients[which].call(
                calls.ASK,
                experiment=self.name,
                address=bed.pair.server.address,
                which=which,
                port=FIRST_PORT + (0 if series in self.shared else which),
                loops=loops[which],
                seed=bed.settings.seed,
                cpu=bed.cpus.apart()[0],
                seconds=seconds,
            )
            return msgspec.convert(reply, Ping)

        threads = ThreadPoolExecutor(len(ports))
        try:
            return list(threads.map(ask, ports))
        finally:
            threads.shutdown(wait=False)  # after an interrupt, do not wait for clients

    # A run

    def table(self, run: Run[Repetition]) -> Table:
        """A run's measurements by series and socket."""
        return Table(run, self.series, [float(amount) for amount in self.amounts(run.settings)])

    def sentences(self, run: Run[Repetition]) -> list[str]:
        """The claims, each with its outcome."""
        return list(self.claims(self.table(run)))

    def tables(self, run: Run[Repetition], width: int | None = None) -> list[Sheet]:
        """Round trips of every series and socket, their ratios, and all requests by outcome."""
        return tables.sheets(self, self.table(run))

    def notes(self, run: Run[Repetition], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return [tables.about(self, run)]

    def plots(self, run: Run[Repetition], folder: Path) -> list[Path]:
        """Draw `NAME.png`."""
        return plots.plot(self, self.table(run), folder)

    def where(self, run: Run[Repetition]) -> Sheet:
        """How and on what this run and Sickler's were measured."""
        return beside(run, SICKLER, userspace="blocks", time="every round trip")


def account(
    series: str,
    which: int,
    index: int,
    ping: Ping,
    counted: dict[str, int],
    cpu_seconds: float | None,
    counted_by: str = "requests",
) -> Repetition:
    """The record of one port's client, if each of its requests is accounted for.

    `counted` has by how much each counter at the server's end rose; `counted_by` names the one
    that counts a request first. Raises ExperimentError.
    """
    trips = ping.round_trips
    where = f"{series}, socket {which + 1}"
    late = trips.lost + trips.reordered
    if trips.wrong:
        raise ExperimentError(f"{where}: {trips.wrong} replies had wrong bytes")
    if trips.count + late != ping.sent or trips.duplicated:
        raise ExperimentError(
            f"{where}: {ping.sent} requests, but {trips.count} replies, {late} given up, "
            f"{trips.duplicated} twice"
        )
    taken = counted[counted_by]
    if not ping.sent - late <= taken <= ping.sent:
        raise ExperimentError(
            f"{where}: {ping.sent} requests, {late} given up, but the server took {taken}",
            hint=f"counted there: {counted}",
        )
    return Repetition(
        cell=Cell(series=series, wait="blocking", socket=which + 1),
        index=index,
        round_trips=trips,
        verdicts=counted,
        server_cpu_seconds=cpu_seconds,
    )
