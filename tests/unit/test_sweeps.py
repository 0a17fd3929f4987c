# SPDX-License-Identifier: Apache-2.0
"""The sweeps without packets: grids, knees, what is said whichever way it falls, and pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from carom import apps
from carom.errors import UsageError
from carom.lab import compare, registry, report
from carom.lab import results as storage
from carom.lab.experiments.sweeps.clients import Settings as Clients
from carom.lab.experiments.sweeps.hooks import Settings as Hooks
from carom.lab.experiments.sweeps.knee import Settings as Rates
from carom.lab.experiments.sweeps.minutes import Settings as Windows
from carom.lab.experiments.sweeps.series import SERIES
from carom.lab.experiments.sweeps.sizes import Settings as Sizes
from carom.lab.experiments.sweeps.stats import Measured, p50, replies, unanswered
from carom.lab.experiments.sweeps.sweep import Settings, Sweep
from carom.lab.record import Cell, Repetition, Run
from carom.lab.show.sheets import Sheet
from carom.lab.shown import show
from carom.lab.stats.distribution import round_trips
from unit.fake_results import ENVIRONMENT

SWEEPS: dict[str, Sweep[Any]] = {
    name: one for name, one in registry.experiments().items() if isinstance(one, Sweep)
}
SPEED = {"userspace": 1.0, "tc": 2.0, "xdp_generic": 3.0, "xdp_native": 4.0}
LIMIT = 1e5  # requests a second that userspace answers in these runs


def one(cell: Cell, index: int, *, us: float, **changes: float) -> Repetition:
    """A repetition in which each reply took `us`."""
    jitter = 1 + 0.001 * index
    lost, seconds = int(changes.get("lost", 0)), changes.get("seconds", 1.0)
    trips = round_trips(
        [round(1e3 * us * jitter)] * int(changes.get("count", 100)),
        lost=lost,
        duplicated=0,
        reordered=0,
        wrong=0,
        seconds=seconds,
    )
    return Repetition(
        cell=cell,
        index=index,
        round_trips=trips,
        server_cpu_seconds=0.01,
        offered=changes.get("offered", cell.rate),
        skipped=int(changes.get("skipped", 0)),
    )


def measured(cell: Cell, index: int, factor: float = 1.0) -> Repetition:
    """What a cell may have given: XDP faster; all of it `factor` times as slow."""
    speed = SPEED[cell.series] / factor
    us = 12 / speed * (1 + (cell.size or 0) / 2000)
    if cell.rate is None:
        return one(cell, index, us=us, seconds=0.01 / speed * (1 + 0.01 * index))
    answered = min(1.0, LIMIT * speed / cell.rate)
    count = round(1000 * answered)
    return one(cell, index, us=us, count=count, lost=1000 - count, seconds=1000 / cell.rate)


def run(name: str, *, repetitions: int = 3, **changes: object) -> Run[Repetition]:
    settings = SWEEPS[name].short
    settings = msgspec.structs.replace(settings, repetitions=repetitions, **changes)
    cells = []
    for trial in SWEEPS[name].trials(settings):
        windows = range(trial.windows) if trial.windows > 1 else (None,)
        cells += [
            trial.cell
            if window is None
            else msgspec.structs.replace(trial.cell, since=window * trial.seconds)
            for window in windows
        ]
    return made(name, [measured(cell, n) for n in range(repetitions) for cell in cells], settings)


def found_in(run: Run[Repetition]) -> Measured:
    return SWEEPS[run.experiment].measured(run)


def sentences(run: Run[Repetition]) -> list[str]:
    return registry.of(run).sentences(run)


def sheets(run: Run[Repetition]) -> list[Sheet]:
    return registry.of(run).tables(run)


def made(
    name: str, repetitions: list[Repetition], settings: Settings | None = None
) -> Run[Repetition]:
    return Run(
        experiment=name,
        measured=Repetition.MEASURED,
        started="2026-01-02T03:04:05Z",
        seed=1,
        command=f"carom lab run {name}",
        settings=msgspec.to_builtins(settings or SWEEPS[name].short),
        environment=ENVIRONMENT,
        complete=True,
        measurements=repetitions,
    )


@pytest.mark.parametrize("name", SWEEPS)
def test_every_series_is_asked_the_same(name: str) -> None:
    settings = SWEEPS[name].full
    trials = SWEEPS[name].trials(settings)
    asked: dict[str, list[object]] = {}
    for trial in trials:
        trial.plan.checked()
        cell = msgspec.structs.replace(trial.cell, series="")
        asked.setdefault(trial.cell.series, []).append((cell, trial.plan, trial.warm, trial.app))
    assert set(asked) == set(SERIES)
    assert all(plans == asked["userspace"] for plans in asked.values())
    assert len({trial.cell for trial in trials}) == len(trials)


def test_what_the_authors_missed_is_in_the_grids() -> None:
    sizes = {trial.cell.size for trial in SWEEPS["sizes"].trials(SWEEPS["sizes"].full)}
    assert {1, 1232} <= sizes
    assert {trial.clients for trial in SWEEPS["clients"].trials(SWEEPS["clients"].full)} == {
        1,
        2,
        4,
        8,
        16,
    }
    rates = [trial.rate for trial in SWEEPS["knee"].trials(SWEEPS["knee"].full)]
    assert min(rates) == 10e3 and max(rates) > 1e6
    minutes = SWEEPS["minutes"].trials(SWEEPS["minutes"].full)
    assert {trial.windows * trial.seconds for trial in minutes} == {300}
    tasks = {trial.cell.task for trial in SWEEPS["hooks"].trials(SWEEPS["hooks"].full)}
    assert tasks == {"bounce", "hit", "miss"}


def test_a_size_is_that_of_the_reply_that_the_service_gives() -> None:
    expect = apps.expectation("sized")
    for trial in SWEEPS["sizes"].trials(Sizes(keys=50)):
        (payload, *rest) = set(next(trial.plan.blocks()).payloads)
        if trial.cell.task == "hit":
            assert rest and len(payload) == 32 and trial.app == "sized"
            assert len(expect(payload) or b"") == trial.cell.size
        else:
            assert len(payload) == trial.cell.size


def test_a_reply_of_that_size_is_the_requests_own() -> None:
    expect = apps.expectation("sized")
    assert expect(b"\0\x01abc") == b"c"
    assert expect(b"\0\x07abc") == b"cba\x07\0cb"
    assert expect(b"\xff\xffabc") == b"cba\xff\xff" * 280
    assert expect(b"") == b""


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (Sizes(sizes=(0,)), "sizes 0 is out of range"),
        (Sizes(sizes=()), "sizes must name at least one"),
        (Clients(clients=(65,)), "clients 65"),
        (Rates(rates=(0.5,)), "rates 0.5"),
        (Windows(windows=1), "windows 1"),
        (Hooks(seconds=0.0), "seconds 0"),
        (Hooks(repetitions=0), "repetitions 0"),
        (Hooks(keys=1), "keys 1"),
        (Sizes(sizes=(64, 64)), "sizes must rise"),
        (Rates(rates=(2e4, 1e4)), "rates must rise"),
        (Hooks(series=()), "series must name at least one"),
    ],
)
def test_what_cannot_be_is_refused(settings: Settings, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        settings.checked()


def test_gains() -> None:
    for name, expected in (("hooks", 4.0), ("sizes", 4.0), ("clients", 4.0)):
        sweep = found_in(run(name))
        for row in sweep.rows:
            found = SWEEPS[name].gain(sweep, "xdp_native", row)
            assert found and found.value == pytest.approx(expected, rel=0.01)


def test_the_knee_is_the_last_rate_up_to_which_all_is_answered() -> None:
    rates = (20e3, 80e3, 160e3, 320e3)
    sweep = found_in(run("knee", rates=rates))
    ((_, rows),) = sweep.groups().items()
    knees = {series: sweep.knee(series, rows) for series in SERIES}
    assert {name: knee and (knee.rate, knee.lossy) for name, knee in knees.items()} == {
        "userspace": (80e3, 160e3),
        "tc": (160e3, 320e3),
        "xdp_generic": (160e3, 320e3),
        "xdp_native": (320e3, None),
    }
    assert sweep.most_ratio("tc", "userspace", rows) == pytest.approx((2, 2, 2), rel=0.01)


def test_a_knee_ends_at_the_first_loss_and_where_no_more_was_offered() -> None:
    def knee(*steps: dict[str, float]) -> object:
        cells = [Cell(series="tc", wait="spin", task="hit", rate=1e3 * (n + 1)) for n in range(3)]
        found = [one(cell, 0, us=5, **step) for cell, step in zip(cells, steps, strict=True)]
        sweep = found_in(made("knee", found))
        reached = sweep.knee("tc", sweep.rows)
        return reached and (reached.rate, reached.lossy)

    well: dict[str, float] = {}
    assert knee(well, well, well) == (3000, None)
    assert knee(well, {"lost": 1}, well) == (1000, 2000)
    assert knee(well, {"skipped": 1}, well) == (1000, 2000)
    assert knee({"lost": 1}, well, well) == (None, 1000)
    assert knee(well, {"offered": 1500.0}, {"offered": 1500.0}) == (1500, None)
    assert knee(well, {"lost": 1, "count": 9999}, well) == (3000, None)
    assert knee(well, {"count": 0, "lost": 5}, well) == (1000, 2000)


def test_a_stall_of_one_repetition_is_no_knee() -> None:
    cell = Cell(series="tc", wait="blocking", task="hit", rate=1e3)
    found = [one(cell, n, us=5, count=10_000 - 11 * (n == 2), lost=11 * (n == 2)) for n in range(9)]
    sweep = found_in(made("knee", found))
    reached = sweep.knee("tc", sweep.rows)
    assert reached and (reached.rate, reached.lossy) == (1000, None)


def test_hits_that_xdp_has_no_room_for_are_told() -> None:
    def at(size: int, to_tc: int) -> Repetition:
        found = one(Cell(series="xdp_native", wait="spin", task="hit", size=size), 0, us=5)
        return msgspec.structs.replace(found, verdicts={"hit": 100, "pass_to_tc": to_tc})

    base = [
        one(Cell(series="userspace", wait="spin", task="hit", size=size), 0, us=9)
        for size in (64, 1400)
    ]
    results = made("sizes", [at(64, 0), at(1400, 100), *base])
    said = io.StringIO()
    show(registry.of(results), results, Console(width=140, file=said))
    assert "1,400 bytes (by TC): 1.80" in said.getvalue() and "64 bytes: 1.80" in said.getvalue()
    assert "5.00 (TC)" in said.getvalue() and "XDP had no room" in said.getvalue()


def test_without_userspace_nothing_is_compared() -> None:
    results = made("hooks", [one(Cell(series="tc", wait="spin", task="hit"), 0, us=5)])
    assert sentences(results) == ["Nothing is compared: userspace was not measured."]
    assert [sheet.title for sheet in sheets(results)] == [
        "p50 round trip, µs",
        "p99 round trip, µs",
    ]


def test_what_nobody_answered_is_shown_as_such() -> None:
    cell = Cell(series="userspace", wait="spin", task="hit", rate=1e3)
    sweep = found_in(made("knee", [one(cell, n, us=5, count=0, lost=5) for n in range(2)]))
    (row,) = sweep.rows
    assert sweep.mean(unanswered, "userspace", row).value == 1
    assert sweep.mean(replies, "userspace", row).value == 0
    assert str(sweep.mean(p50, "userspace", row).value) == "nan"
    assert sheets(made("knee", [one(cell, 0, us=5, count=0, lost=5)]))


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((10, 10, 10, 10, 10, 10), "no change shown"),
        ((10, 10, 11, 11, 12, 12), "it became slower"),
        ((12, 12, 11, 11, 10, 10), "it became faster"),
    ],
)
def test_drift(times: tuple[float, ...], said: str) -> None:
    found = [
        one(
            Cell(series="tc", wait="blocking", task="hit", since=float(n)),
            index,
            us=us * (1 + 0.01 * ((n + index) % 2)),
        )
        for index in range(4)
        for n, us in enumerate(times)
    ]
    (line,) = sentences(made("minutes", found))
    assert said in line


@pytest.mark.parametrize("name", SWEEPS)
def test_what_is_shown(tmp_path: Path, name: str) -> None:
    results = run(name)
    said = io.StringIO()
    show(registry.of(results), results, Console(width=140, file=said))
    for series in ("userspace", "TC", "XDP generic", "XDP native"):
        assert series in said.getvalue()
    folder = storage.write(results, tmp_path)
    assert storage.load(folder).measurements == results.measurements
    pictures = registry.of(results).plots(results, folder)
    assert {path.name for path in pictures} == {
        "hooks": {"hooks.png"},
        "sizes": {"sizes-bounce.png", "sizes-hit.png"},
    }.get(name, {f"{name}-hit.png"})
    cells = {repetition.cell for repetition in results.measurements}
    assert len(list((folder / "histograms").iterdir())) == len(cells)
    page = tmp_path / "report.html"
    report.write([folder], page)
    assert "XDP native" in page.read_text()
    both = [
        made(name, [measured(cell, n, factor=factor) for n in range(6) for cell in cells])
        for factor in (1, 2)
    ]
    assert compare.compare(*both).worse and not compare.compare(*reversed(both)).worse


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_an_interrupt_leaves_is_shown(tmp_path: Path, name: str, count: int) -> None:
    whole = run(name)
    results = msgspec.structs.replace(whole, measurements=whole.measurements[:count])
    show(registry.of(results), results, Console(width=140, file=io.StringIO()))
    assert registry.of(results).plots(results, tmp_path)


def test_the_opposite_is_said_as_well() -> None:
    slower = [
        one(Cell(series=series, wait="spin", task="miss"), index, us=us)
        for index in range(4)
        for series, us in (("userspace", 10 + 0.01 * index), ("tc", 20))
    ]
    (line,) = sentences(made("hooks", slower))
    assert "A miss with its fill" in line and "slower, 0.50 times as fast" in line
    assert sentences(made("hooks", [])) == ["Too little was measured to compare anything."]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_run_that_lost_everything_has_its_pictures_and_page(name: str, tmp_path: Path) -> None:
    results = run(name)
    lost = [one(was.cell, was.index, us=1, count=0, lost=9) for was in results.measurements]
    results = msgspec.structs.replace(results, measurements=lost)
    assert registry.of(results).plots(results, tmp_path)
    report.write([storage.write(results, tmp_path)], tmp_path / "page.html")


def test_the_slowest_part_is_by_the_median() -> None:
    parts = [
        one(Cell(series="tc", wait="blocking", task="hit", since=float(n)), 0, us=us)
        for n, us in enumerate((5, 5, 50, 50))
    ]
    sweep = found_in(made("minutes", parts))
    steady = sweep.steady("tc", sweep.rows)
    assert steady and steady.slowest.value == pytest.approx(50 / 27.5, rel=0.02)
