# SPDX-License-Identifier: Apache-2.0
"""What the filter experiments share: invalid packets, rejected at each place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec

from carom.errors import UsageError
from carom.filters.names import NAMES, SAYS, Name
from carom.lab.clients.behaviours import Choice
from carom.lab.experiment import Experiment, Group, Needs
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.filters import calls, plots, published, stats, tables, verdict
from carom.lab.experiments.filters.model import Filled, FilterCell, FilterRun, Series
from carom.lab.experiments.filters.series import SERIES
from carom.lab.record import Run
from carom.lab.show import words
from carom.lab.show.published import where as beside
from carom.lab.show.sheets import Sheet
from carom.lab.shown import Shown
from carom.lab.stats.cases import Case, share
from carom.lab.testbed import Bed
from carom.protocols.kv import PORT
from carom.settings import Option

_PUBLISHED = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_UNFIT = ("reject", "existing-key", "limited-puts")

_AT: dict[Series, tuple[str, ...]] = {
    "userspace": (),
    "socket": ("--filter-at", "socket"),
    "tc": ("--filter-at", "tc"),
    "xdp_generic": ("--filter-at", "xdp", "--mode", "generic"),
    "xdp_native": ("--filter-at", "xdp", "--mode", "native"),
}


class Settings(Common, frozen=True, kw_only=True):
    """The settings of all filter experiments; the defaults are published, except 10^7 packets."""

    packets: Annotated[
        tuple[int, ...], Option("How many packets.", 1, 10**8, "100,1000", order="once")
    ] = _PUBLISHED[:-1]
    full: Annotated[bool, Option("Up to 10,000,000 packets, as published.")] = False
    percents: Annotated[
        tuple[float, ...], Option("Percent that are invalid.", 0, 100, "0,50,99", order="once")
    ] = (0.0, 1.0, 25.0, 50.0, 75.0, 99.0, 100.0)
    filter: Annotated[Name, Option("Which filter.")] = "robust-valid-command"
    behaviour: Annotated[Literal["frigg", "frey"], Option("What the client sends.")] = "frigg"
    equal_length: Annotated[bool, Option("Make invalid packets as long as PUTs.")] = False

    def checked(self) -> Self:
        """The same settings. Raises UsageError that names the first wrong one."""
        super().checked()
        if self.filter in _UNFIT:
            others = ", ".join(name for name in NAMES if name not in _UNFIT)
            raise UsageError(
                f"{self.filter} would reject PUTs that must be counted: {SAYS[self.filter]}",
                hint=f"use one of: {others}",
            )
        return msgspec.structs.replace(self, packets=_PUBLISHED) if self.full else self


class KneeSettings(Settings, frozen=True, kw_only=True):
    """The same, and the rates of the search for the highest one without loss."""

    rates: Annotated[
        tuple[float, ...],
        Option("Packets a second, rising; last may be 0, as fast as possible.", 0, 1e8),
    ] = (20_000.0, 40_000.0, 80_000.0, 160_000.0, 0.0)
    knee_percents: tuple[float, ...] = (0.0, 50.0, 99.0)
    knee_packets: int = 100_000
    knee_repetitions: int = 3

    def checked(self) -> Self:
        """The same settings. Raises UsageError that names the first wrong one."""
        rising = sorted(set(self.rates), key=lambda rate: rate or math.inf)
        if list(self.rates) != rising:
            raise UsageError(
                "rates must be rising, in packets a second; 0, as fast as possible, comes last",
                hint="--rates 20000,80000,0",
            )
        return super().checked()

    def knee(self, series: Series, index: int) -> list[FilterCell]:
        """The steps of the search in one repetition."""
        # The series are compared at the slowest rate too, so it is measured in every repetition.
        rates = self.rates if index < self.knee_repetitions else self.rates[:1]
        return [
            FilterCell(
                series=series, percent=percent, packets=self.knee_packets, rate=rate, knee=True
            )
            for percent in self.knee_percents
            for rate in rates
        ]


S = TypeVar("S", bound=Settings)

SHORT: dict[str, Any] = {
    "packets": (100, 1_000, 10_000),
    "percents": (0.0, 50.0, 99.0),
    "repetitions": 3,
}
KNEE_SHORT: dict[str, Any] = {
    **SHORT,
    "rates": (20_000.0, 80_000.0, 0.0),
    "knee_packets": 5_000,
    "knee_repetitions": 2,
}
"""The short form takes less than a minute."""


class ShownFilters(Shown[FilterRun]):
    """How any run that accounts for packets is shown."""

    measures = FilterRun
    of_times = True
    """Whether times are shown."""
    of_losses = True
    """Whether losses are shown."""

    def sentences(self, run: Run[FilterRun]) -> list[str]:
        """The published claims, each with its outcome."""
        return verdict.sentences(stats.grid(run.measurements)) or [words.TOO_LITTLE]

    def tables(self, run: Run[FilterRun], width: int | None = None) -> list[Sheet]:
        """The gain first, then times, losses, or both."""
        return tables.sheets(run, times=self.of_times, losses=self.of_losses)

    def notes(self, run: Run[FilterRun], width: int | None = None) -> list[str]:
        """What a reader has to know to read the tables."""
        return [tables.about(run)]

    def plots(self, run: Run[FilterRun], folder: Path) -> list[Path]:
        """Draw times, losses, or both."""
        return plots.plot(run, folder, times=self.of_times, losses=self.of_losses)

    def rows(self, run: Run[FilterRun]) -> Iterator[dict[str, object]]:
        """A line for each measurement."""
        for measured in run.measurements:
            row = msgspec.to_builtins(measured)
            at = {**row.pop("cell"), "index": row.pop("index")}
            yield {
                "experiment": run.experiment,
                **at,
                **row,
                "lost": measured.lost,
                "loss": measured.loss,
            }

    def cases(self, run: Run[FilterRun]) -> Iterator[tuple[Case, float]]:
        """Times per packet, and the share of PUTs that were done."""
        for measured in sorted(run.measurements, key=lambda measured: _order(measured.cell)):
            name = _name(measured.cell)
            if not measured.cell.rate:  # with a rate, the rate decides the wall time
                yield (
                    Case(name, "wall, µs a packet"),
                    1e6 * measured.per_packet(measured.wall_seconds),
                )
            cpu = 1e6 * measured.per_packet(measured.server_cpu_seconds)
            yield Case(name, "server CPU, µs a packet"), cpu
            if measured.sent_puts:
                done = share(measured.value, measured.sent_puts)
                yield Case(name, "PUTs done, share", larger_is_better=True, share=True), done

    def published(self, run: Run[FilterRun]) -> list[Sheet]:
        """Wall times, beside the published ones."""
        made = [published.walls(run)] if self.of_times else []
        return [sheet for sheet in made if sheet.rows]

    def where(self, run: Run[FilterRun]) -> Sheet:
        """How and on what this run and the published experiment were measured."""
        return beside(
            run,
            published.WHERE,
            hook="socket filter, TC and XDP",
            server="in Python",
            rate="as fast as possible",
            time="whole runs, without start-up",
        )


class FilterExperiment(ShownFilters, Experiment[S, FilterRun]):
    """A key-value server, with a filter in front of it at each place in turn."""

    needs = Needs(apart=True)

    def groups(self, settings: S, index: int) -> list[Group]:
        """A group for each series."""
        return [Group(series, self.cells(settings, series, index), drawn=True) for series in SERIES]

    def cells(self, settings: S, series: Series, index: int) -> list[FilterCell]:
        """The cells of one server in one repetition."""
        grid = [
            FilterCell(series=series, percent=percent, packets=packets)
            for packets in settings.packets
            for percent in settings.percents
        ]
        return grid + (settings.knee(series, index) if isinstance(settings, KneeSettings) else [])

    def says(self, cell: FilterCell) -> str:
        """The series, the percent that are invalid, and the number of packets."""
        return f"{cell.series} {cell.percent:g} % of {cell.packets:,}"

    @contextmanager
    def serving(self, bed: Bed[S], group: Group) -> Iterator[int]:
        """A key-value server with its filter; yields its pid."""
        at = _AT[group.series]
        arguments = ["-p", str(PORT), "--app", "kv", "--hook", "none"]
        arguments += ["--cpu", str(bed.cpus.apart()[1]), *at]
        if at:
            arguments += ["--filter", bed.settings.filter]
        with bed.serving(arguments) as ready:
            yield ready["pid"]

    def measure(
        self, bed: Bed[S], server: int, cell: FilterCell, index: int
    ) -> Iterator[FilterRun]:
        """Send a cell's packets. Raises ExperimentError where the counts do not add up."""
        choice = Choice(
            name=bed.settings.behaviour,
            packets=cell.packets,
            percent=cell.percent,
            equal_length=bed.settings.equal_length,
        )
        bed.client.call(calls.RESET, address=bed.pair.server.address, port=PORT)
        before = bed.server.call(calls.ARRIVALS, pid=server, port=PORT)
        filled = _fill(bed, choice, cell.rate, server)
        after = bed.server.call(calls.ARRIVALS, pid=server, port=PORT)
        rise = {name: count - before[name] for name, count in after.items()}
        yield account(cell, index, filled, rise).checked()


def _fill(bed: Bed[Any], choice: Choice, rate: float, pid: int) -> Filled:
    """Let the client fill; on two machines, each host measures its own CPU time."""
    here = bed.pair.one_machine
    before = (0.0, 0.0) if here else _busy(bed, pid)
    reply = bed.client.call(
        calls.FILL,
        address=bed.pair.server.address,
        port=PORT,
        behaviour=msgspec.to_builtins(choice),
        rate=rate,
        pid=pid if here else None,
        cpu=bed.cpus.apart()[0],
    )
    filled = msgspec.convert(reply, Filled)
    if here:
        return filled
    server, machine = (now - was for now, was in zip(_busy(bed, pid), before, strict=True))
    return msgspec.structs.replace(
        filled,
        server_cpu_seconds=server,
        machine_cpu_seconds=filled.machine_cpu_seconds + machine,
    )


def _busy(bed: Bed[Any], pid: int) -> tuple[float, float]:
    """CPU time of the server and of its machine, so far."""
    server: float = bed.server.call("cpu_seconds", pids=[pid])
    return server, bed.server.call("machine_cpu_seconds")


def account(cell: FilterCell, index: int, filled: Filled, rise: Mapping[str, int]) -> FilterRun:
    """Account for every packet by `rise`, by how much each counter rose.

    A socket counts what its own filter rejects among its drops.
    """
    rejected = rise.get("invalid_rejected", 0) + rise.get("valid_rejected", 0)
    accepted = rise.get("invalid_accepted", 0) + rise.get("valid_accepted", 0)
    at_socket = rise["drops"] - (rejected if cell.series == "socket" else 0)
    arrived = rise["received"] + at_socket
    sent = filled.sent_puts + filled.sent_invalid + filled.sent_others
    unfiltered = cell.series == "userspace"
    return FilterRun(
        cell=cell,
        index=index,
        rejected_invalid=rise.get("invalid_rejected", 0),
        rejected_valid=rise.get("valid_rejected", 0),
        accepted_invalid=rise.get("invalid_accepted", 0),
        accepted_valid=rise.get("valid_accepted", 0),
        lost_before=sent - (arrived if unfiltered else rejected + accepted),
        lost_between=0 if unfiltered else accepted - arrived,
        lost_at_socket=at_socket,
        received=rise["received"],
        **msgspec.structs.asdict(filled),
    )


def _order(cell: FilterCell) -> tuple[int, bool, int, float, float]:
    return list(SERIES).index(cell.series), cell.knee, cell.packets, cell.percent, cell.rate


def _name(cell: FilterCell) -> str:
    at = f" at {cell.rate:,.0f}/s" if cell.rate else ""
    knee = " (knee)" if cell.knee else ""
    return f"{SERIES.words(cell.series)}, {cell.percent:g} % of {cell.packets:,}{at}{knee}"
