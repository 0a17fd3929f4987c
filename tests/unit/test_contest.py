# SPDX-License-Identifier: Apache-2.0
"""A contest's comparisons: paired by round, against the best, and with what is asked of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from carom.errors import UsageError
from carom.lab import registry, shown
from carom.lab import results as storage
from carom.lab.experiments.contests.contest import Contest, KeySettings, ShownContest
from carom.lab.experiments.contests.judging import Bar, figures, judge
from carom.lab.record import Figures, Run
from unit.fake_contests import held

RATE, CPU, TIME = "replies/s", "replies/CPU-s", "p50, µs"
RIVALS = ("slow", "slower")


@pytest.fixture
def contest() -> Run[Figures]:
    """Rounds differ by a factor, which pairing takes out."""
    return held(
        *(
            (name, index, {RATE: factor * rate, CPU: rate, TIME: 1000 / rate})
            for index, factor in enumerate((1, 3, 2))
            for name, rate in (("fast", 800.0), ("slow", 100.0), ("slower", 50.0))
        )
    )


@pytest.mark.parametrize("figure", [RATE, CPU])
def test_against_the_best_rival(contest: Run[Figures], figure: str) -> None:
    (found,) = judge(contest.measurements, [Bar("", figure, "fast", RIVALS, at_least=7.9)])
    assert found.against == "slow"
    assert tuple(found.ratio) == pytest.approx((8, 8, 8))
    assert found.met


def test_the_best_time_is_the_shortest(contest: Run[Figures]) -> None:
    (found,) = judge(contest.measurements, [Bar("", TIME, "fast", RIVALS, at_most=0.124)])
    assert found.against == "slow"
    assert found.ratio.value == pytest.approx(0.125)
    assert found.met is False


def test_what_is_not_asked_is_not_judged(contest: Run[Figures]) -> None:
    (found,) = judge(contest.measurements, [Bar("", RATE, "fast", ("slow",))])
    assert found.met is None


def test_rounds_that_one_side_lacks_do_not_count() -> None:
    contest = held(("fast", 0, {RATE: 10.0}), ("fast", 1, {RATE: 99.0}), ("slow", 0, {RATE: 5.0}))
    (found,) = judge(contest.measurements, [Bar("", RATE, "fast", ("slow",))])
    assert found.ratio.value == pytest.approx(2)


def test_a_subject_that_was_not_measured_is_left_out(contest: Run[Figures]) -> None:
    assert not judge(
        contest.measurements, [Bar("", RATE, "fast", ("absent",)), Bar("", RATE, "no", RIVALS)]
    )


def test_means(contest: Run[Figures]) -> None:
    assert figures(contest.measurements)["slow"][RATE].value == pytest.approx(200)


def test_the_tables_say_it(contest: Run[Figures]) -> None:
    said = io.StringIO()
    console = Console(width=120, file=said)
    judged = ShownContest()
    judged.bars = (
        Bar("hits by userspace", CPU, "fast", RIVALS, at_least=9),
        Bar("time", TIME, "fast", ("slow",), at_most=0.2),
    )
    shown.show(judged, contest, console)
    lines = [line.split() for line in said.getvalue().splitlines()]
    assert ["hits", "by", "userspace", "8.00", "(8.00-8.00)", "≥", "9", "missed", "slow"] in lines
    assert ["time", "0.13", "(0.13-0.13)", "≤", "0.2", "met", "slow"] in lines


def test_on_disk(contest: Run[Figures], tmp_path: Path) -> None:
    folder = storage.write(contest, tmp_path)
    assert json.loads((folder / "results.json").read_text())["experiment"] == "load"
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 27
    first = {"subject": "fast", "repetition": "0", "figure": RATE, "value": "800.0"}
    assert rows[0] == {"experiment": "load", **first}


@pytest.mark.parametrize(
    ("wrong", "said"), [({"repetitions": 0}, "rep"), ({"seconds": 0}, "sec"), ({"keys": 0}, "keys")]
)
def test_wrong_settings(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        KeySettings(**wrong).checked()


def test_every_bar_is_about_subjects_of_its_contest() -> None:
    contests = [one for one in registry.experiments().values() if isinstance(one, Contest)]
    assert len(contests) == 4
    for one in contests:
        names = {subject.name for subject in one.subjects}
        assert len(names) == len(one.subjects)
        for bar in one.bars:
            assert {bar.over, *bar.under} <= names
