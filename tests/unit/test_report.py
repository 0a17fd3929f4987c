# SPDX-License-Identifier: Apache-2.0
"""The page of runs: it says what they say, needs nothing else, and trusts nothing in them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from carom.errors import ExperimentError
from carom.lab import registry, report
from carom.lab import results as storage
from carom.lab.record import Cell, Run
from carom.lab.show import facts
from carom.lab.show.sheets import Sheet
from unit import fake_contests, fake_filters
from unit import fake_results as fake
from unit.test_cli import carom

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}$x$"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What is in a page; fails where its elements do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return "\n".join(one for one in self.texts if one)

    def values(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def shown(*runs: Run[Any]) -> Page:
    return Page(report.page([(Path(f"run{n}"), run) for n, run in enumerate(runs)], Path("x.html")))


def bounce(repetitions: int = 2, **changes: object) -> Run[Any]:
    run = fake.run("bounce", fake.bounce_cells((15.0,)), repetitions=repetitions)
    return msgspec.structs.replace(run, **changes)


def cache() -> Run[Any]:
    return fake.run("cache", fake.cache_cells(), repetitions=2)


RUNS: dict[str, Callable[[], Run[Any]]] = {
    "bounce": bounce,
    "cache": cache,
    "load": fake_contests.load,
    "filters": lambda: fake_filters.results(fake_filters.grid()),
}


def sheets(run: Run[Any]) -> list[Sheet]:
    """What the terminal shows."""
    return registry.of(run).tables(run)


def published(run: Run[Any]) -> list[Sheet]:
    return registry.of(run).published(run)


@pytest.mark.parametrize("kind", RUNS)
def test_the_page_has_every_row_of_the_terminals_tables(kind: str) -> None:
    run = RUNS[kind]()
    text = report.page([(Path("run"), run)], Path("x.html"))
    page, rows = Page(text), re.findall(r"<tr>(.*?)</tr>", text, re.S)
    found = [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]
    wanted = sheets(run)
    assert wanted
    for sheet in wanted:
        assert sheet.title in page.text
        assert sheet.headings in found
        for rows_of in sheet.groups():
            for row in rows_of:
                assert list(row.values()) in found


@pytest.mark.parametrize("kind", RUNS)
def test_the_page_needs_no_network_and_no_script(kind: str) -> None:
    page = shown(RUNS[kind]())
    assert not page.tags & {"script", "link", "iframe", "object", "base", "form"}
    assert page.values("src")
    assert all(one.startswith("data:image/png;base64,") for one in page.values("src"))
    assert all(one.startswith(("./", "#")) for one in page.values("href"))
    assert any("default-src 'none'" in one for one in page.values("content"))
    assert "width=device-width, initial-scale=1" in page.values("content")


def test_the_conclusion_comes_first_then_what_was_run() -> None:
    run = bounce()
    text = shown(run).text
    places = [
        text.index(one)
        for one in ("µs (p50), the fastest userspace server", run.command, "Example CPU",
                    "Sickler 2022", "Round-trip times, µs", "Raw data")
    ]  # fmt: skip
    assert places == sorted(places)


def test_published_numbers_stand_beside_ours_with_their_ratio() -> None:
    run = bounce()
    means, gains = published(run)
    rows = {row["series"]: row for row in means.rows}
    assert rows["userspace"]["published"] == "494.1"
    ours = float(rows["userspace"]["this run"])
    assert float(rows["userspace"]["ratio"]) == pytest.approx(ours / 494.05, rel=0.02)
    (gain,) = [row for row in gains.rows if row["wait"] == "blocking"]
    assert gain["published"] == "1.17"
    ratio = float(gain["this run"].split()[0]) / 1.17
    assert float(gain["ratio"]) == pytest.approx(ratio, rel=0.02)
    for sheet in (means, gains):
        assert sheet.title in shown(run).text


def test_of_hit_rates_those_that_were_published_have_a_counterpart() -> None:
    cells = [Cell(series="xdp_cache", wait="blocking", hit_rate=rate) for rate in (0.1, 0.5, 1.0)]
    (means,) = published(fake.run("cache", cells, repetitions=1))
    assert [row["hits"] for row in means.rows] == ["50 %", "100 %"]


def test_what_the_published_were_measured_on_is_named() -> None:
    sheet = registry.of(bounce()).where(bounce())
    assert sheet
    rows = {row[""]: (row["this run"], row["published"]) for row in sheet.rows}
    assert rows["kernel"] == ("6.1.0-9-amd64", "5.13")
    assert rows["memory"] == ("16.0 GiB", "4 GB for each machine")


@pytest.mark.parametrize(
    "run",
    [fake_contests.load(), fake_contests.held(("a", 0, {"s": 1.0}), experiment="unheard-of")],
    ids=["load", "unknown"],
)
def test_a_run_without_published_counterpart(run: Run[Any]) -> None:
    assert published(run) == []
    assert "No published numbers stand beside this experiment." in shown(run).text


def test_filters_have_their_walls_beside_the_published() -> None:
    runs = [
        fake_filters.one(series, 99.0, index, packets=1_000_000, wall=wall)
        for index in range(2)
        for series, wall in (("userspace", 2.0), ("socket", 1.0))
    ]
    (sheet,) = published(fake_filters.results(runs, "filter-throughput"))
    (row,) = sheet.rows
    assert row["userspace, s"] == "2.00" and row["gain"] == "2.00 (2.00-2.00)"
    assert float(row["ratio"]) == pytest.approx(2 / float(row["published gain"]), rel=0.02)


def test_runs_of_one_page_that_differ_are_pointed_out() -> None:
    other = msgspec.structs.replace(fake.ENVIRONMENT, kernel="6.12.1", versions={})
    page = shown(bounce(1), bounce(1, environment=other))
    assert "Where the runs of this page differ" in page.text
    lines = page.text.splitlines()
    at = lines.index("Where the runs of this page differ")
    assert lines[at + 1 : at + 9] == [
        "1. bounce", "2. bounce", "kernel", "6.1.0-9-amd64", "6.12.1",
        "versions: python", "3.11.2", "-",
    ]  # fmt: skip
    same = shown(bounce(1), bounce(1)).text
    assert "Where the runs" not in same and "on the same machine" in same


def test_a_client_that_is_another_machine() -> None:
    """What it has otherwise than the server is told, and nothing else of it."""
    run = bounce()
    assert run.environment.kernel != "5.4.3"
    client = msgspec.structs.replace(run.environment, kernel="5.4.3")
    found = facts.environment(msgspec.structs.replace(run, client_environment=client))
    assert {name: found[name] for name in found if name.startswith("client")} == {
        "client: kernel": "5.4.3"
    }


def test_an_interrupted_run_says_so() -> None:
    cells = [Cell(series="xdp", wait="spin")]
    text = shown(fake.run("bounce", cells, repetitions=1, complete=False)).text
    assert "The run was interrupted" in text
    assert "Too little was measured to compare anything." in text


@pytest.mark.parametrize("count", [0, 1, 4])
def test_an_interrupted_run_of_filters(count: int) -> None:
    run = fake_filters.results(fake_filters.grid()[:count])
    run.complete = False
    assert "The run was interrupted" in shown(run).text


def test_nothing_measured() -> None:
    for run in (fake.run("cache", [], complete=False), fake_contests.held()):
        assert "Nothing was measured." in shown(run).text


@pytest.mark.parametrize("kind", RUNS)
def test_one_repetition(kind: str) -> None:
    of_one: dict[str, Run[Any]] = {
        "bounce": bounce(1),
        "cache": fake.run("cache", fake.cache_cells(), repetitions=1),
        "load": fake_contests.load(1),
        "filters": fake_filters.results(fake_filters.grid([0])),
    }
    text = shown(of_one[kind]).text
    assert "nan" not in text.lower().replace("nanoseconds", "")
    if kind != "filters":
        assert "one repetition: no interval" in text


def test_nothing_in_a_file_becomes_part_of_the_page() -> None:
    environment = msgspec.structs.replace(
        fake.ENVIRONMENT, cpu=HOSTILE, kernel=HOSTILE, pair=HOSTILE, driver=HOSTILE,
        distribution=HOSTILE, mode=HOSTILE, offloads={HOSTILE: True}, versions={HOSTILE: HOSTILE},
    )  # fmt: skip
    changes = {
        "experiment": HOSTILE,
        "command": HOSTILE,
        "started": HOSTILE,
        "settings": {HOSTILE: HOSTILE},
        "environment": environment,
    }
    cells = [Cell(series=series, wait="spin") for series in ("userspace", "xdp", HOSTILE)]
    grid = msgspec.structs.replace(fake.run("bounce", cells), **changes)
    filters = msgspec.structs.replace(fake_filters.results(fake_filters.grid()), **changes)
    held = [(HOSTILE, index, {HOSTILE: 1.0 + index}) for index in range(2)]
    contest = msgspec.structs.replace(fake_contests.held(*held), **changes)
    page = shown(grid, contest, filters)
    honest = shown(bounce(), fake_contests.load(), RUNS["filters"]())
    assert page.tags <= honest.tags
    assert {name for name, _ in page.attributes} <= {name for name, _ in honest.attributes}
    assert page.text.count("alert(1)") > 20
    assert page.text.count("{{ 7 * 7 }}") == page.text.count("alert(1)")


def test_raw_data_is_linked_from_where_the_page_is(tmp_path: Path) -> None:
    folder = storage.write(bounce(), tmp_path / "some runs #1")
    for page in (tmp_path / "page.html", tmp_path / "some runs #1" / "page.html",
                 folder / "page.html", tmp_path / "else" / "where" / "page.html"):  # fmt: skip
        assert report.write([folder], page) == [folder]
        links = [unquote(one) for one in Page(page.read_text()).values("href") if one[0] != "#"]
        assert {(page.parent / one).resolve().name for one in links} >= {
            "results.json", "results.csv", "xdp-spin-32bytes-15s.hgrm",
        }  # fmt: skip
        assert all((page.parent / one).is_file() for one in links)


def test_a_run_named_twice_is_shown_once(tmp_path: Path) -> None:
    folder = storage.write(bounce(1), tmp_path)
    shown_runs = report.write([folder, folder / "results.json"], tmp_path / "page.html")
    assert len(shown_runs) == 1


def test_the_newest_of_each_experiment(tmp_path: Path) -> None:
    for name in (
        "20260102T030405Z-bounce", "20260102T030405Z-bounce-2", "20260102T030405Z-bounce-10",
        "20260101T030405Z-bounce-99", "20260102T030405Z-filter-loss", "20270102T030405Z-empty",
        "something else",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        if "empty" not in name:
            (tmp_path / name / "results.json").touch()
    assert [one.name for one in storage.newest(tmp_path)] == [
        "20260102T030405Z-bounce-10",
        "20260102T030405Z-filter-loss",
    ]


def test_the_command(tmp_path: Path) -> None:
    folder = storage.write(bounce(1), tmp_path)
    storage.write(fake_contests.load(), tmp_path)
    done = carom("lab", "report", "--results", str(tmp_path))
    assert done.returncode == 0
    assert f"report: {tmp_path / 'report.html'}" in done.stdout
    assert {"1. bounce", "2. load"} <= set(Page((tmp_path / "report.html").read_text()).texts)
    page = tmp_path / "one.html"
    said = carom("lab", "report", str(folder), "-o", str(page), "--json").stdout
    assert json.loads(said) == {"file": str(page), "runs": [str(folder)]}
    assert page.stat().st_size > 10_000


def _with_histogram(text: str) -> str:
    return re.sub(r'"histogram": "HIST', '"histogram": "????', text)


def _with_time(text: str) -> str:
    return re.sub(r'"p50": [\d.]+', '"p50": -5.0', text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-100], "cut short"),
        (lambda text: '{"schema": 1, "runs": ' + "[" * 100_000, "not a run of carom's lab"),
        (lambda text: "{}", "not a run of carom's lab"),
        (
            lambda text: text.replace('"schema": 2', '"schema": 3'),
            "schema 3; this carom reads 1 and 2",
        ),
        (lambda text: text.replace('"round-trips"', '"smells"'), "it measured 'smells'"),
        (lambda text: text.replace('"round-trips"', '"packets"'), "not a run of carom's lab"),
        (lambda text: '{"schema": 1}', "not a run of carom's lab"),
        (lambda text: text.replace('"index": 0', '"index": "x"'), "not a run of carom's lab"),
        (_with_histogram, "a histogram in these results cannot be read"),
        (_with_time, "impossible figures"),
    ],
    ids=[
        "cut",
        "deep",
        "foreign",
        "newer",
        "strange",
        "other",
        "old",
        "type",
        "histogram",
        "figures",
    ],
)
def test_a_damaged_file_is_one_clear_message(
    tmp_path: Path, damage: Callable[[str], str], said: str
) -> None:
    folder = storage.write(bounce(1), tmp_path)
    file = folder / "results.json"
    file.write_text(damage(file.read_text()))
    page = tmp_path / "page.html"
    with pytest.raises(ExperimentError) as caught:
        report.write([folder], page)
    assert said in str(caught.value) and folder.name in str(caught.value)
    assert not page.exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--results", "DIR"], "there is no run in"),
        (["DIR"], "cannot read"),
        (["RUN", "-o", "FILE/page.html"], "cannot write"),
    ],
)
def test_mistakes(tmp_path: Path, argv: list[str], said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    places = {"DIR": "dir", "FILE": "file", "RUN": storage.write(bounce(1), tmp_path).name}
    for name, place in places.items():
        argv = [one.replace(name, str(tmp_path / place)) for one in argv]
    done = carom("lab", "report", *argv)
    assert done.returncode == 1 and said in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
