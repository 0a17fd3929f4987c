# SPDX-License-Identifier: Apache-2.0
"""The experiments with four ports, without packets: grid, accounts, claims."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from carom.errors import ExperimentError, UsageError
from carom.lab import compare, report
from carom.lab.clients.ping import Ping
from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.client import plan
from carom.lab.experiments.ports.concurrency import EXPERIMENT as CONCURRENT
from carom.lab.experiments.ports.concurrency import Settings as Loops
from carom.lab.experiments.ports.demux import EXPERIMENT as DEMUXED
from carom.lab.experiments.ports.demux import Settings as Sleeps
from carom.lab.experiments.ports.four import account
from carom.lab.experiments.ports.ports import PORTS, Name, expected
from carom.lab.record import Cell, Repetition, RoundTrips, Run
from carom.lab.shown import show
from carom.lab.stats.distribution import round_trips
from unit.fake_results import ENVIRONMENT

BY_NAME: dict[str, Any] = {one.name: one for one in (CONCURRENT, DEMUXED)}
OUTCOMES = ("lost", "wrong", "duplicated", "reordered")


def trips(mean: float, **outcomes: int) -> RoundTrips:
    """Ten round trips that took the same, in nanoseconds."""
    none = dict.fromkeys(OUTCOMES, 0)
    return round_trips([round(mean)] * 10, seconds=1.0, **{**none, **outcomes})


def made(name: Name, means: dict[str, tuple[float, ...]]) -> Run[Repetition]:
    """A run of three repetitions with these means, in microseconds, by series and socket."""
    repetitions = [
        Repetition(
            cell=Cell(series=series, wait="blocking", socket=which + 1),
            index=index,
            round_trips=trips(1e3 * mean * (1 + 0.001 * index)),
            server_cpu_seconds=0.001,
        )
        for index in range(3)
        for series, every in means.items()
        for which, mean in enumerate(every)
    ]
    return Run(
        experiment=name,
        measured=Repetition.MEASURED,
        started="2026-01-02T03:04:05Z",
        seed=1,
        command="carom lab run",
        settings=msgspec.to_builtins(BY_NAME[name].full),
        environment=ENVIRONMENT,
        complete=True,
        measurements=repetitions,
    )


CONCURRENCY = {
    "userspace": (40.0, 36.0, 30.0, 33.0),
    "python": (50.0, 50.0, 50.0, 50.0),
    "xdp": (20.0, 18.0, 15.0, 16.0),
}
DEMUX = {
    "alone": (20_060.0, 10_060.0, 2_060.0, 4_560.0),
    "processes": (20_100.0, 10_100.0, 2_100.0, 4_600.0),
    "queue": (25_000.0, 15_000.0, 7_000.0, 9_000.0),
    "reuseport": (20_000.0, 10_000.0, 2_000.0, 4_500.0),
    "sk_lookup": (20_100.0, 10_100.0, 2_100.0, 4_600.0),
}


def said_of(run: Run[Repetition]) -> list[str]:
    said: list[str] = BY_NAME[run.experiment].sentences(run)
    return said


def ping(**changes: int) -> Ping:
    found = trips(1000.0, **{name: changes.get(name, 0) for name in OUTCOMES})
    sent = found.count + found.lost + found.wrong + found.reordered
    return Ping(sent=changes.get("sent", sent), hot=0, complete=True, round_trips=found)


def test_the_published_grid_is_the_default() -> None:
    loops, sleeps = CONCURRENT.full, DEMUXED.full
    assert loops.loops == CONCURRENT.short.loops == (1400, 1000, 10, 500)
    assert sleeps.sleeps == DEMUXED.short.sleeps == (0.02, 0.01, 0.002, 0.0045)
    assert sleeps.queue == 10_200
    for one in (loops, sleeps):
        assert (one.seconds, one.repetitions) == (30, 15)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (Loops(loops=(-1, 1, 1, 1)), "loops -1"),
        (Loops(loops=(20_000, 1, 1, 1)), "loops"),
        (Sleeps(sleeps=(0.0, 0.0, 0.0, 1.0)), "sleeps 1"),
        (Sleeps(queue=0), "queue 0"),
        (Sleeps(seconds=0.0), "seconds"),
        (Loops(repetitions=0), "repetition"),
    ],
)
def test_what_cannot_be_is_refused(settings: Loops | Sleeps, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        settings.checked()


def test_requests_name_their_port_and_no_other_port_replies_the_same() -> None:
    for which in PORTS:
        asked = plan("demux", which, 1).checked()
        payload = asked.payload(asked.first + 99)
        assert payload == b"%d000099" % (which + 1)
        replies = {expected("demux", one, 0, payload) for one in PORTS}
        assert len(replies) == 4
        assert all(len(one) == 7 for one in replies)
        assert len(plan("concurrency", which, 1).checked().payload(1)) == 4


def test_a_client_that_sleeps_looks_at_the_clock_after_every_request() -> None:
    assert len(next(plan("demux", 0, 1).blocks()).payloads) == 1
    assert len(next(plan("concurrency", 0, 1).blocks()).payloads) == 40


@pytest.mark.parametrize(
    ("series", "counted"),
    [("userspace", "requests"), ("xdp", "answered"), ("queue", "queued"), ("alone", "requests")],
)
def test_accounts(series: str, counted: str) -> None:
    right = ping()
    others = {"requests": right.sent, "full": 0, "queued": right.sent, counted: right.sent}
    (by,) = {
        one.counted_by.get(series, "requests") for one in BY_NAME.values() if series in one.series
    }
    assert by == counted
    one = account(series, 1, 0, right, others, 0.5, by)
    assert (one.cell, one.verdicts) == (Cell(series=series, wait="blocking", socket=2), others)
    for wrong in (right.sent - 1, right.sent + 1):
        with pytest.raises(ExperimentError, match=f"{series}, socket 2: .* took {wrong}"):
            account(series, 1, 0, right, {**others, counted: wrong}, 0.5, by)


def test_a_request_that_was_given_up_may_or_may_not_have_come() -> None:
    lost = ping(lost=2)
    for taken in range(lost.sent - 2, lost.sent + 1):
        account("alone", 0, 0, lost, {"requests": taken}, 0.0)
    with pytest.raises(ExperimentError):
        account("alone", 0, 0, lost, {"requests": lost.sent - 3}, 0.0)


def test_wrong_and_unexplained_replies_end_a_run() -> None:
    for strange in ({"wrong": 1}, {"duplicated": 1}, {"sent": 10**6}):
        one = ping(**strange)
        with pytest.raises(ExperimentError):
            account("alone", 0, 0, one, {"requests": one.sent}, 0.0)


def test_published_ratios() -> None:
    assert published.ratio("concurrency", ("userspace", 1), ("xdp", 1)) == (
        pytest.approx(1.7615, abs=1e-4)
    )
    assert published.ratio("demux", ("queue", 3), ("processes", 3)) == (
        pytest.approx(2.8274, abs=1e-4)
    )
    assert published.ratio("demux", ("reuseport", 3), ("processes", 3)) is None


def test_claims_of_concurrency() -> None:
    said = "\n".join(said_of(made("concurrency", CONCURRENCY)))
    assert "four processes in C: holds (4 of 4); 2.00 (2.00-2.00)" in said
    assert "(published 1.76, 1.53, 0.99, 1.23)" in said
    assert "XDP: socket 1 takes 1.33 (1.33-1.33) times as long as socket 3 (published 1.03)" in said
    flat = {**CONCURRENCY, "xdp": (60.0,) * 4}
    said = "\n".join(said_of(made("concurrency", flat)))
    assert "four processes in C: the opposite holds (4 of 4)" in said
    assert "XDP: socket 1 takes 1.00 (1.00-1.00) times as long" in said
    assert "no difference shown" in said


def test_claims_of_demux() -> None:
    said = said_of(made("demux", DEMUX))
    claims = {line.split(":")[0]: line for line in said}
    assert (
        "holds (4 of 4); 1.24"
        in claims["1. Queues, polling and threads take longer than processes"]
    )
    assert "the opposite holds" in claims["3. SO_REUSEPORT takes longer than processes"]
    assert "not shown either way" in claims["3. sk_lookup takes longer than processes"]
    assert "holds (4 of 4)" in claims["   Queues take longer than sk_lookup"]
    assert not any("cpumap" in line for line in said)


@pytest.mark.parametrize(("name", "means"), [("concurrency", CONCURRENCY), ("demux", DEMUX)])
def test_tables_and_plots(tmp_path: Path, name: Name, means: dict[str, tuple[float, ...]]) -> None:
    found = made(name, means)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(BY_NAME[found.experiment], found, console)
    text = console.export_text()
    for series in means:
        assert BY_NAME[name].series.words(series) in text
    assert ("1,400 loops" if name == "concurrency" else "4.5 ms") in text
    (picture,) = BY_NAME[found.experiment].plots(found, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "means"), [("concurrency", CONCURRENCY), ("demux", DEMUX)])
def test_report_and_comparison(name: Name, means: dict[str, tuple[float, ...]]) -> None:
    """A page with the same rows and claims, and each socket compared by itself."""
    found = made(name, means)
    page = html.unescape(report.page([(Path("run"), found)], Path("x.html")))
    for sheet in BY_NAME[name].tables(found):
        assert all(value in page for row in sheet.rows for value in row.values()), sheet.title
    for line in said_of(found):
        assert line.strip() in page
    assert page.count("data:image/png") == 1
    assert BY_NAME[name].published(found) == [], "no published times of other experiments"
    cells = {one.cell for one in compare.compare(found, found).outcomes}
    assert len(cells) == 4 * len(means)


def test_half_a_run_is_shown(tmp_path: Path) -> None:
    """What Ctrl-C leaves: a series, and one repetition."""
    found = made("demux", {"queue": DEMUX["queue"]})
    found.measurements = found.measurements[:4]
    show(BY_NAME[found.experiment], found, Console(width=200, file=open("/dev/null", "w")))  # noqa: SIM115
    assert BY_NAME[found.experiment].plots(found, tmp_path)
