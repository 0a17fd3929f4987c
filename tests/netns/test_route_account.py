# SPDX-License-Identifier: Apache-2.0
"""`carom route top --on INTERFACE`: what every process sends by it, led or not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carom.kernel import libbpf, owner
from carom.kernel.cgroups import open_root
from carom.routes import account
from carom.routes.account import Account, Sender
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, until
from netns.routed import ACTOR, PYTHON, Routed, Running, by, sysctl
from netns.routed import NOBODY as BY_NOBODY

Rows = list[dict[str, Any]]
_DROP = 2  # TC_ACT_SHOT
SENDS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", (sys.argv[1], 9))
"""
"""Datagrams, each of a socket of its own."""

BY_ALL_KINDS = """
import os, socket, sys
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253)
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print(os.getpid(), flush=True)
for line in sys.stdin:
    ping.sendto(bytes([8]) + bytes(7), ("198.18.1.2", 0))
    raw.sendto(b"x", ("198.18.1.2", 0))
    raw6.sendto(b"x", ("2001:db8:1::2", 0))
    packet.sendto(bytes(12) + bytes([0x88, 0xb5]) + bytes(46), ("eth0", 0))
    print("sent", flush=True)
"""
"""For each line, a packet by each kind of socket that is neither TCP's nor UDP's."""

KNOCKS = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    child = os.fork()
    if not child:
        with socket.create_connection(server.getsockname()):
            os.read(0, 1)
        os._exit(0)
    print(os.getpid(), child, flush=True)
    os.waitpid(child, 0)
"""
"""A connection that its server does not accept, until stdin ends."""

UPLOADS = """
import os, socket, sys, threading
def name_itself():
    open("/proc/thread-self/comm", "w").write("a-thread")
    with socket.create_connection(("198.18.100.1", 7000)) as made:
        made.sendall(bytes(int(sys.argv[1])))
        made.shutdown(socket.SHUT_WR)
        while made.recv(1 << 16):
            pass
for _ in range(2):
    thread = threading.Thread(target=name_itself)
    thread.start()
    thread.join()
print(os.getpid(), flush=True)
sys.stdin.read()
"""
"""Bytes by connections that threads make, which have another name than their process."""

GREETS = """
import os, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    child = os.fork()
    if not child:
        with socket.create_connection(server.getsockname()) as made:
            made.recv(10)
        os._exit(0)
    server.accept()[0].sendall(b"greetings")
    os.waitpid(child, 0)
print(os.getpid(), child)
"""


@pytest.fixture(scope="module")
def all_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with Routed(tmp_path_factory.mktemp("account")) as hosts:
        yield hosts


@pytest.fixture
def hosts(all_hosts: Routed) -> Iterator[Routed]:
    """The same hosts for all tests; each leaves no route, and no program that counts."""
    all_hosts.settle()
    yield all_hosts
    all_hosts.check_clean()
    assert at_the_ways(all_hosts) == []
    until(all_are_held, "programs at the root of control groups that nobody holds to be gone")


def at_the_ways(hosts: Routed) -> list[int]:
    """The programs that count at these hosts' interfaces."""

    def found() -> list[int]:
        indexes = map(socket.if_nametoindex, ("lo", "eth0", "tun0", "tun1"))
        return [id for at in indexes for id in libbpf.programs_at(at, libbpf.BPF_TCX_EGRESS)]

    return hosts.host.call(found) if hosts.host.call(tc_has_links) else []


def all_are_held() -> bool:
    """Whether each that counts at the root of control groups is of a process that lives: those of
    other tests are there too."""
    root = open_root()
    try:
        found = [
            number
            for where in ("create", "egress")
            for number in libbpf.programs_at(root, libbpf.CGROUP[where])
        ]
        ours = [one for one in found if libbpf.program_name(one).startswith("account_")]
    except FileNotFoundError:  # one has just gone
        return False
    finally:
        os.close(root)
    return all(owner.holders(number) for number in ours)


def tc_has_links() -> bool:
    try:
        libbpf.programs_at(socket.if_nametoindex("lo"), libbpf.BPF_TCX_EGRESS)
    except OSError:
        return False
    return True


def refuse(program: int, index: int) -> int:
    """Do what TC without links does."""
    raise OSError(errno.EINVAL, "no such link")


class Watched:
    """`top --on` of an interface, which goes on."""

    def __init__(self, running: Running):
        self.running = running
        self.rows: Rows = running.told()

    def until(self, is_so: Callable[[Rows], bool]) -> Rows:
        """The first rows of which that is so."""
        end = time.monotonic() + DEADLINE
        while not is_so(self.rows):
            assert time.monotonic() < end, self.rows
            self.rows = self.running.told()
        return self.rows

    def of(self, pid: int) -> dict[str, Any]:
        """The row of a process, once there is one."""
        rows = self.until(lambda rows: any(row["pid"] == pid for row in rows))
        return next(row for row in rows if row["pid"] == pid)


@contextlib.contextmanager
def watched(hosts: Routed, interface: str) -> Iterator[Watched]:
    words = ("top", "--on", interface, "--json", "--interval", "0.2")
    with hosts.running(*words) as running:
        yield Watched(running)
        running.process.send_signal(signal.SIGINT)
        ended = running.end()
        assert (ended.code, ended.stderr) == (0, "")


def sent(rows: Rows) -> int:
    """How many packets processes have sent."""
    return sum(row["out_packets"] for row in rows if row["pid"])


def check_all_counted(hosts: Routed, watch: Watched, way: str) -> None:
    """As many as came outside, and no more; where TC has no links, what the kernel sends last for
    TCP is not seen."""
    if not hosts.host.call(tc_has_links):
        return
    came = 0

    def all_of_them(rows: Rows) -> bool:
        nonlocal came
        came += sum(hosts.seen().get(way, {}).values())
        return sent(rows) == came > 0

    watch.until(all_of_them)


def test_a_program_that_is_led(hosts: Routed) -> None:
    """By its interface, and no other; all kinds of sockets, which were made before and since."""
    with hosts.led("held") as led, watched(hosts, "tun0") as tun, watched(hosts, "eth0") as eth:
        hosts.settle()
        assert led.ask()
        row = tun.of(led.inside)
        assert (row["route"], row["uid"], row["alive"]) == (hosts.the_route(), 65534, True)
        assert row["program"].startswith("python")
        assert row["sockets"] >= 5
        check_all_counted(hosts, tun, "tun0")
        assert sent(eth.rows) == sent(eth.running.told()) == 0
        assert led.end().code == 0


def test_programs_that_are_not(hosts: Routed) -> None:
    """Each by itself, also when it has ended before anybody looked."""
    with watched(hosts, "eth0") as watch:
        hosts.direct("many")
        hosts.direct("icmp")
        check_all_counted(hosts, watch, "eth0")
        rows = watch.until(
            lambda rows: sorted(row["sockets"] for row in rows if row["pid"]) == [2, 6]
        )
        rows = [row for row in rows if row["pid"]]
        assert all(row["program"].startswith("python") for row in rows)
        assert all((row["route"], row["alive"], row["uid"]) == ("", False, 0) for row in rows)


def test_who_accepts(hosts: Routed) -> None:
    """Accepted sockets are their listener's."""
    with watched(hosts, "lo") as watch:
        pids = [*map(int, hosts.host.run(PYTHON, "-c", GREETS).split())]
        for pid in pids:
            watch.until(
                lambda rows, pid=pid: any(  # type: ignore[misc]
                    row["pid"] == pid and row["out_packets"] >= 3 for row in rows
                )
            )


@contextlib.contextmanager
def acting(namespace: Namespace, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program that goes on until its stdin ends."""
    with namespace.popen([PYTHON, "-IS", "-c", program, *words]) as process:
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(DEADLINE)


def line_of(process: subprocess.Popen[str], said: str = "") -> list[int]:
    """The numbers in its next line, once it was told something."""
    assert process.stdin and process.stdout
    process.stdin.write(said)
    process.stdin.flush()
    return [int(word) for word in process.stdout.readline().split() if word.isdigit()]


def test_a_handshake(hosts: Routed) -> None:
    """Its second packet is of whoever listens, also where nobody accepts."""
    with watched(hosts, "lo") as watch, acting(hosts.host, KNOCKS) as process:
        server, client = line_of(process)
        assert watch.of(server)["out_packets"] == 1
        assert watch.of(client)["out_packets"] == 2
        assert all(row["pid"] for row in watch.rows)


def test_sockets_from_before(hosts: Routed) -> None:
    """Of the kinds that the kernel does not list by their cookies: they have a holder too.

    A control group does not see what packet sockets send.
    """
    kinds = 4 if hosts.host.call(tc_has_links) else 3
    with acting(hosts.host, BY_ALL_KINDS) as process:
        (pid,) = line_of(process)
        with watched(hosts, "eth0") as watch:
            for packets in (kinds, 2 * kinds):
                line_of(process, "send\n")
                watch.until(lambda rows: sent(rows) == packets)  # noqa: B023 - at once
                row = watch.of(pid)
                assert (row["out_packets"], row["sockets"], row["uid"]) == (packets, kinds, 0)


def test_threads_of_other_names(hosts: Routed) -> None:
    """A process has one row, with its own name; bytes are those on the wire, whatever the card
    cuts up."""
    size = 300_000
    with watched(hosts, "eth0") as watch, acting(hosts.host, UPLOADS, str(size)) as process:
        (pid,) = line_of(process)
        watch.of(pid)

        def all_of_them(rows: Rows) -> bool:
            (row,) = [row for row in rows if row["pid"]]
            assert row["program"].startswith("python")
            if not hosts.host.call(tc_has_links):
                return bool(row["out_bytes"] > 2 * size)
            # Ethernet, IPv4 and TCP with its time stamps; a SYN has 8 bytes of options more.
            return bool(row["out_bytes"] == 2 * size + 66 * row["out_packets"] + 2 * 8)

        watch.until(all_of_them)


def test_more_processes_than_have_rows(hosts: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended and sent the least become one row; nothing is lost."""
    monkeypatch.setattr(account, "_KEPT", 3)
    with hosts.host.call(lambda: Account("lo")) as counting:
        for count in (9, 2, 7, 3, 5):
            hosts.host.run(PYTHON, "-c", SENDS, "127.0.0.1", str(count))
            rows: list[Sender] = hosts.host.call(counting.look)
            assert len(rows) <= 5
        shown = {row.program: row.out_packets for row in rows if not row.pid}
        assert shown.pop("others that have ended") == 5
        assert shown == ({"no process": 26} if hosts.host.call(tc_has_links) else {})
        assert sorted(row.out_packets for row in rows if row.pid) == [5, 7, 9]
        rows = hosts.host.call(counting.look)
        assert sum(row.out_packets for row in rows if row.program != "no process") == 26


def test_what_the_kernel_sends(hosts: Routed) -> None:
    """Of nobody: here, that a port is closed. A control group does not see it."""
    others = 3 if hosts.host.call(tc_has_links) else 0
    with watched(hosts, "lo") as watch:
        hosts.host.run(PYTHON, "-c", SENDS, "127.0.0.1", "3")
        rows = watch.until(lambda rows: sum(row["out_packets"] for row in rows) == 3 + others)
        assert sum(row["out_packets"] for row in rows if row["pid"]) == 3


def test_more_sockets_than_are_counted_at_once(hosts: Routed) -> None:
    """What comes after them has its process' name all the same, and nothing is counted twice."""
    many = 70_000
    with watched(hosts, "lo") as watch:
        hosts.host.run(PYTHON, "-c", SENDS, "127.0.0.1", str(many))
        hosts.host.run(PYTHON, "-c", SENDS, "127.0.0.1", "7")
        rows = watch.until(lambda rows: any(row["sockets"] == 7 for row in rows))
        first = next(row for row in rows if row["pid"] and row["sockets"] != 7)
        assert many // 2 < first["sockets"] <= first["out_packets"] <= many


@pytest.mark.parametrize("first", [True, False], ids=["before it", "behind it"])
def test_another_program_decides(hosts: Routed, first: bool) -> None:
    """It drops what it drops, wherever it is."""
    if not hosts.host.call(tc_has_links):
        pytest.skip("this kernel's TC has no links")
    program = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"drop", _DROP)

    def drop() -> int:
        return libbpf.link_tcx_egress(program, socket.if_nametoindex("eth0"))

    with contextlib.ExitStack() as stack:
        stack.callback(os.close, program)
        if first:
            stack.callback(os.close, hosts.host.call(drop))
        watch = stack.enter_context(watched(hosts, "eth0"))
        if not first:
            stack.callback(os.close, hosts.host.call(drop))
        hosts.host.run(PYTHON, "-c", SENDS, "198.18.1.2", "5")
        if first:
            assert sent(watch.running.told()) == 0
        else:
            watch.until(lambda rows: sent(rows) == 5)
        assert hosts.seen() == {}


@pytest.mark.parametrize("tcx", [True, False])
def test_where_it_counts(hosts: Routed, monkeypatch: pytest.MonkeyPatch, tcx: bool) -> None:
    """The same where TC has no links, as before Linux 6.6: in control groups then."""
    if not tcx:
        monkeypatch.setattr(libbpf, "link_tcx_egress", refuse)
    account = hosts.host.call(lambda: Account("tun0"))
    try:
        # Of TCP a group does not see what the kernel sends last.
        hosts.run("many" if tcx and hosts.host.call(tc_has_links) else "udp")
        came = 0

        def all_of_them() -> bool:
            nonlocal came
            came += sum(hosts.seen().get("tun0", {}).values())
            rows: list[Sender] = hosts.host.call(account.look)
            return sum(row.out_packets for row in rows if row.pid) == came > 0

        until(all_of_them, "all that came outside")
    finally:
        account.close()


def test_another_network_namespace(hosts: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interfaces have the same indexes, and a control group sees them all."""
    monkeypatch.setattr(libbpf, "link_tcx_egress", refuse)
    sysctl(hosts.outside, "net.ipv4.ping_group_range", "0 65535")
    with acting(hosts.outside, BY_ALL_KINDS.replace("eth0", "lo")) as before:
        line_of(before)
        with hosts.host.call(lambda: Account("lo")) as counting:
            line_of(before, "once\n")
            hosts.outside.run(PYTHON, "-c", SENDS, "127.0.0.1", "3")
            hosts.host.run(PYTHON, "-c", SENDS, "127.0.0.1", "5")
            rows: list[Sender] = hosts.host.call(counting.look)
            assert [row.out_packets for row in rows] == [5]


def test_the_interface_goes(hosts: Routed) -> None:
    with hosts.running("top", "--on", "tun1", "--json", "--interval", "0.1") as running:
        running.told()
        hosts.remove("tun1")
        try:
            ended = running.end()
        finally:
            hosts.make("tun1")
        assert ended.code == 1
        assert "tun1 is gone" in ended.stderr


def test_it_is_killed(hosts: Routed) -> None:
    """Its programs go with it (`hosts` looks)."""
    with hosts.running("top", "--on", "eth0", "--json") as running:
        running.told()
        running.kill()


def test_names_that_command_a_terminal(hosts: Routed) -> None:
    """Of programs, which name themselves: they are shown, and nothing more."""
    hostile = "\x1b[2J\x07\x9b<b>"
    names_itself = f"import pathlib; pathlib.Path('/proc/self/comm').write_text({hostile!r})\n"
    future = "from __future__ import annotations\n"
    words = (*ACTOR[:-1], names_itself + ACTOR[-1].replace(future, ""), "held")
    route = ("run", *by("tun0"), *BY_NOBODY)
    with watched(hosts, "tun0") as watch, hosts.running(*route, "--", *words) as led:
        led.inside = led.told()["ready"]
        led.ask()
        row = watch.of(led.inside)
        assert row["program"] == "\\x1b[2J\\x07\\u009b<b>"
        texts = [
            hosts.done("top", "--on", "tun0", "--once"),
            hosts.done("top", "--once"),
            hosts.done("sockets", hosts.the_route()),
            hosts.done("why", str(led.inside)),
            json.dumps(hosts.json("sockets", hosts.the_route())),
            led.stderr(),
        ]
        for text in texts:
            assert not {"\x1b", "\x07", "\x9b"} & {*text}, text
        assert "\\x1b[2J" in texts[2] and "\\x1b[2J" in texts[3]
        assert led.end().code == 0


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no such interface": (("top", "--on", "nope"), 1, "no interface nope"),
    "a path": (("top", "--on", "../x"), 1, "no interface ../x"),
    "too long": (("top", "--on", "x" * 400), 1, "there is no interface"),
    "no name": (("top", "--on", ""), 1, "there is no interface"),
    "for ever": (("top", "--on", "lo", "--interval", "inf"), 2, "--interval"),
    "for ever, of routes": (("top", "--interval", "inf"), 2, "--interval"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be(hosts: Routed, case: str) -> None:
    words, code, said = WRONG[case]
    ended = hosts.route(*words)
    assert (ended.code, said in ended.stderr) == (code, True), ended
