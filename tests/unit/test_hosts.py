# SPDX-License-Identifier: Apache-2.0
"""Which CPUs client and server get, what their machines are, and what ends a course."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from carom.errors import ExperimentError, UnreachableError, UsageError
from carom.lab.course import course
from carom.lab.testbed import CPUs, environments
from unit.fake_results import ENVIRONMENT

SHARED = CPUs(True, (0, 1, 3), (0, 1, 3))
SINGLE = CPUs(True, (2,), (2,))
APART = CPUs(False, (0,), (0,))


@pytest.mark.parametrize(
    ("cpus", "blocking", "spin", "one_cpu"),
    [
        (SHARED, (0, 3), True, (0, 0)),
        (SINGLE, (2, 2), False, (2, 2)),
        (APART, (0, 0), True, None),
        (CPUs(False, (0, 1), (4, 5)), (0, 5), True, None),
    ],
    ids=["netns", "netns with one", "machines with one each", "machines"],
)
def test_cpus(
    cpus: CPUs, blocking: tuple[int, int], spin: bool, one_cpu: tuple[int, int] | None
) -> None:
    assert cpus.can("blocking")
    assert cpus.choose("blocking") == blocking
    assert cpus.can("spin") is spin
    assert cpus.can("one-cpu") is (one_cpu is not None)
    if one_cpu:
        assert cpus.choose("one-cpu") == one_cpu


def test_apart() -> None:
    assert SHARED.apart() == (0, 3)
    assert APART.apart() == (0, 0)
    with pytest.raises(ExperimentError, match="a CPU each"):
        SINGLE.apart()


class Host:
    """An agent and its host in one."""

    def __init__(self, **differences: Any):
        self.host = self
        self.is_asked = False
        self._is = msgspec.structs.replace(ENVIRONMENT, **differences)

    def driver(self) -> str:
        return self._is.driver

    def offloads(self) -> dict[str, bool]:
        return self._is.offloads

    def call(self, name: str, pair: str, driver: str, offloads: dict[str, bool]) -> Any:
        assert name == "environment"
        self.is_asked = True
        found = msgspec.structs.replace(self._is, pair=pair, driver=driver, offloads=offloads)
        return msgspec.to_builtins(found)


class Pair:
    name = "ssh"

    def __init__(self, one_machine: bool):
        self.one_machine = one_machine


def _environments(pair: Pair, client: Host, server: Host) -> Any:
    return environments(pair, client, server)  # type: ignore[arg-type]


def test_one_machine_is_asked_once() -> None:
    client, server = Host(), Host()
    found = _environments(Pair(True), client, server)
    assert found == (msgspec.structs.replace(ENVIRONMENT, pair="ssh"), None)
    assert not client.is_asked


def test_a_client_that_is_busier_is_no_other() -> None:
    ours, theirs = _environments(Pair(False), Host(load_average=(9.0, 9.0, 9.0)), Host())
    assert ours.load_average == ENVIRONMENT.load_average
    assert theirs is None


@pytest.mark.parametrize("difference", [{"kernel": "6.12"}, {"driver": "ice"}, {"cpus": 64}])
def test_another_client(difference: dict[str, Any]) -> None:
    ours, theirs = _environments(Pair(False), Host(**difference), Host())
    assert ours == msgspec.structs.replace(ENVIRONMENT, pair="ssh")
    assert theirs == msgspec.structs.replace(ENVIRONMENT, pair="ssh", **difference)


def test_courses() -> None:
    with course() as whole:
        pass
    assert (whole.complete, whole.stopped) == (True, None)
    with course() as interrupted:
        raise KeyboardInterrupt
    assert (interrupted.complete, interrupted.stopped) == (False, None)
    with course() as lost:
        raise UnreachableError("the connection broke")
    assert (lost.complete, lost.stopped) == (False, "the connection broke")
    with course() as wrong:
        raise ExperimentError("counts disagree", hint="ask")
    assert (wrong.complete, wrong.stopped) == (False, "counts disagree (ask)")
    with pytest.raises(UsageError), course():
        raise UsageError("no such thing")
