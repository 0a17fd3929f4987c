# SPDX-License-Identifier: Apache-2.0
"""Link-local addresses, which are of one link each: of a service, and of whom clients ask."""

from __future__ import annotations

import pytest

from netns.line import Line
from netns.process import INTERFACE, Carom, run
from netns.test_errors import check_refused
from netns.wire import PORT

ADDRESS = "fe80::c:2"


@pytest.fixture
def line(own_line: Line) -> Line:
    own_line.server.run("ip", "address", "add", f"{ADDRESS}/64", "dev", INTERFACE, "nodad")
    own_line.client.run("ip", "address", "add", "fe80::c:1/64", "dev", INTERFACE, "nodad")
    return own_line


@pytest.mark.parametrize("bind", [ADDRESS, "::"])
def test_pinged(line: Line, bind: str) -> None:
    with Carom(line.server, "--mode", "generic", "--bind", bind) as carom:
        before = carom.counters()
        asked = run(line.client, "ping", f"{ADDRESS}%{INTERFACE}", str(PORT), "-c", "9")
        assert asked.code == 0 and "9 answered, 0 lost" in asked.stdout, asked
        carom.expect(before, miss=1, hit=8, replies=1, fills=1)


def test_with_a_zone(line: Line) -> None:
    ended = run(line.server, "serve", "-i", INTERFACE, "--bind", f"{ADDRESS}%{INTERFACE}")
    check_refused(line, ended, 2, "does not have the address", "takes it without the zone")


def test_pinged_without_a_zone(line: Line) -> None:
    asked = run(line.client, "ping", ADDRESS, str(PORT))
    assert asked.code == 2 and f"needs its interface: {ADDRESS}%eth0" in asked.stderr, asked
