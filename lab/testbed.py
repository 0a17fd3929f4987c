# SPDX-License-Identifier: Apache-2.0
"""What experiments are measured on: a pair, an agent on either host, and the hosts' CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from carom.errors import ExperimentError, UnreachableError
from carom.lab.hosts.agent import Agent
from carom.lab.record import Environment, Wait
from carom.vm.pair import Pair
from carom.xdp.link import Mode

PORT = 51141
"""Where a server of the lab answers."""

S = TypeVar("S")


class CPUs(NamedTuple):
    """Those that either host lets us use; on one machine they are the same."""

    one_machine: bool
    client: tuple[int, ...]
    server: tuple[int, ...]

    @classmethod
    def of(cls, pair: Pair, client: Agent, server: Agent) -> CPUs:
        """As the agents say."""
        return cls(pair.one_machine, tuple(client.call("cpus")), tuple(server.call("cpus")))

    def can(self, wait: Wait) -> bool:
        """Two spinning programs need a CPU each, and two that share one need one machine."""
        if wait == "spin":
            return not self.one_machine or len(self.client) > 1
        return wait != "one-cpu" or self.one_machine

    def choose(self, wait: Wait) -> tuple[int, int]:
        """Client's and server's CPU: apart if there are two, but where the wait is to share one."""
        return self.client[0], self.client[0] if wait == "one-cpu" else self.server[-1]

    def apart(self) -> tuple[int, int]:
        """A CPU for each. Raises ExperimentError where they would share it."""
        if not self.can("spin"):
            raise ExperimentError(
                "client and server need a CPU each", hint="this machine has one for both"
            )
        return self.choose("spin")


def environments(
    pair: Pair, client: Agent, server: Agent
) -> tuple[Environment, Environment | None]:
    """What the server is, and the client where that is something else."""
    ours = _environment(pair, server)
    if pair.one_machine:
        return ours, None
    theirs = _environment(pair, client)
    alike = msgspec.structs.replace(theirs, load_average=ours.load_average) == ours
    return ours, None if alike else theirs


def _environment(pair: Pair, agent: Agent) -> Environment:
    host = agent.host
    said = agent.call("environment", pair=pair.name, driver=host.driver(), offloads=host.offloads())
    return msgspec.convert(said, Environment)


@contextlib.contextmanager
def apart(pair: Pair, client: Agent, server: Agent, cpus: tuple[int, int]) -> Iterator[None]:
    """What either host receives is dealt with on its own CPU meanwhile, and counted there."""
    ends = (client, pair.client.interface, cpus[0]), (server, pair.server.interface, cpus[1])
    for agent, interface, cpu in ends:
        agent.call("receive_on", interface=interface, cpu=cpu)
    try:
        yield
    finally:
        for agent, interface, _ in ends:
            if not agent.busy:  # whose end is the end of this as well
                with contextlib.suppress(UnreachableError):
                    agent.call("receive_on", interface=interface, cpu=None)


def spent(before: float | None, after: float | None) -> float | None:
    """CPU time between two calls of an agent's `cpu_seconds`, where it can tell."""
    return None if before is None or after is None else after - before


@contextlib.contextmanager
def attached(agent: Agent, interface: str, program: str, mode: Mode) -> Iterator[None]:
    """A program of the lab's own at XDP: it passes all, or swaps ends (Calls.attach)."""
    agent.call("attach", interface=interface, program=program, mode=mode)
    try:
        yield
    finally:
        agent.call("detach")


@contextlib.contextmanager
def facing(pair: Pair, client: Agent, arguments: Sequence[str]) -> Iterator[None]:
    """The client's end has a program where a server with these options is native.

    A veth loses what native XDP sends to an end without, and carom does not start there.
    """
    host = pair.client
    if (
        "native" not in arguments
        or host.driver() != "veth"
        or client.call("met", interface=host.interface)
    ):
        yield
        return
    with attached(client, host.interface, "pass", "native"):
        yield


class Bed(Generic[S]):
    """A testbed: a pair, an agent on its server, agents on its client, and the run's settings."""

    def __init__(self, pair: Pair, clients: Sequence[Agent], server: Agent, settings: S):
        self.pair, self.clients, self.server, self.settings = pair, clients, server, settings
        self.client = clients[0]
        self.cpus = CPUs.of(pair, self.client, server)
        self.modes: set[str] = set()
        """Those that XDP was attached in."""

    @contextlib.contextmanager
    def serving(
        self, arguments: Sequence[str], command: str = "serve", *, faced: bool = False
    ) -> Iterator[dict[str, Any]]:
        """A carom on the server's host, bound to its address; what its ready line says.

        The client's end has a program while it starts, where a native server wants one there
        (`facing`); `faced`: until it ends.
        """
        host = self.pair.server
        arguments = ["-i", host.interface, "--bind", host.address, *arguments]
        with ExitStack() as stack:
            start = stack if faced else stack.enter_context(ExitStack())
            start.enter_context(facing(self.pair, self.client, arguments))
            ready = self.server.call("serve", arguments=arguments, command=command)
            stack.callback(self.server.call, "stop", pid=ready["pid"])
            self.modes |= {one["mode"] for one in ready["interfaces"] if one["mode"]}
            if not faced:
                start.close()
            yield ready

    @contextlib.contextmanager
    def apart(self) -> Iterator[tuple[int, int]]:
        """What either host receives is dealt with on a CPU of its own meanwhile; both of these."""
        cpus = self.cpus.apart()
        with apart(self.pair, self.client, self.server, cpus):
            yield cpus
