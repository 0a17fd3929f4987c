# SPDX-License-Identifier: Apache-2.0
"""A tethered program lives as long as somebody listens, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from carom.vm import tether

TEXT = Path(tether.__file__).read_text()
HASTY = TEXT.replace("PATIENCE = 15.0", "PATIENCE = 0.3")
DEADLINE = 30.0


def start(
    *program: str, text: str = TEXT, silence: float = 0, **streams: int
) -> subprocess.Popen[str]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **streams}
    argv = [sys.executable, "-c", text, str(silence), *program]
    return subprocess.Popen(argv, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_end_of_stdin_is_the_programs_own_business() -> None:
    done = start("sh", "-c", "sleep 0.3; wc -c").communicate("four", timeout=DEADLINE)
    assert done[0].strip() == "4"


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
def test_status(script: str, status: int) -> None:
    with start("sh", "-c", script) as process:
        assert process.wait(DEADLINE) == status


def test_a_program_that_is_not_there() -> None:
    with start("/no/such", stderr=subprocess.PIPE) as process:
        assert process.wait(DEADLINE) == 127
        assert process.stderr
        assert process.stderr.read() == "/no/such: No such file or directory\n"


FAMILY = "sleep 60 & echo $! $$; exec sleep 60"
STUBBORN = "trap '' TERM; echo $$ $$; while :; do sleep 0.1; done"


@pytest.mark.parametrize("stubborn", [False, True])
def test_nobody_listens(stubborn: bool) -> None:
    """A pipe's reader goes, as when sudo or an older sshd stands between."""
    text, script = (HASTY, STUBBORN) if stubborn else (TEXT, FAMILY)
    with start("sh", "-c", script, text=text) as process:
        assert process.stdout
        pids = [int(one) for one in process.stdout.readline().split()]
        assert all(map(alive, pids))
        process.stdout.close()
        until(lambda: not any(map(alive, pids)))
        process.wait(DEADLINE)


def test_the_connection_closes() -> None:
    """A socket's far end goes, as sshd's does."""
    ours, theirs = socket.socketpair()
    process = start("sh", "-c", FAMILY, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    pids = [int(one) for one in ours.recv(100).split()]
    ours.shutdown(socket.SHUT_WR)  # the end of stdin, as ssh passes it on
    time.sleep(0.3)
    assert all(map(alive, pids))
    ours.close()
    until(lambda: not any(map(alive, pids)))
    process.wait(DEADLINE)


def test_words_come_through() -> None:
    with start("sh", "-c", "read line; echo $line; cat; exit 3", silence=60) as process:
        assert process.stdin and process.stdout
        print("first", file=process.stdin, flush=True)
        assert process.stdout.readline() == "first\n"
        assert process.communicate("the rest", timeout=DEADLINE)[0] == "the rest"
    assert process.returncode == 3


def test_the_connection_is_cut() -> None:
    """Nothing closes, but nothing comes any more; before, words had kept it alive."""
    with start("sh", "-c", FAMILY, silence=3.0) as process:
        assert process.stdin and process.stdout
        pids = [int(one) for one in process.stdout.readline().split()]
        for _ in range(18):
            time.sleep(0.25)
            print(file=process.stdin, flush=True)
        assert all(map(alive, pids))
        until(lambda: not any(map(alive, pids)))


def test_silence_after_the_end_of_stdin_is_no_sign() -> None:
    with start("sh", "-c", "cat; sleep 0.6; echo done", silence=0.2) as process:
        assert process.communicate("", timeout=DEADLINE)[0] == "done\n"


def test_what_it_left_goes_when_it_ends() -> None:
    with start("sh", "-c", "sleep 60 >/dev/null & echo $!") as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert process.wait(DEADLINE) == 0
        assert not alive(pid)


def test_the_tether_itself_is_killed() -> None:
    with start("sh", "-c", "echo $$; exec sleep 60") as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not alive(pid))
