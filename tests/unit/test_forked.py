# SPDX-License-Identifier: Apache-2.0
"""Commands that run while handlers fork."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from carom.kernel import forked
from carom.kernel.waiting import readable


def test_what_a_command_puts_out() -> None:
    assert forked.run(["echo", "said"], timeout=60) == b"said\n"
    assert forked.run(["cat"], timeout=60) == b"", "its standard input is empty"


@pytest.mark.parametrize("command", ["exit 3", "echo x; kill -9 $$"])
def test_one_that_fails(command: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        forked.run(["sh", "-c", command], timeout=60)


def test_one_that_takes_too_long() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forked.run(["sleep", "600"], timeout=0.1)


def test_one_that_is_not_wanted_any_more() -> None:
    """It is ended, and what `meanwhile` raises is raised."""
    asked = 0

    def meanwhile() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        forked.run(["sleep", "600"], timeout=600, meanwhile=meanwhile)
    assert asked == 4


def test_much_is_given_slowly() -> None:
    """All of it, and once."""
    given = bytes(range(256)) * 4096
    command = ["sh", "-c", "sleep 0.5; cat"]
    assert forked.run(command, timeout=60, given=given) == given


def test_one_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        forked.run(["no-such-command"], timeout=60)


def test_a_fork_while_a_descriptor_is_made() -> None:
    """The forked process does not have it, however close they come together."""
    making, (reads, writes) = threading.Event(), os.pipe()

    def make() -> int:
        made = os.dup(writes)
        making.set()
        time.sleep(0.3)
        return made

    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(forked.made(make)))
    thread.start()
    making.wait()
    child = os.fork()
    if not child:
        os.close(writes)
        time.sleep(600)
        os._exit(0)
    try:
        thread.join()
        forked.close(made[0])
        os.close(writes)
        assert readable([reads], 60), "the child has its other end"
        assert os.read(reads, 1) == b""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reads)


def test_a_fork_while_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forked process lives on, and holds none of the command's pipes."""
    starting = threading.Event()
    execute: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def slowly(*arguments: object) -> None:
        starting.set()
        time.sleep(0.3)
        execute(*arguments)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", slowly)
    said: list[bytes] = []
    thread = threading.Thread(target=lambda: said.append(forked.run(["echo", "x"], timeout=5)))
    thread.start()
    starting.wait()
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    try:
        thread.join()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert said == [b"x\n"]
