# SPDX-License-Identifier: Apache-2.0
"""All experiments: found by name or by a run, and their settings from a command line."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from carom.converted import converted
from carom.errors import UsageError
from carom.lab.experiment import Experiment, Settings
from carom.lab.experiments.contests.contest import ShownContest
from carom.lab.experiments.filters.filtering import ShownFilters
from carom.lab.record import Run
from carom.lab.round_trips import ShownRoundTrips
from carom.lab.shown import Shown
from carom.settings import Field, fields

_MODULES = (
    "bounce_cache.bounce",
    "bounce_cache.cache",
    "ports.concurrency",
    "ports.demux",
    "sweeps.hooks",
    "sweeps.sizes",
    "sweeps.clients",
    "sweeps.knee",
    "sweeps.minutes",
    "filters.throughput",
    "filters.loss",
    "filters.both",
    "contests.load",
    "contests.memcached",
    "contests.nsd",
    "contests.beside",
    "contests.interference",
)
"""The modules of `carom.lab.experiments` that have an `EXPERIMENT`, in the order of the list."""

Anything = Experiment[Any, Any]


@functools.cache
def experiments() -> Mapping[str, Anything]:
    """Every experiment by its name."""
    modules = (importlib.import_module(f"carom.lab.experiments.{path}") for path in _MODULES)
    return {module.EXPERIMENT.name: module.EXPERIMENT for module in modules}


def named(name: str) -> Anything:
    """The experiment of this name. Raises UsageError if there is none."""
    experiment = experiments().get(name)
    if experiment is None:
        raise UsageError(
            f"there is no experiment {name!r}", hint="there are " + ", ".join(experiments())
        )
    return experiment


def together(names: Iterable[str]) -> list[Anything]:
    """The experiments of these names, without repeats; one may replace several others."""
    chosen = [named(name) for name in dict.fromkeys(names)]
    for whole in experiments().values():
        if whole.replaces and whole.replaces <= {other.name for other in chosen}:
            chosen = [whole if other.name in whole.replaces else other for other in chosen]
    return list(dict.fromkeys(chosen))


def of(run: Run[Any]) -> Shown[Any]:
    """What shows a run: its experiment, or for an unknown experiment what shows its kind of run."""
    experiment = experiments().get(run.experiment)
    if experiment is not None and run.measured == experiment.measures.MEASURED:
        return experiment
    return kinds()[run.measured]


@functools.cache
def kinds() -> Mapping[str, Shown[Any]]:
    """What shows any run of a kind, by the kind's name (`MEASURED`)."""
    plain = (ShownRoundTrips(), ShownContest(), ShownFilters())
    every = (*experiments().values(), *plain)  # an experiment may have a record of its own
    return {shown.measures.MEASURED: shown for shown in every}


def options(chosen: Iterable[Anything]) -> dict[str, Field]:
    """The options of experiments by name; where several have one, the first experiment's."""
    known: dict[str, Field] = {}
    for experiment in chosen:
        for name, field in fields(type(experiment.full)).items():
            known.setdefault(name, field)
    return known


def _owners(name: str, among: Iterable[Anything]) -> list[str]:
    """The names of the experiments that have an option."""
    return [experiment.name for experiment in among if name in fields(type(experiment.full))]


def owners(name: str, chosen: Sequence[Anything]) -> str:
    """The heading of a group of options: which of these experiments have it."""
    names = _owners(name, chosen)
    if len(names) == len(chosen):
        return "Options of each" if len(chosen) > 1 else f"Options of {names[0]}"
    return f"Options of {', '.join(names)}"


def settings(
    chosen: Sequence[Anything], given: Mapping[str, str | bool], *, short: bool
) -> dict[str, Settings]:
    """The settings of experiments by name: the defaults, and the given ones that each has.

    Raises UsageError for a setting that none of them has, or a value that is not allowed.
    """
    known = options(chosen)
    for strange in sorted(given.keys() - known.keys()):
        having = _owners(strange, experiments().values())
        names = [experiment.name for experiment in chosen]
        raise UsageError(
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no "
            f"--{strange.replace('_', '-')}",
            hint=f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it",
        )
    return {experiment.name: _settings(experiment, given, short=short) for experiment in chosen}


def _settings(experiment: Anything, given: Mapping[str, str | bool], *, short: bool) -> Settings:
    defaults = experiment.short if short else experiment.full
    known = fields(type(defaults))
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name)
        if field and isinstance(value, str) and "," in value and not field.several:
            raise UsageError(
                f"{experiment.name} takes one of {field.flag}, not several", hint=field.example
            )
        if field:
            values[name] = field.read(value) if isinstance(value, str) else value
    result: Settings = converted({**msgspec.to_builtins(defaults), **values}, type(defaults))
    return result.checked()
