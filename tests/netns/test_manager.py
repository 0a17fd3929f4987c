# SPDX-License-Identifier: Apache-2.0
"""carom as a service of systemd's kind: what its manager is told, and when."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.daemon import control
from carom.errors import ControlError
from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.memcache import Memcached, UDPClient
from netns.process import CAROM, DEADLINE, INTERFACE, Carom, end_of, run, start, until
from netns.test_starting import WAITED

WATCHDOG = 400_000
"""Microseconds after which the manager would take it for hung."""

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17  # linux/ptrace.h
_WALL = 0x40000000


class Manager(Resource):
    """What a manager hears: the facts of each datagram, in order, and from whom."""

    def __init__(self, namespace: Namespace, name: str):
        """An abstract name is its network namespace's."""
        self.name = name
        self.heard: list[str] = []
        self._socket = namespace.call(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._socket.bind(name.replace("@", "\0"))
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        """Everything so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(4096).decode())
        return self.heard

    def told(self, fact: str) -> bool:
        """Whether it was told this."""
        return any(fact in one.split("\n") for one in self.listen())

    def pings(self) -> int:
        """How often it was told that carom lives."""
        return self.listen().count("WATCHDOG=1")

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, straight: Line, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    name = path if request.param == "a path" else f"@carom-{os.urandom(8).hex()}"
    with Manager(straight.server, name) as manager:
        yield manager


def managed(manager: Manager) -> list[str]:
    """How a manager starts carom, whose pid it does not know before: a shell says it."""
    said = f"NOTIFY_SOCKET={manager.name} WATCHDOG_USEC={WATCHDOG} WATCHDOG_PID=$$"
    return ["sh", "-c", f'export {said}; exec "$@"', "sh", *CAROM]


def test_from_start_to_end(straight: Line, manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "carom.toml"
    text = f'interfaces = ["{INTERFACE}"]\nhook = "tc"\n[[service]]\napp = "echo"\n'
    file.write_text(text)
    words = (str(file),)
    with Carom(
        straight.server, *words, interface=None, command="run", program=managed(manager)
    ) as carom:
        until(lambda: manager.told("READY=1"), "READY=1")
        first = next(one for one in manager.heard if one != "WATCHDOG=1").split("\n")
        assert first[0] == "READY=1"
        assert first[1].startswith("STATUS=ready 0.0.0.0:51141 raw cache")
        until(lambda: manager.pings() > 3, "pings")
        for wrong in (False, True):
            manager.heard.clear()
            file.write_text("x" if wrong else text + "ttl = 5\n")
            ended = run(straight.server, "reload", "--pid", str(carom.pid))
            assert ended.code == int(wrong)
            facts = [one.split("\n")[0] for one in manager.listen() if one != "WATCHDOG=1"]
            assert facts == ["RELOADING=1", "READY=1"]
        manager.heard.clear()
        carom.stop()
        facts = [one for one in manager.listen() if one != "WATCHDOG=1"]
        assert facts == ["STOPPING=1\nSTATUS=stopping"]


def test_ready_when_what_it_waits_for_is_answered(straight: Line, manager: Manager) -> None:
    """While it waits, however long, its start is not given up; READY comes with the first miss."""
    words = ("front", "-i", INTERFACE, "--hook", "tc", "-p", str(WAITED), "--wait", "forever")
    with start(straight.server, *words, program=managed(manager)) as process:
        try:
            until(lambda: len(manager.listen()) > 3, "it to wait")
            for one in manager.heard:
                status, more = one.split("\n")
                assert status.startswith("STATUS=waiting: no process of this host listens on UDP")
                assert more == "EXTEND_TIMEOUT_USEC=60000000"
            with Memcached(straight.server, WAITED):
                until(lambda: manager.told("READY=1"), "READY=1")
                with UDPClient(straight.client, straight.address, WAITED) as udp:
                    assert udp.get(b"nothing") is None
                assert control.call("status", process.pid)["verdicts"]["miss"] == 1
        finally:
            process.send_signal(signal.SIGTERM)
            ended = end_of(process, DEADLINE)
        assert ended.code == 0, ended


def test_what_does_not_start(straight: Line, manager: Manager) -> None:
    """It is never said to be ready."""
    ended = run(straight.server, "serve", "-i", "nope0", program=managed(manager))
    assert ended.code == 1
    assert manager.listen() == []


@contextlib.contextmanager
def stopped(thread: int) -> Iterator[None]:
    """One thread of a process stands still meanwhile; the others go on (ptrace(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(_SEIZE, thread, None, None) == 0, os.strerror(ctypes.get_errno())
    assert libc.ptrace(_INTERRUPT, thread, None, None) == 0
    os.waitpid(thread, _WALL)
    try:
        yield
    finally:
        assert libc.ptrace(_DETACH, thread, None, None) == 0


def thread_of(pid: int, name: str) -> int:
    """The thread of a process that has this name."""
    (thread,) = (
        int(task.name)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if (task / "comm").read_text().strip() == name
    )
    return thread


@pytest.mark.parametrize("hook", [("--hook", "tc"), ("--hook", "none")])
def test_a_thread_that_stops(straight: Line, manager: Manager, hook: tuple[str, ...]) -> None:
    """No more pings come, though all else goes on; and they come again when the thread does."""
    name = "lease" if "tc" in hook else "watchdog"
    with Carom(straight.server, *hook, program=managed(manager)) as carom:
        until(lambda: manager.pings() > 1, "pings")
        thread = thread_of(carom.pid, name)
        for _ in range(100):
            with stopped(thread):
                try:
                    control.call("status", carom.pid, timeout=5)
                except ControlError:  # it has stopped with the interpreter's lock
                    continue
                manager.listen()
                before = manager.pings()
                time.sleep(3 * WATCHDOG / 1e6)
                control.call("status", carom.pid, timeout=DEADLINE)
                assert manager.pings() == before
            break
        until(lambda: manager.pings() > before + 1, "pings again")
