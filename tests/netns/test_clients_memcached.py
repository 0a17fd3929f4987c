# SPDX-License-Identifier: Apache-2.0
"""libmemcached's tools ask and write a memcached through `carom front`, and notice nothing.

libmemcached itself writes over UDP, without acknowledgement, and never reads; memcaslap, which
speaks for itself, does both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.fronted import edge, until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom, until
from netns.tools import number, tell, tool

SETS = 100


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, memcached: Memcached) -> Iterator[Carom]:
    arguments = ("--hook", request.param, "--bind", "::", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.mark.parametrize("way", ["--udp", "--binary", "--tcp"])
def test_memccp(front: Carom, straight: Line, tcp: TCPClient, tmp_path: Path, way: str) -> None:
    """What it writes is what everybody reads from then on."""
    options = [] if way == "--tcp" else [way]
    program, server = tool("memccp", "memcp"), f"--servers={straight.address}"
    file = tmp_path / "copied"
    with UDPClient(straight.client, straight.address) as udp:
        for value in (b"first", b"second", b"a longer third"):
            tcp.set(b"copied", b"old")
            until_hit(front, udp, b"copied", b"old")
            file.write_bytes(value)
            tell(straight.client, program, server, *options, str(file))
            assert udp.get(b"copied") == value
            until_hit(front, udp, b"copied", value)
    shown = tell(straight.client, tool("memccat", "memcat"), server, "copied")
    assert shown.rstrip("\n") == "a longer third"


@pytest.mark.parametrize("way", ["--udp", "--binary"])
def test_memcslap(front: Carom, straight: Line, way: str) -> None:
    """Its sets are each seen as a write of one key, most of those over UDP in fragments."""
    before = edge(front)
    options = (way, "--test=set", f"--execute-number={SETS}", "--quiet")
    tell(straight.client, tool("memcslap", "memslap"), f"--servers={straight.address}", *options)
    # At least: the edge also sees what other namespaces' servers on this port are asked.
    until(lambda: edge(front)["write_seen"] - before["write_seen"] >= SETS, "all to be seen")


@pytest.mark.parametrize("protocol", ["-a", "-b"])
def test_memccapable(front: Carom, straight: Line, protocol: str) -> None:
    """Its tests of a server, in text and in binary, find what they find without carom."""
    shown = tell(straight.client, tool("memccapable"), "-h", straight.address, protocol)
    assert shown.count("[pass]") > 15 and "[FAIL]" not in shown, shown


def test_memcaslap(front: Carom, straight: Line, tmp_path: Path) -> None:
    """It verifies each value that it gets; those that it got before are the kernel's."""
    configuration = tmp_path / "commands"
    configuration.write_text("key\n16 16 1\nvalue\n64 64 1\ncmd\n0 0.02\n1 0.98\n")
    before, seen = front.counters(), edge(front)
    shown = tell(
        straight.client,
        tool("memcaslap", "memaslap"),
        f"--servers={straight.address}:11211",
        *("--udp", "--threads=1", "--concurrency=2", "--execute_number=20000", "--win_size=1k"),
        *("--verify=1.0", f"--cfg_cmd={configuration}"),
    )
    for trouble in ("get_misses", "verify_misses", "verify_failed", "packet_drop", "udp_timeout"):
        assert number(f"{trouble}:", shown) == 0, shown
    changed, gets = front.since(before), number("cmd_get:", shown)
    assert changed["hit"] >= gets / 10  # a busy host's daemon is late with how long they live
    asked = ("hit", "miss", "pass_checksum")  # the last: one sum in 65,536 looks half-made
    assert sum(n for name, n in changed.items() if name.startswith(asked)) == gets
    written = edge(front)["write_seen"] - seen["write_seen"]
    assert written >= changed["pass_write"] == number("cmd_set:", shown)
