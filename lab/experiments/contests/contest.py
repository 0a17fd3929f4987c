# SPDX-License-Identifier: Apache-2.0
"""Contests: several subjects measured at the same task, in interleaved rounds, and compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from carom.errors import UsageError
from carom.lab import limits
from carom.lab.course import CPUs, course, environments, head, now
from carom.lab.hosts.agent import Agent
from carom.lab.model import Contest, Measurement
from carom.lab.stats.estimates import Estimate, mean, ratio
from carom.vm.netns import NamespacePair
from carom.vm.pair import Make, Pair

PORT = 51141


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a contest is run: `seconds` is how long each measurement lasts."""

    repetitions: int = 7
    seconds: float = 2.0
    keys: int = 1000
    seed: int = 1

    def checked(self) -> Settings:
        """The same settings. Raises UsageError that names the first wrong one."""
        limits.check(self.repetitions, self.seconds)
        if not 1 <= self.keys <= 10_000:
            raise UsageError(f"keys {self.keys} is out of range", hint="1 to 10000")
        return self


def options(name: str) -> tuple[str, ...]:
    """The settings that can be chosen for a contest."""
    return (*(("keys",) if name != "beside" else ()), "repetitions", "seconds", "seed")


def standard(name: str, *, short: bool) -> Settings:
    """What stands where nothing else is chosen."""
    return Settings(repetitions=3, seconds=1.0) if short else Settings()


class Ground(NamedTuple):
    """What a contest is held on: a pair, an agent on either host, and a CPU for each."""

    pair: Pair
    client: Agent
    server: Agent
    client_cpu: int
    server_cpu: int
    settings: Settings


class Subject(NamedTuple):
    """What is measured: sets itself up, measures, and takes all away again."""

    name: str
    measure: Callable[[Ground], dict[str, float]]


class Bar(NamedTuple):
    """A comparison of one figure: that of the first of `over` by that of the best of `under`."""

    title: str
    figure: str
    over: str
    under: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None


class Event(NamedTuple):
    """A contest: who takes part, on what ground, and what is asked of the outcome."""

    description: str
    subjects: tuple[Subject, ...]
    bars: tuple[Bar, ...]
    prepare: Callable[[Ground], None] = lambda ground: None
    bare: bool = True
    """Whether the pair comes without a program on the client's end."""
    programs: tuple[str, ...] = ()
    """What has to be installed on the server's host."""


class Judged(NamedTuple):
    """A bar, whom it was measured against, and what came of it."""

    bar: Bar
    against: str
    ratio: Estimate

    @property
    def met(self) -> bool | None:
        """Whether the ratio itself reaches what is asked; None where nothing is."""
        low, high = self.bar.at_least, self.bar.at_most
        if low is None and high is None:
            return None
        return (low is None or self.ratio.value >= low) and (
            high is None or self.ratio.value <= high
        )


def run(
    name: str,
    event: Event,
    settings: Settings,
    progress: Callable[[str, int], None],
    make_pair: Make = NamespacePair,
) -> Contest:
    """Measure every subject in every round, each round in an order of its own.

    Ctrl-C, or a host that is lost, keeps what was done. Raises CaromError.
    """
    started = now()
    order = random.Random(settings.checked().seed)
    measurements: list[Measurement] = []
    with ExitStack() as stack:
        pair = stack.enter_context(make_pair(bare=event.bare))
        client, server = (stack.enter_context(Agent(host)) for host in (pair.client, pair.server))
        cpus = CPUs.of(pair, client, server).apart()
        ground = Ground(pair, client, server, *cpus, settings)
        where = environments(pair, client, server)
        event.prepare(ground)
        with course() as going:
            for index in range(settings.repetitions):
                for subject in order.sample(event.subjects, len(event.subjects)):
                    if subject.name in going.left_out:
                        continue
                    progress(subject.name, index)
                    with going.unless_refused(subject.name):
                        found = subject.measure(ground)
                        measurements.append(
                            Measurement(subject=subject.name, index=index, figures=found)
                        )
    return Contest(**head(name, settings, started, where, going), measurements=measurements)


def figures(contest: Contest) -> dict[str, dict[str, Estimate]]:
    """The mean of each figure of each subject, with its interval; subjects by name."""
    subjects = sorted({one.subject for one in contest.measurements})
    return {
        subject: {
            figure: mean(list(values.values())) for figure, values in _of(contest, subject).items()
        }
        for subject in subjects
    }


def judge(contest: Contest, bars: Sequence[Bar]) -> list[Judged]:
    """What came of each bar whose subjects were measured: ratios are paired by round."""
    means = figures(contest)
    found = []
    for bar in bars:
        rivals = [one for one in bar.under if bar.figure in means.get(one, {})]
        if bar.figure not in means.get(bar.over, {}) or not rivals:
            continue
        best = max if larger_is_better(bar.figure) else min
        against = best(rivals, key=lambda one: means[one][bar.figure].value)
        ours, theirs = (_of(contest, one)[bar.figure] for one in (bar.over, against))
        rounds = sorted(ours.keys() & theirs.keys())
        if rounds:
            of = ratio([ours[n] for n in rounds], [theirs[n] for n in rounds])
            found.append(Judged(bar, against, of))
    return found


def _of(contest: Contest, subject: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for one in contest.measurements:
        for figure, value in one.figures.items():
            if one.subject == subject:
                found.setdefault(figure, {})[one.index] = value
    return found


def larger_is_better(figure: str) -> bool:
    """Whether a figure is a rate, and not a time."""
    return figure.endswith(("/s", "-s"))
