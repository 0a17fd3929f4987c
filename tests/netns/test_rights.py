# SPDX-License-Identifier: Apache-2.0
"""The capabilities that docs/operating.md names are enough; with one of them less it says which."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from carom.kernel import kept
from carom.kernel.capabilities import bits
from carom.vm.namespace import Namespace
from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, INTERFACE, Carom, run, start, until
from netns.test_errors import check_refused
from netns.wire import Client

SERVE = ("bpf", "perfmon", "net_admin")
FRONT = (*SERVE, "sys_ptrace", "dac_read_search")
ELSEWHERE = (*FRONT, "sys_admin")
"""To front a server in another network namespace."""
GROUPS = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"',
    "sh",
)
"""In a namespace that ip(8) made they are not; the mount is the process' own, wherever it runs."""
USER = 12_345
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
"""Its files in /proc are nobody's then, as those of a service with User= are its user's."""


def limited(*capabilities: str, user: int = 0) -> tuple[str, ...]:
    """What starts a program of this user with these."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    if not user:
        return ("setpriv", f"--bounding-set={kept}", "--inh-caps=-all")
    sets = (f"--{name}={kept}" for name in ("bounding-set", "inh-caps", "ambient-caps"))
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *sets)


def only(*capabilities: str, user: int = 0) -> tuple[str, ...]:
    """The same in a network namespace of ip-netns(8), where it mounts control groups first."""
    return (*GROUPS, *limited(*capabilities, user=user))


@pytest.fixture(params=[0, USER])
def user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Who runs carom; its control socket is where root finds it, too."""
    with tempfile.TemporaryDirectory(prefix="carom-", dir="/tmp") as folder:
        os.chown(folder, request.param, request.param)
        monkeypatch.setenv("CAROM_CACHE", str(kept.folder()))
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
        assert any("it is not known whether sockmap" in note for note in carom.ready["notes"])


@pytest.mark.parametrize(
    ("command", "without"),
    [*(("serve", name) for name in SERVE), *(("front", name) for name in FRONT[len(SERVE) :])],
)
def test_one_less(straight: Line, command: str, without: str) -> None:
    needed = FRONT if command == "front" else SERVE
    prefix = only(*(name for name in needed if name != without))
    with Memcached(straight.server, prefix=NOBODY):
        ended = run(straight.server, command, "-i", INTERFACE, prefix=prefix)
    check_refused(straight, ended, 1, f"CAP_{without.upper()}")


def test_the_missing_one_is_named(straight: Line) -> None:
    for name in SERVE:
        prefix = only(*(one for one in SERVE if one != name))
        ended = run(straight.server, "serve", "-i", INTERFACE, prefix=prefix)
        assert f"this process may not load BPF programs: it has no CAP_{name.upper()}\n" in (
            ended.stderr
        )


@pytest.mark.parametrize("prefix", [only(*FRONT)[len(GROUPS) :], only(*FRONT)])
def test_what_sys_admin_is_for(own_line: Line, prefix: tuple[str, ...]) -> None:
    """To mount control groups where they are not, and to look into other network namespaces."""
    mounted = prefix[0] == GROUPS[0]
    beside = Namespace("beside") if mounted else nullcontext(own_line.server)
    with beside as where:
        where.run("ip", "link", "set", "lo", "up")
        with Memcached(where, prefix=NOBODY):
            ended = run(own_line.server, "front", "-i", INTERFACE, "--hook", "tc", prefix=prefix)
    check_refused(own_line, ended, 1, "CAP_SYS_ADMIN")


def sets(pid: int) -> dict[str, set[str]]:
    """What the threads of a process have: each of their sets of capabilities, and no_new_privs."""
    found: dict[str, set[str]] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for line in (task / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"):
                    found.setdefault(name, set()).add(value.strip())
    return found


def check_least(pid: int, wanted: tuple[str, ...], *, root: bool) -> None:
    """Each thread has these and no others, soon after it is ready, and can get no others."""
    mask = f"{bits(wanted):016x}"
    found: dict[str, set[str]] = {}

    def is_least() -> bool:
        found.clear()
        found.update(sets(pid))
        return found["CapPrm"] == {mask}

    until(is_least, "every thread to give up the others")
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) > 4
    assert found["CapPrm"] == found["CapEff"] == {mask}
    assert found["NoNewPrivs"] == {"1"}
    if root:
        assert found["CapBnd"] == {mask}


ALL = {"root": (), "a user": only(*ELSEWHERE, "net_bind_service", "net_raw", "chown", user=USER)}


@pytest.mark.parametrize(
    ("user", "prefix"), [(0, ALL["root"]), (USER, ALL["a user"])], indirect=["user"]
)
def test_what_is_left_of_more(straight: Line, user: int, prefix: tuple[str, ...]) -> None:
    """Once packets are answered; and all that it does then goes on."""
    with (
        Carom(straight.server, "--hook", "tc", program=(*prefix, *CAROM)) as carom,
        Client(straight.client, straight.address) as client,
    ):
        check_least(carom.pid, SERVE, root=not user)
        client.ask(b"same")
        before = carom.counters()
        client.ask(b"same")
        carom.expect(before, hit=1)
        if not user:  # a user's carom would compile for it
            told = run(straight.server, "why", "same", "--pid", str(carom.pid))
            assert told.code == 0 and "hit" in told.stdout, told
    with (
        Memcached(straight.server, prefix=NOBODY),
        Carom(straight.server, "--hook", "tc", command="front", program=(*prefix, *CAROM)) as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        check_least(carom.pid, FRONT, root=not user)
        check_writes_are_seen(carom, tcp, udp)


def test_what_handlers_keep(straight: Line, user: int) -> None:
    prefix = only(*SERVE, "chown", "kill", user=user)
    arguments = ("--hook", "tc", "--keep-capability", "CAP_CHOWN")
    with Carom(straight.server, *arguments, program=(*prefix, *CAROM)) as carom:
        check_least(carom.pid, (*SERVE, "chown"), root=False)


def test_roots_carom_in_another_users_folder(straight: Line) -> None:
    """Such as the unit's: it ends well, and the next command of root's takes the socket away."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, USER, USER)
        os.chmod(folder, 0o700)
        said = {"CAROM_RUN": folder, "CAROM_CACHE": str(kept.folder())}
        process = start(straight.server, "serve", "-i", INTERFACE, "--hook", "tc", **said)
        try:
            assert process.stdout and process.stdout.readline().startswith("ready ")
            asked = run(straight.server, "status", "--json", **said)
            assert asked.code == 0, asked
        finally:
            process.terminate()
            _, stderr = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in stderr) == (0, False), stderr
        assert run(straight.server, "status", **said).code == 1
        assert list(Path(folder).glob("*.sock")) == []


def test_a_low_port(straight: Line) -> None:
    """CAP_NET_BIND_SERVICE is for the start alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, USER, USER)
        options = ("-p", "53", "--hook", "tc")
        short = run(
            straight.server, "serve", "-i", INTERFACE, *options,
            prefix=only(*SERVE, user=USER), CAROM_RUN=folder,
        )  # fmt: skip
        check_refused(straight, short, 1, "CAP_NET_BIND_SERVICE")
        prefix = (
            "env",
            f"CAROM_RUN={folder}",
            f"CAROM_CACHE={kept.folder()}",
            *only(*SERVE, "net_bind_service", user=USER),
        )
        process = start(straight.server, "serve", "-i", INTERFACE, *options, prefix=prefix)
        try:
            assert process.stdout and process.stdout.readline().startswith("ready ")
            check_least(process.pid, SERVE, root=False)
        finally:
            process.terminate()
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
