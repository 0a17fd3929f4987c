# SPDX-License-Identifier: Apache-2.0
"""A contest as tables, and in words."""

from __future__ import annotations

from collections.abc import Sequence

from carom.lab.experiments.contests.judging import Bar, Judged, figures, judge
from carom.lab.record import Figures, Run
from carom.lab.show import words
from carom.lab.show.sheets import Sheet


def sheets(run: Run[Figures], bars: Sequence[Bar]) -> list[Sheet]:
    """The tables that have rows: the figures, and the result of each comparison."""
    made = _figures(run), _judged(judge(run.measurements, bars))
    return [sheet for sheet in made if sheet.rows]


def sentences(run: Run[Figures], bars: Sequence[Bar]) -> list[str]:
    """The result of each comparison, in words."""
    if not bars:
        return ["Nothing is compared in this contest: its figures are in the table."]
    lines = [_sentence(judged) for judged in judge(run.measurements, bars)]
    return lines or [words.TOO_LITTLE]


def about(run: Run[Figures]) -> str:
    """What a reader has to know to read the tables."""
    return (
        f"{words.repetitions(run.measurements)} "
        f"{words.place(run.environment, run.client_environment)}"
    )


def _sentence(judged: Judged) -> str:
    outcome = {True: ": met", False: ": missed", None: ""}[judged.met]
    asked = f"; asked for {_asked(judged.bar)}{outcome}" if outcome else ""
    return (
        f"{judged.bar.title}: {words.times(judged.ratio.value)} ({words.interval(judged.ratio)}), "
        f"against {judged.against}{asked}."
    )


def _figures(run: Run[Figures]) -> Sheet:
    means = figures(run.measurements)
    names = list(dict.fromkeys(name for by_name in means.values() for name in by_name))
    rows = [
        {
            "subject": subject,
            **{
                name: words.measured(by_name[name], _number) if name in by_name else "-"
                for name in names
            },
        }
        for subject, by_name in means.items()
    ]
    return Sheet("Figures", rows)


def _number(value: float) -> str:
    return words.amount(value) if value >= 1000 else words.times(value)


def _judged(outcomes: Sequence[Judged]) -> Sheet:
    rows = [
        {
            "ratio": judged.bar.title,
            "measured": words.bracket(judged.ratio),
            "asked for": _asked(judged.bar),
            "outcome": {True: "met", False: "missed", None: ""}[judged.met],
            "against": judged.against,
        }
        for judged in outcomes
    ]
    return Sheet("Comparisons", rows)


def _asked(bar: Bar) -> str:
    if bar.at_least is not None:
        return f"≥ {bar.at_least:g}"
    return "" if bar.at_most is None else f"≤ {bar.at_most:g}"
