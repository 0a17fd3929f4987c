# SPDX-License-Identifier: Apache-2.0
"""All experiments: by name, of a run, and with the settings that a command line gives."""

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
    "contests.beside",
)
"""Where in `carom.lab.experiments` an `EXPERIMENT` is, in the order in which they are listed."""

Anything = Experiment[Any, Any]


@functools.cache
def experiments() -> Mapping[str, Anything]:
    """Every experiment by its name."""
    modules = (importlib.import_module(f"carom.lab.experiments.{one}") for one in _MODULES)
    return {one.EXPERIMENT.name: one.EXPERIMENT for one in modules}


def named(name: str) -> Anything:
    """An experiment. Raises UsageError for a name that is none."""
    found = experiments().get(name)
    if found is None:
        raise UsageError(
            f"there is no experiment {name!r}", hint="there are " + ", ".join(experiments())
        )
    return found


def together(names: Iterable[str]) -> list[Anything]:
    """The experiments of these names, each once; one that is several of them stands for these."""
    chosen = [named(name) for name in dict.fromkeys(names)]
    for one in experiments().values():
        if one.replaces and one.replaces <= {other.name for other in chosen}:
            chosen = [one if other.name in one.replaces else other for other in chosen]
    return list(dict.fromkeys(chosen))


def of(run: Run[Any]) -> Shown[Any]:
    """The experiment of a run; of one that is not known here, what shows any that measured so."""
    found = experiments().get(run.experiment)
    if found is not None and run.measured == found.measures.MEASURED:
        return found
    return kinds()[run.measured]


@functools.cache
def kinds() -> Mapping[str, Shown[Any]]:
    """What shows any run that measured so, by the name of what was measured."""
    plain = (ShownRoundTrips(), ShownContest(), ShownFilters())
    return {one.measures.MEASURED: one for one in plain}


def options(chosen: Iterable[Anything]) -> dict[str, Field]:
    """The options of experiments, by name; of one that several have, the first one's."""
    found: dict[str, Field] = {}
    for one in chosen:
        for name, field in fields(type(one.full)).items():
            found.setdefault(name, field)
    return found


def owners(name: str, chosen: Sequence[Anything]) -> str:
    """Whose an option is among some experiments, as the heading of a group of options."""
    names = [one.name for one in chosen if name in fields(type(one.full))]
    if len(names) == len(chosen):
        return "Options of each" if len(chosen) > 1 else f"Options of {names[0]}"
    return f"Options of {', '.join(names)}"


def settings(
    chosen: Sequence[Anything], given: Mapping[str, str | bool], *, short: bool
) -> dict[str, Settings]:
    """The settings of experiments, by name: of those given what each has, over what stands.

    Raises UsageError for one that none of them has, or that cannot be.
    """
    known = options(chosen)
    for strange in sorted(given.keys() - known.keys()):
        owners = [one.name for one in experiments().values() if strange in fields(type(one.full))]
        names = [one.name for one in chosen]
        raise UsageError(
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no "
            f"--{strange.replace('_', '-')}",
            hint=f"{', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it",
        )
    return {one.name: _settings(one, given, short=short) for one in chosen}


def _settings(of: Anything, given: Mapping[str, str | bool], *, short: bool) -> Settings:
    standing = of.short if short else of.full
    known = fields(type(standing))
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name)
        if field and isinstance(value, str) and "," in value and not field.several:
            raise UsageError(
                f"{of.name} takes one of {field.flag}, not several", hint=field.example
            )
        if field:
            values[name] = field.read(value) if isinstance(value, str) else value
    found: Settings = converted({**msgspec.to_builtins(standing), **values}, type(standing))
    return found.checked()
