# SPDX-License-Identifier: Apache-2.0
"""A filter before a real key-value server: where it is, what it lets through, swapped live."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

from carom.daemon import control
from carom.kernel.waiting import readable
from netns.line import Line
from netns.process import Carom, run, start, until
from netns.wire import Client

PORT, OTHER_PORT = 12345, 12347
PLACES = ("xdp", "tc", "socket")
INVALID = (b"BAD" + bytes(12), b"PUTT" + bytes(11), b"get" + bytes(4), b"")


def put(key: int, value: int) -> bytes:
    return b"PUT" + struct.pack("<Iq", key, value)


def get(key: int) -> bytes:
    return b"GET" + struct.pack("<I", key)


def delete(key: int) -> bytes:
    return b"DELETE" + struct.pack("<I", key)


@pytest.fixture
def peer(straight: Line) -> Iterator[Client]:
    with Client(straight.client, straight.address, port=PORT) as client:
        yield client


def filtered(serve: Callable[..., Carom], name: str, *arguments: str) -> Carom:
    return serve("--app", "kv", "-p", str(PORT), "--filter", name, *arguments)


def tallies(carom: Carom) -> dict[str, int]:
    found = control.call("filter", carom.pid)["tallies"]
    return {name: sum(values) for name, values in found.items()}


@pytest.mark.parametrize("hook", ["xdp", "tc", "none"])
@pytest.mark.parametrize("place", PLACES)
def test_filtered_service(serve: Callable[..., Carom], peer: Client, hook: str, place: str) -> None:
    """Wherever the cache and the filter are, the server gets what is accepted, and no more."""
    carom = filtered(serve, "strict-valid-command", "--hook", hook, "--filter-at", place)
    assert carom.ready["filter"] == {"name": "strict-valid-command", "place": place}
    before = tallies(carom)
    peer.send(put(10, 7))
    assert peer.ask(get(10)) == b"7"
    for request in INVALID:
        peer.send(request)
    assert peer.nothing_more()
    assert peer.ask(get(10)) == b"7"
    after = tallies(carom)
    assert after["invalid_rejected"] - before["invalid_rejected"] == len(INVALID)
    assert after["invalid_accepted"] == after["valid_rejected"] == 0


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_the_cache_is_behind_it(serve: Callable[..., Carom], peer: Client, hook: str) -> None:
    """Hits are filtered too; what is accepted hits."""
    carom = filtered(serve, "parameterized", "--hook", hook)
    assert carom.ready["filter"]["place"] == hook
    peer.send(put(1, 5))

    def hits() -> bool:
        assert peer.ask(get(1)) == b"5"
        return carom.counters()["hit"] > 0

    until(hits, "the cache to keep it, once the PUT's hold is over")
    control.call("filter_set", carom.pid, setting="accept", value=0)
    assert not peer.answered(get(1), seconds=0.3)
    control.call("filter_set", carom.pid, setting="accept", value=1)
    before = carom.counters()
    assert peer.ask(get(1)) == b"5"
    carom.expect(before, hit=1)


@pytest.mark.parametrize("place", PLACES)
def test_swapped_live(serve: Callable[..., Carom], peer: Client, place: str) -> None:
    """No request is lost, nor let through, while filters that agree on it take turns."""
    carom = filtered(serve, "simple", "--filter-at", place, "--hook", "none")
    peer.send(put(3, 9))
    assert peer.ask(get(3)) == b"9"
    swaps, ended = list[str](), threading.Event()

    def swap() -> None:
        for name in itertools.cycle(("valid-command", "limited-puts", "simple", "parameterized")):
            if ended.is_set():
                return
            control.call("filter_use", carom.pid, filter=name)
            swaps.append(name)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        asked = 0
        while len(swaps) < 100 or asked < 2000:
            assert peer.ask(get(3)) == b"9"
            asked += 1
    finally:
        ended.set()
        swapper.join()
    sums = tallies(carom)
    assert sums["valid_accepted"] == asked + 2
    assert sums["valid_rejected"] == 0


@pytest.mark.parametrize("place", PLACES)
def test_existing_key(serve: Callable[..., Carom], peer: Client, place: str) -> None:
    """Swapped in while the server holds keys: it knows them, those that come, those that go."""
    carom = filtered(serve, "simple", "--filter-at", place, "--hook", "none")
    peer.send(put(1, 4))
    assert peer.ask(get(1)) == b"4"
    control.call("filter_use", carom.pid, filter="existing-key")

    def knows() -> bool:
        rejected = tallies(carom)["valid_rejected"]
        peer.send(get(200))
        return tallies(carom)["valid_rejected"] > rejected

    until(knows, "the first second to pass")
    assert peer.ask(get(1)) == b"4"
    peer.send(put(2, 6))
    assert peer.ask(get(2)) == b"6", "right behind its PUT"
    peer.send(delete(2))

    def gone() -> bool:
        rejected = tallies(carom)["valid_rejected"]
        peer.send(get(2))
        return tallies(carom)["valid_rejected"] > rejected

    until(gone, "the server to say that it is gone")
    assert peer.nothing_more()


def test_two_services_share_a_filter(straight: Line, tmp_path: Path) -> None:
    """Both are filtered; existing-key, which follows one server, is refused."""
    config = tmp_path / "two.toml"
    config.write_text(
        'filter = "robust-valid-command"\n[[service]]\napp = "kv"\nport = 12345\n'
        '[[service]]\napp = "kv_stops"\nport = 12346\n'
    )
    with Carom(straight.server, "--config", str(config)) as carom:
        for port in (12345, 12346):
            with Client(straight.client, straight.address, port=port) as client:
                client.send(b"BAD")
                client.send(put(1, port))
                assert client.ask(get(1)) == b"%d" % port
        assert tallies(carom)["invalid_rejected"] == 2
        ended = run(straight.server, "filter", "use", "existing-key", "--pid", str(carom.pid))
        assert ended.code == 1
        assert "one service at a time" in ended.stderr


def test_the_command_line(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    carom = filtered(serve, "simple")
    pid = ("--pid", str(carom.pid))

    def said(*arguments: str) -> str:
        ended = run(straight.server, "filter", *arguments, *pid)
        assert ended.code == 0, ended
        return ended.stdout

    assert "simple at xdp: accept 1, rate 0, client-rate 0" in said("show")
    assert "limited-puts" in said("use", "limited-puts")
    assert "rate 5, client-rate 2" in said("set", "rate=5", "client-rate=2")
    shown = json.loads(said("show", "--json"))
    assert shown["filter"] == "limited-puts"
    assert shown["settings"] == {"accept": 1, "rate": 5, "client-rate": 2}
    peer.send(b"BAD")
    peer.send(b"GET" + bytes(4))
    lines = said("count").splitlines()
    assert lines[0].split()[-1] == "all"
    assert next(one for one in lines if one.startswith("invalid rejected")).split()[-1] == "1"
    assert sum(json.loads(said("count", "--json"))["valid_accepted"]) == 1
    status = run(straight.server, "status", *pid).stdout.splitlines()
    assert ["filter", "invalid", "rejected", "1"] in [line.split() for line in status]


@pytest.fixture(scope="module")
def simple(straight: Line) -> Iterator[Carom]:
    """One that wrong calls leave as it is, on a port of its own."""
    arguments = ("--app", "kv", "-p", str(OTHER_PORT), "--hook", "none", "--filter", "simple")
    with Carom(straight.server, *arguments) as carom:
        yield carom


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("use", "strict"), 1, "there is no filter 'strict'"),
        (("set", "speed=1"), 1, "no setting 'speed'"),
        (("set", "rate"), 2, "'rate' is no setting"),
        (("set", "accept=7"), 1, "out of range"),
        (("print", "--rate", "0"), 1, "out of range"),
        (("print", "--pcap", "/nowhere/at/all", "--count", "1"), 2, "cannot write"),
        (("show", "--pid", "1"), 1, "does not answer"),
    ],
)
def test_wrong_calls(
    simple: Carom, straight: Line, arguments: tuple[str, ...], code: int, word: str
) -> None:
    pid = () if "--pid" in arguments else ("--pid", str(simple.pid))
    if "--pcap" in arguments:
        control.call("filter_captures", simple.pid, rate=100, limit=1)
        with Client(straight.client, straight.address, port=OTHER_PORT) as client:
            client.send(b"BAD")
    before = control.call("filter", simple.pid)
    ended = run(straight.server, "filter", *arguments, *pid)
    assert (ended.code, "Traceback" in ended.stderr) == (code, False), ended
    assert word in ended.stderr
    after = control.call("filter", simple.pid)
    assert [after[what] for what in ("filter", "settings")] == [
        before[what] for what in ("filter", "settings")
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--app", "echo", "--filter", "simple"), "--app kv"),
        (("--app", "kv", "--filter", "strict"), "filter"),
        (("--app", "kv", "--filter", "simple", "--filter-at", "nic"), "filter-at"),
        (
            ("--app", "kv", "--hook", "none", "--filter", "simple", "--filter-at", "xdp"),
            "no interface to filter on",
        ),
    ],
)
def test_wrong_options(straight: Line, arguments: tuple[str, ...], word: str) -> None:
    ended = run(straight.server, "serve", *arguments)
    assert (ended.code, "Traceback" in ended.stderr) == (2, False), ended
    assert word in ended.stderr


def test_no_filter_there(serve: Callable[..., Carom], straight: Line) -> None:
    carom = serve("--app", "kv", "-p", str(PORT))
    ended = run(straight.server, "filter", "show", "--pid", str(carom.pid))
    assert ended.code == 1
    assert "no filter runs" in ended.stderr


@pytest.mark.parametrize("place", PLACES)
def test_printed(
    serve: Callable[..., Carom], straight: Line, peer: Client, tmp_path: Path, place: str
) -> None:
    """As lines, as JSON, and to a file that scapy reads again."""
    carom = filtered(serve, "strict-valid-command", "--filter-at", place, "--hook", "none")
    control.call("filter_captures", carom.pid, rate=100, limit=1)
    pid = ("--pid", str(carom.pid))
    requests = (put(10, -2), b"BAD" + bytes(9), get(10))

    def send() -> None:
        for request in requests:
            peer.send(request)

    send()
    ended = run(straight.server, "filter", "print", "--count", "3", *pid)
    first, second, third = ended.stdout.splitlines()
    assert f"{place} valid accepted" in first
    assert "KeyValue" in first
    assert f"{place} invalid rejected" in second
    assert "KeyValue" in third
    send()
    ended = run(straight.server, "filter", "print", "--count", "3", "--json", *pid)
    assert [json.loads(line)["accepted"] for line in ended.stdout.splitlines()] == [1, 0, 1]
    send()
    path = tmp_path / "packets.pcap"
    ended = run(straight.server, "filter", "print", "--count", "3", "--pcap", str(path), *pid)
    assert "3 packets" in ended.stdout
    payloads = [bytes(packet[UDP].payload) for packet in rdpcap(str(path))]
    assert [payload[: len(sent)] for payload, sent in zip(payloads, requests, strict=True)] == [
        *requests
    ]


def test_print_ends_by_ctrl_c(serve: Callable[..., Carom], straight: Line, peer: Client) -> None:
    carom = filtered(serve, "simple", "--filter-at", "socket", "--hook", "none")
    process = start(straight.server, "filter", "print", "--pid", str(carom.pid))
    with process:
        assert process.stdout

        def printed() -> bool:
            peer.send(get(1))
            return bool(readable([process.stdout], 0))

        until(printed, "a line")
        assert "KeyValue" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def test_stats(serve: Callable[..., Carom], straight: Line) -> None:
    """The kernel times the program's runs while it is asked to."""
    carom = filtered(serve, "simple", "--filter-at", "socket", "--hook", "none")
    ended = threading.Event()

    def send() -> None:
        udp = straight.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with udp:
            while not ended.is_set():
                udp.sendto(b"BAD", (straight.address, PORT))
                ended.wait(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        result = run(
            straight.server,
            "filter",
            "stats",
            "--seconds",
            "0.5",
            "--json",
            "--pid",
            str(carom.pid),
        )
    finally:
        ended.set()
        sender.join()
    counted = json.loads(result.stdout)
    assert counted["filter"] == "simple"
    assert counted["run_cnt"] > 0
    assert counted["run_time_ns"] > 0
