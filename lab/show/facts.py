# SPDX-License-Identifier: Apache-2.0
"""The settings and the environment of runs, as names and texts, and how runs differ in these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from carom.lab.record import Environment, Run

ABSENT = "-"
_PLAIN = {"memory_bytes": "memory", "cpus": "CPUs", "cpu": "CPU"}


class Difference(NamedTuple):
    """A fact in which runs differ, and its text in each run."""

    name: str
    values: tuple[str, ...]


def environment(run: Run[Any]) -> dict[str, str]:
    """What a run was measured on, without the load, which always differs.

    Of a client on another machine: only what differs from the server.
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
    """The settings of a run, with its seed."""
    return _flat({"seed": run.seed, **run.settings})


def differences(facts: Sequence[Mapping[str, str]]) -> list[Difference]:
    """The facts that are not the same in all runs."""
    names = dict.fromkeys(name for values in facts for name in values)
    compared = (
        Difference(name, tuple(values.get(name, ABSENT) for values in facts)) for name in names
    )
    return [difference for difference in compared if len(set(difference.values)) > 1]


def warnings(run: Run[Any]) -> list[str]:
    """What makes the figures of a run doubtful."""
    doubts = []
    if not run.complete:
        why = f"stopped: {run.stopped}. It" if run.stopped else "interrupted: it"
        doubts.append(f"The run was {why} has what was measured until then.")
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
