# SPDX-License-Identifier: Apache-2.0
"""A contest as tables, and in words."""

from __future__ import annotations

from collections.abc import Sequence

from carom.lab.experiments.contests.judging import Bar, Judged, figures, judge
from carom.lab.record import Figures, Run
from carom.lab.show import words
from carom.lab.show.sheets import Sheet


def sheets(run: Run[Figures], bars: Sequence[Bar]) -> list[Sheet]:
    """What was measured, and what came of each comparison: those that have rows."""
    made = _figures(run), _judged(judge(run.measurements, bars))
    return [one for one in made if one.rows]


def sentences(run: Run[Figures], bars: Sequence[Bar]) -> list[str]:
    """What came of each comparison, in words."""
    if not bars:
        return ["Nothing is compared in this contest: its figures are in the table."]
    said = [_sentence(one) for one in judge(run.measurements, bars)]
    return said or [words.TOO_LITTLE]


def about(run: Run[Figures]) -> str:
    """What a reader has to know to read the tables."""
    return (
        f"{words.repetitions(run.measurements)} "
        f"{words.place(run.environment, run.client_environment)}"
    )


def _sentence(one: Judged) -> str:
    outcome = {True: ": met", False: ": missed", None: ""}[one.met]
    asked = f"; asked for {_asked(one.bar)}{outcome}" if outcome else ""
    return (
        f"{one.bar.title}: {words.times(one.ratio.value)} ({words.interval(one.ratio)}), "
        f"against {one.against}{asked}."
    )


def _figures(run: Run[Figures]) -> Sheet:
    means = figures(run.measurements)
    names = list(dict.fromkeys(name for one in means.values() for name in one))
    rows = [
        {
            "subject": subject,
            **{
                name: words.measured(found[name], _number) if name in found else "-"
                for name in names
            },
        }
        for subject, found in means.items()
    ]
    return Sheet("What was measured", rows)


def _number(value: float) -> str:
    return words.amount(value) if value >= 1000 else words.times(value)


def _judged(judged: Sequence[Judged]) -> Sheet:
    rows = [
        {
            "ratio": one.bar.title,
            "measured": words.bracket(one.ratio),
            "asked for": _asked(one.bar),
            "outcome": {True: "met", False: "missed", None: ""}[one.met],
            "against": one.against,
        }
        for one in judged
    ]
    return Sheet("What came of it", rows)


def _asked(bar: Bar) -> str:
    if bar.at_least is not None:
        return f"≥ {bar.at_least:g}"
    return "" if bar.at_most is None else f"≤ {bar.at_most:g}"
