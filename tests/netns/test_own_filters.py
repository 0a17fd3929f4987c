# SPDX-License-Identifier: Apache-2.0
"""A filter of a user's own before a real server: from its C file to counts, events and metrics."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from carom.daemon import control
from carom.filters import own
from carom.kernel import kept, libbpf
from netns.line import Line
from netns.process import CAROM, Carom, Ended, attached, map_of, run, start, until
from netns.test_filters import PLACES, PORT, filtered, get, put, tallies
from netns.test_metrics import one, samples, started
from netns.test_rights import SERVE, USER, only
from netns.tools import tool
from netns.wire import Client

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "filters/examples/clients.c"
EVERY_MAP = ROOT / "tests/prog/own_maps.c"
REFUSED = ROOT / "tests/prog/own_refused.c"
LRU_HASH = 9  # linux/bpf.h
HOSTILE = [
    b"\x1b[31mred\x1b[0m",
    b"<script>alert('x')</script>",
    b'"quoted" \\',
    b"\xff\xfe\x80\n\r",
    b"k" * 256,
]


@pytest.fixture
def peer(straight: Line) -> Iterator[Client]:
    with Client(straight.client, straight.address, port=PORT) as client:
        yield client


def said(carom: Carom, line: Line, *arguments: str) -> str:
    """What `carom ARGUMENT... --pid` prints; it says nothing else, and ends well."""
    ended = run(line.server, *arguments, "--pid", str(carom.pid))
    assert (ended.code, ended.stderr) == (0, ""), ended
    return ended.stdout


def maps(carom: Carom, most: int = 1000) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    found = control.call("filter_maps", carom.pid, most=most)
    return {
        one["name"]: {tuple(entry["key"].values()): entry["value"] for entry in one["entries"]}
        for one in found
    }


@pytest.mark.parametrize("place", PLACES)
def test_in_five_minutes(
    serve: Callable[..., Carom], straight: Line, peer: Client, place: str
) -> None:
    """The steps of docs/filters.md."""
    carom = filtered(serve, str(EXAMPLE), "--filter-at", place, "--ttl", "1ms")
    assert carom.ready["filter"] == {"name": "clients", "place": place}
    shape = "counter_asked: lru_hash of 10,000, network, first -> requests, bytes"
    assert shape in said(carom, straight, "filter", "show")
    control.call("filter_events", carom.pid, most=1)
    peer.send(put(10, 7))
    assert peer.ask(get(10)) == b"7"
    peer.send(b"GETTT and more")
    until(lambda: maps(carom)["counter_asked"].get(("198.18.0.0", "G")), "what it counted")
    network = straight.client_address.rsplit(".", 1)[0] + ".0"
    assert maps(carom)["counter_asked"] == {
        (network, "G"): {"requests": 2, "bytes": 21},
        (network, "P"): {"requests": 1, "bytes": 15},
    }
    lines = said(carom, straight, "filter", "count").splitlines()
    asked = lines[lines.index("counter_asked") + 1 :]
    assert [line.split() for line in asked[:3]] == [
        ["network", "first", "requests", "bytes"],
        [network, "G", "2", "21"],
        [network, "P", "1", "15"],
    ]
    counted = json.loads(said(carom, straight, "filter", "count", "--json"))
    assert sum(counted["invalid_rejected"]) == 1
    assert [one["name"] for one in counted["maps"]] == [
        *("counter_asked", "counter_sizes", "gauge_longest")
    ]
    (event,) = control.call("filter_events", carom.pid, most=9)
    assert event["value"] == {
        "client": straight.client_address,
        "length": 14,
        "text": "GETTT and more",
    }
    text = metrics(carom)
    assert one(text, "carom_filter_asked_bytes_total", network=network, first="G") == 21
    assert one(text, "carom_filter_longest") == 15
    assert one(text, "carom_filter_sizes_total", index="4") == 2


def metrics(carom: Carom) -> str:
    with started("--pid", str(carom.pid)) as process:
        text, wrong = process.communicate(timeout=60)
    assert (process.returncode, wrong) == (0, "")
    return text


def test_printed(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    """Records as they come, and entries of print_ maps where they changed; or packets as ever."""
    carom = filtered(serve, str(EVERY_MAP), "--hook", "none", "--filter-at", "socket")
    process = start(straight.server, "filter", "print", "--json", "--pid", str(carom.pid))
    seen: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout
        seen.extend(map(json.loads, process.stdout))

    def happened(text: str) -> bool:
        peer.send(text.encode())
        return any(line["value"].get("text") == text for line in seen)

    def cells() -> list[dict[str, Any]]:
        return [line for line in seen if line["map"] == "print_cpus"]

    reader = threading.Thread(target=read)
    reader.start()
    with process:
        until(lambda: happened("PUTs"), "a record")
        until(lambda: happened("<b>") and len(cells()) > 2 * libbpf.possible_cpus(), "a change")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        reader.join()
        assert process.stderr
        assert process.stderr.read() == ""
    assert {line["map"] for line in seen} == {"print_happened", "print_cpus"}
    assert {tuple(line["key"].values()) for line in cells()} == {
        (index, cpu) for index in range(2) for cpu in range(libbpf.possible_cpus())
    }
    printed = said(carom, straight, "filter", "print", "--seconds", "0.5")
    assert "print_cpus: index 0, cpu 0, value" in printed

    def packet() -> bool:
        control.call("filter_captures", carom.pid, rate=100, limit=1)
        peer.send(b"PUTs")
        return "socket invalid accepted" in said(
            carom, straight, "filter", "print", "--packets", "--seconds", "0.3"
        )

    until(packet, "a packet")


def test_hostile_words(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    """None of them commands a terminal, ends a line, or breaks the metrics."""
    carom = filtered(serve, str(EVERY_MAP), "--hook", "none", "--filter-at", "socket")
    control.call("filter_events", carom.pid, most=1)
    names = map_of(carom.pid, 256, 8, kind=LRU_HASH)
    for number, name in enumerate(HOSTILE):
        libbpf.update(names, name.ljust(256, b"\0"), struct.pack("<Q", 100 + number))
        peer.send(name)
    until(lambda: len(maps(carom)["counter_each"]) == len(HOSTILE), "all of them")
    printed = said(carom, straight, "filter", "print", "--seconds", "1")
    shown = said(carom, straight, "filter", "count")
    top = said(carom, straight, "top", "--once", "--interval", "0.2")
    for text in (printed, shown, top):
        assert text.replace("\n", "").isprintable(), text
    assert "\\x1b[31mred\\x1b[0m" in shown
    assert "<script>alert('x')</script>" in shown
    assert printed.count("print_happened:") == len(HOSTILE)
    labels = {
        dict(key[1])["text"]: value
        for key, value in samples(metrics(carom)).items()
        if key[0] == "carom_filter_names_total"
    }
    assert labels == {
        "\\x1b[31mred\\x1b[0m": 100,
        "<script>alert('x')</script>": 101,
        '"quoted" \\\\': 102,
        "\\xff\\xfe\\x80\\x0a\\x0d": 103,
        "k" * 256: 104,
    }


def test_metrics_are_bounded(serve: Callable[..., Carom], straight: Line) -> None:
    """1,000 entries of a map; the rest is one number."""
    carom = filtered(serve, str(EVERY_MAP), "--hook", "none", "--filter-at", "socket")
    names = map_of(carom.pid, 256, 8, kind=LRU_HASH)
    for number in range(1500):
        key = f"name {number}".encode().ljust(256, b"\0")
        libbpf.update(names, key, struct.pack("<Q", number))
    text = metrics(carom)
    found = [key for key in samples(text) if key[0] == "carom_filter_names_total"]
    assert len(found) == 1000
    assert one(text, "carom_filter_left_out", map="counter_names") == 500
    assert one(text, "carom_filter_left_out", map="gauge_last") == 0


def test_prometheus_own_tool_has_no_complaint(
    serve: Callable[..., Carom], straight: Line, peer: Client
) -> None:
    carom = filtered(serve, str(EVERY_MAP), "--hook", "none", "--filter-at", "socket")
    peer.send(b"PUT")
    until(lambda: maps(carom)["counter_each"], "a count")
    text = metrics(carom)
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked


def test_openmetrics(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    """By HTTP, as a Prometheus that asks for it gets it, to its own parser."""
    carom = filtered(serve, str(EXAMPLE), "--hook", "none", "--filter-at", "socket")
    peer.send(b'"\\\n')
    until(lambda: maps(carom)["counter_asked"], "a count")
    with started("--listen", "19751", "--pid", str(carom.pid)) as process:
        try:
            until(lambda: listens(19751), "the metrics' port")
            connection = http.client.HTTPConnection("127.0.0.1", 19751, timeout=30)
            with contextlib.closing(connection):
                accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
                connection.request("GET", "/metrics", headers=accept)
                text = connection.getresponse().read().decode()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["carom_filter_asked_requests"].type == "counter"
    assert families["carom_filter_longest"].type == "gauge"
    (sample,) = families["carom_filter_asked_requests"].samples
    assert sample.labels["first"] == '"'


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_top(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    """A counter's entries by what they grow in a second, a gauge's as they are."""
    carom = filtered(serve, str(EXAMPLE), "--hook", "none", "--filter-at", "socket")
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            peer.send(b"BAD")
            time.sleep(0.002)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        look = json.loads(said(carom, straight, "top", "--once", "--json", "--interval", "0.5"))
        shown = said(carom, straight, "top", "--once", "--interval", "0.5")
    finally:
        ended.set()
        sender.join()
    found = {one["name"]: one for one in look["filter_maps"]}
    (entry,) = found["counter_asked"]["entries"]
    assert entry["key"]["first"] == "B"
    assert 0 < entry["value"]["requests"] < 600
    assert entry["value"]["bytes"] == pytest.approx(3 * entry["value"]["requests"])
    assert found["gauge_longest"]["entries"] == [{"key": {}, "value": {"value": 3}}]
    assert ", by network, first" in shown and "198.18.0.0, B" in shown
    assert "gauge_longest" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("place", PLACES)
def test_swapped_live(
    serve: Callable[..., Carom], straight: Line, peer: Client, tmp_path: Path, place: str
) -> None:
    """Own filters and carom's take turns while requests come and maps are looked at: none is lost,
    and none is let through unjudged."""
    ended = run(straight.server, "filter", "build", str(EXAMPLE), "-o", str(tmp_path))
    assert ended.code == 0, ended
    path = tmp_path / f"clients-{place}.o"
    carom = filtered(serve, "simple", "--filter-at", place, "--hook", "none")
    peer.send(put(3, 9))
    assert peer.ask(get(3)) == b"9"
    made = own.made(path, place).told()  # type: ignore[arg-type]
    swaps, looks, stop = list[str](), list[int](), threading.Event()

    def swap() -> None:
        for told in itertools.cycle((made, {"filter": "valid-command"})):
            if stop.is_set():
                return
            control.call("filter_use", carom.pid, timeout=60, **told)
            swaps.append(told["filter"])

    def look() -> None:
        while not stop.is_set():
            for call, arguments in (
                ("status", {}),
                ("filter_maps", {"most": 10}),
                ("filter_events", {"most": 10}),
            ):
                looks.append(len(control.call(call, carom.pid, timeout=60, **arguments)))

    threads = [threading.Thread(target=one) for one in (swap, look)]
    for thread in threads:
        thread.start()
    try:
        asked = 0
        while (len(swaps) < 60 or asked < 1000) and all(one.is_alive() for one in threads):
            assert peer.ask(get(3)) == b"9"
            asked += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(swaps) >= 60
    assert len(looks) > 10
    assert tallies(carom)["valid_accepted"] == asked + 2
    assert tallies(carom)["valid_rejected"] == 0


def test_use(serve: Callable[..., Carom], straight: Line, tmp_path: Path) -> None:
    """A file is compiled by who asks; one that is refused changes nothing."""
    carom = filtered(serve, "simple")
    assert "clients from now on" in said(carom, straight, "filter", "use", str(EXAMPLE))
    assert control.call("filter", carom.pid)["filter"] == "clients"
    broken = tmp_path / "broken.c"
    broken.write_text('#include "filter.h"\nint broken(CONTEXT *context) { return nothing; }\n')
    for path, words in (
        (broken, "broken.c:2:39: error: use of undeclared identifier 'nothing'"),
        (REFUSED, "verifier refused own_refused"),
        (tmp_path / "nowhere.c", "cannot be read: No such file"),
        (tmp_path / "clients-tc.o", "cannot be read: No such file"),
        (tmp_path, "is a folder"),
    ):
        ended = run(straight.server, "filter", "use", str(path), "--pid", str(carom.pid))
        assert ended.code in (1, 2), ended
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
        assert control.call("filter", carom.pid)["filter"] == "clients"
    assert "simple from now on" in said(carom, straight, "filter", "use", "simple")


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("nowhere.c", 2, "cannot be read: No such file"),
        ("./clients.txt", 2, "neither C nor an object file"),
        ("/", 2, "is a folder"),
        (str(REFUSED), 1, "verifier refused own_refused"),
    ],
)
def test_refused_at_the_start(straight: Line, path: str, code: int, words: str) -> None:
    """Before anything is attached."""
    options = ("-i", "carom0", "--app", "kv", "-p", str(PORT), "--filter", path)
    ended = run(straight.server, "serve", *options)
    assert (ended.code, ended.stdout) == (code, ""), ended
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert attached(straight.server) is None


def test_a_file_that_carom_may_not_read(
    straight: Line, peer: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """carom runs as a user of its own: at the start it says who has to read the file; later root,
    who may, gives it what it made of it."""
    with tempfile.TemporaryDirectory(prefix="carom-", dir="/tmp") as folder:
        os.chown(folder, USER, USER)
        monkeypatch.setenv("CAROM_CACHE", str(kept.folder()))
        monkeypatch.setenv("CAROM_RUN", folder)
        secret = Path(folder) / "mine.c"
        secret.write_text(EXAMPLE.read_text().replace("int clients", "int mine"))
        secret.chmod(0o600)
        program = (*only(*SERVE, user=USER), *CAROM)
        options = ("--app", "kv", "-p", str(PORT), "--hook", "none", "--filter-at", "socket")
        ended = run(straight.server, "serve", *options, "--filter", str(secret), program=program)
        assert ended.code == 2, ended
        assert f"cannot be read: Permission denied\n  hint: carom runs as user {USER}" in (
            ended.stderr
        )
        with Carom(
            straight.server, *options, "--filter", "simple", program=program, interface=None
        ) as carom:
            assert "mine from now on" in said(carom, straight, "filter", "use", str(secret))
            peer.send(b"BAD")
            until(lambda: maps(carom)["counter_asked"], "a count")


def test_built(straight: Line, tmp_path: Path) -> None:
    """An object for each place; what is no place, and no folder, is refused."""
    arguments = ("filter", "build", str(EXAMPLE), "-o", str(tmp_path), "--json")
    ended = run(straight.server, *arguments)
    assert json.loads(ended.stdout) == {
        place: str(tmp_path / f"clients-{place}.o") for place in PLACES
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("clients-socket.o", "clients-tc.o", "clients-xdp.o")
    ]
    refused: list[tuple[Ended, str]] = [
        (run(straight.server, *arguments, "--at", "nic"), "there is no place 'nic'"),
        (run(straight.server, *arguments[:4], str(EXAMPLE)), "cannot write"),
        (run(straight.server, "filter", "build", "mine.o"), "is no C file"),
    ]
    for ended, words in refused:
        assert ended.code in (1, 2), ended
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
