# SPDX-License-Identifier: Apache-2.0
"""Run the experiments with four ports: four clients at once, every request accounted for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec

from carom.errors import ExperimentError
from carom.lab.clients.ping import Ping
from carom.lab.course import CPUs, Progress, apart, course, environments, head, now, spent
from carom.lab.experiments.ports.grid import SERIES, Settings, cell
from carom.lab.experiments.ports.ports import FIRST_PORT, PORTS, Name
from carom.lab.hosts.agent import Agent
from carom.lab.model import Repetition, Results
from carom.vm.netns import NamespacePair
from carom.vm.pair import Make, Pair

_COUNTED_BY = {"xdp": "answered", "queue": "queued"}
"""What counts a series' requests first, where that is not a process."""


class Laboratory:
    """A pair with a CPU for either host: an agent on the server, and one for each client."""

    def __init__(
        self, pair: Pair, server: Agent, clients: Sequence[Agent], name: Name, settings: Settings
    ):
        self._pair, self._server, self._clients = pair, server, clients
        self._name, self._settings = name, settings
        self._plain = msgspec.to_builtins(settings)
        self.cpus = CPUs.of(pair, clients[0], server).apart()
        """The client's, and the server's."""
        self._threads = ThreadPoolExecutor(len(clients))
        self.mode: str | None = None
        """The mode that XDP was last attached in."""

    def measure(self, series: str, index: int) -> list[Repetition]:
        """Start a series' server, ask at all ports, and stop it: one repetition a port.

        Raises ExperimentError where the counts do not add up.
        """
        host = self._pair.server
        ready = self._server.call(
            "serve_ports",
            series=series,
            interface=host.interface,
            address=host.address,
            cpu=self.cpus[1],
            settings=self._plain,
        )
        self.mode = ready["mode"] or self.mode
        groups = [[which] for which in PORTS] if series == "alone" else [list(PORTS)]
        try:
            self._ask(series, list(PORTS), None)  # until here they may still be starting
            return [
                one
                for group in groups
                for one in self._measure(series, index, group, ready["pids"])
            ]
        finally:
            self._server.call("leave_ports")

    def _measure(
        self, series: str, index: int, group: list[int], pids: list[int]
    ) -> list[Repetition]:
        before = self._server.call("port_counts")
        begin = self._server.call("cpu_seconds", pids=pids)
        pings = self._ask(series, group, self._settings.seconds)
        busy = spent(begin, self._server.call("cpu_seconds", pids=pids))
        after = self._server.call("port_counts")
        replies = sum(one.round_trips.count for one in pings)
        return [
            account(
                series,
                which,
                index,
                ping,
                {name: after[name][which] - before[name][which] for name in after},
                None if busy is None else busy * ping.round_trips.count / max(replies, 1),
            )
            for which, ping in zip(group, pings, strict=True)
        ]

    def _ask(self, series: str, group: list[int], seconds: float | None) -> list[Ping]:
        """All of a group at the same time."""

        def ask(which: int) -> Ping:
            found = self._clients[which].call(
                "ask_port",
                experiment=self._name,
                address=self._pair.server.address,
                which=which,
                port=FIRST_PORT + (0 if series == "reuseport" else which),
                settings=self._plain,
                cpu=self.cpus[0],
                seconds=seconds,
            )
            return msgspec.convert(found, Ping)

        return list(self._threads.map(ask, group))

    def close(self) -> None:
        """Wait for no client any more."""
        self._threads.shutdown(wait=False)


def account(
    series: str,
    which: int,
    index: int,
    ping: Ping,
    counted: dict[str, int],
    cpu_seconds: float | None,
) -> Repetition:
    """The record of one port's client, if each of its requests is accounted for.

    `counted` is what the server's end counted meanwhile. Raises ExperimentError.
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
    taken = counted[_COUNTED_BY.get(series, "requests")]
    if not ping.sent - late <= taken <= ping.sent:
        raise ExperimentError(
            f"{where}: {ping.sent} requests, {late} given up, but the server took {taken}",
            hint=f"counted there: {counted}",
        )
    return Repetition(
        cell=cell(series, which),
        index=index,
        round_trips=trips,
        verdicts=counted,
        server_cpu_seconds=cpu_seconds,
    )


def run(
    name: Name, settings: Settings, progress: Progress, make_pair: Make = NamespacePair
) -> Results:
    """Measure every series in each repetition, each repetition in an order of its own.

    Ctrl-C, or a host that is lost, keeps what was done. Raises CaromError.
    """
    started = now()
    repetitions: list[Repetition] = []
    order = random.Random(settings.checked().seed)
    with ExitStack() as stack:
        pair = stack.enter_context(make_pair())
        server = stack.enter_context(Agent(pair.server))
        clients = [stack.enter_context(Agent(pair.client)) for _ in PORTS]
        laboratory = Laboratory(pair, server, clients, name, settings)
        stack.callback(laboratory.close)
        where = environments(pair, clients[0], server)
        stack.enter_context(apart(pair, clients[0], server, laboratory.cpus))
        with course() as going:
            for index in range(settings.repetitions):
                for series in order.sample(list(SERIES[name]), len(SERIES[name])):
                    progress(series, index)
                    repetitions += laboratory.measure(series, index)
    return Results(
        **head(name, settings, started, where, going, mode=laboratory.mode),
        repetitions=repetitions,
    )
