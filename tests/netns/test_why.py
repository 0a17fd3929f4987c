# SPDX-License-Identifier: Apache-2.0
"""`carom why` before running caroms: what it says, that it is so, and that nothing comes of it."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapWriter

from netns.fronted import fronted_memcached
from netns.line import Line
from netns.process import CAROM, INTERFACE, Carom, Ended, end_of, environment
from netns.services import sized_reply, sized_request
from netns.sized import sized_service
from netns.wire import Client, Tap

HOSTILE = [
    "<script>alert(1)</script>",
    "'; drop table --",
    "\x1b[31mred\x07",
    "k" * 250,
    "\u202e",
    "\udcff\udc80",
]
"""The last is no UTF-8: the bytes 0xff and 0x80."""


def why(carom: Carom, *arguments: str) -> Ended:
    """`carom why` about this carom, as its user asks."""
    command = [*CAROM, "why", "--pid", str(carom.pid), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    return end_of(process, 30)


def walks(carom: Carom, *arguments: str) -> list[dict[str, Any]]:
    """What it says in JSON, of one packet."""
    ended = why(carom, "--json", *arguments)
    assert ended.code == 0, ended
    (line,) = ended.stdout.splitlines()
    found: list[dict[str, Any]] = json.loads(line)["walks"]
    return found


def verdict(carom: Carom, *arguments: str) -> str:
    """The one verdict."""
    (walk,) = walks(carom, *arguments)
    assert list(walk["stops"].values())[-1] == walk["verdict"]
    return str(walk["verdict"])


@pytest.fixture(scope="module", params=["native", "generic", "tc"])
def served(straight: Line, request: pytest.FixtureRequest) -> Iterator[Carom]:
    """A Python service; some of its replies need TC."""
    with sized_service(straight.server, request.param) as carom:
        yield carom


def hexed(request: bytes) -> str:
    return f"0x{request.hex()}"


def test_a_request_before_and_after_it_is_kept(straight: Line, served: Carom) -> None:
    """It says hit where there is one, with the very reply; and asking for it counts nothing."""
    request = sized_request(40, 33)
    before = served.counters()
    assert verdict(served, hexed(request)) == "miss"
    with Client(straight.client, straight.address) as client:
        assert client.ask(request) == sized_reply(request)
        after = served.counters()
        (walk,) = walks(served, hexed(request), "--from", straight.client_address)
        assert (walk["verdict"], walk["port"]) == ("hit", served.ready["services"][0]["port"])
        assert sized_reply(request).hex() in walk["reply"]
        assert served.counters() == after, "asking leaves no trace"
        assert client.ask(request) == sized_reply(request)
        served.expect(after, hit=1)
    served.expect(before, miss=1, hit=1, replies=1, fills=1)


def test_several_ask_at_once(straight: Line, served: Carom) -> None:
    """Each has the answer to its own question."""
    request = sized_request(42, 37)
    with Client(straight.client, straight.address) as client:
        client.ask(request)
    asked = {"hit": request, "miss": b"never asked", "pass_size": bytes(300)}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = {
            pool.submit(verdict, served, hexed(payload), "--from", straight.client_address): wanted
            for wanted, payload in (*asked.items(), *asked.items())
        }
        for answer, wanted in answers.items():
            assert answer.result() == wanted


def test_what_xdp_leaves_to_tc(straight: Line, served: Carom) -> None:
    request = sized_request(1_400, 20)
    with Client(straight.client, straight.address) as client:
        client.ask(request)
        before = served.counters()
        found = walks(served, hexed(request), "--from", straight.client_address)
        assert client.ask(request) == sized_reply(request)
    (walk,) = found  # the kernel lends the packet more room than the driver would have
    assert walk["verdict"] == "hit"
    assert ("XDP leave it to TC" in walk["what"]) == (walk["hook"] == "xdp")
    served.expect(before, hit=1, pass_to_tc=walk["hook"] == "xdp")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "--from", "198.18.0.1:99"), "pass_source_low"),
        (("x", "--from", "127.0.0.1"), "pass_source_loopback"),
        (("x", "--from", "224.0.0.1"), "pass_source_group"),
        (("y" * 257,), "pass_size"),
        (("--hex", f"{'ff' * 12}0806{'00' * 46}", "--interface", INTERFACE), "pass_ethertype"),
    ],
)
def test_what_is_passed_on(served: Carom, arguments: tuple[str, ...], said: str) -> None:
    assert verdict(served, *arguments) == said
    ended = why(served, *arguments)
    assert f"{said.replace('_', ' ')}: " in ended.stdout
    assert "what would change it: " in ended.stdout


def test_who_is_not_answered(straight: Line, served: Carom) -> None:
    """Though the reply is there: ourselves, who is not allowed, who has another's MAC."""
    request = sized_request(40, 33)
    with Client(straight.client, straight.address) as client:
        client.ask(request)
    kept = hexed(request)
    assert verdict(served, kept, "--from", straight.address) == "pass_source_own"
    assert verdict(served, kept, "--from", "203.0.113.1") == "pass_allow"
    assert verdict(served, kept, "--from", "198.18.0.77") == "pass_neighbour"


def test_a_capture(straight: Line, served: Carom, tmp_path: Path) -> None:
    """Frames as they came: each has its answer, in order."""
    requests = [sized_request(41, 35), sized_request(51, 36)]
    with Client(straight.client, straight.address) as client, Tap(straight.server) as tap:
        for request in requests:
            client.ask(request)
        came = [frame.data for frame in tap.frames() if not frame.outgoing]
    file = tmp_path / "some.pcap"
    with RawPcapWriter(str(file), linktype=1) as writer:  # of Ethernet
        for frame in (*came, b"short", bytes(9_000)):
            writer.write([frame] * 20)
    ended = why(served, "--json", "--pcap", str(file))
    assert ended.code == 0, ended
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [bytes.fromhex(line["frame"]) for line in lines[::20]] == [*came, b"short", bytes(9_000)]
    verdicts = [[walk["verdict"] for walk in line["walks"]] for line in lines[::20]]
    assert verdicts == [["hit"], ["hit"], [], []]
    assert why(served, "--pcap", str(file)).stdout.count("does not take this") == 40


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_requests_are_harmless(served: Carom, text: str) -> None:
    """In every output: no control character, and JSON that is JSON."""
    ended = why(served, text)
    assert ended.code == 0, ended
    assert all(letter.isprintable() or letter == "\n" for letter in ended.stdout)
    assert verdict(served, text) in ("miss", "pass_size")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is asked"),
        (("x", "--hex", "00"), "only one thing"),
        (("--hex", "00", "--pcap", "x"), "only one thing"),
        (("x", "--from", "nobody"), "--from nobody is no address"),
        (("x", "--from", "198.18.0.1:65536"), "is no address"),
        (("x", "--from", "198.18.0.1:-1"), "is no address"),
        (("z" * 1_473,), "a request of 1473 bytes is too long"),
        (("x", "--port", "9"), "no service is answered there"),
        (("x", "--to", "198.18.0.9"), "no service is answered there"),
        (("--hex", "0011"), "does not take this as a frame: 2 bytes"),
        (("--hex", "no"), "'no' is not hexadecimal"),
        (("--hex", "00" * 60, "--interface", "lo"), "no fast path is on lo"),
        (
            (
                "--hex",
                "00" * 9_000,
            ),
            "does not take this as a frame: 9000 bytes",
        ),
        (("--pcap", "/etc/hostname"), "cannot read /etc/hostname"),
        (("--pcap", "/nowhere"), "cannot read /nowhere: No such file"),
    ],
)
def test_what_cannot_be_asked(served: Carom, arguments: tuple[str, ...], said: str) -> None:
    ended = why(served, *arguments)
    assert (ended.code in (1, 2), ended.stdout) == (True, ""), ended
    assert said in ended.stderr
    assert "hint: " in ended.stderr and "Traceback" not in ended.stderr


def test_in_front_of_a_memcached(own_line: Line) -> None:
    """In its own words."""
    with fronted_memcached(own_line) as (carom, _):
        assert verdict(carom, "get foo") == "hit"
        assert verdict(carom, "get absent") == "miss"
        assert verdict(carom, "set foo 0 0 1") == "pass_write"
        assert verdict(carom, "stats") == "pass_request"
        ended = why(carom, " ")
        assert (ended.code, ended.stdout) == (2, "") and "asks for nothing" in ended.stderr


def test_without_a_fast_path(straight: Line) -> None:
    where = ("--hook", "none", "-p", "51142")
    with Carom(straight.server, *where, interface=None) as carom:
        ended = why(carom, "x")
        assert ended.code == 2 and "no service is answered" in ended.stderr
