# SPDX-License-Identifier: Apache-2.0
"""Handlers that fail or say nothing: the server goes on, and counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from netns.line import Line
from netns.process import Carom
from netns.wire import Client

OPTIONS = {
    "cache": ("--fast", "cache"),
    "userspace": ("--hook", "none"),
    "userspace-cache": ("--hook", "none", "--userspace-cache", "100"),
    "work": ("--fast", "cache", "--work", "1us"),
}


@pytest.fixture(scope="module", params=OPTIONS)
def told(request: pytest.FixtureRequest, straight: Line) -> Iterator[Carom]:
    """A carom, with each thing that can stand around a handler."""
    options = OPTIONS[request.param]
    with Carom(straight.server, "--app", "services:told", *options, handlers_fail=True) as carom:
        yield carom


@pytest.mark.parametrize(
    "bad", [b"raise", b"wrong text", b"wrong number", b"wrong data", b"wrong ttl", b"wrong key"]
)
def test_failing_handler(told: Carom, client: Client, bad: bytes) -> None:
    before, logged = told.counters(), told.stderr()
    start = time.monotonic()
    for i in range(1, 6):
        client.send(bad)
        good = b"count after " + bad + b" %d" % i
        assert client.ask(good) == good + b": 1"
    assert client.nothing_more()
    changed = told.since(before)
    took = time.monotonic() - start
    assert changed["handler_errors"] == 5
    assert changed.get("fills", 0) in (0, 5), "a failure was cached"
    complaints = told.stderr().removeprefix(logged).count("the handler failed")
    assert complaints <= 1 + took, "more than one a second"
    assert "the handler failed" in told.stderr()


def test_silent_handler(told: Carom, client: Client) -> None:
    before = told.counters()
    for i in range(1, 4):
        client.send(b"silent")
        good = b"count after silence %d" % i
        assert client.ask(good) == good + b": 1"
    assert client.nothing_more()
    changed = told.since(before)
    assert "handler_errors" not in changed
    assert changed.get("fills", 0) in (0, 3), "silence was cached"
