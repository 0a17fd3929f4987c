# SPDX-License-Identifier: Apache-2.0
"""Pauses double up to the most, begin anew, and are never shorter than asked for."""

from __future__ import annotations

import pytest

from carom.daemon import backoff
from carom.daemon.backoff import Backoff


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """As time.monotonic()."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backoff, "time", clock)
    return clock


def pause(clock: Clock, tried: Backoff) -> float:
    """Seconds until it is due."""
    start = clock.now
    while not tried.due():
        clock.now += 0.5
    return clock.now - start


def test_pauses(clock: Clock) -> None:
    tried = Backoff(1, 6)
    pauses = []
    for _ in range(5):
        pauses.append(pause(clock, tried))
        tried.later()
    assert pauses == [1, 1, 2, 4, 6]
    assert pause(clock, tried) == 6
    tried.reset()
    assert pause(clock, tried) == 1
    tried.later(20)
    assert pause(clock, tried) == 20
