# SPDX-License-Identifier: Apache-2.0
"""The namespaces that `./run test-vm` works in: nothing that was started there outlives them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

WORK = """
import os, subprocess, sys, time
from carom.vm import emulated

def buried(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

def work():
    assert os.getppid() == 1
    assert os.listdir("/proc/sys/net/ipv4/conf").count("eth0") == 0
    subprocess.Popen(["sleep", "{naptime}"], start_new_session=True)  # which waits for the exec
    orphan = int(subprocess.check_output(["sh", "-c", "true >&- & echo $!"]))
    while not buried(orphan):
        time.sleep(0.02)
    print("started", flush=True)
    {then}

sys.exit(emulated.contained(work))
"""


def start(naptime: str, then: str) -> subprocess.Popen[str]:
    """A program that leaves `sleep NAPTIME` behind in there, and then does something."""
    program = subprocess.Popen(
        [sys.executable, "-P", "-c", WORK.format(naptime=naptime, then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    assert program.stdout.readline() == "started\n"
    return program


def sleeps(naptime: str) -> bool:
    """Is `sleep NAPTIME` there?"""
    wanted = f"sleep\0{naptime}\0".encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes() == wanted:
                return True
        except OSError:  # it has ended
            continue
    return False


def ends(naptime: str) -> bool:
    """Has it ended, or does it soon?"""
    for _ in range(500):
        if not sleeps(naptime):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def naptime() -> str:
    return f"{10_000 + secrets.randbelow(1_000_000)}.5"


@pytest.mark.parametrize(
    ("then", "status", "said"),
    [
        ("return 3", 3, ""),
        ("raise emulated.HostError('no luck', hint='try again')", 1, "test-vm: no luck\n  hint"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_nothing_outlives_the_work(naptime: str, then: str, status: int, said: str) -> None:
    program = start(naptime, then)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == status
    assert said in errors
    assert ends(naptime)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_outlives_a_signal(naptime: str, number: signal.Signals, status: int) -> None:
    program = start(naptime, "time.sleep(600); return 0")
    assert any(sleeps(naptime) for _ in range(100)), "of a busy /proc, a listing may miss some"
    program.send_signal(number)
    program.communicate(timeout=60)
    assert program.returncode == status
    assert ends(naptime)
