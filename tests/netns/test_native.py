# SPDX-License-Identifier: Apache-2.0
"""Native XDP on a veth, whose replies get to its other end only by what stands there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from carom.kernel import libbpf
from carom.vm.netns import attach_pass
from netns import line as lines
from netns.line import Line
from netns.process import INTERFACE, Carom, run
from netns.test_errors import check_refused
from netns.test_silence import silence_of
from netns.wire import Client

NATIVE = ("--mode", "native", "--fast", "bounce")


@pytest.fixture
def line() -> Iterator[Line]:
    """A pair without programs, and without GRO."""
    with lines.bare() as line:
        line.client.run("ethtool", "-K", INTERFACE, "gro", "off")
        yield line


def test_refused(line: Line) -> None:
    ended = run(line.server, "serve", "-i", INTERFACE, *NATIVE)
    check_refused(line, ended, 1, "do not get to the other end", "--mode generic")


def test_generic_is_not_asked(line: Line) -> None:
    with (
        Carom(line.server, "--mode", "generic", "--fast", "bounce") as carom,
        Client(line.client, line.address) as client,
    ):
        assert client.ask(b"generic") == b"generic"
        assert carom.counters()["bounce"] == 1


def test_answered_until_its_peer_loses_its_program(line: Line) -> None:
    """What is lost then is said."""
    program = attach_pass(line.client, INTERFACE)
    try:
        with Carom(line.server, *NATIVE) as carom, Client(line.client, line.address) as client:
            assert client.ask(b"native") == b"native"
            assert carom.counters()["bounce"] == 1
            assert carom.mode == "native"
            libbpf.close_link(program)
            program = -1
            said = silence_of(carom, lambda: client.send(b"lost"))
            assert said["what"] == "lost"
            assert "--mode generic" in said["why"]
    finally:
        if program >= 0:
            libbpf.close_link(program)


def test_gro_is_no_program(line: Line) -> None:
    """With it a veth takes in what is redirected, but not what is sent back."""
    line.client.run("ethtool", "-K", INTERFACE, "gro", "on")
    with Carom(line.server, *NATIVE) as carom, Client(line.client, line.address) as client:
        assert silence_of(carom, lambda: client.send(b"lost"))["what"] == "lost"


def test_down(line: Line) -> None:
    """Nobody can tell then: it starts."""
    line.client.run("ip", "link", "set", INTERFACE, "down")
    with Carom(line.server, *NATIVE) as carom:
        assert any("no carrier" in note for note in carom.ready["notes"])
