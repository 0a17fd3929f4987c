# SPDX-License-Identifier: Apache-2.0
"""Handlers that fork: their children keep nothing attached and no port, however carom ends."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.line import Line
from netns.process import HERE, Carom, at_tc, attached, until
from netns.wire import Client

APP = ("--app", "forks:service", "--mode", "generic")
FORKS = (b"pool fork work", b"pool forkserver work", b"pool spawn work", b"fork", b"exec")


def children(pid: int) -> list[int]:
    """The living descendants of a process."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *children(child)]
    return found


def bpf_of(pid: int) -> set[str]:
    """What a process holds of BPF."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {one for one in found if "bpf" in one} | ({"mapped"} if "bpf-map" in maps else set())


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are started anew import the service by its name."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def orphans() -> Iterator[list[int]]:
    """Processes to end after the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def holds_nothing(pid: int) -> bool:
    """Whether a process has nothing of carom's, or is done."""
    try:
        return not bpf_of(pid)
    except (ProcessLookupError, FileNotFoundError):
        return True


def _gone(line: Line) -> bool:
    return attached(line.server) is None and at_tc(line.server) == []


@pytest.mark.parametrize("request_", FORKS)
def test_a_child_lives_on(own_line: Line, orphans: list[int], request_: bytes) -> None:
    """After kill -9 nothing is attached, and the next carom starts, on the same port."""
    carom = Carom(own_line.server, *APP)
    with Client(own_line.client, own_line.address) as client:
        client.ask(request_)
        orphans += children(carom.pid)
        assert orphans
        for pid in orphans:  # the reply may be there before its child has begun
            until(functools.partial(holds_nothing, pid), f"{pid} to let go")
        # They must outlive carom: a pool's workers end when they miss it.
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):  # one that was done
                os.kill(pid, signal.SIGSTOP)
        carom.signal(signal.SIGKILL)
        carom.process.wait()
        until(lambda: _gone(own_line), "programs to go")
        with Carom(own_line.server, *APP) as again:
            before = again.counters()
            assert client.ask(b"anew") == b"anew"
            assert client.ask(b"anew") == b"anew"
            assert again.since(before)["hit"] == 1
    assert any(Path(f"/proc/{pid}").exists() for pid in orphans), "nobody lived on"


@pytest.mark.parametrize("request_", [b"fork", b"pool fork x"])
def test_an_ordinary_end(own_line: Line, orphans: list[int], request_: bytes) -> None:
    """It is the same where carom takes all away itself."""
    with Carom(own_line.server, *APP) as carom, Client(own_line.client, own_line.address) as client:
        client.ask(request_)
        orphans += children(carom.pid)
        assert orphans


@pytest.mark.parametrize("request_", [b"exit", b"return"])
def test_a_child_that_ends_takes_nothing_away(own_line: Line, request_: bytes) -> None:
    """Neither programs nor lease nor control socket, whichever way it unwinds."""
    with (
        Carom(own_line.server, *APP, handlers_fail=True) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        assert client.ask(request_) in (b"ended", b"returned")
        assert client.nothing_more(), "the child answered as well"
        assert attached(own_line.server)
        before = carom.counters()  # by the control socket
        assert client.ask(b"after") == b"after"
        assert client.ask(b"after") == b"after"
        assert carom.since(before)["hit"] == 1


def test_a_child_cannot_invalidate(own_line: Line) -> None:
    """It is told so, where it would have no effect."""
    with Carom(own_line.server, *APP), Client(own_line.client, own_line.address) as client:
        assert client.ask(b"invalidate") == b"ServerError"


def test_a_pool_under_load(own_line: Line) -> None:
    """Workers that are forked while requests come work as ever."""
    with Carom(own_line.server, *APP) as carom, Client(own_line.client, own_line.address) as client:
        for n in range(300):
            request = b"pool fork %d" % n
            assert client.ask(request) == b"%d" % n * 2
            assert client.ask(request) == b"%d" % n * 2
        assert carom.counters()["hit"] == 300
        assert carom.counters()["handler_errors"] == 0
        for child in children(carom.pid):
            os.kill(child, signal.SIGTERM)  # as it ends any process: no Stop, no traceback
        until(lambda: not children(carom.pid), "the workers to end")
