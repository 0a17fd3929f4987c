# SPDX-License-Identifier: Apache-2.0
"""carom starts wherever it is started, or says in one message what is in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import CAROM, INTERFACE, Carom, attached, run, start, until
from netns.test_attachments import reach
from netns.test_errors import ON, check_refused
from netns.wire import Client

SHELL = ("sh", "-c")
WAITED = 4777
"""A port of no other test's servers, which would be found in their namespaces."""

BOUNCE = ("--fast", "bounce", "--mode", "generic")


def through(script: str) -> tuple[str, ...]:
    """A program that runs this, and then carom by `exec "$@"`."""
    return ("unshare", "--mount", *SHELL, script, "sh", *CAROM)


STARTS = {
    "a /tmp that cannot be written": 'mount -t tmpfs -o ro none /tmp; exec "$@"',
    "a folder that is gone": 'cd "$(mktemp -d)"; rmdir "$PWD"; exec "$@"',
    "few files, and more if asked for": 'ulimit -Sn 20; exec "$@"',
    "no input": 'exec "$@" <&-',
}


@pytest.mark.parametrize("script", STARTS.values(), ids=STARTS)
def test_starts(straight: Line, client: Client, script: str) -> None:
    with Carom(straight.server, program=through(script)) as carom:
        before = carom.counters()
        assert len({client.ask(b"same") for _ in range(3)}) == 1
        carom.expect(before, miss=1, hit=2, replies=1, fills=1)


def test_warnings_are_errors(straight: Line, client: Client, tmp_path: Path) -> None:
    """BCC's own are not: Python warns of its files as it compiles them."""
    errors = f'PYTHONPYCACHEPREFIX={tmp_path} PYTHONWARNINGS=error exec "$@"'
    with Carom(straight.server, "--fast", "bounce", program=through(errors)) as carom:
        assert client.ask(b"ask") == b"ask"
        assert carom.counters()["bounce"] == 1


def test_no_errors_output(straight: Line, client: Client) -> None:
    """Nothing else gets its number: a log line would go there."""
    with Carom(straight.server, "--fast", "bounce", program=through('exec "$@" 2>&-')) as carom:
        assert client.ask(b"ask") == b"ask"
        assert os.readlink(f"/proc/{carom.pid}/fd/2") == "/dev/null"


def test_nobody_reads_the_log(own_line: Line) -> None:
    """What follows the host says what it does, and goes on when nobody hears it any more."""
    with (
        Carom(own_line.server, *BOUNCE, program=through('exec "$@" 2>/dev/full')) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        for _ in range(2):
            own_line.server.run("ip", "link", "set", INTERFACE, "down")
            until(lambda: not reach(carom)[0]["answered"], "it to be seen")
            own_line.server.run("ip", "link", "set", INTERFACE, "up")
            until(lambda: reach(carom)[0]["answered"], "it to be seen")
        neighbour = (own_line.client_address, "lladdr", own_line.client.mac(INTERFACE))
        own_line.server.run("ip", "neigh", "replace", *neighbour, "dev", INTERFACE)
        assert client.ask(b"ask") == b"ask"


def test_no_output(straight: Line, client: Client) -> None:
    arguments = ("serve", *ON, "--fast", "bounce")
    with start(straight.server, *arguments, program=through('exec "$@" >&-')) as process:
        try:
            until(lambda: attached(straight.server) is not None, "carom to be there")
            until(lambda: client.answered(b"ask"), "an answer")
            assert os.readlink(f"/proc/{process.pid}/fd/1") == "/dev/null"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def waiting(line: Line, *arguments: str, time: str = "60s") -> subprocess.Popen[str]:
    """A `carom front` that waits until it is told, or there is what it waits for."""
    port = ("-p", str(WAITED), "--mode", "generic")
    return start(line.server, "front", *arguments, *port, "--wait", time)


def until_waiting(process: subprocess.Popen[str]) -> None:
    """It has said so."""
    assert process.stderr
    while "waiting" not in (line := process.stderr.readline()):
        assert line, "it has ended"


def until_ready(process: subprocess.Popen[str], address: str, line: Line) -> None:
    """It says so; then it answers. It ends by a signal."""
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("ready ")
        with (
            TCPClient(line.client, address, WAITED) as tcp,
            UDPClient(line.client, address, WAITED) as udp,
        ):
            tcp.set(b"key", b"value")
            assert udp.get(b"key") == b"value"
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


@pytest.mark.parametrize("time", ["60s", "forever"])
def test_waits_for_the_server(straight: Line, time: str) -> None:
    with waiting(straight, "-i", INTERFACE, time=time) as process:
        until_waiting(process)
        with Memcached(straight.server, WAITED):
            until_ready(process, straight.address, straight)


def test_waits_for_the_interface_and_its_address(own_line: Line) -> None:
    with Memcached(own_line.server, WAITED), waiting(own_line, "-i", "late0") as process:
        until_waiting(process)
        server = own_line.server
        server.run("ip", "address", "flush", "dev", INTERFACE)
        server.run("ip", "link", "set", INTERFACE, "down")
        server.run("ip", "link", "set", INTERFACE, "name", "late0")
        time.sleep(0.5)
        server.run("ip", "link", "set", "late0", "up")
        server.address("late0", own_line.address, 30)
        mac = own_line.client.mac(INTERFACE)
        server.neighbour("late0", own_line.client_address, mac)
        until_ready(process, own_line.address, own_line)


def test_waits_in_vain(straight: Line) -> None:
    ended = run(straight.server, "front", "-i", INTERFACE, "-p", str(WAITED), "--wait", "3s")
    assert ended.code == 1
    assert f"no process of this host listens on UDP port {WAITED}" in ended.stderr
    assert ended.stderr.count("waiting") <= 1


def test_a_wrong_time_to_wait(straight: Line) -> None:
    ended = run(straight.server, "front", *ON, "--wait", "for ever")
    check_refused(straight, ended, 2, "'for ever' is not a duration")


def test_waits_no_longer_when_told(straight: Line) -> None:
    with waiting(straight, "-i", INTERFACE) as process:
        until_waiting(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


REFUSALS = {
    "few files": ('ulimit -n 20; exec "$@"', ("20 files", "ulimit -n")),
    "little memory": ('ulimit -d 80000; exec "$@"', ("MiB of memory more", "LimitDATA=")),
    "few addresses": ('ulimit -v 320000; exec "$@"', ("MiB of memory more", "LimitAS=")),
    "no memory for a thread": (
        'ulimit -s 8000000; ulimit -v 3200000; exec "$@"',
        ("can't start new thread", "TasksMax="),
    ),
    "no /sys": ('mount -t tmpfs none /sys; exec "$@"', ("/sys",)),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused(straight: Line, request: pytest.FixtureRequest, case: str) -> None:
    script, said = REFUSALS[case]
    if "MiB of memory more" in said:  # than there is for the compiler
        request.getfixturevalue("nothing_kept")
    ended = run(straight.server, "serve", *ON, "--mode", "native", program=through(script))
    check_refused(straight, ended, 1, *said)


def test_a_full_output_of_a_service(straight: Line) -> None:
    """Whoever waits for `ready` would wait for ever."""
    ended = run(straight.server, "serve", *ON, program=through('exec "$@" >/dev/full'))
    assert ended.code == 1
    last = ended.stderr.splitlines()[-1]
    assert last == "carom: cannot write to standard output: No space left on device"
    assert attached(straight.server) is None


@pytest.mark.parametrize("command", [("--version",), ("filter", "ls"), ("serve", "--help")])
def test_a_full_output(straight: Line, command: tuple[str, ...]) -> None:
    ended = run(straight.server, *command, program=through('exec "$@" >/dev/full'))
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr == "carom: cannot write to standard output: No space left on device\n"


def test_a_reader_that_has_enough(straight: Line) -> None:
    """`carom ... | head -0` needs no words."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*CAROM, "filter", "ls"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


BROKEN = {
    "a library that cannot be loaded": "raise OSError('libbcc.so.0: cannot open')",
    "a library that lacks a function": "raise AttributeError('undefined symbol: bpf_module')",
}


@pytest.mark.parametrize("module", BROKEN.values(), ids=BROKEN)
def test_a_broken_bcc(straight: Line, nothing_kept: Path, tmp_path: Path, module: str) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text(module)
    ended = run(straight.server, "serve", "-i", INTERFACE, PYTHONPATH=str(tmp_path))
    check_refused(straight, ended, 1, "BCC's Python package cannot be imported", "python3-bpfcc")


def test_no_libbpf(straight: Line) -> None:
    hidden = 'for one in $(ldconfig -p | sed -n "s/.*libbpf.so.1 .* => //p"); do '
    hidden += 'mount --bind /dev/null "$one"; done; exec "$@"'
    ended = run(straight.server, "serve", "-i", INTERFACE, program=through(hidden))
    check_refused(straight, ended, 1, "libb", "python3-bpfcc")
