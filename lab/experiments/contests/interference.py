# SPDX-License-Identifier: Apache-2.0
"""Interference: what hits cost the misses of their service, and other servers on the same host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple

from carom.daemon.options import HITS_MAX
from carom.errors import ExperimentError
from carom.lab.clients import load as generator
from carom.lab.clients import ping
from carom.lab.clients.requests import Plan
from carom.lab.experiment import Experiment, Group, Keys, Mode, Needs, Seconds
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.contests.interference_shown import (
    LIMITED,
    MOST,
    NONE,
    PLAIN,
    TREATMENTS,
    VICTIMS,
    ShownInterference,
    name_of,
)
from carom.lab.experiments.contests.ways import HITS, keyed, load_all, serving
from carom.lab.record import Cell, Repetition, RoundTrips
from carom.lab.testbed import PORT, Bed, CPUs
from carom.settings import Option

_OUTSTANDING = 4096
_AT_MOST = 128  # so few fit into every queue on the way: what goes is what comes back
_APP = "echo"
_PORTS = {victim: PORT + number for number, victim in enumerate(VICTIMS)}
_APART = 2**32  # first numbers of the unique requests of two measurements: none is asked twice
_TIMEOUT, _LATE = 0.2, 0.5  # of who asks, and of the load
_BEFORE, _BEHIND = 30.0, 1.0  # seconds until the load has to be there, and that it lasts longer
_STEP = 0.02
_REPLIES = "replies"
_COME = ("hit", "pass_cpu", _REPLIES)
_MOSTLY = 0.99
"""The share of a load that hits where nothing limits it: one sum in 65,536 is ambiguous."""


class Settings(Common, frozen=True, kw_only=True):
    """The settings of interference."""

    repetitions: Annotated[int, Option("How often each cell is measured.", low=1)] = 7
    seconds: Seconds = 2.0
    keys: Keys = 100
    mode: Mode = "auto"
    loads: Annotated[
        tuple[float, ...],
        Option(
            "Requests a second beside what is measured; also none, and as many as go.",
            1,
            1e8,
            "10000,50000",
            order="rising",
        ),
    ] = (10e3, 50e3, 100e3, 200e3)
    max_hits_per_cpu: Annotated[
        int, Option("Replies a second of one CPU, where they are limited.", 1, HITS_MAX)
    ] = 20_000


class _Cell(NamedTuple):
    victim: str
    load: float


class _Server(NamedTuple):
    treatment: str
    pid: int


class Places(NamedTuple):
    """The CPUs: of who asks, of the load, of the server, and of the neighbour that is elsewhere."""

    client: int
    generator: int
    server: int
    elsewhere: int

    @classmethod
    def of(cls, cpus: CPUs) -> Places:
        """One for each where there are enough. Raises ExperimentError where client and server would
        share one."""
        client, server = cpus.apart()
        free = [cpu for cpu in cpus.client if cpu not in (client, server)]
        if not cpus.one_machine:
            free = [cpu for cpu in cpus.client if cpu != client]
        load = free[0] if free else client
        taken = (client, load, server) if cpus.one_machine else (server,)
        others = [cpu for cpu in cpus.server if cpu not in taken]
        others += [cpu for cpu in cpus.server if cpu != server]
        return cls(client, load, server, others[0] if others else server)


class Interference(ShownInterference, Experiment[Settings, Repetition]):
    """Hits at a rate, and beside them requests one by one to somebody else."""

    name = "interference"
    description = "what hits cost misses and neighbours, with and without --max-hits-per-cpu"
    needs = Needs(apart=True)
    bare = True
    clients = 2
    full = Settings()
    short = Settings(repetitions=3, seconds=0.5, loads=(50e3,))

    def groups(self, settings: Settings, index: int) -> list[Group]:
        """A server for each treatment; its loads and victims in an order that is drawn."""
        cells = [_Cell(victim, rate) for victim in VICTIMS for rate in (0.0, *settings.loads, MOST)]
        return [Group(treatment, cells, drawn=True) for treatment in TREATMENTS]

    def says(self, cell: _Cell) -> str:
        """Who is asked, and beside what."""
        return f"{VICTIMS[cell.victim]}, beside {self.axis.entry(cell.load)}/s"

    @contextlib.contextmanager
    def prepared(self, bed: Bed[Settings]) -> Iterator[None]:
        """Each host's packets on its own CPU, and two servers that carom knows nothing of."""
        places = Places.of(bed.cpus)
        with bed.apart(), contextlib.ExitStack() as stack:
            for victim, cpu in (("neighbour", places.server), ("elsewhere", places.elsewhere)):
                plain = ("-p", str(_PORTS[victim]), "--hook", "none", "--cpu", str(cpu))
                stack.enter_context(bed.serving(plain))
            yield

    @contextlib.contextmanager
    def serving(self, bed: Bed[Settings], group: Group) -> Iterator[_Server]:
        """The service that is asked for hits."""
        settings, arguments = bed.settings, ["-p", str(PORT)]
        if group.series == NONE:
            arguments += ["--hook", "none"]
        else:
            arguments += ["--mode", settings.mode]
        if group.series == LIMITED:
            arguments += ["--max-hits-per-cpu", str(settings.max_hits_per_cpu)]
        with serving(bed, *arguments) as ready:
            load_all(bed, keyed(bed, HITS), _APP, PORT, warm=True)
            yield _Server(group.series, ready["pid"])

    def measure(
        self, bed: Bed[Settings], server: _Server, cell: _Cell, index: int
    ) -> Iterator[Repetition]:
        """Ask a victim while the load lasts."""
        name = self.says(cell)
        first = _verdicts(bed, server)
        with _loaded(bed, server, cell.load) as load:
            before = _verdicts(bed, server)
            trips = _asked(bed, cell, index)
            beside = _rise(before, _verdicts(bed, server))
            if load and load.done():
                load.result()
                raise ExperimentError(
                    f"{name}: the load ended before what was measured beside it",
                    hint="is this machine too busy? run it again when it is not",
                )
        sent = load.result() if load else None
        if sent:
            _check(name, server, _rise(first, _verdicts(bed, server)), sent)
        if cell.victim == "miss" and server.treatment != NONE:
            _check_misses(name, beside, trips)
        if trips.wrong:
            raise ExperimentError(f"{name}: {trips.wrong} replies had wrong bytes")
        series = name_of(server.treatment, cell.victim)
        yield Repetition(
            cell=Cell(series=series, wait="blocking", x=cell.load),
            index=index,
            round_trips=trips,
            verdicts={verdict: n for verdict, n in beside.items() if verdict != _REPLIES},
            offered=sent.sent / sent.round_trips.seconds if sent else 0.0,
        )


@contextlib.contextmanager
def _loaded(
    bed: Bed[Settings], server: _Server, rate: float
) -> Iterator[Future[generator.Load] | None]:
    """Inside, requests come at a rate, as another agent on the client's host sends them."""
    if not rate:
        yield None
        return
    options = generator.Options(
        seconds=bed.settings.seconds + _BEHIND,
        rate=None if rate == MOST else rate,
        source_ports=_AT_MOST if rate == MOST else _OUTSTANDING,
        first_port=2**15 - _OUTSTANDING,
        cpu=Places.of(bed.cpus).generator,
        timeout=_LATE,
    )
    plan, host = keyed(bed, HITS), bed.pair
    with ThreadPoolExecutor(1) as thread:
        before = _verdicts(bed, server)
        load = thread.submit(
            bed.clients[1].load,
            *(host.client.interface, host.server.address, PORT, plan, options, _APP),
        )
        end = time.monotonic() + _BEFORE
        while not load.done() and not _rise(before, _verdicts(bed, server)).keys() & set(_COME):
            if time.monotonic() > end:
                raise ExperimentError("none of the load has come to the server")
            time.sleep(_STEP)
        yield load


def _loads(settings: Settings) -> tuple[float, ...]:
    return (0.0, *settings.loads, MOST)


def _asked(bed: Bed[Settings], cell: _Cell, index: int) -> RoundTrips:
    """Ask one request after the other, each for the first time, for the settings' seconds."""
    loads = _loads(bed.settings)
    first = (1 + index * len(loads) + loads.index(cell.load)) * _APART
    options = ping.Options(
        count=None,
        seconds=bed.settings.seconds,
        timeout=_TIMEOUT,
        cpu=Places.of(bed.cpus).client,
    )
    plan = Plan(size=(32, 32), draw="unique", first=first)
    address = bed.pair.server.address
    return bed.client.ping(address, _PORTS[cell.victim], plan, options, _APP).round_trips


def _verdicts(bed: Bed[Settings], server: _Server) -> dict[str, int]:
    """What the kernel has counted so far, and the server's replies."""
    status: dict[str, Any] = bed.server.call("status", pid=server.pid)
    return {**status["verdicts"], _REPLIES: status["server"]["replies"]}


def _rise(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By how much each counter rose, if it did."""
    return {name: n - before[name] for name, n in after.items() if n != before[name]}


def _check(name: str, server: _Server, rise: dict[str, int], load: generator.Load) -> None:
    """Raises ExperimentError where what came back were not the hits that were meant.

    A server that has more to do than it can may answer when another request has the port: such a
    reply counts as wrong. The kernel's do not come late.
    """
    hits, answered, wrong = rise.get("hit", 0), load.round_trips.count, load.round_trips.wrong
    if hits > load.sent or not answered or (wrong and server.treatment == PLAIN):
        raise ExperimentError(
            f"{name}: of {load.sent} requests {hits} were hits, {answered} replies were right and "
            f"{wrong} wrong"
        )
    if server.treatment == PLAIN and hits < _MOSTLY * answered:
        raise ExperimentError(
            f"{name}: of {answered} replies only {hits} were hits", hint=f"verdicts: {rise}"
        )


def _check_misses(name: str, rise: dict[str, int], trips: RoundTrips) -> None:
    """Raises ExperimentError where what was to miss was in the cache."""
    missed = rise.get("miss", 0) + rise.get("pass_cpu", 0)
    if missed < _MOSTLY * trips.count:
        raise ExperimentError(
            f"{name}: of {trips.count} requests only {missed} missed", hint=f"verdicts: {rise}"
        )


EXPERIMENT = Interference()
