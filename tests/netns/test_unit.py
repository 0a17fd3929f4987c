# SPDX-License-Identifier: Apache-2.0
"""The systemd unit: well-formed, tight, and enough for what carom does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.daemon.assemble import lasting
from carom.kernel import kept
from carom.vm import packages
from netns import confined
from netns.confined import service_of
from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, HERE, INTERFACE, Carom, let_in, run, until
from netns.test_manager import Manager
from netns.test_rights import ELSEWHERE, FRONT, NOBODY, SERVE, USER, check_least
from netns.wire import Client

UNIT = packages._DEBIAN / "carom.service"
EXAMPLE = packages._DEBIAN / "carom.toml"
DOCS = HERE.parents[1] / "docs"

analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")


def test_its_capabilities() -> None:
    """Those that docs/operating.md names: all but one for servers in other namespaces."""
    service = service_of(UNIT)
    (bounding,), (ambient,) = service["CapabilityBoundingSet"], service["AmbientCapabilities"]
    assert bounding == ambient
    named = {name.removeprefix("CAP_").lower() for name in bounding.split()}
    assert named == {*FRONT, "net_bind_service"}
    table = (DOCS / "operating.md").read_text().partition("## What it needs")[2].partition("\n## ")
    rows = set(re.findall(r"^\| `CAP_(\w+)` \|", table[0], re.MULTILINE))
    assert {name.lower() for name in rows} == {*ELSEWHERE, "net_bind_service"}
    assert {name.lower() for name in lasting([], [])} == set(SERVE)


@analyze
def test_verify(tmp_path: Path) -> None:
    """With a program that is there in the place of /usr/bin/carom."""
    text = UNIT.read_text().replace("/usr/bin/carom", sys.executable)
    (tmp_path / "carom.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "carom.service"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@analyze
def test_exposure() -> None:
    """Of 10, by systemd's own reckoning: below 3 is what it calls OK."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_example(tmp_path: Path) -> None:
    """As it is, and with all that it has behind #."""
    for text in (EXAMPLE.read_text(), re.sub(r"(?m)^#(?! )", "", EXAMPLE.read_text())):
        (tmp_path / "carom.toml").write_text(text)
        done = subprocess.run(
            [*CAROM, "config", "check", tmp_path / "carom.toml"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory, of the unit's user."""
    with tempfile.TemporaryDirectory(prefix="carom-", dir="/tmp") as folder:
        os.chown(folder, USER, USER)
        monkeypatch.setenv("CAROM_CACHE", str(kept.folder()))
        monkeypatch.setenv("CAROM_RUN", folder)
        yield Path(folder)


def as_unit(manager: Manager) -> list[str]:
    """What starts a program as the unit would."""
    before = ["env", f"NOTIFY_SOCKET={manager.name}", "WATCHDOG_USEC=10000000"]
    return [
        *before,
        "unshare",
        "--mount",
        sys.executable,
        "-P",
        confined.__file__,
        str(UNIT),
        str(USER),
    ]


@analyze
def test_under_its_terms(straight: Line, folder: Path, tmp_path: Path) -> None:
    """Both kinds of services, on a low port too; a reload, IPv6 that comes later, and the end."""
    let_in(tmp_path)
    file = tmp_path / "carom.toml"
    text = (
        f'interfaces = ["{INTERFACE}"]\n[[service]]\napp = "echo"\nport = 53\n'
        '[[service]]\nprotocol = "memcached"\n'
    )
    file.write_text(text)
    six = straight.over(6)
    straight.server.run("ip", "-6", "address", "flush", "dev", INTERFACE)
    with (
        Manager(straight.server, str(folder / "notify")) as manager,
        Memcached(straight.server, prefix=NOBODY),
    ):
        os.chmod(folder / "notify", 0o666)
        program = [*as_unit(manager), *CAROM]
        with (
            Carom(
                straight.server, str(file), interface=None, command="run", program=program
            ) as carom,
            Client(straight.client, straight.address, 53) as client,
            TCPClient(straight.client, straight.address) as tcp,
            UDPClient(straight.client, straight.address) as udp,
        ):
            until(lambda: manager.told("READY=1"), "READY=1")
            check_least(carom.pid, FRONT, root=False)
            check_filtered(carom.pid)
            client.ask(b"same")
            before = carom.counters()
            client.ask(b"same")
            carom.expect(before, hit=1)
            check_writes_are_seen(carom, tcp, udp)
            file.write_text(text + "ttl = 7\n")
            ended = run(
                straight.server,
                "reload",
                "--pid",
                str(carom.pid),
                program=[*as_unit(manager), *CAROM],
            )
            assert (ended.code, ended.stdout) == (0, "service[1].ttl: 60.0 -> 7.0\n"), ended
            straight.server.address(INTERFACE, six.address6, 64)
            with UDPClient(straight.client, six.address6) as udp6:
                tcp.set(b"key6", b"six")

                def hit() -> bool:
                    before = carom.counters()["hit"]
                    assert udp6.get(b"key6") == b"six"
                    return carom.counters()["hit"] > before

                until(hit, "a hit over IPv6")
            assert carom.status()["not_followed"] == {}
            until(lambda: manager.pings(), "a ping")
            carom.signal(signal.SIGTERM)
            assert carom.wait().code == 0
            assert manager.told("STOPPING=1")


def check_filtered(pid: int) -> None:
    """It cannot do what the unit forbids: as many filters are on it as were made."""
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Seccomp_filters:\s+3$", status, re.MULTILINE)
