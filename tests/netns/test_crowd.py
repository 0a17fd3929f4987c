# SPDX-License-Identifier: Apache-2.0
"""Many caroms are started on one interface at once: one gets ready, and none leaves a trace."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack

import pytest

from netns.held import Held, held, until_gone
from netns.line import Line
from netns.process import (
    DEADLINE,
    INTERFACE,
    at_tc,
    attached,
    control_socket,
    end_of,
    start,
    until,
)
from netns.wire import Client

MANY = 20
PORT = 51_200
ROUNDS, LONG = 1, 10
SAID = {
    "one port": ("in use",),
    "ports of their own": ("already has an XDP program",),
}
"""What those say that lose, by what they contend for."""


def _ready(process: subprocess.Popen[str]) -> bool:
    """Whether it is; waits until that or its end. The rest of its output stays to be read."""
    assert process.stdout
    return process.stdout.readline().startswith("ready ")


@pytest.mark.parametrize("contest", SAID)
def test_one_is_ready(straight: Line, contest: str, long_form: bool) -> None:
    qdiscs = straight.server.run("tc", "qdisc")
    for _ in range(LONG if long_form else ROUNDS):
        ports = [PORT + n if "own" in contest else PORT for n in range(MANY)]
        with ExitStack() as stack:
            processes = []
            for port in ports:
                words = ("serve", "-i", INTERFACE, "-p", str(port), "--fast", "bounce")
                process = start(straight.server, *words, "--mode", "native")
                processes.append(process)
                stack.callback(process.kill)
            ready = [process for process in processes if _ready(process)]
            assert len(ready) == 1
            (winner,) = ready
            for process in processes:
                if process is not winner:
                    ended = end_of(process, DEADLINE)
                    assert ended.code == 1, ended
                    assert any(words in ended.stderr for words in SAID[contest]), ended
                    assert "Traceback" not in ended.stderr, ended
            port = ports[processes.index(winner)]
            with Client(straight.client, straight.address, port) as client:
                assert client.ask(b"won") == b"won"
            mine: set[Held] = held(winner.pid)
            winner.send_signal(signal.SIGTERM)
            assert end_of(winner, DEADLINE).code == 0
            until_gone(mine)
        assert attached(straight.server) is None
        assert not any(control_socket(process.pid).exists() for process in processes)
    assert straight.server.run("tc", "qdisc") == qdiscs


def test_ended_at_any_time(straight: Line) -> None:
    """All of them at TC, where they stand beside each other, and each ended at another moment."""
    before = at_tc(straight.server)
    with ExitStack() as stack:
        processes = []
        for n in range(MANY):
            words = ("serve", "-i", INTERFACE, "-p", str(PORT + n), "--hook", "tc")
            process = start(straight.server, *words)
            processes.append(process)
            stack.callback(process.kill)
        until(lambda: at_tc(straight.server) != before, "the first to be attached")
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            ended = end_of(process, DEADLINE)
            assert "Traceback" not in ended.stderr, ended
            assert ended.code in (0, -signal.SIGTERM), ended  # Python itself was still starting
            assert not control_socket(ended.pid).exists()
    until(lambda: at_tc(straight.server) == before, "the last to be detached")
