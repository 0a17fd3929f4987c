# SPDX-License-Identifier: Apache-2.0
"""What a run was made with and on, as names and texts, and where runs differ in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from carom.lab.record import Environment, Run

ABSENT = "-"
_PLAIN = {"memory_bytes": "memory", "cpus": "CPUs", "cpu": "CPU"}


class Difference(NamedTuple):
    """A fact, and what it is in each of the runs that differ in it."""

    name: str
    values: tuple[str, ...]


def environment(run: Run[Any]) -> dict[str, str]:
    """What a run was measured on; without the load, which is never twice the same.

    Of a client that is another machine than the server, what differs.
    """
    facts = _of(run.environment)
    if run.client_environment is not None:
        client = _of(run.client_environment)
        others = {name: value for name, value in client.items() if facts.get(name) != value}
        facts |= {f"client: {name}": value for name, value in others.items()}
    return facts


def _of(environment: Environment) -> dict[str, str]:
    facts = msgspec.to_builtins(environment)
    facts.pop("load_average")
    facts["memory_bytes"] = f"{environment.memory_bytes / 2**30:.1f} GiB"
    return _flat(facts)


def settings(run: Run[Any]) -> dict[str, str]:
    """What a run was asked for."""
    return _flat({"seed": run.seed, **run.settings})


def differences(facts: Sequence[Mapping[str, str]]) -> list[Difference]:
    """The facts that are not the same in all."""
    names = dict.fromkeys(name for values in facts for name in values)
    compared = (
        Difference(name, tuple(values.get(name, ABSENT) for values in facts)) for name in names
    )
    return [difference for difference in compared if len(set(difference.values)) > 1]


def warnings(run: Run[Any]) -> list[str]:
    """What makes a run's figures doubtful by themselves."""
    doubts = []
    if not run.complete:
        why = f"stopped: {run.stopped}. This" if run.stopped else "interrupted: this"
        doubts.append(f"It was {why} is what it had measured until then.")
    load, cpus = run.environment.load_average[0], run.environment.cpus
    if load > cpus:
        doubts.append(f"The machine was busy when it started: a load of {load:.1f} on {cpus} CPUs.")
    return doubts


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in facts.items():
        name = _PLAIN.get(name, name.replace("_", " "))
        if isinstance(value, dict):
            flat.update(
                {f"{name}: {inner}": _text(inner_value) for inner, inner_value in value.items()}
            )
        else:
            flat[name] = _text(value)
    return flat


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return str(value)
