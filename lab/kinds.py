# SPDX-License-Identifier: Apache-2.0
"""The kinds of experiments: what each has for settings, how it is run, and how a run is shown."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
from rich.console import Console

from carom.converted import converted
from carom.errors import UsageError
from carom.lab import run
from carom.lab.course import Progress
from carom.lab.experiments.bounce_cache import conclusion, grid, plots, tables
from carom.lab.experiments.bounce_cache.grid import Trial
from carom.lab.experiments.contests import contest, contests
from carom.lab.experiments.contests import plots as contest_plots
from carom.lab.experiments.contests import tables as contest_tables
from carom.lab.experiments.filters import grid as filter_grid
from carom.lab.experiments.filters import plots as filter_plots
from carom.lab.experiments.filters import run as filter_run
from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters import tables as filter_tables
from carom.lab.experiments.filters import verdict as filter_verdict
from carom.lab.experiments.filters.model import FilterResults
from carom.lab.experiments.ports import grid as port_grid
from carom.lab.experiments.ports import plots as port_plots
from carom.lab.experiments.ports import run as port_run
from carom.lab.experiments.ports import stats as port_stats
from carom.lab.experiments.ports import tables as port_tables
from carom.lab.experiments.ports import verdict as port_verdict
from carom.lab.experiments.sweeps import grid as sweeps
from carom.lab.experiments.sweeps import plots as sweep_plots
from carom.lab.experiments.sweeps import tables as sweep_tables
from carom.lab.experiments.sweeps import verdict as sweep_verdict
from carom.lab.model import Contest, Results
from carom.lab.needs import Needs
from carom.lab.results import Run
from carom.lab.show import words
from carom.lab.show.sheets import Sheet
from carom.vm.pair import Make


class Kind(NamedTuple):
    """What there is to be done with the experiments of one kind, by their names or by a run."""

    descriptions: dict[str, str]
    standard: Callable[..., Any]
    """The settings that stand where nothing is chosen; `short` are those of the short form."""
    options: Callable[[Any], Sequence[str]]
    """The settings that can be chosen."""
    steps: Callable[[Any, Any], int]
    """How many measurements that will be."""
    needs: Callable[[Any, Any], Needs]
    """What there has to be on a pair."""
    run: Callable[[Any, Any, Progress, Make], Run]
    conclusion: Callable[[Any], list[str]]
    """What a run says, in words."""
    sheets: Callable[[Any], list[Sheet]]
    notes: Callable[[Any], list[str]]
    """What has to be known to read them."""
    plot: Callable[[Any, Path], list[Path]]
    show: Callable[[Any, Console], None]
    """All of it on a terminal, but for the plots."""


def _by_trials(trials: Callable[[Any, Any], list[Trial]]) -> dict[str, Any]:
    """How experiments whose grid is a list of trials are counted and run."""

    def steps(name: str, settings: Any) -> int:
        return len(trials(name, settings)) * int(settings.repetitions)

    def measure(name: str, settings: Any, progress: Progress, make: Make) -> Results:
        return run.run(name, trials(name, settings), settings, make, progress)

    def needs(name: str, settings: Any) -> Needs:
        return Needs(apart=any(one.apart for one in trials(name, settings)))

    return {"steps": steps, "needs": needs, "run": measure}


def _contest_run(name: str, settings: contest.Settings, progress: Progress, make: Make) -> Contest:
    return contest.run(name, contests.CONTESTS[name], settings, progress, make)


def _bars(one: Contest) -> Sequence[contest.Bar]:
    event = contests.CONTESTS.get(one.experiment)
    return event.bars if event else ()


GRID = Kind(
    descriptions=grid.DESCRIPTIONS,
    standard=grid.standard,
    options=grid.options,
    **_by_trials(grid.trials),
    conclusion=conclusion.conclusion,
    sheets=tables.sheets,
    notes=tables.notes,
    plot=plots.plot,
    show=tables.show,
)

PORTS = Kind(
    descriptions=port_grid.DESCRIPTIONS,
    standard=port_grid.standard,
    options=port_grid.options,
    steps=port_grid.steps,
    needs=lambda name, settings: Needs(("cc",) if name == "concurrency" else (), apart=True),
    run=port_run.run,
    conclusion=lambda one: port_verdict.sentences(port_stats.Table(one)),
    sheets=port_tables.sheets,
    notes=lambda one: [port_tables.about(one)],
    plot=port_plots.plot,
    show=port_tables.show,
)

SWEEPS = Kind(
    descriptions=cast(dict[str, str], sweeps.DESCRIPTIONS),
    standard=sweeps.standard,
    options=sweeps.options,
    **_by_trials(sweeps.trials),
    conclusion=sweep_verdict.sentences,
    sheets=sweep_tables.sheets,
    notes=lambda one: [sweep_tables.about(one)],
    plot=sweep_plots.plot,
    show=sweep_tables.show,
)

FILTERS = Kind(
    descriptions=filter_grid.DESCRIPTIONS,
    standard=filter_grid.standard,
    options=filter_grid.options,
    steps=lambda name, settings: filter_grid.total(settings, knee=name != "filter-throughput"),
    needs=lambda name, settings: Needs(apart=True),
    run=filter_run.run,
    conclusion=lambda one: filter_verdict.sentences(filter_stats.grid(one)) or [words.TOO_LITTLE],
    sheets=filter_tables.sheets,
    notes=lambda one: [filter_tables.about(one)],
    plot=filter_plots.plot,
    show=filter_tables.show,
)

CONTESTS = Kind(
    descriptions={name: event.description for name, event in contests.CONTESTS.items()},
    standard=contest.standard,
    options=contest.options,
    steps=lambda name, settings: len(contests.CONTESTS[name].subjects) * settings.repetitions,
    needs=lambda name, settings: Needs(contests.CONTESTS[name].programs, apart=True),
    run=_contest_run,
    conclusion=lambda one: contest_tables.sentences(one, _bars(one)),
    sheets=lambda one: contest_tables.sheets(one, _bars(one)),
    notes=lambda one: [contest_tables.about(one)],
    plot=contest_plots.plot,
    show=lambda one, console: contest_tables.show(one, _bars(one), console),
)

KINDS = (GRID, PORTS, SWEEPS, FILTERS, CONTESTS)

DESCRIPTIONS = {name: text for kind in KINDS for name, text in kind.descriptions.items()}
"""What each experiment is, by its name."""


def named(name: str) -> Kind:
    """The kind of an experiment. Raises UsageError for a name that is none."""
    for kind in KINDS:
        if name in kind.descriptions:
            return kind
    raise UsageError(
        f"there is no experiment {name!r}", hint="there are " + ", ".join(DESCRIPTIONS)
    )


def of(one: Run) -> Kind:
    """The kind of a run; of an experiment that is not known here, by what was recorded."""
    match one:
        case Contest():
            return CONTESTS
        case FilterResults():
            return FILTERS
    others = (kind for kind in (PORTS, SWEEPS) if one.experiment in kind.descriptions)
    return next(others, GRID)


def settings(names: Sequence[str], given: dict[str, Any], *, short: bool) -> dict[str, Any]:
    """The settings of experiments: of those given what each has, over what stands for them.

    Raises UsageError for one that none of them has, or that cannot be.
    """
    options = {name: set(named(name).options(name)) for name in names}
    for strange in sorted(given.keys() - set().union(*options.values())):
        owners = [one for one in DESCRIPTIONS if strange in named(one).options(one)]
        raise UsageError(
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no {_option(strange)}",
            hint=f"{', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it",
        )
    return {
        name: _settings(name, {one: given[one] for one in given.keys() & options[name]}, short)
        for name in names
    }


def needs(plans: dict[str, Any]) -> dict[str, Needs]:
    """What experiments need of a pair, by their settings."""
    return {name: named(name).needs(name, settings) for name, settings in plans.items()}


def _settings(name: str, given: dict[str, Any], short: bool) -> Any:
    standing = named(name).standard(name, short=short)
    kinds = typing.get_type_hints(type(standing))
    for field, value in given.items():
        if isinstance(value, tuple) and not _several(kinds[field]):
            if len(value) != 1:
                raise UsageError(
                    f"{name} takes one of {_option(field)}, not several",
                    hint=f"{_option(field)} {value[0]:g}",
                )
            given = {**given, field: value[0]}
    return converted({**msgspec.to_builtins(standing), **given}, type(standing)).checked()


def _several(kinds: Any) -> bool:
    """Whether a field takes several values."""
    if typing.get_origin(kinds) in (types.UnionType, typing.Union):
        return any(_several(one) for one in typing.get_args(kinds))
    return typing.get_origin(kinds) in (tuple, list)


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")
