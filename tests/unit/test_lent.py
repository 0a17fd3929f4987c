# SPDX-License-Identifier: Apache-2.0
"""What the control socket lends is taken back when its connection ends, in whatever way."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.daemon import control
from carom.errors import ControlError, UsageError

PATIENCE = 20.0


class Pipe(control.Lent):
    """Lends the reading end of a pipe."""

    def __init__(self, seconds: float = 60.0):
        reads, self.writes = os.pipe()
        self.descriptors, self.seconds = [reads], seconds
        self.result = {"of": "pipe"}
        self.ended, self.closed = threading.Event(), threading.Event()

    def over(self) -> bool:
        return self.ended.is_set()

    def last(self) -> object:
        assert self.closed.is_set()
        return "closed"

    def close(self) -> None:
        for descriptor in (*self.descriptors, self.writes):
            os.close(descriptor)
        self.closed.set()


@pytest.fixture
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pipe]]:
    """Those that are lent, by `pipe`, `short` (for a moment) and `none`."""
    monkeypatch.setenv("CAROM_RUN", str(tmp_path))
    lent: list[Pipe] = []

    def lend(seconds: float = 60.0) -> Pipe:
        lent.append(Pipe(seconds))
        return lent[-1]

    def none() -> Pipe:
        raise UsageError("there is none", hint="ask for another")

    calls = {"pipe": lend, "short": lambda: lend(0.05), "none": none}
    with contextlib.closing(control.Control(calls)):
        yield lent


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More than select(2) can wait for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1024)]
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_by_descriptors_of_any_number(pipes: list[Pipe]) -> None:
    with control.borrow("pipe") as borrowed:
        assert not borrowed.over()
        assert borrowed.give_back() == "closed"


def test_it_is_given_back(pipes: list[Pipe]) -> None:
    with control.borrow("pipe") as borrowed:
        assert borrowed.result == {"of": "pipe"} and not borrowed.over()
        (reads,) = borrowed.descriptors
        assert reads not in pipes[0].descriptors, "a copy"
        os.write(pipes[0].writes, b"through")
        assert os.read(reads, 10) == b"through"
        assert borrowed.give_back() == "closed"
    with pytest.raises(OSError):
        os.fstat(reads)


def test_who_is_gone_has_it_no_more(pipes: list[Pipe]) -> None:
    with control.borrow("pipe"):
        assert not pipes[0].closed.is_set()
    assert pipes[0].closed.wait(PATIENCE)


def test_its_time_ends(pipes: list[Pipe]) -> None:
    with control.borrow("short") as borrowed:
        assert pipes[0].closed.wait(PATIENCE)
        while not borrowed.over():
            pass
        assert borrowed.give_back() == "closed"


def test_it_ends_by_itself(pipes: list[Pipe]) -> None:
    with control.borrow("pipe") as borrowed:
        pipes[0].ended.set()
        assert pipes[0].closed.wait(PATIENCE)
        assert borrowed.give_back() == "closed"


def test_there_is_none(pipes: list[Pipe]) -> None:
    with pytest.raises(ControlError, match="there is none") as raised, control.borrow("none"):
        pass
    assert raised.value.hint == "ask for another" and not pipes
