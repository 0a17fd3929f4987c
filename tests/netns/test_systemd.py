# SPDX-License-Identifier: Apache-2.0
"""The unit under a real systemd: started, reloaded, watched, restarted and stopped by it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.booted import Booted, why_not
from netns.line import Line
from netns.memcache import TCPClient, UDPClient
from netns.process import INTERFACE, Carom, attached, until
from netns.test_rights import FRONT, SERVE, check_least
from netns.test_unit import UNIT
from netns.wire import Client

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

FILE = "/etc/carom/carom.toml"
ECHO = f'interfaces = ["{INTERFACE}"]\n[[service]]\napp = "echo"\nport = 53\n'
DROP_IN = """
[Service]
StandardOutput=append:/run/carom.log
StandardError=append:/run/carom.log
Environment=CAROM_CACHE=/run/compiled NO_COLOR=1
"""
MEMCACHED = """
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/memcached -u nobody -U 11211 -l 0.0.0.0
"""


@pytest.fixture
def systemd(own_line: Line, tmp_path: Path) -> Iterator[Booted]:
    """One that has the unit, and a carom to start by it."""
    with Carom(own_line.server, "--mode", "generic"):
        pass  # root's carom compiles, and keeps what it makes
    place = tmp_path / "booted"
    place.mkdir()
    with Booted(own_line.server, place) as systemd:
        systemd.keep_objects()
        units = "/etc/systemd/system"
        systemd.write(f"{units}/carom.service", UNIT.read_text())
        systemd.write(f"{units}/carom.service.d/test.conf", DROP_IN)
        systemd.write(f"{units}/memcached-test.service", MEMCACHED)
        called = f'#!/bin/sh\nexec {sys.executable} -P -m carom "$@"\n'
        systemd.write("/usr/bin/carom", called, "755")
        assert systemd.run("systemctl", "daemon-reload").returncode == 0
        yield systemd


def start(systemd: Booted) -> int:
    """Start the unit; gives the pid of carom as this host sees it."""
    started = systemd.run("systemctl", "start", "carom")
    said = systemd.run("systemctl", "status", "carom").stdout
    said += systemd.run("cat", "/run/carom.log").stdout
    assert started.returncode == 0, said
    return main_of(systemd)


def main_of(systemd: Booted) -> int:
    """The pid of the unit's main process, as this host sees it."""
    inner = systemd.show("carom", "MainPID")
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(one.partition(":")[::2] for one in status.read_text().splitlines())
            same = (
                os.readlink(status.parent / "ns/pid")
                == systemd.run("readlink", "/proc/1/ns/pid").stdout.strip()
                if lines["NSpid"].split()[1:] == [inner]
                else False
            )
        except (OSError, KeyError):
            continue
        if same:
            return int(status.parent.name)
    raise AssertionError(f"no process is {inner} there")


def test_nothing_without_a_file(systemd: Booted) -> None:
    assert systemd.run("systemctl", "start", "carom").returncode == 0
    assert systemd.show("carom", "ConditionResult") == "no"
    assert systemd.show("carom", "ActiveState") == "inactive"


def test_a_python_service(systemd: Booted, own_line: Line) -> None:
    systemd.write(FILE, ECHO)
    pid = start(systemd)
    assert systemd.show("carom", "StatusText").startswith("ready 0.0.0.0:53 raw cache")
    assert os.stat(f"/proc/{pid}").st_uid > 60_000  # of DynamicUser=
    check_least(pid, SERVE, root=False)
    with Client(own_line.client, own_line.address, 53) as client:
        for _ in range(3):
            assert client.ask(b"same") == b"same"
    asked = systemd.run("carom", "status", "--json")  # as root, who says nothing of where
    assert '"hit":2' in asked.stdout, asked

    systemd.write(FILE, 'ttl = "9m"\n' + ECHO)
    assert systemd.run("systemctl", "reload", "carom").returncode == 0
    assert '"ttl":540.0' in systemd.run("carom", "status", "--json").stdout
    systemd.write(FILE, "x")
    assert systemd.run("systemctl", "reload", "carom").returncode != 0
    assert systemd.show("carom", "ActiveState") == "active"
    assert main_of(systemd) == pid

    assert systemd.run("systemctl", "restart", "carom").returncode != 0
    assert systemd.show("carom", "ExecMainStatus") == "2"
    until(lambda: systemd.show("carom", "ActiveState") == "failed", "it to stay failed")
    assert systemd.show("carom", "NRestarts") == "0"
    assert attached(own_line.server) is None


def test_it_hangs(systemd: Booted, own_line: Line) -> None:
    """The manager ends it and starts another."""
    systemd.write(FILE, ECHO)
    os.kill(start(systemd), signal.SIGSTOP)
    until(lambda: systemd.show("carom", "NRestarts") == "1", "a restart")
    until(lambda: systemd.show("carom", "ActiveState") == "active", "it to be ready")
    with Client(own_line.client, own_line.address, 53) as client:
        assert client.ask(b"same") == b"same"
    assert systemd.run("systemctl", "stop", "carom").returncode == 0
    assert systemd.show("carom", "Result") == "success"
    assert attached(own_line.server) is None


def test_a_fronted_server(systemd: Booted, own_line: Line) -> None:
    """It is waited for, found, and found again."""
    if systemd.run("test", "-x", "/usr/bin/memcached").returncode:
        pytest.skip("memcached is not installed")
    systemd.write(FILE, f'interfaces = ["{INTERFACE}"]\n[[service]]\nprotocol = "memcached"\n')
    assert systemd.run("systemctl", "start", "--no-block", "carom").returncode == 0
    until(lambda: systemd.show("carom", "StatusText").startswith("waiting: "), "it to wait")
    for value in (b"old", b"new"):
        assert systemd.run("systemctl", "restart", "memcached-test").returncode == 0
        until(lambda: systemd.show("carom", "ActiveState") == "active", "it to be ready")
        check_least(main_of(systemd), FRONT, root=False)
        with (
            TCPClient(own_line.client, own_line.address) as tcp,
            UDPClient(own_line.client, own_line.address) as udp,
        ):
            tcp.set(b"key", value)

            def hit(value: bytes = value, udp: UDPClient = udp) -> bool:
                before = hits(systemd)
                assert udp.get(b"key") == value
                return hits(systemd) > before

            until(hit, "a hit")


def hits(systemd: Booted) -> int:
    """How many there were, as `carom metrics` or `status` would tell."""
    told = systemd.run("carom", "status", "--json").stdout
    return int(told.partition('"hit":')[2].partition(",")[0])


def _pinning() -> str:
    """The drop-in of the guide."""
    guide = (Path(__file__).resolve().parents[2] / "docs/operating.md").read_text()
    return guide.partition("`systemctl edit carom`:\n\n```ini\n")[2].partition("```")[0]


def test_what_is_pinned_outlives_it(systemd: Booted, own_line: Line) -> None:
    """With the guide's drop-in the user that carom gets may pin, and the next one takes it over."""
    if systemd.run("test", "-x", "/usr/bin/memcached").returncode:
        pytest.skip("memcached is not installed")
    systemd.write("/etc/systemd/system/carom.service.d/pin.conf", _pinning())
    assert systemd.run("systemctl", "daemon-reload").returncode == 0
    systemd.write(
        FILE, f'interfaces = ["{INTERFACE}"]\npin = true\n[[service]]\nprotocol = "memcached"\n'
    )
    assert systemd.run("systemctl", "start", "memcached-test").returncode == 0
    os.kill(start(systemd), signal.SIGKILL)
    program = attached(own_line.server)
    assert program
    until(lambda: systemd.show("carom", "NRestarts") == "1", "a restart")
    until(lambda: systemd.show("carom", "ActiveState") == "active", "it to be ready")
    assert attached(own_line.server)
    assert attached(own_line.server) != program, "its own programs are in the links"
    log = systemd.run("cat", "/run/carom.log").stdout
    assert "goes on with the cache of the carom before" in log, log
    assert systemd.run("systemctl", "restart", "carom").returncode == 0
    assert systemd.run("systemctl", "stop", "carom").returncode == 0
    assert attached(own_line.server)
    unpin = ("env", "CAROM_PINS=/sys/fs/bpf/carom-unit/pins", "carom", "unpin")
    done = systemd.run(*unpin)
    assert done.returncode == 0, done.stderr
    assert attached(own_line.server) is None
