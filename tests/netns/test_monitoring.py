# SPDX-License-Identifier: Apache-2.0
"""The dashboard and the alerts of docs/monitoring: by what `carom metrics` really exports, by
Prometheus' own tool, and in a Prometheus that scrapes a carom."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from carom.kernel.abi import Event, Verdict
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, Carom, environment, until
from netns.test_metrics import told
from netns.tools import tool

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "docs" / "monitoring" / "alerts.yaml"
DASHBOARD = ROOT / "docs" / "monitoring" / "dashboard.json"
OWN_FILTER = ROOT / "filters" / "examples" / "clients.c"
RULE_TESTS = ROOT / "tests" / "unit" / "alerts_test.yaml"

NAME = re.compile(r"\bcarom_\w+")
SELECTOR = re.compile(r"\b(carom_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
OF_PROMETHEUS = {"instance", "job"}
"""Labels that the scrape adds."""

LISTENS, SCRAPES = 19_751, 19_752


def queries() -> list[str]:
    """The dashboard's expressions, with its variables filled in."""
    targets = [one for panel in dashboard()["panels"] for one in panel["targets"]]
    return [
        target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        for target in targets
    ]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> dict[str, str]:
    """All that is asked of Prometheus, by file."""
    return {
        ALERTS.name: ALERTS.read_text(),
        DASHBOARD.name: "\n".join(queries()),
        RULE_TESTS.name: RULE_TESTS.read_text(),
        "operating.md": "\n".join(
            re.findall(r"```promql\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)
        ),
    }


@pytest.fixture(scope="module")
def exported(straight: Line) -> dict[str, set[str]]:
    """The labels of each name that a carom before a memcached exports, one that serves, and one
    with a filter."""
    found: dict[str, set[str]] = {}
    with (
        Memcached(straight.server),
        Carom(straight.server, "--mode", "native", command="front") as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        tcp.set(b"k", b"v")
        assert udp.get(b"k") == b"v"
        text = told("--pid", str(carom.pid)).stdout
    for how in (("services:sized", "--shadow", "2"), ("kv", "--filter", str(OWN_FILTER))):
        with Carom(straight.server, "--mode", "native", "--app", *how) as carom:
            text += told("--pid", str(carom.pid)).stdout
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("file", [ALERTS.name, DASHBOARD.name, RULE_TESTS.name, "operating.md"])
def test_names_labels_and_values_are_real(exported: dict[str, set[str]], file: str) -> None:
    text = expressions()[file]
    text = re.sub(r"(?m)^ *(description|summary):.*(\n {12,}.*)*", "", text)  # those are words
    assert len(set(NAME.findall(text))) >= 3
    assert set(NAME.findall(text)) <= exported.keys()
    known = {
        "verdict": {verdict.name.lower() for verdict in Verdict},
        "event": {event.name.lower() for event in Event},
    }
    for name, matchers in SELECTOR.findall(text):
        for label, how, value in MATCHER.findall(matchers):
            assert label in exported[name] | OF_PROMETHEUS, (name, label)
            if label in known and how == "=":
                assert value in known[label], (name, value)
            elif label in known:
                for part in value.split("|"):
                    assert any(re.fullmatch(part, one) for one in known[label]), (name, part)


def test_the_dashboard() -> None:
    """Each panel has a place of its own, within 24 columns, and a query."""
    board = dashboard()
    taken = set[tuple[int, int]]()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["title"] and panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text()))
    assert used - {"__rate_interval", "__all"} == variables


def test_each_alert_is_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert len(alerts) == len(set(alerts)) >= 6
    assert set(re.findall(r"alertname: (\w+)", RULE_TESTS.read_text())) == set(alerts)


def promtool(*arguments: str, cwd: Path = ROOT) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_are_rules() -> None:
    promtool("check", "rules", str(ALERTS))


def test_the_alerts_fire_where_they_should() -> None:
    promtool("test", "rules", RULE_TESTS.name, cwd=RULE_TESTS.parent)


class Prometheus:
    """A real one in a namespace, asked by HTTP."""

    def __init__(self, namespace: Namespace):
        self._namespace = namespace

    def get(self, path: str, **arguments: str) -> Any:
        """What its API gives."""

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", LISTENS), 10)

        connection = http.client.HTTPConnection("127.0.0.1", LISTENS, timeout=30)
        connection.sock = self._namespace.call(connect)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
            answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.get("query", query=text)["result"]
        return found

    def value(self, text: str) -> float | None:
        """The only one; None where there is none yet."""
        found = self.query(text)
        if not found:
            return None
        (sample,) = found
        return float(sample["value"][1])

    def answers(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self.get("status/buildinfo"))
        return False


@contextlib.contextmanager
def prometheus(namespace: Namespace, folder: Path) -> Iterator[Prometheus]:
    """One that scrapes a carom's metrics each second, and has the alerts."""
    program = tool("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{ALERTS}']\n"
        "scrape_configs:\n"
        f"  - {{job_name: carom, static_configs: [{{targets: ['127.0.0.1:{SCRAPES}']}}]}}\n"
    )
    where = (f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{LISTENS}")
    command = namespace.argv([program, f"--config.file={config}", *where])
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        server = Prometheus(namespace)
        until(server.answers, "Prometheus to answer")
        yield server
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def exporter(namespace: Namespace, carom: Carom) -> Iterator[None]:
    words = [*CAROM, "metrics", "--pid", str(carom.pid), "--listen", str(SCRAPES)]
    with subprocess.Popen(
        namespace.argv(words), stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout and process.stdout.readline() == f"metrics at {SCRAPES}\n"
        try:
            yield
        finally:
            process.terminate()


def test_a_prometheus_that_scrapes_a_carom(own_line: Line, tmp_path: Path) -> None:
    """It has the counters as they are, takes every query of ours, and its alerts fire."""
    tool("prometheus")
    line = own_line
    with (
        Memcached(line.server),
        Carom(line.server, "--mode", "native", command="front") as carom,
        exporter(line.server, carom),
        prometheus(line.server, tmp_path) as server,
        TCPClient(line.client, line.address) as tcp,
        UDPClient(line.client, line.address) as udp,
    ):
        until(lambda: server.value("carom_up") == 1, "a scrape")
        tcp.set(b"k", b"v")
        for _ in range(40):
            assert udp.get(b"k") == b"v"
        hits = carom.counters()["hit"]
        assert hits >= 38  # one miss, or two where the first waits to be given a life
        hit = 'sum(carom_packets_total{verdict="hit"})'
        until(lambda: server.value(hit) == hits, "the hits to be scraped")
        outcome = 'sum(carom_service_packets_total{outcome=~"answered|missed"})'
        assert server.value(outcome) == 40
        replies = "sum(carom_interface_replies_total)"
        assert server.value(replies) == carom.status()["hooks"]["xdp"]["hit"]  # TC sent the others
        assert server.value('carom_reply_time_seconds_bucket{le="+Inf"}') == server.value(
            "carom_reply_time_seconds_count"
        )
        for query in queries():
            server.query(query)
        (group,) = server.get("rules")["groups"]
        until(
            lambda: all(
                rule["health"] == "ok" for rule in server.get("rules")["groups"][0]["rules"]
            ),
            "all rules to be evaluated",
        )
        assert len(group["rules"]) == ALERTS.read_text().count("- alert:")
        carom.stop()
        down = 'ALERTS{alertname="CaromDown",alertstate="pending"}'
        until(lambda: server.value(down) == 1, "the alert that it is down")
