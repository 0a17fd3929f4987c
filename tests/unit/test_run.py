# SPDX-License-Identifier: Apache-2.0
"""What of an experiment a pair can do, without a pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from carom.errors import ExperimentError
from carom.lab.course import Course, course, head
from carom.lab.experiments.bounce_cache import grid
from carom.lab.experiments.contests import contest
from carom.lab.experiments.sweeps import grid as sweeps
from carom.lab.experiments.sweeps.grid import SERIES
from carom.lab.hosts.agent import Agent
from carom.lab.hosts.environment import environment
from carom.lab.run import Laboratory
from carom.vm.pair import Pair

HOST = SimpleNamespace(interface="eth0", address="198.18.0.2", driver=lambda: "e1000")


class Host:
    """An agent's end that starts servers, but none in native mode if its driver has none."""

    def __init__(self, cpus: int = 2, *, native: bool = True):
        self._cpus, self._native = cpus, native
        self.running = 0

    def call(self, name: str, **arguments: Any) -> Any:
        if name == "cpus":
            return list(range(self._cpus))
        if name == "serve":
            if "native" in arguments["arguments"] and not self._native:
                raise ExperimentError("carom serve did not start: eth0 refused XDP in native mode")
            self.running += 1
            return {"pid": 7, "interfaces": [{"mode": None}]}
        assert name == "stop"
        self.running -= 1
        return None


def laboratory(server: Host, cpus: int = 2) -> Laboratory:
    pair = SimpleNamespace(one_machine=True, client=HOST, server=HOST)
    return Laboratory(cast(Pair, pair), cast(Agent, Host(cpus)), cast(Agent, server))


def test_a_series_that_the_driver_refuses_is_left_out() -> None:
    trials = sweeps.trials("hooks", sweeps.Settings())
    for native, left in ((True, set(SERIES)), (False, set(SERIES) - {"xdp_native"})):
        server = Host(native=native)
        assert {one.cell.series for one in laboratory(server).possible(trials, Course())} == left
        assert server.running == 0


def test_other_failures_are_none_of_the_driver() -> None:
    trials = sweeps.trials("hooks", sweeps.Settings())
    server = Host()
    server.call = lambda name, **_: no_server() if name == "serve" else [0, 1]  # type: ignore[method-assign]
    with pytest.raises(ExperimentError, match="the port is taken"):
        laboratory(server).possible(trials, Course())


def no_server() -> None:
    raise ExperimentError("carom serve did not start: the port is taken")


def test_what_was_left_out_is_said_in_the_record() -> None:
    where = environment("netns", "veth", None, {})
    with course() as going, going.unless_refused("hits, native"):
        raise ExperimentError("eth0 (driver e1000, MTU 1500) refused XDP in native mode: no")
    said = head("load", contest.Settings(), "now", (where, None), going)
    assert said["complete"] and said["settings"]["left_out"] == ["hits, native"]
    said = head("load", contest.Settings(), "now", (where, None), Course())
    assert "left_out" not in said["settings"]


def test_but_not_where_it_is_all_that_was_asked_for() -> None:
    trials = sweeps.trials("hooks", sweeps.Settings(series=("xdp_native",)))
    with pytest.raises(ExperimentError, match="refused XDP in native mode"):
        laboratory(Host(native=False)).possible(trials, Course())


def test_waits_that_cannot_be() -> None:
    trials = grid.bounce(grid.Settings())
    waits = {one.cell.wait for one in laboratory(Host(1), 1).possible(trials, Course())}
    assert waits == {"blocking", "one-cpu"}
    spinning = [one for one in trials if one.cell.wait == "spin"]
    with pytest.raises(ExperimentError, match="cannot wait as asked"):
        laboratory(Host(1), 1).possible(spinning, Course())


def test_hosts_that_need_a_cpu_each_have_one() -> None:
    trials = sweeps.trials("clients", sweeps.standard("clients", short=True))
    assert laboratory(Host()).possible(trials, Course()) == trials
    with pytest.raises(ExperimentError, match="need a CPU each"):
        laboratory(Host(1), 1).possible(trials, Course())
