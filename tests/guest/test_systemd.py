# SPDX-License-Identifier: Apache-2.0
"""Routes on a host of systemd's: their groups are beside its own, and it leaves them alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.kernel import libbpf
from carom.routes.group import Group, names
from guest.ends import CLIENT, SERVER, Ends
from guest.test_wireguard import ANSWERS, ASKS, THERE, asked, started
from netns.process import CAROM, until

RUN = ("route", "run", "--via", "eth1", "--gateway", "198.18.2.2", "--")
LED = "198.18.2.1"


@pytest.fixture
def two_ways(ends: Ends) -> Iterator[Ends]:
    """What nobody leads leaves by eth0, and from its address."""
    if Path("/proc/1/comm").read_text() != "systemd\n":
        pytest.skip("this host's first process is not systemd")
    ends.addresses("eth0")
    ends.addresses("eth1", "198.18.2.2", LED)
    ends.server.run("ip", "address", "add", f"{THERE}/32", "dev", "lo")
    ends.client.run("ip", "route", "add", "default", "via", SERVER)
    with started(*ends.server.argv([sys.executable, "-c", ANSWERS])):
        yield ends


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def programs_at(group: Group) -> set[int]:
    return {
        number
        for where in libbpf.CGROUP.values()
        for number in libbpf.programs_at(group.descriptor, where)
    }


def test_systemd_leaves_a_route_alone(two_ways: Ends) -> None:
    """Also where it reads its units anew, is started anew itself, and starts and stops others."""
    argv = two_ways.client.argv([*CAROM, *RUN, sys.executable, "-c", ASKS])
    with (
        started(*two_ways.client.argv([sys.executable, "-c", ASKS])) as direct,
        started(*argv) as led,
    ):
        assert (asked(direct), asked(led)) == (CLIENT, LED)
        (name,) = names()
        with Group(name) as group:
            before = group.pids(), programs_at(group)
            assert len(before[1]) == 12
            for words in (
                ("daemon-reload",),
                ("daemon-reexec",),
                ("restart", "systemd-journald"),
                ("set-property", "--runtime", "system.slice", "CPUWeight=50", "MemoryMax=90%"),
                ("revert", "system.slice"),
            ):
                systemctl(*words)
                assert asked(led) == LED
                assert (group.pids(), programs_at(group)) == before
        assert led.stdin
        led.stdin.close()
        led.wait()
    assert names() == []


def test_a_route_of_a_service(two_ways: Ends, tmp_path: Path) -> None:
    """Its program is not in the service's group; it ends with the service all the same."""
    unit = f"carom-test-{uuid.uuid4().hex[:8]}"
    script = tmp_path / "program"
    script.write_text('echo $$ > "$1"; exec sleep 1000')
    told = tmp_path / "pid"
    command = two_ways.client.argv([*CAROM, *RUN, "sh", str(script), str(told)])
    subprocess.run(
        ["systemd-run", "--collect", "--unit", unit, f"--working-directory={Path.cwd()}", *command],
        check=True,
        capture_output=True,
    )
    try:
        until(lambda: told.exists() and told.read_text().endswith("\n"), "its program")
        pid = int(told.read_text())
        (name,) = names()
        assert f"/carom-route-{name}" in Path(f"/proc/{pid}/cgroup").read_text()
        rows = json.loads(two_ways.client.run(*CAROM, "route", "ls", "--json"))
        assert [row["state"] for row in rows] == ["leads"]
    finally:
        systemctl("stop", unit)
    assert names() == []
    assert not os.path.exists(f"/proc/{pid}")
