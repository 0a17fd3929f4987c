# SPDX-License-Identifier: Apache-2.0
"""The capabilities that docs/operating.md names are enough; with one of them less it says which."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, INTERFACE, Carom, run
from netns.test_errors import check_refused
from netns.wire import Client

SERVE = ("bpf", "perfmon", "net_admin")
FRONT = (*SERVE, "sys_admin", "sys_ptrace", "dac_read_search")
USER = 12_345
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
"""Its files in /proc are nobody's then, as those of a service with User= are its user's."""


def only(*capabilities: str, user: int = 0) -> tuple[str, ...]:
    """What starts a program of this user with these."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    if not user:
        return ("setpriv", f"--bounding-set={kept}", "--inh-caps=-all")
    sets = (f"--{name}={kept}" for name in ("bounding-set", "inh-caps", "ambient-caps"))
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *sets)


@pytest.fixture(params=[0, USER])
def user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Who runs carom; its control socket is where root finds it, too."""
    with tempfile.TemporaryDirectory(prefix="carom-", dir="/tmp") as folder:
        os.chown(folder, request.param, request.param)
        monkeypatch.setenv("CAROM_RUN", folder)
        yield request.param


def test_serve(straight: Line, user: int) -> None:
    program = (*only(*SERVE, user=user), *CAROM)
    with (
        Carom(straight.server, "--hook", "tc", program=program) as carom,
        Client(straight.client, straight.address) as client,
    ):
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(5)}) == 1
        carom.expect(before, miss=1, hit=4, replies=1, fills=1)


@pytest.mark.parametrize("prefix", [(), NOBODY])
def test_front(straight: Line, user: int, prefix: tuple[str, ...]) -> None:
    program = (*only(*FRONT, user=user), *CAROM)
    with (
        Memcached(straight.server, prefix=prefix),
        Carom(straight.server, "--hook", "tc", command="front", program=program) as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        check_writes_are_seen(carom, tcp, udp)


@pytest.mark.parametrize(
    ("command", "without"),
    [*(("serve", name) for name in SERVE), *(("front", name) for name in FRONT[len(SERVE) :])],
)
def test_one_less(straight: Line, command: str, without: str) -> None:
    """CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON too."""
    needed = FRONT if command == "front" else SERVE
    prefix = only(*(name for name in needed if name != without))
    with Memcached(straight.server, prefix=NOBODY):
        ended = run(straight.server, command, "-i", INTERFACE, prefix=prefix)
    check_refused(straight, ended, 1, f"CAP_{without.upper()}")
