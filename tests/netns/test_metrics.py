# SPDX-License-Identifier: Apache-2.0
"""`carom metrics` beside running caroms: what Prometheus would read, once and by HTTP."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from carom import __version__
from carom.kernel.abi import Verdict
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, Carom, Ended, end_of, environment, until
from netns.services import PORT, sized_reply, sized_request
from netns.tools import tool
from netns.wire import Client

AT = 19_750


def told(*arguments: str) -> Ended:
    """`carom metrics` to its end."""
    return end_of(started(*arguments), 30)


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CAROM, "metrics", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels; each is there once."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    sample: Sample
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def one(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def served(straight: Line) -> Iterator[Carom]:
    with Carom(straight.server, "--mode", "generic", "--app", "services:sized") as carom:
        yield carom


def test_what_was_counted(straight: Line, served: Carom) -> None:
    """The same as in `carom status`, by hook and verdict, by port and outcome."""
    request = sized_request(40, 33)
    with Client(straight.client, straight.address) as client:
        for _ in range(4):
            assert client.ask(request) == sized_reply(request)
    ended = told("--pid", str(served.pid))
    assert (ended.code, ended.stderr) == (0, ""), ended
    text, status = ended.stdout, served.status()
    assert one(text, "carom_up") == 1
    for hook, verdicts in status["hooks"].items():
        for verdict in (name for name in verdicts if name in ("hit", "miss", "pass_mac")):
            found = one(text, "carom_packets_total", hook=hook, verdict=verdict)
            assert found == verdicts[verdict]
    assert one(text, "carom_packets_total", hook="xdp", verdict="hit") == 3
    where = {"address": "0.0.0.0", "port": str(PORT)}
    assert one(text, "carom_cache_replies_total", **where, outcome="fills") == 1
    assert one(text, "carom_cache_entries", **where) == 1
    assert one(text, "carom_server_requests_total", **where, outcome="replies") == 1
    for outcome, count in ("answered", 3), ("missed", 1), ("passed", 0), ("dropped", 0):
        assert one(text, "carom_service_packets_total", **where, outcome=outcome) == count
    interface = status["ready"]["interfaces"][0]["name"]
    assert one(text, "carom_service_answered", **where, interface=interface) == 1
    assert one(text, "carom_service_silent", **where) == 0
    assert one(text, "carom_build_info", version=__version__) == 1
    assert 0 <= one(text, "carom_lease_age_seconds") < 2
    assert (
        one(text, "carom_interface_attached", interface=interface, hook="xdp", mode="generic") == 1
    )


def test_labels_are_bounded(served: Carom) -> None:
    """As many as hooks and verdicts, and a few for each service, besides its histogram."""
    found = samples(told("--pid", str(served.pid)).stdout)
    packets = [labels for name, labels in found if name == "carom_packets_total"]
    times = [labels for name, labels in found if name == "carom_reply_time_seconds_bucket"]
    assert len(packets) == 2 * len(Verdict)
    assert len(times) == 26
    assert len(found) < len(packets) + len(times) + 50
    counters = {name for name, _ in found if name.endswith("_total")}
    assert len(counters) >= 5


def test_services_at_one_port(own_line: Line, tmp_path: Path) -> None:
    """Their addresses tell them apart: a sample that is there twice would fail the scrape."""
    file = tmp_path / "two.toml"
    file.write_text(
        f'[[service]]\napp = "services:sized"\nbind = "{own_line.address}"\n'
        f'[[service]]\napp = "services:told"\nbind = "{own_line.address6}"\n'
    )
    with Carom(own_line.server, "--mode", "generic", "--config", str(file)) as carom:
        with Client(own_line.client, own_line.address6) as client:
            client.ask(b"count")
        text = told("--pid", str(carom.pid)).stdout
        for address, fills in (own_line.address, 0), (own_line.address6, 1):
            where = {"address": address, "port": str(PORT), "outcome": "fills"}
            assert one(text, "carom_cache_replies_total", **where) == fills


def test_its_start_is_the_same_in_each_scrape(served: Carom) -> None:
    """Otherwise `changes()` would find one at each."""
    times = {one(told("--pid", str(served.pid)).stdout, "carom_start_time_seconds") for _ in "abc"}
    (began,) = times
    assert 0 < time.time() - began < 3600


def test_prometheus_own_tool_has_no_complaint(served: Carom) -> None:
    text = told("--pid", str(served.pid)).stdout
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_in_front_of_servers(own_line: Line) -> None:
    with (
        Memcached(own_line.server),
        Carom(own_line.server, "--mode", "generic", command="front") as carom,
        TCPClient(own_line.client, own_line.address) as tcp,
        UDPClient(own_line.client, own_line.address) as udp,
    ):
        tcp.set(b"k", b"v")
        assert udp.get(b"k") == b"v"
        text = told("--pid", str(carom.pid)).stdout
        assert one(text, "carom_edge_events_total", event="write_seen") >= 1
        assert one(
            text,
            "carom_service_info",
            port="11211",
            address="::",
            protocol="memcached",
            fast="cache",
        )


@contextlib.contextmanager
def serving(carom: Carom, listen: str) -> Iterator[subprocess.Popen[str]]:
    """`carom metrics --listen`, which says where, and ends by a signal without a word."""
    with started("--pid", str(carom.pid), "--listen", listen) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == f"metrics at {listen}\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert (process.wait(30), process.stdout.read(), process.stderr.read()) == (0, "", "")


class _Local(http.client.HTTPConnection):
    """HTTP at a Unix socket."""

    def __init__(self, path: Path):
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def scraped(connection: http.client.HTTPConnection, accept: str = "") -> tuple[str, str]:
    """Type and text of /metrics."""
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.headers["Content-Type"], answer.read().decode()


@pytest.mark.parametrize(
    ("listen", "host"),
    [(f"{AT}", "127.0.0.1"), (f"127.0.0.1:{AT}", "127.0.0.1"), (f"[::1]:{AT}", "::1")],
)
def test_at_a_port(served: Carom, listen: str, host: str) -> None:
    with serving(served, listen):
        kind, text = scraped(http.client.HTTPConnection(host, AT))
        assert kind.startswith("text/plain") and one(text, "carom_up") == 1
        kind, text = scraped(
            http.client.HTTPConnection(host, AT), "application/openmetrics-text; version=1.0.0"
        )
        assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")


def test_at_a_socket(served: Carom, tmp_path: Path) -> None:
    """A killed one's is taken over; one that is served is not; nor is any other file."""
    path = tmp_path / "metrics.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with serving(served, str(path)):
        assert path.stat().st_mode & 0o777 == 0o660
        assert one(scraped(_Local(path))[1], "carom_up") == 1
        second = told("--listen", str(path))
        assert second.code == 1 and "cannot serve metrics" in second.stderr
        assert one(scraped(_Local(path))[1], "carom_up") == 1
    assert not path.exists()
    path.write_text("kept")
    assert told("--listen", str(path)).code == 1
    assert path.read_text() == "kept"


def test_a_carom_that_goes_and_comes(own_line: Line) -> None:
    """Its exporter stays, and says so: nobody has to begin it anew."""
    with Carom(own_line.server, "--mode", "generic") as carom:
        serving_it = serving(carom, f"{AT}")
        with serving_it:
            assert one(scraped(http.client.HTTPConnection("127.0.0.1", AT))[1], "carom_up") == 1
            carom.stop()

            def is_down() -> bool:
                _, text = scraped(http.client.HTTPConnection("127.0.0.1", AT))
                return samples(text) == {("carom_up", frozenset()): 0}

            until(is_down, "the exporter to say that there is none")


@pytest.mark.parametrize("listen", ["0", "65536", "x", "host:1", "1.2.3.4.5:1", ":"])
def test_where_nobody_can_listen(listen: str) -> None:
    ended = told("--listen", listen)
    assert ended.code == 2 and f"--listen {listen} is no address" in ended.stderr, ended


def test_without_a_carom(tmp_path: Path) -> None:
    process = subprocess.run(
        [*CAROM, "metrics"],
        capture_output=True,
        text=True,
        env=environment(CAROM_RUN=str(tmp_path)),
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert "no carom of this user is running here" in process.stderr
