# SPDX-License-Identifier: Apache-2.0
"""Two runs of one experiment, figure by figure: is the second faster, slower, or neither?

The repetitions of the two runs are compared. They cannot be paired by round, because the runs were
made at different times: a change of the machine between them is in the ratio, and in no interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from carom.errors import ExperimentError, UsageError
from carom.lab import registry
from carom.lab.record import Run
from carom.lab.show import facts, words
from carom.lab.show.sheets import Row, Sheet
from carom.lab.stats.cases import Case
from carom.lab.stats.estimates import CONFIDENCE, Estimate, Ranks, independent_ratio, ranks

THRESHOLD = 0.05
ENOUGH = 4
"""How many repetitions of each run ranks need to show anything: with 3, p is never below 0.1."""

NO_DIFFERENCE = "no difference shown"
TOO_FEW = "too few repetitions to tell"
TOO_SHORT = "too short to tell"


Values = dict[Case, list[float]]
"""The value of each repetition."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one case; `ratio` is that of the geometric means, B's over A's."""

    cell: str
    figure: str
    larger_is_better: bool
    a: float
    b: float
    repetitions_a: int
    repetitions_b: int
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    """Mann and Whitney's, two-sided."""
    effect: float | None
    """Cliff's delta: -1 where all of B's are below all of A's, 1 where all are above."""
    verdict: str
    side: int
    """1 where B is shown to be better, -1 where worse, else 0."""
    beyond: bool
    """Whether B is worse by more than the threshold."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs compared: a verdict in words, warnings, and the outcome of each case."""

    experiment: str
    threshold: float
    verdict: str
    warnings: list[str]
    outcomes: list[Outcome]

    @property
    def tells(self) -> bool:
        """Whether there are enough repetitions, and long enough ones, to tell anything."""
        return any(one.verdict not in (TOO_FEW, TOO_SHORT) for one in self.outcomes)

    @property
    def worse(self) -> bool:
        """Whether anything is worse by more than the threshold."""
        return any(outcome.beyond for outcome in self.outcomes)


def compare(a: Run[Any], b: Run[Any], threshold: float = THRESHOLD) -> Comparison:
    """Compare each figure that both runs have.

    UsageError if they are of different experiments; ExperimentError if they have no cell in
    common.
    """
    if (a.experiment, a.measured) != (b.experiment, b.measured):
        raise UsageError(
            f"A is a run of {a.experiment}, B of {b.experiment}",
            hint="compare two runs of one experiment",
        )
    first, second = values(a), values(b)
    common = [case for case in first if case in second]
    if not common:
        raise ExperimentError(
            "the two runs have no cell in common", hint="run both with the same settings"
        )
    outcomes = [
        _outcome(case, first[case], second[case], threshold)
        for case in common
        if not (case.share and set(first[case]) == set(second[case]) == {1})  # nothing was lost
    ]
    return Comparison(
        experiment=a.experiment,
        threshold=threshold,
        verdict=verdict(outcomes, threshold),
        warnings=[*_warnings(a, b), *_missing("A", first, second), *_missing("B", second, first)],
        outcomes=outcomes,
    )


def values(run: Run[Any]) -> Values:
    """The value of each repetition of each case, in order of display."""
    cases: Values = {}
    for case, value in registry.of(run).cases(run):
        cases.setdefault(case, []).append(value)
    return cases


def _outcome(case: Case, a: Sequence[float], b: Sequence[float], threshold: float) -> Outcome:
    ratio: Estimate | None = None
    ranked: Ranks | None = None
    if min(*a, *b) > 0:
        ratio, ranked = independent_ratio(b, a), ranks(a, b)
    enough = min(len(a), len(b)) >= ENOUGH
    side = 0
    if ratio and ranked and enough and ranked.p < 1 - CONFIDENCE:
        side = _side(ratio) * (1 if case.larger_is_better else -1)
    judged = {1: case.words[0], -1: case.words[1], 0: NO_DIFFERENCE if enough else TOO_FEW}[side]
    change = (1 / ratio.value if case.larger_is_better else ratio.value) if ratio else 1.0
    return Outcome(
        cell=case.cell,
        figure=case.figure,
        larger_is_better=case.larger_is_better,
        a=sum(a) / len(a),
        b=sum(b) / len(b),
        repetitions_a=len(a),
        repetitions_b=len(b),
        ratio=ratio.value if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        p=ranked.p if ranked else None,
        effect=ranked.delta if ranked else None,
        verdict=judged if ratio else TOO_SHORT,
        side=side,
        beyond=side < 0 and change > 1 + threshold,
    )


def _side(ratio: Estimate) -> int:
    """1 or -1 where the whole interval is above or below 1."""
    if ratio.low is None or ratio.high is None:
        return 0
    return int(ratio.low > 1) - int(ratio.high < 1)


def verdict(outcomes: Sequence[Outcome], threshold: float) -> str:
    """All outcomes summed up in words."""
    beyond = [outcome for outcome in outcomes if outcome.beyond]
    counts = {
        "better": sum(outcome.side > 0 for outcome in outcomes),
        "worse by less": sum(outcome.side < 0 and not outcome.beyond for outcome in outcomes),
        NO_DIFFERENCE: sum(outcome.verdict == NO_DIFFERENCE for outcome in outcomes),
        TOO_FEW: sum(outcome.verdict == TOO_FEW for outcome in outcomes),
        TOO_SHORT: sum(outcome.verdict == TOO_SHORT for outcome in outcomes),
    }
    rest = ", ".join(f"{name} in {count}" for name, count in counts.items() if count)
    limit = words.percent(threshold)
    text = f"Of {len(outcomes)} figures B is worse by more than {limit} in {len(beyond)}"
    if beyond:
        worst = max(beyond, key=lambda outcome: max(outcome.ratio or 1, 1 / (outcome.ratio or 1)))
        text += f" (most: {worst.cell}, {worst.figure}, {_ratio(worst)})"
    text += f"{'; ' if rest else ''}{rest}."
    if len(outcomes) > 2 and abs(sum(outcome.side for outcome in outcomes)) == len(outcomes):
        text += " All changed the same way: perhaps the machine did."
    return text


def _warnings(a: Run[Any], b: Run[Any]) -> list[str]:
    """What makes the comparison doubtful."""
    doubts = [
        f"{name} differs: {value_a} in A, {value_b} in B"
        for kind in (facts.environment, facts.settings)
        for name, (value_a, value_b) in facts.differences([kind(a), kind(b)])
    ]
    doubts += [
        f"{name}: {line}" for name, run in (("A", a), ("B", b)) for line in facts.warnings(run)
    ]
    if b.started < a.started:
        doubts.append("B is older than A: are they named in the right order?")
    return doubts


def _missing(name: str, ours: Values, theirs: Values) -> list[str]:
    cells = list(dict.fromkeys(case.cell for case in ours))
    absent = [cell for cell in cells if cell not in {case.cell for case in theirs}]
    return [f"only {name} has {_list(absent)}"] if absent else []


def _list(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more" if rest > 0 else "")


def sheet(outcomes: Iterable[Outcome]) -> Sheet:
    """The outcomes as a table."""
    rows: list[Row] = [
        {
            "cell": outcome.cell,
            "figure": outcome.figure,
            "A": _amount(outcome.a),
            "B": _amount(outcome.b),
            "B / A": _ratio(outcome),
            "effect": "-" if outcome.effect is None else f"{outcome.effect:+.2f}",
            "verdict": f"{outcome.verdict}{' !' if outcome.beyond else ''}",
        }
        for outcome in outcomes
    ]
    return Sheet("", rows, names=2)


def _ratio(outcome: Outcome) -> str:
    return words.bracket(
        None if outcome.ratio is None else Estimate(outcome.ratio, outcome.low, outcome.high)
    )


def _amount(value: float) -> str:
    if value >= 1000:
        return words.amount(value)
    return words.times(value) if value >= 1 else f"{value:.3g}"
