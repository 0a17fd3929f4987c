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

from carom.lab import experiment, registry
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


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """All experiments, with nothing to measure."""
    where = environment("netns", "veth", None, {}), None
    monkeypatch.setattr(experiment, "Agent", Agent)
    monkeypatch.setattr(experiment, "environments", lambda *_: where)
    for one in registry.experiments().values():
        monkeypatch.setattr(one, "prepared", lambda _: contextlib.nullcontext(), raising=False)
        monkeypatch.setattr(one, "serving", lambda *_: contextlib.nullcontext(), raising=False)
        monkeypatch.setattr(one, "measure", lambda *_: (), raising=False)


def pair(**_: object) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext(SimpleNamespace(one_machine=True, client=HOST, server=HOST))


def order(name: str, form: str, seed: int) -> Iterator[str]:
    """What an experiment says that it measures next, a line each."""
    one = registry.named(name)
    standing = one.short if form == "short" else one.full
    settings = msgspec.structs.replace(standing, seed=seed, repetitions=2)
    said: list[str] = []
    experiment.run(one, settings, lambda what, index: said.append(f"{index} {what}"), pair)
    yield from said


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("which", RECORDED)
def test_as_recorded(which: str) -> None:
    name, form, seed = which.split()
    lines = "\n".join(order(name, form, int(seed)))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == RECORDED[which]


def test_every_experiment_is_recorded() -> None:
    assert {which.split()[0] for which in RECORDED} == set(registry.experiments())
