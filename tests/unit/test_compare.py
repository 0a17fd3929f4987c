# SPDX-License-Identifier: Apache-2.0
"""Two runs compared: what is slower is called so, what cannot be told is not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from carom.errors import ExperimentError, UsageError
from carom.lab import compare as comparing
from carom.lab import results as storage
from carom.lab.compare import Comparison, Outcome, compare
from carom.lab.experiments.filters.model import FilterRun
from carom.lab.record import Cell, Repetition, Run
from carom.lab.show.sheets import drawn
from carom.lab.stats.estimates import independent_ratio, ranks
from unit import fake_contests, fake_filters
from unit import fake_results as fake
from unit.test_cli import carom

CELLS = [Cell(series=series, wait="spin", size=32) for series in ("userspace", "xdp")]
Slow = Callable[[float], None]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Makes XDP take so many times as long from here on."""
    before = dict(fake.XDP_US)

    def change(factor: float) -> None:
        times = {wait: factor * time for wait, time in before.items()}
        monkeypatch.setattr(fake, "XDP_US", times)

    return change


def bounce(repetitions: int = 6) -> Run[Repetition]:
    return fake.run("bounce", CELLS, repetitions=repetitions)


def both(
    slow: Slow, factor: float, repetitions: int = 6
) -> tuple[Run[Repetition], Run[Repetition]]:
    """Two runs, XDP in the second so many times as slow."""
    slow(1.0)
    first = bounce(repetitions)
    slow(factor)
    return first, bounce(repetitions)


def of(found: Comparison, cell: str, figure: str = "") -> Outcome:
    (one,) = [one for one in found.outcomes if one.cell.startswith(cell) and figure in one.figure]
    return one


def test_slower_beyond_the_threshold(slow: Slow) -> None:
    found = compare(*both(slow, 1.2))
    xdp, userspace = of(found, "XDP"), of(found, "userspace")
    assert xdp.verdict == "slower" and xdp.beyond and xdp.side == -1
    assert xdp.ratio == pytest.approx(1.2, rel=0.01)
    assert xdp.low is not None and 1 < xdp.low <= xdp.ratio <= (xdp.high or 0)
    assert xdp.effect == 1 and xdp.p is not None and xdp.p < 0.01
    assert userspace.verdict == "no difference shown" and not userspace.beyond
    assert found.worse
    assert "worse by more than 5 % in 1 (most: XDP, spin, 32 B, p50" in found.verdict


def test_faster_is_not_worse(slow: Slow) -> None:
    found = compare(*both(slow, 0.8))
    assert of(found, "XDP").verdict == "faster" and of(found, "XDP").effect == -1
    assert not found.worse
    assert "in 0; better in 1" in found.verdict and "same way" not in found.verdict


def test_what_is_within_the_threshold_is_told_and_let_pass(slow: Slow) -> None:
    found = compare(*both(slow, 1.2), threshold=0.3)
    assert of(found, "XDP").verdict == "slower" and not found.worse
    assert "worse by less in 1" in found.verdict


@pytest.mark.parametrize("repetitions", [1, 3])
def test_too_few_repetitions_tell_nothing(slow: Slow, repetitions: int) -> None:
    found = compare(*both(slow, 3.0, repetitions))
    xdp = of(found, "XDP")
    assert xdp.verdict == "too few repetitions to tell" and not found.worse
    assert (xdp.low is None) == (repetitions == 1)


def test_a_run_with_itself(slow: Slow) -> None:
    run = bounce()
    found = compare(run, run)
    assert {one.verdict for one in found.outcomes} == {"no difference shown"}
    assert found.warnings == []


def test_of_hit_rates_between_means_are_compared() -> None:
    cells = [Cell(series="xdp_cache", wait="spin", hit_rate=rate) for rate in (0.0, 0.5, 1.0)]
    run = fake.run("cache", cells, repetitions=1)
    figures = {one.cell: one.figure for one in compare(run, run).outcomes}
    assert figures == {
        "XDP cache, spin, 0 % hits": "p50, µs",
        "XDP cache, spin, 50 % hits": "mean, µs",
        "XDP cache, spin, 100 % hits": "p50, µs",
    }


def test_replies_that_no_longer_come_are_worse() -> None:
    first, second = bounce(), bounce()
    second.measurements = [
        msgspec.structs.replace(
            one, round_trips=msgspec.structs.replace(one.round_trips, count=0, lost=2000)
        )
        if one.cell.series == "xdp"
        else one
        for one in second.measurements
    ]
    found = compare(first, second)
    assert of(found, "XDP").verdict == "more lost" and found.worse
    assert of(compare(second, first), "XDP").verdict == "fewer lost"


def test_the_parts_of_a_long_measurement_are_one_repetition(slow: Slow) -> None:
    def minutes(factor: float) -> Run[Repetition]:
        slow(factor)
        cell = Cell(series="xdp_native", wait="blocking", task="hit")
        parts = [msgspec.structs.replace(cell, since=10.0 * n) for n in range(3)]
        return fake.run("minutes", parts, repetitions=6)

    (outcome,) = compare(minutes(1.0), minutes(1.2)).outcomes
    assert (outcome.repetitions_a, outcome.repetitions_b) == (6, 6)
    assert "from" not in outcome.cell
    assert outcome.ratio == pytest.approx(1.2, rel=0.01)
    assert outcome.verdict == "slower"


def test_in_a_contest_larger_rates_and_shorter_times_are_better() -> None:
    found = compare(fake_contests.load(), fake_contests.load(factor=1.3))
    assert {one.verdict for one in found.outcomes} == {"slower"}
    assert all(one.beyond for one in found.outcomes)
    rate, time = (of(found, "hits", figure) for figure in ("replies/s", "p50"))
    assert rate.ratio == pytest.approx(1 / 1.3) and time.ratio == pytest.approx(1.3)
    assert "All changed the same way" in found.verdict
    assert not compare(fake_contests.load(factor=1.3), fake_contests.load()).worse


def test_a_rate_is_worse_by_the_same_share_as_a_time() -> None:
    """1.3 times as long is worse by 30 %, and so is a rate of 1 / 1.3."""
    first, second = fake_contests.load(), fake_contests.load(factor=1.3)
    assert not compare(first, second, threshold=0.31).worse
    assert all(one.beyond for one in compare(first, second, threshold=0.29).outcomes)


def filters(cpu: float = 1.0, lost: int = 0, repetitions: int = 6) -> Run[FilterRun]:
    return fake_filters.results(
        [
            fake_filters.one(
                "tc",
                50.0,
                index,
                lost=lost,
                cpu=cpu * (1 + index / 100),
                rate=rate,
                knee=bool(rate),
            )
            for index in range(repetitions)
            for rate in (0.0, 20_000.0)
        ]
    )


def test_filters() -> None:
    found = compare(filters(), filters(cpu=2.0, lost=50))
    at_once = "TC, 50 % of 1,000"
    said = {(one.cell, one.figure): one.verdict for one in found.outcomes}
    assert said == {
        (at_once, "wall, µs a packet"): "no difference shown",
        (at_once, "server CPU, µs a packet"): "slower",
        (at_once, "PUTs done, share"): "more lost",
        (f"{at_once} at 20,000/s (knee)", "server CPU, µs a packet"): "slower",
        (f"{at_once} at 20,000/s (knee)", "PUTs done, share"): "more lost",
    }


def test_a_time_too_short_to_be_seen_is_told() -> None:
    found = compare(filters(cpu=0.0), filters())
    shown = of(found, "TC, 50 % of 1,000 at", "CPU")
    assert shown.verdict == "too short to tell" and shown.ratio is None
    assert "-" in drawn_text(found)


def test_different_experiments_are_refused() -> None:
    cache = fake.run("cache", CELLS, repetitions=1)
    for other in (cache, filters(), fake_contests.load()):
        with pytest.raises(UsageError, match="A is a run of bounce, B of "):
            compare(bounce(1), other)


def test_nothing_in_common_is_refused() -> None:
    other = fake.run("bounce", [Cell(series="xdp", wait="blocking")], repetitions=1)
    with pytest.raises(ExperimentError, match="no cell in common"):
        compare(bounce(1), other)


def test_what_differs_is_named() -> None:
    first, second = bounce(1), bounce(1)
    second.environment = msgspec.structs.replace(
        fake.ENVIRONMENT,
        kernel="6.12.1",
        offloads={"tx-checksum-ip-generic": False, "gro": True},
        load_average=(9.0, 1.0, 1.0),
    )
    second.settings = {**second.settings, "keys": 9}
    second.started = "2026-01-02T03:04:04+00:00"
    second.complete = False
    second.measurements = second.measurements[:1]
    said = "\n".join(compare(first, second).warnings)
    for wanted in (
        "kernel differs: 6.1.0-9-amd64 in A, 6.12.1 in B",
        "offloads: tx-checksum-ip-generic differs: yes in A, no in B",
        "offloads: gro differs: - in A, yes in B",
        "keys differs: 8 in A, 9 in B",
        "B: The run was interrupted",
        "B: The machine was busy when it started: a load of 9.0 on 4 CPUs",
        "B is older than A",
        "only A has XDP, spin, 32 B",
    ):
        assert wanted in said
    assert "load average" not in said
    assert "older" not in "\n".join(compare(second, first).warnings)


def drawn_text(found: Comparison) -> str:
    console = Console(width=160, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(drawn(comparing.sheet(found.outcomes)))
    return captured.get()


def test_what_a_file_names_things_is_no_markup_and_steers_no_terminal() -> None:
    hostile = fake_contests.held(("[/red]\x1b[2J[bold]x", 0, {"[/]": 1.0}))
    said = drawn_text(compare(hostile, hostile))
    assert "[/red]" in said and "[/]" in said and "\x1b" not in said


def test_alike_runs_are_seldom_called_different() -> None:
    """Of 300 pairs of samples of one distribution; seeded."""
    rng = np.random.default_rng(5)
    shown = 0
    for _ in range(300):
        a, b = (rng.lognormal(0, 0.05, 5).tolist() for _ in range(2))
        low, high = independent_ratio(b, a)[1:]
        assert low is not None and high is not None
        shown += ranks(a, b).p < 0.05 and not low <= 1 <= high
    assert shown / 300 < 0.08


def test_intervals_of_independent_ratios_hold_the_ratio() -> None:
    """In about 95 of 100; a ratio of 1.5 that few repetitions scatter around; seeded."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(300):
        a, b = rng.lognormal(0, 0.1, 6), 1.5 * rng.lognormal(0, 0.1, 8)
        _, low, high = independent_ratio(b.tolist(), a.tolist())
        assert low is not None and high is not None
        held += low <= 1.5 <= high
    assert 0.90 < held / 300 < 0.99


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [0.0]), ([-1.0], [1.0])])
def test_a_ratio_needs_positive_values(sides: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="positive"):
        independent_ratio(*sides)


def test_the_command(tmp_path: Path, slow: Slow) -> None:
    first, second = (str(storage.write(one, tmp_path)) for one in both(slow, 1.2))
    shown = carom("lab", "compare", first, second)
    assert shown.returncode == 3
    assert "slower !" in shown.stdout and "worse by more than 5 % in 1" in shown.stdout
    found = json.loads(carom("lab", "compare", second, first, "--json").stdout)
    assert found["worse"] is False and found["b"] == first
    assert {one["verdict"] for one in found["outcomes"]} == {"faster", "no difference shown"}
    assert carom("lab", "compare", first, second, "--threshold", "0.5").returncode == 0


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["RUN", "nowhere"], 1, "cannot read nowhere"),
        (["RUN", "CONTEST"], 2, "A is a run of bounce, B of load"),
        (["RUN", "RUN", "--threshold", "nan"], 2, "threshold nan is out of range"),
        (["RUN", "RUN", "--threshold", "-1"], 2, "threshold -1 is out of range"),
        (["RUN", "IMPOSSIBLE"], 1, "has impossible figures"),
    ],
)
def test_mistakes(tmp_path: Path, argv: list[str], code: int, said: str) -> None:
    impossible = tmp_path / "impossible.json"
    of_no_packets = fake_filters.results(filters(repetitions=1).measurements, "bounce")
    of_no_packets.measurements = [
        msgspec.structs.replace(one, cell=msgspec.structs.replace(one.cell, packets=0))
        for one in of_no_packets.measurements
    ]
    impossible.write_bytes(msgspec.json.encode(of_no_packets))
    places = {
        "RUN": storage.write(bounce(1), tmp_path),
        "CONTEST": storage.write(fake_contests.load(), tmp_path),
        "IMPOSSIBLE": impossible,
    }
    if "IMPOSSIBLE" in argv:
        places["RUN"] = impossible
    done = carom("lab", "compare", *(str(places.get(one, one)) for one in argv))
    assert done.returncode == code
    assert said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_too_few_repetitions_are_no_success(tmp_path: Path) -> None:
    """`carom lab compare A B && echo no slower` says nothing then."""
    run = storage.write(bounce(3), tmp_path)
    done = carom("lab", "compare", str(run), str(run))
    assert done.returncode == 1
    assert "too few repetitions to tell" in done.stdout
    assert "nothing can be told" in done.stderr and "--repetitions 4" in done.stderr
