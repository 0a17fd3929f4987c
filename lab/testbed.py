# SPDX-License-Identifier: Apache-2.0
"""What experiments are measured on: a pair, an agent on each host, and the hosts' CPUs."""

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
    """The CPUs that each host lets us use; on one machine they are the same."""

    one_machine: bool
    client: tuple[int, ...]
    server: tuple[int, ...]

    @classmethod
    def of(cls, pair: Pair, client: Agent, server: Agent) -> CPUs:
        """The CPUs that the agents name."""
        return cls(pair.one_machine, tuple(client.call("cpus")), tuple(server.call("cpus")))

    def can(self, wait: Wait) -> bool:
        """Whether the hosts can wait so: spinning needs a CPU each, one-cpu needs one machine."""
        if wait == "spin":
            return not self.one_machine or len(self.client) > 1
        return wait != "one-cpu" or self.one_machine

    def choose(self, wait: Wait) -> tuple[int, int]:
        """Client's and server's CPU: two if there are two, unless the wait is one-cpu."""
        return self.client[0], self.client[0] if wait == "one-cpu" else self.server[-1]

    def apart(self) -> tuple[int, int]:
        """Client's and server's CPU. Raises ExperimentError where they would share one."""
        if not self.can("spin"):
            raise ExperimentError(
                "client and server need a CPU each", hint="this machine has one for both"
            )
        return self.choose("spin")


def environments(
    pair: Pair, client: Agent, server: Agent
) -> tuple[Environment, Environment | None]:
    """The server's environment, and the client's where it differs."""
    ours = _environment(pair, server)
    if pair.one_machine:
        return ours, None
    theirs = _environment(pair, client)
    alike = msgspec.structs.replace(theirs, load_average=ours.load_average) == ours
    return ours, None if alike else theirs


def _environment(pair: Pair, agent: Agent) -> Environment:
    host = agent.host
    facts = agent.call(
        "environment", pair=pair.name, driver=host.driver(), offloads=host.offloads()
    )
    return msgspec.convert(facts, Environment)


@contextlib.contextmanager
def apart(pair: Pair, client: Agent, server: Agent, cpus: tuple[int, int]) -> Iterator[None]:
    """Inside, each host's packets are received on its own CPU, and their CPU time counted there."""
    ends = (client, pair.client.interface, cpus[0]), (server, pair.server.interface, cpus[1])
    for agent, interface, cpu in ends:
        agent.call("receive_on", interface=interface, cpu=cpu)
    try:
        yield
    finally:
        for agent, interface, _ in ends:
            if not agent.busy:  # a busy agent is ended, and this ends with it
                with contextlib.suppress(UnreachableError):
                    agent.call("receive_on", interface=interface, cpu=None)


def spent(before: float | None, after: float | None) -> float | None:
    """CPU time between two calls of an agent's `cpu_seconds`; None where it is unknown."""
    return None if before is None or after is None else after - before


@contextlib.contextmanager
def attached(agent: Agent, interface: str, program: str, mode: Mode) -> Iterator[None]:
    """Inside, a program of the lab is attached at XDP: it passes all, or swaps ends (`attach`)."""
    agent.call("attach", interface=interface, program=program, mode=mode)
    try:
        yield
    finally:
        agent.call("detach")


@contextlib.contextmanager
def facing(pair: Pair, client: Agent, arguments: Sequence[str]) -> Iterator[None]:
    """Inside, the client's end of a veth has a program if a server with these options is native.

    A veth drops what native XDP sends to an end without one, and carom does not start there.
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
    """A pair, an agent on its server, agents on its client, and the run's settings."""

    def __init__(self, pair: Pair, clients: Sequence[Agent], server: Agent, settings: S):
        self.pair, self.clients, self.server, self.settings = pair, clients, server, settings
        self.client = clients[0]
        self.cpus = CPUs.of(pair, self.client, server)
        self.modes: set[str] = set()
        """The modes in which XDP was attached."""

    @contextlib.contextmanager
    def serving(
        self, arguments: Sequence[str], command: str = "serve", *, faced: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Run a carom on the server's host, bound to its address; yields its ready line, parsed.

        Where a native server needs a program at the client's end (`facing`), it is there while the
        server starts; with `faced`, until the server ends.
        """
        host = self.pair.server
        arguments = ["-i", host.interface, "--bind", host.address, *arguments]
        with ExitStack() as stack:
            start = stack if faced else stack.enter_context(ExitStack())
            start.enter_context(facing(self.pair, self.client, arguments))
            ready = self.server.call("serve", arguments=arguments, command=command)
            stack.callback(self.server.call, "stop", pid=ready["pid"])
            self.modes |= {
                interface["mode"] for interface in ready["interfaces"] if interface["mode"]
            }
            if not faced:
                start.close()
            yield ready

    @contextlib.contextmanager
    def apart(self) -> Iterator[tuple[int, int]]:
        """Inside, each host's packets are received on a CPU of its own; yields both CPUs."""
        cpus = self.cpus.apart()
        with apart(self.pair, self.client, self.server, cpus):
            yield cpus
