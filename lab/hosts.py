# SPDX-License-Identifier: Apache-2.0
"""The hosts that an experiment runs on: their CPUs, what they are, and what if one is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from carom.errors import ExperimentError, UnreachableError
from carom.lab.agent import Agent
from carom.lab.model import Environment, Wait
from carom.vm.pair import Pair


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


class Course:
    """How measuring goes: to its end, or until something `stopped` it; neither after Ctrl-C."""

    complete = False
    stopped: str | None = None


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Measure inside: Ctrl-C or a host that is lost ends it, and what was measured stays."""
    one = Course()
    try:
        yield one
        one.complete = True
    except KeyboardInterrupt:
        pass
    except UnreachableError as error:
        one.stopped = str(error)
