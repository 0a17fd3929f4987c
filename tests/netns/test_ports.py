# SPDX-License-Identifier: Apache-2.0
"""The experiments with four ports, in short, on real packets: every request is accounted for."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from carom.errors import ExperimentError
from carom.lab import registry
from carom.lab import results as storage
from carom.lab.experiments.ports import calls
from carom.lab.experiments.ports.demux import EXPERIMENT as DEMUX
from carom.lab.experiments.ports.ports import FIRST_PORT, PORTS, Name, Work, expected
from carom.lab.hosts.agent import Agent
from carom.lab.record import Cell
from carom.vm.netns import INTERFACE, SERVER, NamespacePair
from netns.process import attached, lab_run, until

DEADLINE = 200
SHORT = Work(sleeps=(0.004, 0.003, 0.001, 0.002), queue=8)

PUBLISHED: dict[Name, str] = {
    "concurrency": "published 1.76, 1.53, 0.99, 1.23",
    "demux": "published 1.12, 1.27, 2.83, 1.71",
}


def run(name: str, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    short = ("--short", "--repetitions", "1", "--seconds", "0.2", "--output", str(output))
    return lab_run(name, *short, *options, deadline=DEADLINE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_experiment(tmp_path: Path, name: Name) -> None:
    if name == "concurrency" and not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    own = ("--loops", "300,200,10,100") if name == "concurrency" else ("--sleeps", "4e-3,3e-3,0,0")
    done = run(name, tmp_path, *own)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    for said in (str(folder), "CPU µs a reply", PUBLISHED[name]):
        assert said in done.stdout, done.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.json", "results.csv", "histograms", f"{name}.png"}
    found = storage.load(folder)
    of = registry.named(name)
    cells = [
        Cell(series=series, wait="blocking", socket=which + 1)
        for series in of.series  # type: ignore[attr-defined]
        for which in PORTS
    ]
    assert sorted(map(str, (one.cell for one in found.measurements))) == sorted(map(str, cells))
    for one in found.measurements:
        trips = one.round_trips
        assert trips.count > 0
        assert trips.wrong == trips.lost == trips.reordered == trips.duplicated == 0
        assert one.verdicts.pop("full", 0) == 0
        assert set(one.verdicts.values()) == {trips.count}, one.cell
        if name == "demux":
            assert trips.minimum >= 1e9 * (0.004, 0.003, 0, 0)[(one.cell.socket or 0) - 1]
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert sorted((row["series"], row["socket"]) for row in rows) == sorted(
        (one.series, str(one.socket)) for one in cells
    )
    assert len(list((folder / "histograms").iterdir())) == len(cells)
    assert all("not shown either way" in line or ":" in line for line in of.sentences(found))


class Ground:
    """A pair, and the agent of its server."""

    def __init__(self, pair: NamespacePair, server: Agent):
        self.pair, self.server = pair, server

    @contextlib.contextmanager
    def serving(self, series: str) -> Iterator[list[int]]:
        """A series' server; the pids of its processes."""
        where = {"interface": INTERFACE, "address": SERVER, "cpu": 0}
        plain = msgspec.to_builtins(SHORT)
        yield self.server.call(calls.SERVE, series=series, work=plain, **where)["pids"]
        self.server.call(calls.LEAVE)

    def requests(self) -> list[int]:
        """What its processes have counted."""
        found: list[int] = self.server.call(calls.COUNTS)["requests"]
        return found

    def ask(self, which: int, payload: bytes, *, port: int | None = None) -> bytes | None:
        """One request from the client's namespace, and its reply; None where nothing listens."""

        def once() -> bytes | None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(DEADLINE)
                one.connect((SERVER, port or FIRST_PORT + which))
                one.send(payload)
                try:
                    return one.recv(64)
                except ConnectionRefusedError:
                    return None

        return self.pair.client.namespace.call(once)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with NamespacePair() as pair, Agent(pair.server) as server:
        yield Ground(pair, server)


@pytest.mark.parametrize("series", list(DEMUX.series))
def test_the_right_worker_answers(ground: Ground, series: str) -> None:
    port = FIRST_PORT if series == "reuseport" else None
    with ground.serving(series):
        for which in (3, 1, 0, 2, 2):
            payload = b"%07d" % ((which + 1) * 10**6 + 42)
            assert ground.ask(which, payload, port=port) == expected("demux", which, 0, payload)
        assert ground.requests() == [1, 1, 2, 1]


def test_sk_lookup_reaches_sockets_that_the_stack_does_not(ground: Ground) -> None:
    with ground.serving("sk_lookup"):
        assert ground.ask(0, b"1000001") == b"1000002"
        assert ground.ask(0, b"1000001", port=FIRST_PORT + 4) is None
    assert ground.ask(0, b"1000001") is None


def test_reuseport_goes_by_the_digit_not_the_client(ground: Ground) -> None:
    """The kernel's own choice would go by addresses and ports: of 20 clients some would miss."""
    with ground.serving("reuseport"):
        for _ in range(20):
            assert ground.ask(0, b"3000000", port=FIRST_PORT) == b"3000003"
        assert ground.requests() == [0, 0, 20, 0]


def test_a_worker_that_ended_is_said(ground: Ground) -> None:
    with ground.serving("processes") as pids:
        os.kill(pids[2], signal.SIGKILL)
        stat = Path(f"/proc/{pids[2]}/stat")
        until(lambda: stat.read_text().split(") ")[1][0] == "Z", "the process' end")
        with pytest.raises(ExperimentError, match="a process of processes ended"):
            ground.requests()


def test_a_port_that_is_taken_is_said(ground: Ground) -> None:
    def bound() -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((SERVER, FIRST_PORT + 1))
        return one

    with (
        ground.pair.server.namespace.call(bound),
        pytest.raises(ExperimentError, match="cannot take port 51142"),
        ground.serving("processes"),
    ):
        pass
    with ground.serving("processes"):  # a failed start has left nothing
        assert ground.ask(0, b"1000001") == b"1000002"


def test_nothing_is_left(ground: Ground) -> None:
    with ground.serving("queue") as pids:
        assert ground.ask(0, b"1000001") == b"1000002"
        assert attached(ground.pair.server.namespace)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not attached(ground.pair.server.namespace)
    assert ground.ask(0, b"1000001") is None
