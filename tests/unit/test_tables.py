# SPDX-License-Identifier: Apache-2.0
"""Tables fit their terminal and show the figures; the conclusion says which way they fall."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from carom.lab import registry
from carom.lab.experiments.bounce_cache.conclusion import conclusion
from carom.lab.record import Cell, Repetition, Run
from carom.lab.show import words
from carom.lab.shown import show
from carom.lab.stats.estimates import summarise
from unit import fake_results as fake


def shown(results: Run[Repetition], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        show(registry.of(results), results, console)
    return captured.get()


@pytest.fixture(scope="module")
def bounce() -> Run[Repetition]:
    return fake.run("bounce", fake.bounce_cells())


@pytest.fixture(scope="module")
def cache() -> Run[Repetition]:
    return fake.run("cache", fake.cache_cells())


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("full", [False, True])
def test_tables_fit_and_cut_nothing_off(width: int, full: bool) -> None:
    seconds = (15.0, 30.0, 45.0, 60.0) if full else (None,)
    for results in (
        fake.run("bounce", fake.bounce_cells(seconds), repetitions=2),
        fake.run("cache", fake.cache_cells(full=full), repetitions=2),
    ):
        text = shown(results, width)
        assert "…" not in text
        assert max(len(line) for line in text.splitlines()) <= width


def test_every_figure_of_a_cell_is_in_its_row(bounce: Run[Repetition]) -> None:
    lines = shown(bounce, 100).splitlines()
    spin = [line.split() for line in lines if " spin " in line]
    one = {(one.cell.series, one.cell.wait): one for one in summarise(bounce.measurements)}[
        "xdp", "spin"
    ]
    figures = (one.p50.value, one.p50.margin, one.p90.value, one.p99.value, one.p999.value)
    times = [words.micro(ns) for ns in (*figures, one.mean.value, one.stddev.value)]
    assert spin[1] == ["spin", *times, "6,000", "0", words.amount(one.rate.value)]


@pytest.mark.parametrize(
    ("ns", "us"), [(7_123, "7.12"), (123_456, "123.5"), (2_071_400, "2,071"), (math.nan, "-")]
)
def test_nanoseconds_are_shown_as_microseconds(ns: float, us: str) -> None:
    assert words.micro(ns) == us


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_431, "9,431"), (14_230, "14.2k"), (128_400, "128k"), (1_234_000, "1.23M")],
)
def test_large_amounts_are_shortened(number: float, text: str) -> None:
    assert words.amount(number) == text


@pytest.mark.parametrize("width", [80, 100])
def test_labels_and_comparisons_are_there(cache: Run[Repetition], width: int) -> None:
    text = shown(cache, width)
    for label in ("userspace cache", "XDP cache", "XDP+userspace", "miss and fill", "37.5 %",
                  "p50", "p99.9", "lost", "replies/s", "vs fastest", "published", "break-even",
                  "blocking*", "* includes this machine's idle wake-up"):  # fmt: skip
        assert label in text
    hits = next(line for line in text.splitlines() if "100 %" in line and "1.18" in line)
    assert "(" in hits, "an interval of the ratio"
    assert ("stddev" in text.split("replies/s")[0]) == (width == 100)


def test_one_repetition_shows_no_interval() -> None:
    text = shown(fake.run("bounce", fake.bounce_cells(), repetitions=1), 100)
    assert "One repetition: no intervals." in text
    assert "one repetition: no interval" in text
    assert "±" in text and "nan" not in text.lower()


def test_an_interrupted_run_shows_what_it_has() -> None:
    cells = [Cell(series="xdp", wait="spin")]
    text = shown(fake.run("bounce", cells, complete=False), 80)
    assert "Too little was measured to compare anything." in text


def test_nothing_measured_is_shown_without_a_table() -> None:
    assert "Too little was measured" in shown(fake.run("cache", [], complete=False), 80)


def test_a_cell_without_a_reply_shows_no_time() -> None:
    results = fake.run("bounce", [Cell(series="userspace", wait="spin")])
    results.measurements.append(fake.repetition(Cell(series="xdp", wait="spin"), 0, n=0))
    row = next(line for line in shown(results, 100).splitlines() if line.startswith("XDP"))
    assert row.split()[:4] == ["XDP", "spin", "-", "-"]


def test_the_conclusion_leads_with_the_fastest_userspace(bounce: Run[Repetition]) -> None:
    first, second = conclusion(bounce)
    assert "fastest userspace server (spin)" in first
    assert "1.7" in first and "95 % interval" in first
    assert "idle wake-up" in second and "published 1.19" in second


def test_the_conclusion_says_what_a_miss_costs_and_when_it_pays(cache: Run[Repetition]) -> None:
    *_, last = conclusion(cache)
    assert last.startswith("A miss takes 1.0")
    assert "the cache pays above a hit rate of" in last


@pytest.mark.parametrize(
    ("xdp_us", "says"),
    [
        (12.0, r"µs: no difference shown, (0\.99|1\.0\d) times"),
        (15.0, r"µs: slower, 0\.(79|80|81) times as fast"),
        (6.0, r"µs: (1\.9\d|2\.0\d) times as fast"),
    ],
)
def test_the_conclusion_is_honest_whichever_way_it_falls(
    xdp_us: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "XDP_US", dict.fromkeys(fake.WAITS, xdp_us))
    cells = [Cell(series=series, wait="spin") for series in ("userspace", "xdp")]
    first, *_ = conclusion(fake.run("bounce", cells, repetitions=6))
    assert re.search(says, first)


@pytest.mark.parametrize(
    ("no_hook", "hit", "miss", "says"),
    [
        (12.0, 7.0, 13.0, "pays above a hit rate of 1"),
        (13.0, 7.0, 12.0, "pays at any hit rate"),
        (12.0, 14.0, 13.0, "pays at no hit rate"),
    ],
)
def test_break_even_in_words(
    no_hook: float, hit: float, miss: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"no_hook": no_hook, "xdp_hit": hit, "miss_and_fill": miss}
    monkeypatch.setattr(fake, "median_us", lambda cell, _: times[cell.series])
    cells = [Cell(series=series, wait="spin") for series in times]
    (said,) = conclusion(fake.run("cache", cells))
    assert says in said


def test_the_same_wait_is_no_second_comparison() -> None:
    cells = [Cell(series=series, wait="blocking") for series in ("userspace", "xdp")]
    _, second = conclusion(fake.run("bounce", cells))
    assert second.startswith("That is against a server that blocks, and includes")
