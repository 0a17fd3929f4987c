# SPDX-License-Identifier: Apache-2.0
"""`carom lab run` that is ended from outside: it keeps what it has, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from carom.daemon import control
from carom.lab import results
from netns.process import CAROM, DEADLINE, environment, until


def claims() -> set[str]:
    return {one.name for one in (control.directory() / "namespaces").glob("carom-*")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("measured", [False, True], ids=["at the start", "under way"])
def test_a_run_that_is_ended(tmp_path: Path, number: signal.Signals, measured: bool) -> None:
    before = claims()
    short = ("--waits", "blocking", "--seconds", "0.2", "--repetitions", "1000")
    process = subprocess.Popen(
        [*CAROM, "lab", "run", "bounce", *short, "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    until(lambda: len(claims() - before) == 2, "both namespaces")
    if measured:
        time.sleep(8)  # until then, on most machines; what it had is checked, not when
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=2 * DEADLINE)
    assert claims() == before, stderr
    assert "Traceback" not in stderr
    assert process.returncode in ((1, 130) if number == signal.SIGINT or not measured else (1,))
    for folder in tmp_path.iterdir():
        run = results.load(folder)
        assert not run.complete
        assert "interrupted" in stderr and str(folder) in stdout
