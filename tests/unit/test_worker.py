# SPDX-License-Identifier: Apache-2.0
"""Processes of the experiments with four ports, where one is ended as soon as it is there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from carom.lab.experiments.ports.worker import fork

FORKS = 300


@pytest.fixture
def handled() -> Iterator[None]:
    """SIGTERM has a handler of Python's, as in the lab's agent."""
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handled")
def test_one_that_has_just_begun_ends() -> None:
    cpu = min(os.sched_getaffinity(0))
    for _ in range(FORKS):
        pid = fork(lambda: time.sleep(3600), cpu)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
