# SPDX-License-Identifier: Apache-2.0
"""The order in which each experiment measures, for a seed: as it always was.

A run can be compared with an older one of the same seed only if both drew the same order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from carom.lab import experiment, registry
from carom.lab.hosts.environment import environment

FILE = Path(__file__).with_name("orders.json")
RECORDED: dict[str, str] = json.loads(FILE.read_text())
"""By experiment, form and seed: a digest of the lines of two repetitions."""

HOST = SimpleNamespace(interface="eth0", address="198.18.0.2")


class Agent(contextlib.nullcontext[Any]):
    """An end of a pair that does nothing."""

    def __init__(self, _: object):
        super().__init__(self)

    def call(self, *_: object, **__: object) -> list[int]:
        return [0, 1]


def idle(patched: pytest.MonkeyPatch) -> None:
    """All experiments, with nothing to measure."""
    where = environment("netns", "veth", None, {}), None
    patched.setattr(experiment, "Agent", Agent)
    patched.setattr(experiment, "environments", lambda *_: where)
    for one in registry.experiments().values():
        patched.setattr(one, "prepared", lambda _: contextlib.nullcontext(), raising=False)
        patched.setattr(one, "serving", lambda *_: contextlib.nullcontext(), raising=False)
        patched.setattr(one, "measure", lambda *_: (), raising=False)


def pair(**_: object) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext(SimpleNamespace(one_machine=True, client=HOST, server=HOST))


def order(name: str, form: str, seed: int) -> str:
    """A digest of what an experiment says that it measures next, a line each."""
    chosen = registry.named(name)
    standing = chosen.short if form == "short" else chosen.full
    settings = msgspec.structs.replace(standing, seed=seed, repetitions=2)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        idle(patched)
        experiment.run(chosen, settings, lambda what, index: said.append(f"{index} {what}"), pair)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


@pytest.mark.parametrize("which", RECORDED)
def test_as_recorded(which: str) -> None:
    name, form, seed = which.split()
    assert order(name, form, int(seed)) == RECORDED[which]


def test_every_experiment_is_recorded() -> None:
    missing = set(registry.experiments()) - {which.split()[0] for which in RECORDED}
    assert not missing, "python -P tests/unit/test_seeded_orders.py records them"


def record() -> None:
    """Record the orders of experiments that have none yet."""
    for name in registry.experiments():
        for form in ("short", "full"):
            for seed in (1, 7):
                which = f"{name} {form} {seed}"
                if which not in RECORDED:
                    RECORDED[which] = order(name, form, seed)
                    print(f"{which}: {RECORDED[which]}")
    FILE.write_text(json.dumps(RECORDED, indent=2) + "\n")


if __name__ == "__main__":
    record()
