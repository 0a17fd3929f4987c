# SPDX-License-Identifier: Apache-2.0
"""A carom ends and the interface is clean; it stops and nothing answers in its stead."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carom.daemon import control
from carom.errors import ControlError
from carom.kernel import kept, libbpf
from carom.vm.netns import attach_pass
from netns.line import Line
from netns.process import (
    CAROM,
    INTERFACE,
    Carom,
    Ended,
    attached,
    control_socket,
    run,
    start,
    until,
)
from netns.wire import Client

MODES = ("native", "generic")


@pytest.mark.parametrize(
    ("number", "mode"),
    [(signal.SIGINT, "native"), (signal.SIGTERM, "generic"), (signal.SIGHUP, "generic")],
)
def test_end_by_a_signal(straight: Line, mode: str, number: int) -> None:
    with (
        Carom(straight.server, "--mode", mode, "--fast", "bounce") as carom,
        Client(straight.client, straight.address) as client,
    ):
        assert client.ask(b"before") == b"before"
        assert control_socket(carom.pid).exists()
        program = attached(straight.server)
        assert program
        assert program["name"] == "xdp_fastpath"
        carom.signal(number)
        ended = carom.wait()
        carom.check_clean(ended)
        assert "bounces=1" in ended.stderr, "the summary says what was done"
        assert ended.stdout == "", "one line on stdout, no more"


def test_nohup(straight: Line, client: Client) -> None:
    """A closed terminal ends nothing that was started to outlive it."""
    program = ("nohup", *CAROM)
    with Carom(straight.server, "--fast", "bounce", program=program) as carom:
        carom.signal(signal.SIGHUP)
        assert client.ask(b"after") == b"after"
        assert carom.status()


def test_end_by_a_signal_that_another_thread_gets(straight: Line) -> None:
    """The kernel gives a process' signal to any thread of its own, here often to a busy one."""
    for _ in range(5):
        with Carom(straight.server, "--hook", "none") as carom, ExitStack() as stack:

            def ask(carom: Carom = carom) -> None:
                with contextlib.suppress(ControlError):
                    while True:
                        carom.status()

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
                stack.callback(thread.join)
            carom.status()
            carom.signal(signal.SIGTERM)
            carom.check_clean(carom.wait())


def test_end_under_traffic(straight: Line, client: Client) -> None:
    """Wherever the signal finds the server: taking, making, filling or sending."""
    with Carom(straight.server) as carom:
        stop = threading.Event()

        def flood() -> None:
            for n in itertools.count():
                if stop.is_set():
                    return
                with contextlib.suppress(ConnectionRefusedError):
                    client.send(b"%d" % n)

        sender = threading.Thread(target=flood)
        sender.start()
        try:
            until(lambda: carom.counters()["fills"] >= 100, "the traffic to flow")
            carom.signal(signal.SIGTERM)
            carom.check_clean(carom.wait())
        finally:
            stop.set()
            sender.join()


@pytest.mark.parametrize("mode", MODES)
def test_kill_9(straight: Line, client: Client, mode: str) -> None:
    """The kernel takes the program away with its owner, and the next carom starts at once."""
    killed = Carom(straight.server, "--mode", mode, "--fast", "bounce")
    assert client.ask(b"before") == b"before"
    killed.signal(signal.SIGKILL)
    assert killed.wait().code == -signal.SIGKILL
    with Carom(straight.server, "--mode", mode, "--fast", "bounce") as carom:
        assert client.ask(b"after") == b"after"
        assert carom.counters()["bounce"] == 1
        assert killed.pid not in control.running()
        assert carom.pid in control.running()
        assert not control_socket(killed.pid).exists(), "whoever looks takes it away"


def test_kill_9_leaves_nothing_attached(straight: Line) -> None:
    killed = Carom(straight.server, "--mode", "generic")
    assert attached(straight.server)
    killed.signal(signal.SIGKILL)
    killed.wait()
    until(lambda: attached(straight.server) is None, "the program to go")
    control.running()
    assert not control_socket(killed.pid).exists()


def _compiles(process: subprocess.Popen[str]) -> bool:
    """Whether the compiler runs for it, in a process of its own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = (Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    return any(b"carom.kernel.compiler" in command for command in commands)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("compiling", signal.SIGINT),
        ("attached", signal.SIGTERM),
        ("attached", signal.SIGINT),
        ("listening", signal.SIGTERM),
    ],
)
def test_end_while_it_starts(
    straight: Line, request: pytest.FixtureRequest, moment: str, number: int
) -> None:
    """Whenever the signal comes, all is taken away and no traceback shown; compiling ends too."""
    if moment == "compiling":
        request.getfixturevalue("nothing_kept")
        assert not [*kept.folder().glob("*")]
    with start(straight.server, "serve", "-i", INTERFACE, "--mode", "generic") as process:
        reached: Callable[[], object] = {
            "compiling": lambda: _compiles(process),
            "attached": lambda: attached(straight.server),
            "listening": lambda: control_socket(process.pid).exists(),
        }[moment]
        until(reached, moment)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    ended = Ended(process.pid, process.returncode, stdout, stderr)
    assert ended.code == 0, ended
    assert "Traceback" not in ended.stderr, ended
    assert attached(straight.server) is None
    assert not control_socket(ended.pid).exists()
    if moment == "compiling":
        assert not [*kept.folder().glob("*")], "it was compiled to its end"


def test_stopped_daemon(straight: Line, serve: Callable[..., Carom]) -> None:
    """The lease of a daemon that does nothing runs out: its requests wait for it, unanswered."""
    with Client(straight.client, straight.address, own=40_001) as client:  # of one port alone
        check_lease(serve("--fast", "bounce"), client)


def check_lease(carom: Carom, client: Client) -> None:
    """Stop it, ask, and have it go on."""
    assert client.ask(b"before") == b"before"
    before = carom.counters()
    asked = answered = 0

    def unanswered() -> bool:
        nonlocal asked, answered
        asked += 1
        reply = client.answered(b"%d" % asked, seconds=1)
        answered += reply
        return not reply

    carom.signal(signal.SIGSTOP)
    try:
        until(unanswered, "the lease to run out")
        for _ in range(5):
            asked += 1
            client.send(b"%d" % asked)
    finally:
        carom.signal(signal.SIGCONT)
    waiting = {client.receive() for _ in range(asked - answered)}
    assert waiting == {b"%d" % n for n in range(answered + 1, asked + 1)}
    assert client.nothing_more()
    # Those still on their way when it went on were bounced again.
    late = carom.counters()["bounce"] - before["bounce"] - answered
    assert 0 <= late <= 5
    carom.expect(before, bounce=answered + late, pass_lease=6 - late, replies=6 - late)

    def bounces() -> bool:
        client.ask(b"again")
        return carom.counters()["bounce"] > before["bounce"] + answered + late

    until(bounces, "the fast path to answer again")


@pytest.mark.parametrize(("first", "second"), [("generic", "native"), ("native", "auto")])
def test_second_carom(
    serve: Callable[..., Carom], straight: Line, client: Client, first: str, second: str
) -> None:
    """One to an interface: the second is refused and the first is not disturbed."""
    carom = serve("--mode", first, "--fast", "bounce")
    program = attached(straight.server)
    refused = run(straight.server, "serve", "-i", INTERFACE, "-p", "51142", "--mode", second)
    assert refused.code == 1, refused
    assert f"carom: {INTERFACE} already has an XDP program" in refused.stderr
    assert f"(pid {carom.pid})" in refused.stderr
    assert "--hook tc" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""
    assert not control_socket(refused.pid).exists()
    assert attached(straight.server) == program
    before = carom.counters()
    assert client.ask(b"first") == b"first"
    carom.expect(before, bounce=1)


def _attach_by_netlink(program: int) -> None:
    library = libbpf.library()
    index = socket.if_nametoindex(INTERFACE)
    assert library.bpf_xdp_attach(index, program, libbpf.XDP_FLAGS_DRV_MODE, None) == 0


@pytest.fixture
def stranger(straight: Line, request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """Somebody else's program on the server's interface, attached in either of the two ways."""
    if request.param == "link":
        descriptor = attach_pass(straight.server, INTERFACE)
    else:
        descriptor = libbpf.load_xdp_pass()
        straight.server.call(lambda: _attach_by_netlink(descriptor))
    program = attached(straight.server)
    assert program
    yield program
    os.close(descriptor)
    if request.param == "netlink":
        straight.server.run("ip", "link", "set", "dev", INTERFACE, "xdp", "off")
    assert attached(straight.server) is None


@pytest.mark.parametrize(
    ("stranger", "mode"),
    [("link", "native"), ("link", "generic"), ("netlink", "auto")],
    indirect=["stranger"],
)
def test_stranger_is_never_replaced(straight: Line, stranger: dict[str, object], mode: str) -> None:
    refused = run(straight.server, "serve", "-i", INTERFACE, "--mode", mode)
    assert refused.code == 1, refused
    assert f"carom: {INTERFACE} already has an XDP program (id {stranger['id']})" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert attached(straight.server) == stranger
    assert not control_socket(refused.pid).exists()
