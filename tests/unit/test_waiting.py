# SPDX-License-Identifier: Apache-2.0
"""Waiting for files, also in a process that has thousands of them open."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from carom.kernel.netlink import Changes
from carom.kernel.waiting import readable

MANY = 1100  # more than select(2) takes


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, behind so many other descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * MANY)), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(MANY):
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        one, other = socket.socketpair()
        stack.enter_context(one)
        stack.enter_context(other)
        assert one.fileno() > 1023
        yield one, other


def test_what_can_be_read(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    assert readable([one, other], 0) == []
    other.send(b"x")
    assert readable([one, other], None) == [one]
    assert readable([one.fileno(), other.fileno()], 0) == [one.fileno()]


def test_what_is_closed_can_be_read(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.close()
    assert readable([one], 60) == [one]


def test_a_short_wait_is_a_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    assert readable([pair[0]], 1e-6) == []
    assert readable([pair[0]], -1) == []


@pytest.mark.usefixtures("pair")
def test_changes_of_the_network() -> None:
    changes = Changes()
    assert not all(changes.wait(0.01) for _ in range(100))  # others may change it meanwhile
    changes.poke()
    assert changes.wait(60)
    changes.close()


def test_a_poke_that_comes_too_late() -> None:
    """Threads may poke until the end: nothing happens, whoever has the descriptor's number now."""
    changes = Changes()
    changes.close()
    changes.poke()
