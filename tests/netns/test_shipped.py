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


EXAMPLE = Path(__file__).resolve().parents[2] / "filters/examples/clients.c"


def test_it_takes_a_filter_of_ones_own(straight: Line, built: Path, tmp_path: Path) -> None:
    """C is refused with the way out; the object file that this makes elsewhere is loaded, at the
    start and later."""
    filters = (*CAROM, "filter", "build", str(EXAMPLE), "-o", str(tmp_path))
    elsewhere = environment(CAROM_CACHE=str(tmp_path / "elsewhere"))
    subprocess.run(filters, check=True, env=elsewhere, capture_output=True)
    arguments = ("--app", "kv", "--hook", "xdp", "--programs", str(built), "--filter")
    ended = run(straight.server, "serve", "-i", INTERFACE, *arguments, str(EXAMPLE), program=BARE)
    assert (ended.code, ended.stdout) == (1, ""), ended
    assert "bcc" in ended.stderr.lower()
    assert "`carom filter build clients.c`" in ended.stderr
    assert "Traceback" not in ended.stderr
    path = tmp_path / "clients-xdp.o"
    with Carom(straight.server, *arguments, str(path), program=BARE) as carom:
        assert carom.ready["filter"] == {"name": "clients", "place": "xdp"}
        pid = ("--pid", str(carom.pid))
        for wanted, code, words in (
            ("reject", 0, "reject from now on"),
            (str(path), 0, "clients from now on"),
            (str(EXAMPLE), 1, "`carom filter build clients.c`"),
            (str(tmp_path / "clients-tc.o"), 1, "is a filter for tc"),
        ):
            ended = run(straight.server, "filter", "use", wanted, *pid, program=BARE)
            assert ended.code == code, ended
            assert words in ended.stdout + ended.stderr
