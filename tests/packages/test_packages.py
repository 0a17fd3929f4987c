# SPDX-License-Identifier: Apache-2.0
"""Each package on a host without a compiler: it serves, fronts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages.pristine import KINDS, Deb, Package, Pristine

from carom.vm.namespace import Namespace
from netns import line as lines
from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import TCPClient, UDPClient
from netns.process import INTERFACE, Carom, until

PLACE = Path(os.environ.get("CAROM_PACKAGES", ""))
RELEASES = os.environ.get("CAROM_RELEASES", "bookworm trixie").split()

pytestmark = pytest.mark.skipif(
    "CAROM_PACKAGES" not in os.environ, reason="for packages: sudo ./run test-package"
)


@pytest.fixture
def own_line() -> Iterator[Line]:
    """A pair for one test alone."""
    with lines.straight() as line:
        yield line


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=KINDS)
def package(
    request: pytest.FixtureRequest, release: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Package]:
    """Installed; it is removed at the end, and nothing is left then."""
    root = tmp_path_factory.mktemp(f"{release}-{request.param}") / "root"
    with (
        Namespace("pristine") as namespace,
        Pristine(PLACE / f"tree-{release}", root, namespace) as there,
    ):
        package = KINDS[request.param](there, PLACE / "packages")
        package.install()
        yield package
        package.remove()
        left = there.files()
        changed = {name for name in left if left[name] != there.before.get(name)}
        assert changed == set()
        assert left.keys() == there.before.keys()


def program(package: Package) -> list[str]:
    """How carom is called there."""
    return package.there.argv(*package.program)


def ask(package: Package, *words: str) -> str:
    """What a command of it says."""
    done = package.there.run(*package.program, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_can_be_compiled(package: Package) -> None:
    for what in ("import bcc", "import ctypes; ctypes.CDLL('libbcc.so.0')"):
        assert package.there.run("python3", "-c", what).returncode
    assert package.there.run("which", "cc", "gcc", "clang").returncode


def test_its_programs_are_of_its_sources(package: Package) -> None:
    rows = json.loads(ask(package, "programs", "--json"))
    assert {row["name"] for row in rows} > {"fastpath", "filters-xdp"}
    assert all(row["these_sources"] and row["this_abi"] for row in rows)
    assert "carom" in ask(package, "--version")
    assert "front" in ask(package, "--help")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_it_serves(own_line: Line, package: Package, hook: str) -> None:
    arguments = ("-p", "2000", "--hook", hook, "--amplify", "0")
    with (
        Carom(own_line.server, *arguments, program=program(package)) as carom,
        UDPClient(own_line.client, own_line.address, 2000) as client,
    ):

        def hit() -> bool:
            client.socket.send(b"hello there")
            assert client.socket.recv(100) == b"hello there"
            return bool(carom.counters()["hit"])

        until(hit, "a hit")
        assert carom.ready["interfaces"][0]["hook"] == hook


def test_it_explains_and_is_watched(own_line: Line, package: Package) -> None:
    """Beside the answers: why a request has none yet, and counters for a scraper."""
    with Carom(own_line.server, "-p", "2000", program=program(package)) as carom:
        pid = ("--pid", str(carom.pid))
        said = ask(package, "why", "hello", "--from", "198.18.0.1", *pid)
        assert "miss: not in the cache" in said
        file = "/tmp/replies"
        assert ask(package, "cache", "save", file, *pid).strip() == "saved 0"
        assert ask(package, "cache", "load", file, *pid)
        package.there.run("rm", file)
        done = package.there.run(*package.program, "metrics", *pid)
        assert done.returncode == 0 or "prometheus" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_its_manual_is_there(package: Package) -> None:
    if not isinstance(package, Deb):
        pytest.skip("a wheel and one file have no place for manual pages")
    page = package.there.run("zcat", "/usr/share/man/man1/carom.1.gz").stdout
    assert page.startswith(".TH CAROM 1")
    shell = "/usr/share/bash-completion/completions/carom"
    assert "complete" in package.there.run("cat", shell).stdout


def test_it_fronts(own_line: Line, package: Package) -> None:
    there = package.there
    command = own_line.server.argv(
        there.argv("memcached", "-u", "nobody", "-U", "11211", "-l", "0.0.0.0")
    )
    with subprocess.Popen(command) as memcached:
        try:
            with (
                Carom(own_line.server, command="front", program=program(package)) as carom,
                UDPClient(own_line.client, own_line.address) as udp,
                TCPClient(own_line.client, own_line.address) as tcp,
            ):
                assert carom.ready["interfaces"][0]["name"] == INTERFACE
                check_writes_are_seen(carom, tcp, udp)
        finally:
            memcached.terminate()
    until(lambda: memcached.poll() is not None, "its end")
