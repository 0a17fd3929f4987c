# SPDX-License-Identifier: Apache-2.0
"""With --pin, what is in the kernel outlives its carom, and the next one goes on with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.fronted import until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient, value_of
from netns.pinning import PinningCarom, mounted
from netns.process import attached, run


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where caroms pin here."""
    with mounted(tmp_path_factory.mktemp("bpf")) as folder:
        yield folder


def fronting(line: Line, *arguments: str) -> PinningCarom:
    """`carom front --pin` before a memcached."""
    return PinningCarom(line.server, "--ttl", "1h", *arguments, command="front")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_warm_again(
    pins: Path,
    straight: Line,
    memcached: Memcached,
    udp: UDPClient,
    tcp: TCPClient,
    hook: str,
    end: signal.Signals,
) -> None:
    """What was cached before is a hit again, and what was written meanwhile is not."""
    before = fronting(straight, "--hook", hook)
    tcp.set(b"kept", b"value")
    tcp.set(b"written", b"old")
    until_hit(before, udp, b"kept", b"value")
    until_hit(before, udp, b"written", b"old")
    before.end(end)
    tcp.set(b"written", b"new")
    assert value_of(udp.ask(b"get written\r\n")) == b"new"
    assert value_of(udp.ask(b"get kept\r\n")) == b"value"
    with fronting(straight, "--hook", hook) as after:
        counters = after.counters()
        assert value_of(udp.ask(b"get kept\r\n")) == b"value"
        after.expect(counters, hit=1)
        assert value_of(udp.ask(b"get written\r\n")) == b"new"
        tcp.set(b"kept", b"newer")
        assert value_of(udp.ask(b"get kept\r\n")) == b"newer"


def test_nothing_is_left(pins: Path, straight: Line, memcached: Memcached) -> None:
    with fronting(straight):
        pass
    assert not pins.exists()
    assert attached(straight.server) is None
    assert run(straight.server, "unpin").code == 2
