# SPDX-License-Identifier: Apache-2.0
"""The filter experiments' arithmetic: every packet accounted for, gains, knees and claims."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from carom.errors import ExperimentError, UsageError
from carom.lab import registry, report
from carom.lab import results as storage
from carom.lab.experiments.filters import published
from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters import verdict as filter_verdict
from carom.lab.experiments.filters.both import EXPERIMENT as BOTH
from carom.lab.experiments.filters.client import Filled
from carom.lab.experiments.filters.filtering import KneeSettings, account
from carom.lab.experiments.filters.model import FilterCell
from carom.lab.experiments.filters.series import SERIES
from carom.lab.experiments.filters.stats import Table, knees
from carom.lab.hosts import cpu_time, udp_counts
from carom.lab.show.verdicts import outcome, side
from carom.lab.shown import show
from carom.lab.stats.estimates import Estimate
from unit import fake_filters as fake

FILLED = Filled(
    sent_puts=50,
    sent_invalid=50,
    sent_others=3,
    replies=2,
    value=40,
    send_seconds=1.0,
    wall_seconds=2.0,
    server_cpu_seconds=0.5,
    machine_cpu_seconds=1.5,
)


def cell(series: str) -> FilterCell:
    return msgspec.convert({"series": series, "percent": 50, "packets": 100}, FilterCell)


@pytest.mark.parametrize(
    ("series", "rise", "places"),
    [
        # 103 sent, 83 came to the socket, 19 of them found no room
        ("userspace", {"drops": 19, "received": 64}, (20, 0, 19)),
        # 98 came to the filter, 50 were rejected there and are among the drops
        (
            "socket",
            {"invalid_rejected": 50, "valid_accepted": 48, "drops": 56, "received": 42},
            (5, 0, 6),
        ),
        # the same at TC, where two went missing after the filter
        (
            "tc",
            {"invalid_rejected": 50, "valid_accepted": 48, "drops": 4, "received": 42},
            (5, 2, 4),
        ),
    ],
)
def test_every_packet_has_its_place(
    series: str, rise: dict[str, int], places: tuple[int, int, int]
) -> None:
    run = account(cell(series), 0, FILLED, rise).checked()
    assert (run.lost_before, run.lost_between, run.lost_at_socket) == places
    assert run.value + run.lost == run.sent_puts
    assert run.loss == pytest.approx(0.2)
    assert run.done_rate == 20


@pytest.mark.parametrize(
    "rise",
    [
        # more received than was sent; less received than was done; what was rejected received
        {"invalid_rejected": 50, "valid_accepted": 60, "drops": 0, "received": 60},
        {"invalid_rejected": 50, "valid_accepted": 53, "drops": 12, "received": 41},
        {"invalid_rejected": 40, "valid_accepted": 53, "drops": 0, "received": 53},
    ],
)
def test_counts_that_do_not_add_up_are_told(rise: dict[str, int]) -> None:
    with pytest.raises(ExperimentError, match="add up"):
        account(cell("xdp_native"), 0, FILLED, rise).checked()


def test_no_put_no_loss() -> None:
    assert fake.one("tc", 100.0, 0).loss == 0


def test_gains_are_paired() -> None:
    table = filter_stats.grid(fake.grid())
    gain = table.gain(filter_stats.server_cpu, ("tc", 1000, 50.0))
    assert gain == pytest.approx((1 / 0.51,) * 3)
    assert table.gain(filter_stats.wall, ("tc", 1000, 50.0)) == pytest.approx((1, 1, 1))
    assert table.saved(filter_stats.loss, ("tc", 1000, 50.0)) == pytest.approx((0.02,) * 3)
    assert table.mean(filter_stats.wall, ("tc", 1000, 50.0)).value == pytest.approx(0.002)


def test_a_time_too_short_to_be_seen_has_no_gain() -> None:
    table = Table([fake.one("userspace", 50.0, 0), fake.one("tc", 50.0, 0, cpu=0.0)])
    assert table.gain(filter_stats.server_cpu, ("tc", 1000, 50.0)) is None
    assert table.growth(filter_stats.server_cpu, "tc", 1000) is None
    assert table.gain(filter_stats.wall, ("socket", 1000, 50.0)) is None


def test_growth_is_the_slope_over_all_shares() -> None:
    """Gains of e^0, e^1, e^2 at 0, 50 and 100 % are e^2 from one end to the other."""
    runs = [
        fake.one(series, percent, index, cpu=math.exp(-percent / 50 if series == "tc" else 0))
        for index in range(2)
        for series in ("userspace", "tc")
        for percent in (0.0, 50.0, 100.0)
    ]
    found = Table(runs).growth(filter_stats.server_cpu, "tc", 1000)
    assert found == pytest.approx((math.exp(2),) * 3)


def test_knees() -> None:
    def step(rate: float, lost: int, index: int = 0, percent: float = 0.0) -> fake.FilterRun:
        return fake.one("tc", percent, index, lost=lost, rate=rate, knee=True, wall=0.5)

    runs = [step(10, 1), step(20, 2), step(20, 0, 1), step(40, 2), step(0, 0)]
    runs += [step(10, 2, percent=50.0), step(0, 0, percent=99.0)]
    found = knees(runs)
    assert found["tc", 0.0] == (20, 2000, False)  # 40 loses; that the next does not is luck
    assert found["tc", 50.0] is None
    assert found["tc", 99.0] == (0, 2000, True)


def test_steps_of_the_knee_are_not_of_the_grid() -> None:
    steps = [fake.one("tc", 7.0, 0, rate=rate, knee=True) for rate in (20.0, 10.0, 0.0)]
    found = fake.results([*fake.grid(), *steps])
    assert 7.0 not in filter_stats.grid(found.measurements).percents
    paced = filter_stats.slowest(found.measurements)
    assert paced and paced[0] == 10
    assert paced[1].percents == [7.0]
    assert filter_stats.slowest(fake.grid()) is None


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(2, 1.1, 3), 1),
        (Estimate(0.5, 0.2, 0.9), -1),
        (Estimate(2, 0.9, 3), 0),
        (Estimate(2), 0),
        (None, 0),
    ],
)
def test_sides(estimate: Estimate | None, expected: int) -> None:
    assert side(estimate, 1) == expected


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([1, 1], "holds (2 of 2)"),
        ([-1], "the opposite holds (1 of 1)"),
        ([1, 0, 1], "holds in part (2 of 3)"),
        ([0, -1], "the opposite holds in part (1 of 2)"),
        ([1, -1, 0], "mixed: for it 1, against it 1 of 3"),
        ([0], "not shown either way (0 of 1)"),
        ([], "not shown either way (0 of 0)"),
    ],
)
def test_outcomes(sides: list[int], said: str) -> None:
    assert outcome(sides) == said


def test_claims_whichever_way_they_fall() -> None:
    lines = filter_verdict.sentences(filter_stats.grid(fake.grid()))
    said = "\n".join(lines)
    assert "wall time, all places: not shown either way (0 of 12)" in said
    assert "the server's CPU time, all places: holds (12 of 12)" in said
    assert "PUTs lost, all places: holds (8 of 8)" in said
    assert "TC: holds (3 of 3); at 99 % invalid userspace takes 50.0 (50.0-50.0) times" in said
    assert "at 99 % invalid 100.0 (100.0 to 100.0) percentage points fewer" in said
    worse = [
        msgspec.structs.replace(one, server_cpu_seconds=1 / one.server_cpu_seconds)
        for one in fake.grid()
    ]
    said = "\n".join(filter_verdict.sentences(filter_stats.grid(worse)))
    assert "the server's CPU time, all places: the opposite holds (12 of 12)" in said


def test_tables_and_files(tmp_path: Path) -> None:
    knee = [fake.one("tc", 99.0, 0, rate=20_000.0, knee=True, wall=0.05)]
    found = fake.results([*fake.grid(), *knee])
    said = io.StringIO()
    show(registry.of(found), found, Console(width=140, file=said))
    rows = [line.split() for line in said.getvalue().splitlines()]
    assert ["1,000", "99", "%", "100.0", "±0.0", *["0.00", "±0.00"] * 4] == next(
        row[:13] for row in rows if row[:3] == ["1,000", "99", "%"] and row[3] == "100.0"
    )
    assert ["TC", "≥", "20.0k"] in rows
    folder = storage.write(found, tmp_path)
    assert {path.name for path in registry.of(found).plots(found, folder)} == {
        "cpu.png",
        "wall.png",
        "loss.png",
    }
    plain = json.loads((folder / "results.json").read_text())
    assert len(plain["measurements"]) == len(found.measurements)
    with open(folder / "results.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(found.measurements)
    assert written[0]["series"] == "userspace" and written[0]["lost"] == "10"


def test_one_experiment_shows_its_own(tmp_path: Path) -> None:
    for name, pictures, title in (
        ("filter-throughput", ["cpu.png", "wall.png"], "Wall time"),
        ("filter-loss", ["loss.png"], "PUTs lost, %"),
    ):
        found = fake.results(fake.grid(), name)
        said = io.StringIO()
        show(registry.of(found), found, Console(width=140, file=said))
        assert [path.name for path in registry.of(found).plots(found, tmp_path)] == pictures
        titles = {"Wall time", "PUTs lost, %"}
        assert {one for one in titles if one in said.getvalue()} == {title}


@pytest.mark.parametrize("count", [1, 4, 9, 17])
def test_what_an_interrupt_leaves_is_shown(tmp_path: Path, count: int) -> None:
    runs = [fake.one("tc", 0.0, 0, rate=20.0, knee=True), *fake.grid()][:count]
    found = fake.results(runs)
    show(registry.of(found), found, Console(width=140, file=io.StringIO()))
    assert bool(registry.of(found).plots(found, tmp_path)) == (count > 1)


@pytest.mark.parametrize("of", [{"percent": 100.0}, {"series": "xdp_native"}])
def test_a_run_of_less_is_shown(tmp_path: Path, of: dict[str, object]) -> None:
    """Only invalid packets, so none that could be lost; and no native XDP, as on some devices."""
    only = "percent" in of
    found = fake.results(
        [
            one
            for one in fake.grid()
            if all((getattr(one.cell, name) == value) == only for name, value in of.items())
        ]
    )
    kind = registry.of(found)
    show(kind, found, Console(width=140, file=io.StringIO()))
    assert kind.sentences(found)
    assert ("loss.png" in {path.name for path in kind.plots(found, tmp_path)}) != only
    report.write([storage.write(found, tmp_path)], tmp_path / "page.html")


def test_published_times_are_without_their_start_up() -> None:
    assert published.seconds()[1_000_000, 1.0, "kernel"] == pytest.approx(0.575)
    assert published.ratio(1_000_000, 1.0) == pytest.approx(0.5 / 0.575)
    assert published.ratio(100, 1.0) is None
    assert published.ratio(1_000_000, 0.0) is None
    assert len(published.loss()) == 120


def test_grid_is_the_published_one() -> None:
    settings = BOTH.full
    full = msgspec.structs.replace(settings, full=True).checked()
    assert full.packets == tuple(10**power for power in range(2, 8))
    assert set(settings.percents) == {0, 1, 25, 50, 75, 99, 100}
    first, later = (BOTH.cells(settings, "tc", index) for index in (0, 3))
    assert len([one for one in first if not one.knee]) == 35 and len(first) == 35 + 15
    assert [one.rate for one in later if one.knee] == [20_000] * 3
    throughput = registry.named("filter-throughput")
    assert len(throughput.cells(throughput.full, "tc", 0)) == 35
    assert BOTH.steps(settings) == len(SERIES) * (10 * 35 + 3 * 15 + 7 * 3)


def settings_of(given: dict[str, str], *, short: bool = False) -> KneeSettings:
    chosen = [registry.named("filter-loss")]
    found = registry.settings(chosen, given, short=short)["filter-loss"]
    assert isinstance(found, KneeSettings)
    return found


def test_settings() -> None:
    assert settings_of({"repetitions": "2"}).repetitions == 2
    assert settings_of({"rates": "10,0"}).rates == (10, 0)
    short = settings_of({}, short=True)
    assert max(short.packets) == 10_000 and short.repetitions == 3


def test_both_are_one_run() -> None:
    def together(*names: str) -> list[str]:
        return [one.name for one in registry.together(names)]

    both = "filter-throughput-loss"
    assert together("filter-loss", "filter-throughput") == [both]
    assert together("filter-loss", "bounce", "filter-throughput") == [both, "bounce"]
    assert together("bounce", "filter-loss", "bounce") == ["bounce", "filter-loss"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"packets": "0"}, "packets 0"),
        ({"percents": "101"}, "percents 101"),
        ({"percents": "9,9"}, "percents has something twice"),
        ({"repetitions": "0"}, "repetition"),
        ({"repetitions": "1,2"}, "filter-loss takes one of --repetitions, not several"),
        ({"filter": "reject"}, "reject PUTs"),
        ({"filter": "nonsense"}, "filter 'nonsense' is unknown"),
        ({"behaviour": "thor"}, "behaviour 'thor' is unknown"),
        ({"hit_rates": "1"}, "has no --hit-rates"),
    ],
)
def test_wrong_settings(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings_of(given)


def test_counters_of_sockets() -> None:
    head = "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid drops\n"
    row = "  1: 020012C6:{:04X} 00000000:0000 07 00000000:00000000 00:00000000 0 0 0 0 2 ff {}\n"
    udp = head + row.format(12345, 7) + row.format(12346, 100) + row.format(12345, 2)
    assert udp_counts.drops(udp, 12345) == 9
    snmp = "Ip: Forwarding\nIp: 1\nUdp: NoPorts InDatagrams\nUdp: 3 14\nUdpLite: InDatagrams\n"
    assert udp_counts.received(snmp) == 14


def test_busy_is_all_but_idle() -> None:
    stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 5 5 5 5 5 5 5 5 5 5\n"
    assert cpu_time.busy(stat) == 1 + 2 + 4 + 8 + 16 + 32
