# SPDX-License-Identifier: Apache-2.0
"""A host without a compiler: object files are all that the kernel half needs there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, INTERFACE, Carom, environment, run

WITHOUT = r"""
    for file in $(ldconfig -p | sed -n 's/.*=> \(.*lib\(bcc\|LLVM\|clang\)[^ ]*\)$/\1/p'); do
        mount --bind /dev/null "$(readlink -f "$file")" || exit
    done
    for path in /usr/lib/python3/dist-packages/bcc /usr/src /lib/modules /usr/lib/llvm-*; do
        [ ! -d "$path" ] || mount -t tmpfs none "$path" || exit
    done
    exec "$@"
"""
"""Runs a program where neither BCC, clang, LLVM nor the kernel's headers are there."""

BARE = ("unshare", "--mount", "sh", "-c", WITHOUT, "sh", *CAROM)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of object files, by the command."""
    folder = tmp_path_factory.mktemp("built")
    command = [*CAROM, "build", "-o", str(folder)]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def _nothing(nothing_kept: Path) -> Iterator[None]:
    yield


def test_nothing_can_be_compiled_there(straight: Line) -> None:
    ended = run(straight.server, "serve", "-i", INTERFACE, program=BARE)
    assert ended.code == 1
    assert "bcc" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("command", ["bounce", "cache"])
def test_it_serves(straight: Line, built: Path, hook: str, command: str) -> None:
    arguments = ("-p", "2000", "--hook", hook, "--fast", command, "--amplify", "0")
    with (
        Carom(straight.server, *arguments, "--programs", str(built), program=BARE) as carom,
        UDPClient(straight.client, straight.address, 2000) as client,
    ):
        for _ in range(3):
            client.socket.send(b"hello there")
            assert client.socket.recv(100) == b"hello there"
        counters = carom.counters()
    assert counters["bounce" if command == "bounce" else "hit"] >= 1


def test_it_serves_from_an_image_layout(straight: Line, built: Path, tmp_path: Path) -> None:
    layout = str(tmp_path / "layout")
    command = [*CAROM, "pack", layout, "--programs", str(built)]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    arguments = ("-p", "2000", "--fast", "bounce", "--amplify", "0")
    with (
        Carom(straight.server, *arguments, "--programs", layout, program=BARE) as carom,
        UDPClient(straight.client, straight.address, 2000) as client,
    ):
        client.socket.send(b"hello there")
        assert client.socket.recv(100) == b"hello there"
        assert carom.counters()["bounce"] == 1


def test_it_fronts(own_line: Line, built: Path) -> None:
    with (
        Memcached(own_line.server),
        Carom(own_line.server, "--programs", str(built), command="front", program=BARE) as carom,
        UDPClient(own_line.client, own_line.address) as udp,
        TCPClient(own_line.client, own_line.address) as tcp,
    ):
        check_writes_are_seen(carom, tcp, udp)


@pytest.mark.parametrize("where", ["xdp", "tc", "socket"])
def test_it_filters(straight: Line, built: Path, where: str) -> None:
    hook = "tc" if where == "tc" else "xdp"
    arguments = ("--app", "kv", "--filter", "reject", "--filter-at", where, "--hook", hook)
    with Carom(straight.server, *arguments, "--programs", str(built), program=BARE) as carom:
        assert carom.ready["filter"]
        listed = subprocess.run(
            [*CAROM, "filter", "ls"], check=True, env=environment(), capture_output=True, text=True
        )
    assert "reject" in listed.stdout
    assert sys.platform == "linux"
