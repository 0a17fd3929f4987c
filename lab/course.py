# SPDX-License-Identifier: Apache-2.0
"""The hosts that an experiment runs on: their CPUs, what they are, and what if one is lost."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from carom.errors import ExperimentError, UnreachableError
from carom.lab.hosts.agent import Agent
from carom.lab.model import Environment, Wait
from carom.vm.pair import Pair
from carom.xdp.link import REFUSED, Mode

_NO_NATIVE = REFUSED.format(mode="native")

log = structlog.get_logger()

Progress = Callable[[str, int], None]
"""Told of what is measured next, in words, and the index of its repetition."""


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
    """A program of the lab's own at XDP: it passes all, or swaps ends (Hand.attach)."""
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


class Course:
    """How measuring goes: to its end, or until something `stopped` it; neither after Ctrl-C.

    `left_out` is what this pair cannot do, because a driver takes no XDP in native mode, with what
    it said.
    """

    def __init__(self) -> None:
        self.complete = False
        self.stopped: str | None = None
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def unless_refused(self, name: str) -> Iterator[None]:
        """Start inside what a driver may refuse: then it is left out, which is said."""
        try:
            yield
        except ExperimentError as error:
            if _NO_NATIVE not in str(error):
                raise
            self.left_out[name] = str(error)
            log.warning("left out on this pair", series=name, reason=str(error))


def now() -> str:
    """The time as a run's file has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def head(
    name: str,
    settings: Any,
    started: str,
    where: tuple[Environment, Environment | None],
    going: Course,
    *,
    mode: str | None = None,
) -> dict[str, Any]:
    """What the record of any run says of how and where it was made; `mode` is XDP's, if it had."""
    values = msgspec.to_builtins(settings) | {"left_out": list(going.left_out) or None}
    return {
        "experiment": name,
        "started": started,
        "seed": settings.seed,
        "command": shlex.join(["carom", *sys.argv[1:]]),
        "settings": {key: value for key, value in values.items() if value is not None},
        "environment": msgspec.structs.replace(where[0], mode=mode or where[0].mode),
        "client_environment": where[1],
        "complete": going.complete,
        "stopped": going.stopped,
    }


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Measure inside: Ctrl-C, a host that is lost, or counts that disagree end it.

    What was measured until then stays.
    """
    one = Course()
    try:
        yield one
        one.complete = True
    except KeyboardInterrupt:
        pass
    except ExperimentError as error:
        one.stopped = f"{error} ({error.hint})" if error.hint else str(error)
