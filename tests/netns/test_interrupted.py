# SPDX-License-Identifier: Apache-2.0
"""`carom lab run` that is ended from outside: it keeps what it has, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from carom.daemon import control
from carom.lab import results
from carom.lab.record import Repetition
from netns.process import CAROM, DEADLINE, Ended, end_of, environment, until


def claims() -> set[str]:
    return {one.name for one in (control.directory() / "namespaces").glob("carom-*")}


def served() -> set[str]:
    """The control sockets of the servers that run now."""
    return {one.name for one in control.directory().glob("*.sock")}


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def end(folder: Path, number: signal.Signals, ready: Callable[[], bool]) -> Ended:
    """What a run says that is sent a signal at that moment; its namespaces are gone then."""
    before = claims()
    short = ("--waits", "blocking", "--seconds", "0.2", "--repetitions", "1000")
    process = subprocess.Popen(
        [*CAROM, "lab", "run", "bounce", *short, "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        until(lambda: len(claims() - before) == 2, "both namespaces")
        until(ready, "the moment")
    except BaseException:
        process.kill()
        raise
    process.send_signal(number)
    ended = end_of(process, 2 * DEADLINE)
    assert claims() == before, ended
    assert "Traceback" not in ended.stderr
    return ended


@pytest.mark.parametrize("number", SIGNALS)
def test_at_the_start(tmp_path: Path, number: signal.Signals) -> None:
    ended = end(tmp_path, number, lambda: True)
    assert ended.code in (1, 130)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", SIGNALS)
def test_under_way(tmp_path: Path, number: signal.Signals) -> None:
    """The third server has begun, so two cells were measured: they are kept."""
    before, seen = served(), set[str]()

    def third() -> bool:
        seen.update(served() - before)
        return len(seen) > 2

    ended = end(tmp_path, number, third)
    assert ended.code in ((1, 130) if number == signal.SIGINT else (1,))
    (folder,) = tmp_path.iterdir()
    run = results.load(folder)
    assert run.measured == Repetition.MEASURED
    assert len(run.measurements) >= 2
    assert not run.complete
    assert "interrupted" in ended.stderr and str(folder) in ended.stdout
