# SPDX-License-Identifier: Apache-2.0
"""`--max-hits-per-cpu`: what one CPU gives, that the rest is the server's, where it is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netns.line import Line
from netns.process import INTERFACE, Carom, run, until
from netns.services import PORT, sized_reply, sized_request
from netns.test_errors import check_refused
from netns.test_metrics import one, told
from netns.test_why import hexed, walks, why
from netns.wire import Client, Tap

LIMIT, FLOOD = 100, 4000
REQUEST = sized_request(40, 33)


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """A veth's packets are received by the CPU that sends them: it is one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(
    scope="module",
    params=[("--mode", "native"), ("--mode", "generic"), ("--hook", "tc")],
    ids=["native", "generic", "tc"],
)
def served(straight: Line, request: pytest.FixtureRequest) -> Iterator[Carom]:
    options = ("--app", "services:sized", "--max-hits-per-cpu", str(LIMIT), *request.param)
    with Carom(straight.server, *options, "--prefix-rate", "0", "--total-rate", "0") as carom:
        yield carom


def flood(line: Line, count: int) -> float:
    """So many requests as fast as they go; the seconds that they took."""
    frame = bytes(
        Ether(src=line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
        / IP(src=line.client_address, dst=line.address)
        / UDP(sport=5353, dport=PORT)
        / REQUEST
    )
    begin = time.monotonic()
    with Tap(line.client) as tap:
        for _ in range(count):
            tap.send(frame)
    return time.monotonic() - begin


def until_kept(line: Line, carom: Carom) -> None:
    """Its reply is in the cache, and given."""
    with Client(line.client, line.address) as client:
        before = carom.counters()

        def is_hit() -> bool:
            assert client.ask(REQUEST) == sized_reply(REQUEST)
            return carom.since(before).get("hit", 0) > 0

        until(is_hit, "a hit")
    until(lambda: is_idle(carom), "the server to have answered what came before")


def is_idle(carom: Carom) -> bool:
    """Whether its server answers nothing for a moment."""
    before = carom.counters()["replies"]
    time.sleep(0.1)
    return carom.counters()["replies"] == before


def test_a_flood(straight: Line, served: Carom) -> None:
    """Its share is answered, and all else goes to the server."""
    until_kept(straight, served)
    before = served.counters()
    begin = time.monotonic()
    flood(straight, FLOOD)
    until(
        lambda: sum(served.since(before).get(name, 0) for name in ("hit", "pass_cpu")) == FLOOD,
        "all of the flood",
    )
    seconds = time.monotonic() - begin
    found = served.since(before)
    assert 0 < found["hit"] <= LIMIT * (seconds + 1) + os.cpu_count()


def test_who_asks_is_answered_once(straight: Line, served: Carom) -> None:
    """By the kernel or by the server: the same bytes, and never both."""
    until_kept(straight, served)
    before = served.counters()
    with Client(straight.client, straight.address) as client:
        for _ in range(3 * LIMIT):
            assert client.ask(REQUEST) == sized_reply(REQUEST)
        assert client.nothing_more()
    found = served.since(before)
    assert found.get("hit", 0) + found.get("pass_cpu", 0) == 3 * LIMIT
    assert found.get("replies", 0) == found.get("pass_cpu", 0)


def test_others_keep_their_share(straight: Line, served: Carom) -> None:
    """In a flood a miss and a neighbour on the same interface are answered."""
    until_kept(straight, served)
    with (
        Carom(straight.server, "--hook", "none", "--port", "51142", interface=None),
        Client(straight.client, straight.address) as client,
        Client(straight.client, straight.address, 51_142) as neighbour,
    ):
        for number in range(50):
            flood(straight, 20)
            request = sized_request(20, 40 + number)
            assert client.ask(request) == sized_reply(request)
            assert neighbour.ask(request) == request


def test_where_it_is_shown(straight: Line, served: Carom) -> None:
    until_kept(straight, served)
    flood(straight, FLOOD)
    status = run(straight.server, "status", "--pid", str(served.pid))
    assert f"each CPU gives at most {LIMIT} replies a second" in status.stdout
    assert " pass cpu " in status.stdout
    text = told("--pid", str(served.pid)).stdout
    assert one(text, "carom_max_hits_per_cpu") == LIMIT
    hook = served.ready["interfaces"][0]["hook"]
    counted = served.status()["hooks"][hook]["pass_cpu"]
    assert one(text, "carom_packets_total", hook=hook, verdict="pass_cpu") == counted > 0


def test_why(straight: Line, served: Carom) -> None:
    """It shows the stop; and one that has none shows none."""
    until_kept(straight, served)
    (walk,) = walks(served, hexed(REQUEST))
    assert list(walk["stops"]).index("cpu") == list(walk["stops"]).index("lease") + 1
    assert walk["verdict"] in ("hit", "pass_cpu")
    assert "replies a second of its CPU" in why(served, hexed(REQUEST)).stdout


def test_without_it_no_word(own_line: Line) -> None:
    with Carom(own_line.server, "--mode", "generic") as carom:
        (walk,) = walks(carom, "0x00")
        assert "cpu" not in walk["stops"]
        assert "each CPU" not in run(own_line.server, "status", "--pid", str(carom.pid)).stdout
        assert one(told("--pid", str(carom.pid)).stdout, "carom_max_hits_per_cpu") == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [("-1", "out of range"), ("10000001", "out of range"), ("many", "many"), ("1.5", "1.5")],
)
def test_wrong_usage(own_line: Line, value: str, said: str) -> None:
    ended = run(own_line.server, "serve", "-i", INTERFACE, "--max-hits-per-cpu", value)
    check_refused(own_line, ended, 2, "max-hits-per-cpu", said)


TWO = """
interfaces = ["carom0"]
{common}
[[service]]
port = 51141
{first}

[[service]]
port = 51142
app = "carom.apps:mixed"
"""


def test_in_a_file(own_line: Line, tmp_path: Path) -> None:
    """For all services together, and so said for all."""
    path = tmp_path / "services.toml"
    path.write_text(TWO.format(common=f"max_hits_per_cpu = {LIMIT}", first=""))
    with Carom(own_line.server, "--config", str(path)) as carom:
        assert carom.status()["options"]["max_hits_per_cpu"] == LIMIT
    path.write_text(TWO.format(common="", first=f"max_hits_per_cpu = {LIMIT}"))
    ended = run(own_line.server, "serve", "--config", str(path))
    check_refused(own_line, ended, 2, "share max_hits_per_cpu", f"{LIMIT} is not 0")
