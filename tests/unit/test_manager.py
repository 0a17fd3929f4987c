# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, by real datagrams."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.daemon.manager import Manager, reloading


@pytest.fixture(params=["a path", "an abstract name"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and how it is named."""
    name = (
        str(tmp_path / "notify") if request.param == "a path" else f"@carom-{os.urandom(8).hex()}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(name.replace("@", "\0"))
        unix.setblocking(False)
        yield unix, name


def test_facts(told: tuple[socket.socket, str]) -> None:
    unix, name = told
    environment = {"NOTIFY_SOCKET": name, "HOME": "/"}
    manager = Manager(environment)
    assert environment == {"HOME": "/"}
    manager.tell("READY=1", "STATUS=a\nREADY=0 \udcff")
    assert unix.recv(100) == b"READY=1\nSTATUS=a READY=0 ?"
    before = time.monotonic_ns() // 1000
    manager.tell(*reloading())
    first, second = unix.recv(100).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert not manager.watches
    manager.alive()
    with pytest.raises(BlockingIOError):
        unix.recv(100)


@pytest.mark.parametrize("pid", [str(os.getpid()), ""], ids=["its own pid", "no pid"])
def test_pings(told: tuple[socket.socket, str], pid: str) -> None:
    """At most one in a quarter of the time that the manager waits."""
    unix, name = told
    said = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3600000000", "WATCHDOG_PID": pid}
    manager = Manager(said)
    assert manager.watches and not said
    for _ in range(3):
        manager.alive()
    assert unix.recv(100) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        unix.recv(100)
    often = Manager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
    for _ in range(3):
        time.sleep(0.001)
        often.alive()
        assert unix.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "x" * 200},
        {"NOTIFY_SOCKET": "a\0b"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
    ],
)
def test_nobody_to_tell(said: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    """That is said once in the log, and nothing else comes of it."""
    wanted = 1 if "NOTIFY_SOCKET" in said else 0
    manager = Manager(dict(said))
    assert not manager.watches
    for _ in range(3):
        manager.tell("READY=1")
        manager.alive()
    assert capfd.readouterr().err.count("the service manager cannot be told") == wanted


def test_a_manager_that_does_not_listen(told: tuple[socket.socket, str]) -> None:
    """Its full queue holds nothing up."""
    _, name = told
    manager = Manager({"NOTIFY_SOCKET": name})
    for _ in range(5000):
        manager.tell("STATUS=" + "x" * 1000)
