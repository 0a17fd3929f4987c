# SPDX-License-Identifier: Apache-2.0
"""Run the filter experiments on a pair: each series has one server in each repetition."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import msgspec

from carom.lab.clients.behaviours import Choice
from carom.lab.course import CPUs, Progress, course, environments, head, now
from carom.lab.experiments.filters.grid import Settings, cells
from carom.lab.experiments.filters.model import (
    SERIES,
    Filled,
    FilterCell,
    FilterResults,
    FilterRun,
    Series,
)
from carom.lab.hosts.agent import Agent
from carom.protocols.kv import PORT
from carom.vm.netns import NamespacePair
from carom.vm.pair import Make, Pair

_AT: dict[Series, tuple[str, ...]] = {
    "userspace": (),
    "socket": ("--filter-at", "socket"),
    "tc": ("--filter-at", "tc"),
    "xdp_generic": ("--filter-at", "xdp", "--mode", "generic"),
    "xdp_native": ("--filter-at", "xdp", "--mode", "native"),
}


class Laboratory:
    """A pair with an agent on either host, each on a CPU of its own."""

    def __init__(self, pair: Pair, client: Agent, server: Agent, settings: Settings):
        self._pair, self._client, self._server = pair, client, server
        self._settings = settings
        self._client_cpu, self._server_cpu = CPUs.of(pair, client, server).apart()

    @contextlib.contextmanager
    def serving(self, series: Series) -> Iterator[int]:
        """A key-value server with its filter there; its pid."""
        host = self._pair.server
        arguments = ["-i", host.interface, "--bind", host.address, "-p", str(PORT), "--app", "kv"]
        arguments += ["--hook", "none", "--cpu", str(self._server_cpu), *_AT[series]]
        if _AT[series]:
            arguments += ["--filter", self._settings.filter]
        pid: int = self._server.call("serve", arguments=arguments)["pid"]
        try:
            yield pid
        finally:
            self._server.call("stop", pid=pid)

    def measure(self, pid: int, cell: FilterCell, index: int) -> FilterRun:
        """Send a cell's packets. Raises ExperimentError where the counts do not add up."""
        choice = Choice(
            name=self._settings.behaviour,
            packets=cell.packets,
            percent=cell.percent,
            equal_length=self._settings.equal_length,
        )
        address = self._pair.server.address
        self._client.call("reset", address=address, port=PORT)
        before = self._server.call("arrivals", pid=pid, port=PORT)
        filled = self._fill(choice, cell.rate, pid)
        after = self._server.call("arrivals", pid=pid, port=PORT)
        rise = {name: count - before[name] for name, count in after.items()}
        return account(cell, index, filled, rise).checked()

    def _fill(self, choice: Choice, rate: float, pid: int) -> Filled:
        """On two machines either tells its own CPU time."""
        here = self._pair.one_machine
        before = (0.0, 0.0) if here else self._busy(pid)
        found = self._client.call(
            "fill",
            address=self._pair.server.address,
            port=PORT,
            behaviour=msgspec.to_builtins(choice),
            rate=rate,
            pid=pid if here else None,
            cpu=self._client_cpu,
        )
        filled = msgspec.convert(found, Filled)
        if here:
            return filled
        server, machine = (now - was for now, was in zip(self._busy(pid), before, strict=True))
        return msgspec.structs.replace(
            filled,
            server_cpu_seconds=server,
            machine_cpu_seconds=filled.machine_cpu_seconds + machine,
        )

    def _busy(self, pid: int) -> tuple[float, float]:
        """CPU time of the server and of its machine, so far."""
        server: float = self._server.call("cpu_seconds", pids=[pid])
        return server, self._server.call("machine_cpu_seconds")


def account(cell: FilterCell, index: int, filled: Filled, rise: Mapping[str, int]) -> FilterRun:
    """What became of each packet, by what the counters rose by.

    A socket counts what its own filter rejects among its drops.
    """
    rejected = rise.get("invalid_rejected", 0) + rise.get("valid_rejected", 0)
    accepted = rise.get("invalid_accepted", 0) + rise.get("valid_accepted", 0)
    at_socket = rise["drops"] - (rejected if cell.series == "socket" else 0)
    came = rise["received"] + at_socket
    sent = filled.sent_puts + filled.sent_invalid + filled.sent_others
    unfiltered = cell.series == "userspace"
    return FilterRun(
        cell=cell,
        index=index,
        rejected_invalid=rise.get("invalid_rejected", 0),
        rejected_valid=rise.get("valid_rejected", 0),
        accepted_invalid=rise.get("invalid_accepted", 0),
        accepted_valid=rise.get("valid_accepted", 0),
        lost_before=sent - (came if unfiltered else rejected + accepted),
        lost_between=0 if unfiltered else accepted - came,
        lost_at_socket=at_socket,
        received=rise["received"],
        **msgspec.structs.asdict(filled),
    )


def run(
    name: str, settings: Settings, progress: Progress, make_pair: Make = NamespacePair
) -> FilterResults:
    """Measure every cell of every series in each repetition, in orders of their own.

    Ctrl-C, or a host that is lost, keeps what was done. Raises CaromError.
    """
    started = now()
    runs: list[FilterRun] = []
    order = random.Random(settings.checked().seed)
    with ExitStack() as stack:
        pair = stack.enter_context(make_pair())
        client, server = (stack.enter_context(Agent(host)) for host in (pair.client, pair.server))
        laboratory = Laboratory(pair, client, server, settings)
        where = environments(pair, client, server)
        with course() as going:
            for index in range(settings.repetitions):
                for series in order.sample(SERIES, len(SERIES)):
                    if series in going.left_out:
                        continue
                    grid = cells(settings, series, index, knee=name != "filter-throughput")
                    with going.unless_refused(series), laboratory.serving(series) as pid:
                        for cell in order.sample(grid, len(grid)):
                            progress(f"{series} {cell.percent:g} % of {cell.packets:,}", index)
                            runs.append(laboratory.measure(pid, cell, index))
    return FilterResults(**head(name, settings, started, where, going), runs=runs)
