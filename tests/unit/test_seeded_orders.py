# SPDX-License-Identifier: Apache-2.0
"""The order in which each experiment measures, for a seed: as it always was.

A run can be compared with an older one of the same seed only if both drew the same order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from carom.lab import kinds, run
from carom.lab.experiments.contests import contest, contests
from carom.lab.experiments.filters import run as filter_run
from carom.lab.experiments.ports import run as port_run
from carom.lab.hosts.environment import environment

RECORDED = json.loads(Path(__file__).with_name("orders.json").read_text())
"""By experiment, form and seed: a digest of the lines of two repetitions."""

HOST = SimpleNamespace(interface="eth0", address="198.18.0.2")


class Agent(contextlib.nullcontext[Any]):
    """An end of a pair that does nothing."""

    def __init__(self, _: object):
        super().__init__(self)

    def call(self, *_: object, **__: object) -> list[int]:
        return [0, 1]


class Laboratory:
    """Measures nothing."""

    modes = frozenset({"native"})
    mode = "native"
    cpus = (0, 1)

    def __init__(self, *_: object):
        pass

    def possible(self, trials: Any, _: object) -> Any:
        return trials

    def measure(self, *_: object) -> list[Any]:
        return []

    def serving(self, _: object) -> Any:
        return contextlib.nullcontext(1)

    def close(self) -> None:
        pass


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """All experiments, with nothing to measure."""
    where = environment("netns", "veth", None, {}), None
    for module in (run, filter_run, port_run, contest):
        monkeypatch.setattr(module, "Agent", Agent)
        monkeypatch.setattr(module, "environments", lambda *_: where)
    for module in (run, filter_run, port_run):
        monkeypatch.setattr(module, "Laboratory", Laboratory)
    monkeypatch.setattr(filter_run, "FilterResults", SimpleNamespace)
    monkeypatch.setattr(port_run, "apart", lambda *_: contextlib.nullcontext())
    for name, event in contests.CONTESTS.items():
        subjects = tuple(one._replace(measure=lambda _: {}) for one in event.subjects)
        still = event._replace(subjects=subjects, prepare=lambda _: None)
        monkeypatch.setitem(contests.CONTESTS, name, still)


def pair(**_: object) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext(SimpleNamespace(one_machine=True, client=HOST, server=HOST))


def order(name: str, form: str, seed: int) -> Iterator[str]:
    """What an experiment says that it measures next, a line each."""
    kind = kinds.named(name)
    standing = kind.standard(name, short=form == "short")
    settings = msgspec.structs.replace(standing, seed=seed, repetitions=2)
    said: list[str] = []
    kind.run(name, settings, lambda what, index: said.append(f"{index} {what}"), pair)
    yield from said


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("which", RECORDED)
def test_as_recorded(which: str) -> None:
    name, form, seed = which.split()
    lines = "\n".join(order(name, form, int(seed)))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == RECORDED[which]


def test_every_experiment_is_recorded() -> None:
    assert {which.split()[0] for which in RECORDED} == set(kinds.DESCRIPTIONS)
