# SPDX-License-Identifier: Apache-2.0
"""What cannot start says why in one message, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import carom
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.memcache import Memcached
from netns.process import INTERFACE, Carom, Ended, attached, control_socket, run
from netns.services import PORT

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ON = ("-i", INTERFACE)


def check_refused(line: Line, ended: Ended, code: int, *said: str) -> None:
    """It ended with this code and one message with these words, and left nothing."""
    assert ended.code == code, ended
    assert ended.stdout == "", ended
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("carom: "), ended
    assert all(line.startswith("  hint: ") for line in rest), ended
    assert len(rest) <= 1, ended
    for words in said:
        assert words in ended.stderr, ended
    assert attached(line.server) is None
    assert not control_socket(ended.pid).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(("-i", "nope0"), 1, ("no interface 'nope0'", INTERFACE), id="interface"),
        pytest.param(("-i", "lo"), 1, ("lo is not an Ethernet interface",), id="lo"),
        pytest.param((), 2, ("no interface", "-i"), id="no-interface"),
        pytest.param(
            (*ON, "--bind", "198.18.9.9"), 2, ("198.18.9.9", INTERFACE), id="bind-foreign"
        ),
        pytest.param(
            (*ON, "--bind", "127.0.0.1"), 2, (INTERFACE, "127.0.0.1"), id="bind-elsewhere"
        ),
        pytest.param((*ON, "--bind", "224.0.0.1"), 2, ("multicast",), id="bind-multicast"),
        pytest.param((*ON, "-p", "0"), 2, ("port 0", "65535"), id="port-0"),
        pytest.param((*ON, "-p", "65536"), 2, ("port 65536",), id="port-65536"),
        pytest.param((*ON, "--ttl", "0s"), 2, ("ttl 0",), id="ttl-0"),
        pytest.param((*ON, "--ttl", "soon"), 2, ("'soon'", "500us"), id="ttl-text"),
        pytest.param((*ON, "--work", "-1s"), 2, ("'-1s'",), id="work"),
        pytest.param((*ON, "--capacity", "0"), 2, ("capacity 0",), id="capacity-0"),
        pytest.param((*ON, "--mode", "fastest"), 2, ("fastest",), id="mode"),
        pytest.param((*ON, "--fast", "very"), 2, ("very",), id="fast"),
        pytest.param((*ON, "--app", "no_such:service"), 2, ("no_such",), id="app-module"),
        pytest.param((*ON, "--app", "services:other"), 2, ("other",), id="app-service"),
        pytest.param((*ON, "--app", "services:PORT"), 2, ("PORT",), id="app-no-service"),
        pytest.param(("--hook", "none", "--cpu", "100000"), 2, ("CPU 100000",), id="cpu"),
    ],
)
def test_wrong_option(
    straight: Line, arguments: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    ended = run(straight.server, "serve", *arguments)
    check_refused(straight, ended, code, *said)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(("type", "ifb"), "what is redirected to an ifb goes on", id="ifb"),
        pytest.param(
            ("link", INTERFACE, "type", "macvtap"),
            "is for the guest machine that opens it",
            id="macvtap",
        ),
    ],
)
def test_where_nothing_comes_in(straight: Line, make: tuple[str, ...], said: str) -> None:
    """Ethernet by its kind, and yet no request that a server here would get."""
    straight.server.run("ip", "link", "add", "deaf0", *make)
    try:
        straight.server.up("deaf0")
        ended = run(straight.server, "serve", "-i", "deaf0")
        check_refused(straight, ended, 1, "no request to this host comes in by deaf0", said)
    finally:
        straight.server.run("ip", "link", "del", "deaf0")


def test_a_tun(straight: Line) -> None:
    """It carries no Ethernet frames."""
    straight.server.run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
    try:
        ended = run(straight.server, "serve", "-i", "tun0")
        check_refused(straight, ended, 1, "tun0 is not an Ethernet interface")
    finally:
        straight.server.run("ip", "link", "del", "tun0")


def test_unknown_option(straight: Line) -> None:
    """The parser's own words, with its own exit code."""
    ended = run(straight.server, "serve", *ON, "--no-such-option")
    assert ended.code == 2
    assert "--no-such-option" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use(straight: Line) -> None:
    with Carom(straight.server, "--hook", "none"):
        ended = run(straight.server, "serve", *ON)
    check_refused(straight, ended, 1, f"0.0.0.0 port {PORT}", "in use")


def test_no_privileges(straight: Line) -> None:
    readable = run(straight.server, "--version", prefix=NOBODY)
    if readable.code:
        pytest.skip("user 65534 cannot read this installation")
    ended = run(straight.server, "serve", *ON, prefix=NOBODY)
    check_refused(straight, ended, 1, "may not load BPF programs", "root")


def test_no_privileges_for_the_port(straight: Line) -> None:
    if run(straight.server, "--version", prefix=NOBODY).code:
        pytest.skip("user 65534 cannot read this installation")
    ended = run(straight.server, "serve", *ON, "-p", "53", prefix=NOBODY)
    check_refused(straight, ended, 1, "not allowed to bind UDP port 53", "root")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise ImportError('no library for BCC')", "no library for BCC"),
        ("", "not the BPF Compiler Collection"),
    ],
    ids=["broken", "other-package"],
)
def test_no_bcc(straight: Line, nothing_kept: Path, tmp_path: Path, module: str, said: str) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text(module)
    ended = run(straight.server, "serve", *ON, PYTHONPATH=str(tmp_path))
    check_refused(straight, ended, 1, said, "python3-bpfcc")


def test_no_kernel_headers(straight: Line, nothing_kept: Path, tmp_path: Path) -> None:
    ended = run(straight.server, "serve", *ON, BCC_KERNEL_SOURCE=str(tmp_path))
    check_refused(straight, ended, 1, "kernel headers", "provision.sh")


BREAKS = {
    "compile": ("xdp/fastpath.c", "answer(&packet, &place, shape);", "answer(this_is_not_there);"),
    # No check against data_end: the verifier's first rule.
    "verify": (
        "xdp/fastpath.c",
        "= answer(&packet, &place, shape);",
        "= *(int *)(long)(context->data + 64);",
    ),
    "map": ("include/maps.h", "u32, u64, versions", "struct key, u64, versions"),
}


@pytest.fixture
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the package whose fast path is broken in one place."""
    package = tmp_path / "carom"
    shutil.copytree(Path(carom.__file__).parent, package)  # with what Python made of its files
    file, good, bad = BREAKS[request.param]
    source = package / file
    text = source.read_text()
    assert text.count(good) == 1
    source.write_text(text.replace(good, bad))
    return tmp_path


@pytest.mark.parametrize(
    ("broken", "said", "log"),
    [
        ("compile", "clang refused xdp/fastpath.c", "this_is_not_there"),
        ("verify", "verifier refused xdp_fastpath of xdp/fastpath.c", "processed"),
        ("map", "refused a map of xdp/fastpath.c", "could not open bpf map"),
    ],
    indirect=["broken"],
)
def test_broken_program(straight: Line, broken: Path, said: str, log: str) -> None:
    """One message; the rest of what clang or the verifier said is for those who ask for it."""
    path = {"PYTHONPATH": str(broken)}
    short = run(straight.server, "serve", *ON, **path)
    check_refused(straight, short, 1, said)
    long = run(straight.server, "-v", "serve", *ON, **path)
    assert long.code == 1
    assert said in long.stderr
    assert log in long.stderr
    assert long.stderr.count("\n") > short.stderr.count("\n")
    assert "Traceback" not in long.stderr
    assert attached(straight.server) is None


NOT_SEEN = {
    "processes of others": (("setpriv", "--bounding-set=-sys_ptrace"), "no process is seen"),
    "processes": (("unshare", "--pid", "--fork", "--mount-proc"), "no process is seen"),
}
"""What carom has to see of a server, what keeps it from that, and what it says then."""


def test_front_of_a_server_that_is_hidden(straight: Line) -> None:
    """In another network namespace and PID namespace: it may be there, and is not seen."""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc")
    with Namespace("apart") as apart:
        apart.up("lo")
        with Memcached(apart):
            ended = run(straight.server, "front", *ON, prefix=prefix)
    check_refused(straight, ended, 1, "no process of this host listens", "PID namespace")


@pytest.mark.parametrize("what", NOT_SEEN)
def test_front_that_does_not_see_the_server(straight: Line, what: str) -> None:
    """It would not see all that is written."""
    prefix, said = NOT_SEEN[what]
    with Memcached(straight.server):
        ended = run(straight.server, "front", *ON, prefix=prefix)
    check_refused(straight, ended, 1, said)
