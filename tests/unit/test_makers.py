# SPDX-License-Identifier: Apache-2.0
"""Which process made a socket: a pid is one process' now, and may be another's later."""

from __future__ import annotations

import os

import pytest

from carom.kernel import processes
from carom.routes.makers import NO_PROCESS, Makers, Process


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What proc(5) says: when each process started."""
    starts: dict[int, int] = {}
    monkeypatch.setattr(processes, "started", starts.get)
    return starts


def test_one_that_lives(starts: dict[int, int]) -> None:
    makers = Makers()
    starts[77_777_777] = 100
    made = makers.maker(77_777_777, 150, "name", 5)
    assert (made, makers.lives(made)) == (Process(77_777_777, 100), True)


def test_its_pid_is_another_s_later(starts: dict[int, int]) -> None:
    """Each socket is whose it is by when it was made."""
    makers = Makers()
    pid = 77_777_777
    starts[pid] = 100
    first = makers.maker(pid, 150, "first", 1)
    starts[pid] = 200
    makers.look()
    second = makers.maker(pid, 250, "second", 2)
    late = makers.maker(pid, 160, "a thread", 1)
    assert (first, second, late) == ((pid, 100), (pid, 200), (pid, 100))
    assert [makers.lives(one) for one in (first, second)] == [False, True]
    assert makers.facts(first) == ("first", 1)


def test_it_was_never_seen(starts: dict[int, int]) -> None:
    """All sockets of one that has ended are of one process, as far as can be known."""
    makers = Makers()
    pid = 77_777_777
    ended = makers.maker(pid, 50, "ended", 1)
    starts[pid] = 100
    makers.look()
    assert makers.maker(pid, 60, "ended", 1) == ended == (pid, 0)
    assert makers.maker(pid, 150, "new", 2) == (pid, 100)


def test_what_is_forgotten(starts: dict[int, int]) -> None:
    makers = Makers()
    ended = makers.maker(77_777_777, 50, "ended", 1)
    makers.forget(ended)
    assert makers.maker(77_777_777, 50, "again", 2) == ended
    assert makers.facts(ended) == ("again", 2)


def test_who_holds() -> None:
    """This process, and one that there is not."""
    makers = Makers()
    own = makers.holder(os.getpid())
    assert own.started == processes.started(os.getpid())
    assert makers.facts(own) == (processes.name_of(os.getpid()), os.geteuid())
    assert makers.holder(99_999_999) == NO_PROCESS
