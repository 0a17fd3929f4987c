# SPDX-License-Identifier: Apache-2.0
"""`carom load` against servers that do well and badly: each request is accounted for, exactly.

No test here depends on a machine's speed: whether a reply came in time may, that it came does not,
and no more are outstanding than the shortest queue on the way holds.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netns import line as lines
from netns.line import Line
from netns.process import INTERFACE, Carom, Ended, attached, run, start, until
from netns.services import PORT

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ANY_RATE = ("--prefix-rate", "0", "--total-rate", "0")
PATIENT = ("--timeout", "20s", "--source-ports", "20")
"""Nothing that is answered at all comes too late, and a server's socket always has room."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """A pair for the tests of this file, for the client brings a program of its own."""
    with lines.bare() as line:
        yield line


def load(line: Line, *arguments: str, port: int = PORT, **options: Any) -> Ended:
    """Run `carom load` on the pair to its end."""
    where = ("-i", INTERFACE, line.address, str(port))
    return run(line.client, "load", *where, *arguments, **options)


def loaded(line: Line, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `carom load --json` says. Every request has one end, and the interface is clean."""
    ended = load(line, *arguments, "--json")
    assert ended.code == code, ended
    assert "Traceback" not in ended.stderr
    assert attached(line.client) is None
    result: dict[str, Any] = json.loads(ended.stdout)
    trips, writes = result["round_trips"], result["writes"]
    ends = ("count", "reordered", "wrong", "lost")
    assert result["sent"] == sum(trips[end] for end in ends) + result["outstanding"]
    assert writes["sent"] == writes["answered"] + writes["lost"] + writes["outstanding"]
    return result


def serving(line: Line, mode: str, *arguments: str) -> Carom:
    """A carom that meets a program at the client's end as it starts: its native mode asks that."""
    with lines.met(line):
        return Carom(line.server, "--mode", mode, *arguments)


class Server:
    """A UDP server of the test's own: `behave` says with what it answers its nth request."""

    def __init__(self, line: Line, behave: Callable[[int, bytes], list[bytes]]):
        self._socket = line.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind((line.address, PORT))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._socket.settimeout(0.05)
        self._behave = behave
        self._ending = False
        self.requests: list[bytes] = []
        self.sources: set[int] = set()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending:
            try:
                request, client = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            for reply in self._behave(len(self.requests), request):
                self._socket.sendto(reply, client)
            self.requests.append(request)
            self.sources.add(client[1])

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        self._socket.close()


@contextmanager
def server(line: Line, behave: Callable[[int, bytes], list[bytes]]) -> Iterator[Server]:
    one = Server(line, behave)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("hook", ["native", "generic"])
@pytest.mark.parametrize("meet", ["native", "generic"])
def test_bounces(line: Line, hook: str, meet: str) -> None:
    """On a veth, native XDP sends only to a peer with a native program."""
    lossless = hook == "generic" or meet == "native"
    with serving(line, hook, "--fast", "bounce", *ANY_RATE) as carom:
        result = loaded(
            line, "--count", "3000", "--rate", "20k", "--size", "1-1232", "--keys", "50",
            "--mode", meet, "--app", "echo", code=0 if lossless else 1,
        )  # fmt: skip
        assert (result["sent"], result["mode"], result["complete"]) == (3000, meet, True)
        trips = result["round_trips"]
        assert (trips["wrong"], trips["duplicated"]) == (0, 0)
        answered = trips["count"] + trips["reordered"]
        assert answered + trips["lost"] == 3000
        if lossless:
            assert carom.counters()["bounce"] >= answered > 0
            assert 0 < trips["minimum"] <= trips["p50"] <= trips["p999"] <= trips["maximum"]
        else:
            assert answered == 0


def test_hits_and_misses(line: Line) -> None:
    with serving(line, "native", "--app", "mixed") as carom:
        arguments = ("--count", "2000", "--rate", "2k", "--keys", "40", "--draw", "sequential")
        result = loaded(line, *arguments, "--app", "mixed", *PATIENT)
        counters = carom.counters()
    trips = result["round_trips"]
    assert (result["sent"], trips["count"]) == (2000, 2000)
    assert counters["hit"] + counters["replies"] == 2000
    assert counters["hit"] > 0


def test_flat_out(line: Line) -> None:
    """As many as can be: some may be lost, none may be counted twice or not at all."""
    with serving(line, "native", "--fast", "bounce", *ANY_RATE) as carom:
        result = loaded(line, "--count", "200000", "--rate", "max", "--app", "echo")
        assert result["sent"] == 200_000
        assert result["asked"] is None
        trips = result["round_trips"]
        assert (trips["wrong"], trips["duplicated"]) == (0, 0)
        assert carom.counters()["bounce"] >= trips["count"] + trips["reordered"] > 0


def test_a_server_that_loses_requests(line: Line) -> None:
    """And more requests than ports: slots are skipped, no request is forgotten."""
    with server(line, lambda n, request: [] if n % 4 == 1 else [request]) as one:
        result = loaded(
            line, "--count", "400", "--rate", "2k", "--source-ports", "50", "--timeout", "300ms",
            "--app", "echo",
        )  # fmt: skip
    trips = result["round_trips"]
    assert len(one.requests) == result["sent"] == 400
    assert len(one.sources) == 50
    # A reply that is later than 600 ms comes when its request has been counted as lost.
    assert trips["count"] + trips["reordered"] + trips["duplicated"] == 300
    assert trips["lost"] == 100 + trips["duplicated"]


def test_every_port_is_used_once_before_any_is_used_again(line: Line) -> None:
    with server(line, lambda n, request: [request]) as one:
        ports = ("--source-ports", "64", "--first-port", "20000")
        loaded(line, "--timeout", "20s", "--count", "64", *ports)
    assert one.sources == set(range(20_000, 20_064))


def test_wrong_replies(line: Line) -> None:
    """Too short, too long, another byte: each fifth one is right."""

    def lie(n: int, request: bytes) -> list[bytes]:
        return [[request, request[:-1], request + b"x", b"", request[:-1] + b"\0"][n % 5]]

    with server(line, lie):
        result = loaded(line, "--count", "100", "--app", "echo", *PATIENT, code=1)
    trips = result["round_trips"]
    assert (trips["count"], trips["wrong"], trips["lost"]) == (20, 80, 0)


def test_another_service_than_expected(line: Line) -> None:
    with serving(line, "native", "--app", "mixed"):
        ended = load(line, "--count", "100", "--app", "echo", "--keys", "5", *PATIENT)
    assert ended.code == 1
    assert "100 replies were wrong" in ended.stderr
    assert "100 sent, 0 answered, 0 lost" in ended.stdout


def test_replies_that_come_twice(line: Line) -> None:
    with server(line, lambda n, request: [request, request]):
        result = loaded(line, "--count", "100", "--app", "echo", *PATIENT)
    trips = result["round_trips"]
    assert (trips["count"], trips["wrong"]) == (100, 0)
    assert 99 <= trips["duplicated"] <= 100  # the last one may come after the end


def test_nobody_answers(line: Line) -> None:
    ended = load(line, "--count", "100", "--timeout", "50ms")
    assert ended.code == 1
    assert "100 sent, 0 answered, 100 lost" in ended.stdout
    assert "nothing was answered" in ended.stderr


def test_writes_and_requests_from_files(line: Line, tmp_path: Path) -> None:
    reads, writes = tmp_path / "reads", tmp_path / "writes"
    reads.write_bytes(b"get a\n0x00ff\nget b\n")
    writes.write_bytes(b"set a 1\nset b 2\n")
    with server(line, lambda n, request: [] if request == b"set b 2" else [request]) as one:
        result = loaded(
            line, "--count", "400", "--file", str(reads), "--writes", "0.25",
            "--write-file", str(writes), "--app", "echo", "--timeout", "3s",
            "--source-ports", "100",
        )  # fmt: skip
    assert {request: one.requests.count(request) for request in set(one.requests)} == {
        b"get a": 100, b"\0\xff": 100, b"get b": 100, b"set a 1": 50, b"set b 2": 50,
    }  # fmt: skip
    assert (result["sent"], result["round_trips"]["wrong"]) == (300, 0)
    assert result["writes"] == {"sent": 100, "answered": 50, "lost": 50, "outstanding": 0}


def test_other_traffic_goes_on(line: Line) -> None:
    """The interface's own clients hear their replies while requests are sent."""
    with (
        serving(line, "native", "--app", "echo"),
        start(
            line.client, "load", "-i", INTERFACE, line.address, str(PORT), "--seconds", "60"
        ) as process,
    ):
        until(lambda: attached(line.client), "the generator")
        asked = run(
            line.client,
            "ping",
            line.address,
            str(PORT),
            "--app",
            "echo",
            "--count",
            "50",
            "--timeout",
            "20s",
        )
        process.send_signal(signal.SIGINT)
        process.wait()
    assert "50 sent, 50 answered, 0 lost" in asked.stdout


def test_ctrl_c_shows_what_was_done(line: Line) -> None:
    with (
        serving(line, "native", "--fast", "bounce") as carom,
        start(
            line.client, "load", "-i", INTERFACE, line.address, str(PORT), "--seconds", "600",
            "--json",
        ) as process,
    ):  # fmt: skip
        until(lambda: carom.counters()["bounce"] > 100, "the first replies")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    result = json.loads(stdout)
    assert (process.returncode, result["complete"]) == (1, False)
    assert result["round_trips"]["count"] > 0
    assert "Traceback" not in stderr
    assert attached(line.client) is None


def test_an_interface_that_has_a_program(straight: Line) -> None:
    ended = load(straight)
    assert (ended.code, ended.stdout) == (1, "")
    assert "already has an XDP program" in ended.stderr


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("198.18.0.3", "no host on carom0 answers for 198.18.0.3"),
        ("198.18.9.9", "is not on the link of carom0: the route goes through the gateway"),
        ("198.18.0.1", "is not on the link of carom0: it is this host's own"),
        ("198.18.0.7", "is not on the link of carom0: it is this host's own, or a multicast"),
        ("198.18.99.1", "no route to 198.18.99.1"),
    ],
)
def test_an_address_that_is_no_neighbour(line: Line, address: str, words: str) -> None:
    line.client.run("ip", "route", "replace", "198.18.9.0/24", "via", line.address)
    ended = run(line.client, "load", "-i", INTERFACE, address, str(PORT))
    assert (ended.code, ended.stdout) == (1, "")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert attached(line.client) is None


@pytest.mark.parametrize(
    ("interface", "arguments", "code", "words"),
    [
        ("nowhere", (), 1, "no interface 'nowhere'"),
        ("lo", (), 1, "lo is not an Ethernet interface"),
        (INTERFACE, ("--size", "1473"), 2, "a request of 1473 bytes does not fit"),
        (INTERFACE, ("--first-port", str(PORT)), 2, f"port {PORT} is among the source ports"),
    ],
)
def test_what_cannot_be(
    line: Line, interface: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended = run(line.client, "load", "-i", interface, line.address, str(PORT), *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_privileges(line: Line) -> None:
    ended = load(line, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert (ended.code, ended.stdout) == (1, "")
    assert "this process may not load BPF programs" in ended.stderr


def test_a_smaller_mtu_is_minded(line: Line) -> None:
    line.client.run("ip", "link", "set", INTERFACE, "mtu", "600")
    try:
        ended = load(line, "--size", "573")
    finally:
        line.client.run("ip", "link", "set", INTERFACE, "mtu", "1500")
    assert ended.code == 2
    assert "at most 572 bytes with an MTU of 600" in ended.stderr
