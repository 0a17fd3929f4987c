# SPDX-License-Identifier: Apache-2.0
"""A host that lacks something, or whose clock is set: carom goes on, or says what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from carom.kernel import kept
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, Carom, run, until
from netns.test_errors import ON, check_refused
from netns.test_starting import through
from netns.wire import Client

MODE = ("--mode", "generic")


@pytest.fixture
def own_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run directory of the test's own; what was compiled before is there all the same."""
    monkeypatch.setenv("CAROM_CACHE", str(kept.folder()))
    monkeypatch.setenv("CAROM_RUN", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run"


REFUSED = {
    "read-only": ("-o ro none {}", "Read-only file system"),
    "full": ("-o nr_inodes=1 none {}", "No space left on device"),
}


@pytest.mark.parametrize(("mount", "said"), REFUSED.values(), ids=REFUSED)
def test_no_control_socket(straight: Line, own_run: Path, mount: str, said: str) -> None:
    script = f'mount -t tmpfs {mount.format(own_run)}; exec "$@"'
    ended = run(straight.server, "serve", *ON, "--hook", "tc", program=through(script))
    check_refused(straight, ended, 1, f"cannot make the control socket {own_run}/", said)


def test_a_disk_that_is_full_from_now_on(
    straight: Line, own_run: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a folder that is read-only: what runs goes on, and ends well. Nothing else is written."""
    script = f'mount -t tmpfs -o size=4k none {own_run}; exec "$@"'
    with Carom(straight.server, *MODE, program=through(script)) as carom:
        inside = Path(f"/proc/{carom.pid}/root{own_run}")
        monkeypatch.setenv("CAROM_RUN", str(inside))
        enter = ["nsenter", f"--target={carom.pid}", "--mount"]
        for change in (f"head -c 9999 /dev/zero >{own_run}/more", f"mount -o remount,ro {own_run}"):
            subprocess.run([*enter, "sh", "-c", change], capture_output=True, check=False)
            before = carom.counters()
            request = change.encode()
            assert client.ask(request) == client.ask(request)
            carom.expect(before, miss=1, hit=1, replies=1, fills=1)
        assert "more" in {file.name for file in inside.iterdir()}
        with pytest.raises(OSError, match="Read-only"):
            (inside / "another").touch()
        carom.stop()


def test_no_bpffs(straight: Line, client: Client) -> None:
    """Nothing is pinned, so none is needed."""
    script = 'umount -l /sys/fs/bpf; ! mountpoint -q /sys/fs/bpf && exec "$@"'
    with Carom(straight.server, "--fast", "bounce", program=through(script)) as carom:
        assert client.ask(b"ask") == b"ask"
        assert carom.counters()["bounce"] == 1


STEPS = (86_400, -86_400, 0)
"""Seconds by which the clock on the wall is off, one after the other."""


def test_the_clock_on_the_wall_is_set(straight: Line, client: Client, tmp_path: Path) -> None:
    """Whatever it says, replies are as old as they are, and the lease is renewed."""
    wrong = tmp_path / "wrong"
    wrong.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "right = time.time\n"
        f"time.time = lambda: right() + int(open({str(wrong)!r}).read() or 0)\n"
    )
    program = ["env", f"PYTHONPATH={tmp_path}", *CAROM]
    with Carom(straight.server, *MODE, "--ttl", "3s", program=program) as carom:
        began = carom.status()["started_seconds"]
        assert abs(began - time.time()) < 600
        for step in STEPS:
            wrong.write_text(str(step))
            check_ages(carom, client, b"at %d" % step)


def check_ages(carom: Carom, client: Client, request: bytes) -> None:
    """With a TTL of 3 s: a reply is a hit at once, and none once its time is over."""
    before = carom.counters()
    assert client.ask(request) == client.ask(request)
    carom.expect(before, miss=1, hit=1, replies=1, fills=1)
    time.sleep(3.3)
    before = carom.counters()
    client.ask(request)
    late = carom.since(before)
    assert late.get("hit", 0) == 0
    assert late.get("pass_lease", 0) == 0


def test_another_time_since_boot(straight: Line, client: Client) -> None:
    """In a time namespace (a container that was moved) the kernel's clock is not the daemon's."""
    program = ["unshare", "--time", "--monotonic=1000000"]
    if subprocess.run([*program, "--fork", "true"], check=False).returncode:
        pytest.skip("this kernel has no time namespaces")
    with Carom(straight.server, *MODE, "--ttl", "3s", program=[*program, *CAROM]) as carom:
        assert os.readlink(f"/proc/{carom.pid}/ns/time") != os.readlink("/proc/self/ns/time")
        check_ages(carom, client, b"ask")


HERE, ELSEWHERE = 4791, 4792
"""Ports of no other test's servers."""

QUESTIONS = 2_500
"""More than wait for the daemon at most."""


def test_more_questions_than_the_daemon_takes(straight: Line) -> None:
    """The ring is full: replies about whose end it cannot be asked are not kept, and counted."""
    with (
        Memcached(straight.server),
        Carom(straight.server, *MODE, command="front") as carom,
        TCPClient(straight.client, straight.address) as tcp,
        UDPClient(straight.client, straight.address) as udp,
    ):
        for n in range(QUESTIONS):
            assert tcp.ask(b"set k%d 0 3600 5\r\n%05d\r\n" % (n, n)) == b"STORED\r\n"
        carom.signal(signal.SIGSTOP)
        try:
            for n in range(QUESTIONS):
                assert udp.get(b"k%d" % n) == b"%05d" % n
        finally:
            carom.signal(signal.SIGCONT)
        until(lambda: carom.status()["edge"]["not_asked"], "replies that nobody can ask about")
        before = carom.counters()["hit"]
        for n in range(QUESTIONS):
            assert udp.get(b"k%d" % n) == b"%05d" % n
        until(lambda: udp.get(b"k1") == b"00001" and carom.counters()["hit"] > before, "hits")


def test_a_server_that_moves_to_another_port(straight: Line) -> None:
    """Nothing is answered in its stead, and it is answered again when it is back."""
    there = ("-p", str(HERE), *MODE)
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        server.enter_context(Memcached(straight.server, HERE))
        carom = stack.enter_context(Carom(straight.server, *there, command="front"))
        for port in (HERE, ELSEWHERE, HERE):
            server.close()
            server.enter_context(Memcached(straight.server, port))
            with (
                TCPClient(straight.client, straight.address, port) as tcp,
                UDPClient(straight.client, straight.address, port) as udp,
            ):
                tcp.set(b"key", b"at %d" % port)
                if port == ELSEWHERE:
                    until(lambda: "the server is gone" in carom.stderr(), "it to be missed")
                hits = carom.counters()["hit"]
                for _ in range(3):
                    assert udp.get(b"key") == b"at %d" % port
                if port == ELSEWHERE:
                    assert carom.counters()["hit"] == hits
                    (service,) = carom.status()["services"]
                    assert not service["behind"]["sockets"], service
                    continue
                until(lambda: _is_hit(carom, udp), "a hit")


def _is_hit(carom: Carom, udp: UDPClient) -> bool:
    before = carom.counters()["hit"]
    assert udp.get(b"key") == b"at %d" % HERE
    return carom.counters()["hit"] > before
