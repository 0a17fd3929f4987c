# SPDX-License-Identifier: Apache-2.0
"""`carom front` before a real memcached: what is learned, what never is, and nothing stale."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from scapy.layers.inet import IP, UDP

from carom.vm.netns import SERVER_IPV6
from netns.line import Line
from netns.memcache import PORT, Memcached, TCPClient, UDPClient, value_of
from netns.process import DEADLINE, INTERFACE, Carom, run, until

SECONDS = 3.0
"""Of the torture test."""


@pytest.fixture(scope="module")
def memcached(straight: Line) -> Iterator[Memcached]:
    with Memcached(straight.server) as memcached:
        yield memcached


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, memcached: Memcached) -> Iterator[Carom]:
    """memcached, fronted at either hook."""
    arguments = ("--hook", request.param, "--bind", "::", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.fixture
def udp(straight: Line) -> Iterator[UDPClient]:
    with UDPClient(straight.client, straight.address) as client:
        yield client


@pytest.fixture
def tcp(straight: Line) -> Iterator[TCPClient]:
    with TCPClient(straight.client, straight.address) as client:
        yield client


def edge(carom: Carom) -> dict[str, int]:
    counters: dict[str, int] = carom.status()["edge"]
    return counters


def hits_of(carom: Carom, udp: UDPClient, key: bytes, value: bytes, times: int = 3) -> int:
    """How many of so many gets the kernel answered; each had the value."""
    before = carom.counters()["hit"]
    for _ in range(times):
        assert udp.get(key) == value
    return carom.counters()["hit"] - before


def until_hit(carom: Carom, udp: UDPClient, key: bytes, value: bytes) -> None:
    """Ask for a key until the kernel answers: at once but for holds and voids on their way."""
    until(lambda: hits_of(carom, udp, key, value, 2) == 2, f"hits of {key!r}")


@pytest.mark.parametrize("size", [0, 1, 20, 64, 400, 600, 1100])
@pytest.mark.parametrize("length", [1, 30, 59, 60, 61, 250])
def test_learned(front: Carom, udp: UDPClient, tcp: TCPClient, size: int, length: int) -> None:
    """The second get is answered by the kernel, with the bytes of the first."""
    key, value = (b"%d-" % size).ljust(length, b"k")[:length], os.urandom(size)
    tcp.set(key, value)
    until_hit(front, udp, key, value)


def test_learned_over_ipv6(front: Carom, straight: Line, tcp: TCPClient) -> None:
    tcp.set(b"six", b"value six")
    with UDPClient(straight.client, SERVER_IPV6) as udp:
        until_hit(front, udp, b"six", b"value six")


def test_get_and_gets_are_apart(front: Carom, udp: UDPClient, tcp: TCPClient) -> None:
    tcp.set(b"apart", b"x")
    until_hit(front, udp, b"apart", b"x")
    with_cas = udp.ask(b"gets apart\r\n")
    assert len(with_cas.splitlines()[0].split()) == 5
    assert udp.ask(b"gets apart\r\n") == with_cas
    assert len(udp.ask(b"get apart\r\n").splitlines()[0].split()) == 4


def test_absence_is_never_learned(front: Carom, udp: UDPClient, tcp: TCPClient) -> None:
    before = front.counters()["hit"]
    for _ in range(3):
        assert udp.get(b"absent") is None
    assert front.counters()["hit"] == before


WRITES = {
    "set": (b"set w 0 0 3\r\nnew\r\n", b"new"),
    "replace": (b"replace w 0 0 3\r\nnew\r\n", b"new"),
    "append": (b"append w 0 0 1\r\n5\r\n", b"1005"),
    "prepend": (b"prepend w 0 0 1\r\n5\r\n", b"5100"),
    "incr": (b"incr w 11\r\n", b"111"),
    "decr": (b"decr w 1\r\n", b"99 "),  # memcached shortens no value in place
    "delete": (b"delete w\r\n", None),
    "touch": (b"touch w 1000\r\n", b"100"),
    "gat": (b"gat 1000 w\r\n", b"100"),
    "ms": (b"ms w 3\r\nnew\r\n", b"new"),
    "ma": (b"ma w\r\n", b"101"),
    "md": (b"md w\r\n", None),
    "mg": (b"mg w T100\r\n", b"100"),
    "flush_all": (b"flush_all\r\n", None),
    "several": (b"get other\r\nset w 0 0 3\r\nnew\r\n", b"new"),
}


@pytest.mark.parametrize("over", ["udp", "tcp"])
@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_older_than_an_acknowledged_write(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient, name: str, over: str
) -> None:
    command, expected = WRITES[name]
    tcp.set(b"w", b"100")
    until_hit(front, udp, b"w", b"100")
    asked = (udp if over == "udp" else tcp).ask(command)
    assert not asked.startswith((b"ERROR", b"CLIENT_ERROR")), asked
    before = front.counters()
    with UDPClient(straight.client, straight.address) as other:
        assert other.get(b"w") == expected
    assert front.since(before).get("hit", 0) == 0


class TestStream:
    """TCP connections: the keys that they write are void, and others are not."""

    @pytest.fixture
    def fresh(self, front: Carom, straight: Line) -> Iterator[TCPClient]:
        """A connection that began under carom's eyes."""
        with TCPClient(straight.client, straight.address) as client:
            yield client

    @staticmethod
    def keep(front: Carom, udp: UDPClient, fresh: TCPClient, *keys: bytes) -> None:
        """Store keys, and have them in the kernel."""
        for key in keys:
            fresh.set(key, b"old")
        for key in keys:
            until_hit(front, udp, key, b"old")

    def test_others_stay(
        self, front: Carom, udp: UDPClient, tcp: TCPClient, fresh: TCPClient
    ) -> None:
        self.keep(front, udp, tcp, b"written", b"read")
        fresh.set(b"written", b"new")
        assert fresh.ask(b"get a b c\r\n") == b"END\r\n"
        before = front.counters()
        assert udp.get(b"read") == b"old"
        assert udp.get(b"written") == b"new"
        assert front.since(before) == {"hit": 1, "miss_void": 1, "fills": 1}

    @pytest.mark.parametrize("size", [100, 600, 5000, 100_000])
    def test_values_of_many_segments(
        self, front: Carom, udp: UDPClient, fresh: TCPClient, size: int
    ) -> None:
        self.keep(front, udp, fresh, b"large")
        fresh.set(b"large", b"x" * size)
        fresh.set(b"large", b"new")
        assert udp.get(b"large") == b"new"

    def test_a_command_in_parts(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        """Its last part alone looks like a read."""
        self.keep(front, udp, fresh, b"parts")
        fresh.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lost = edge(front)["stream_lost"]
        fresh.socket.sendall(b"set parts 0 0 12\r\nnew")
        until(lambda: edge(front)["stream_lost"] > lost, "the first part to arrive")
        assert fresh.ask(b"\r\nget b\r\n\r\n") == b"STORED\r\n"
        assert udp.get(b"parts") == b"new\r\nget b\r\n"

    @pytest.mark.parametrize("count", [2, 16, 17, 40])
    def test_many_at_once(self, front: Carom, udp: UDPClient, fresh: TCPClient, count: int) -> None:
        """Commands without waiting for their replies: in one segment, or in many."""
        keys = [b"many%d" % n for n in range(count)]
        self.keep(front, udp, fresh, *keys)
        fresh.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for key in keys:
            fresh.socket.sendall(b"set %b 0 0 3\r\nnew\r\n" % key)
        answers = b""
        while answers.count(b"STORED") < count:
            answers += fresh.socket.recv(65_536)
        for key in keys:
            assert udp.get(key) == b"new"

    def test_a_connection_from_before(self, own_line: Line) -> None:
        """What was said on it before carom came is not known, so anything on it may be a write."""
        with (
            Memcached(own_line.server),
            TCPClient(own_line.client, own_line.address) as old,
            UDPClient(own_line.client, own_line.address) as udp,
        ):
            old.set(b"before", b"old")
            with Carom(own_line.server, "--hook", "tc", command="front") as front:
                until_hit(front, udp, b"before", b"old")
                lost = edge(front)["stream_lost"]
                old.set(b"before", b"new")
                assert udp.get(b"before") == b"new"
                assert edge(front)["stream_lost"] > lost


def test_a_binary_set_over_tcp(
    front: Carom, udp: UDPClient, tcp: TCPClient, straight: Line
) -> None:
    tcp.set(b"b", b"old")
    until_hit(front, udp, b"b", b"old")
    key, value = b"b", b"new"
    header = struct.pack(
        "!BBHBBHIIQ", 0x80, 0x01, len(key), 8, 0, 0, 8 + len(key) + len(value), 0, 0
    )
    with TCPClient(straight.client, straight.address) as binary:
        assert binary.ask(header + bytes(8) + key + value)[:2] == b"\x81\x01"
    assert udp.get(b"b") == b"new"


def test_a_write_without_acknowledgement(front: Carom, udp: UDPClient, tcp: TCPClient) -> None:
    """Its key is void at once, and what is read behind it is what it wrote."""
    tcp.set(b"q", b"old")
    until_hit(front, udp, b"q", b"old")
    udp.send(b"set q 0 0 3 noreply\r\nnew\r\n")
    for _ in range(5):
        assert udp.get(b"q") == b"new"
    until_hit(front, udp, b"q", b"new")


def test_a_write_on_the_host_itself(
    front: Carom, udp: UDPClient, tcp: TCPClient, straight: Line
) -> None:
    """Loopback is no interface of carom's, but the server's socket is."""
    tcp.set(b"lo", b"old")
    until_hit(front, udp, b"lo", b"old")
    with TCPClient(straight.server, "127.0.0.1") as local:
        local.set(b"lo", b"new")
    assert udp.get(b"lo") == b"new"
    until_hit(front, udp, b"lo", b"new")
    with UDPClient(straight.server, "127.0.0.1") as local:
        assert local.ask(b"set lo 0 0 5\r\nnewer\r\n") == b"STORED\r\n"
    assert udp.get(b"lo") == b"newer"


def test_a_reply_from_another_socket_is_not_learned(
    front: Carom, straight: Line, udp: UDPClient, memcached: Memcached
) -> None:
    """A raw socket may say what it likes: it does not hold the port."""
    before = edge(front)
    memcached.stop()
    try:
        number = udp.send(b"get forged\r\n")
        client = udp.socket.getsockname()
        text = struct.pack("!HHHH", number, 0, 1, 0) + b"VALUE forged 0 4\r\nevil\r\nEND\r\n"
        forged = IP(src=straight.address, dst=client[0]) / UDP(sport=PORT, dport=client[1]) / text
        with straight.server.call(
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        ) as raw:
            raw.sendto(bytes(forged), (client[0], 0))
        assert value_of(udp.receive(number)) == b"evil", "it did reach the client"
    finally:
        memcached.go_on()
    assert value_of(udp.receive(number)) is None
    assert udp.get(b"forged") is None
    assert edge(front)["learned"] == before["learned"]


def test_a_reply_that_nobody_asked_for_is_not_learned(
    front: Carom, straight: Line, tcp: TCPClient
) -> None:
    """A get that did not come by the fast path leaves no token."""
    tcp.set(b"local", b"x")
    before = edge(front)
    with UDPClient(straight.server, "127.0.0.1") as local:
        for _ in range(3):
            assert local.get(b"local") == b"x"
    until(lambda: edge(front)["unasked"] - before["unasked"] == 3, "three replies unasked for")
    assert edge(front)["learned"] == before["learned"]


def test_a_value_read_before_a_write_is_done_is_not_kept(straight: Line) -> None:
    """Asked after the write came, answered before it was done: only the acknowledgement tells."""
    port = 4002
    with (
        straight.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        UDPClient(straight.client, straight.address, port) as writer,
        UDPClient(straight.client, straight.address, port) as reader,
    ):
        server.settimeout(DEADLINE)
        server.bind(("0.0.0.0", port))
        with Carom(straight.server, "-p", str(port), "--hook", "tc", command="front") as front:

            def answer(text: bytes) -> None:
                (request, origin), header = answers.pop(0), slice(0, 8)
                server.sendto(request[header] + text, origin)

            written = writer.send(b"set k 0 0 3\r\nnew\r\n")
            answers = [server.recvfrom(100)]
            asked = reader.send(b"get k\r\n")
            answers.insert(0, server.recvfrom(100))
            answer(b"VALUE k 0 3\r\nold\r\nEND\r\n")
            assert value_of(reader.receive(asked)) == b"old"
            assert reader.get(b"k") == b"old", "until then it may be"
            answer(b"STORED\r\n")
            assert writer.receive(written) == b"STORED\r\n"
            before = front.counters()
            reader.send(b"get k\r\n")
            assert server.recvfrom(100)[0].endswith(b"get k\r\n")
            assert front.since(before) == {"miss_void": 1}


def test_drop_and_flush(front: Carom, udp: UDPClient, tcp: TCPClient, straight: Line) -> None:
    tcp.set(b"drop", b"x")
    until_hit(front, udp, b"drop", b"x")
    pid = ("--pid", str(front.pid))
    got = run(straight.server, "cache", "get", "drop", *pid)
    assert (got.code, got.stdout) == (0, "\0\0\0\0\0\1\0\0VALUE drop 0 1\nx\nEND\n")
    assert run(straight.server, "cache", "drop", "drop", *pid).stdout == "dropped\n"
    assert hits_of(front, udp, b"drop", b"x", 1) == 0
    until_hit(front, udp, b"drop", b"x")
    assert run(straight.server, "cache", "flush", *pid).code == 0
    assert hits_of(front, udp, b"drop", b"x", 1) == 0


def test_torture(front: Carom, straight: Line, memcached: Memcached) -> None:
    """Readers at full load while values change: none is older than the last acknowledged write."""
    keys = [b"torture %d" % n for n in range(4)]
    keys = [key.replace(b" ", b"-") for key in keys]
    acknowledged = dict.fromkeys(keys, 0)
    stop = time.monotonic() + SECONDS
    violations: list[tuple[bytes, int, int]] = []
    reads = [0, 0]

    def write() -> None:
        with TCPClient(straight.client, straight.address) as tcp:
            number = 0
            while time.monotonic() < stop:
                number += 1
                for key in keys:
                    tcp.set(key, b"%d" % number)
                    acknowledged[key] = number
                time.sleep(0.002)

    def read(index: int) -> None:
        with UDPClient(straight.client, straight.address) as udp:
            while time.monotonic() < stop:
                for key in keys:
                    least = acknowledged[key]
                    value = int(udp.get(key) or 0)
                    reads[index] += 1
                    if value < least:
                        violations.append((key, value, least))

    before = front.counters()["hit"]
    with ExitStack() as stack:
        for target, arguments in ((write, ()), (read, (0,)), (read, (1,))):
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            stack.callback(thread.join)
    assert violations == []
    assert min(reads) > 100
    assert max(acknowledged.values()) > 10
    assert front.counters()["hit"] > before, "the cache took no part"


UNSEEN = """
import socket, sys, tempfile
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", int(sys.argv[1])))
unix = socket.socket(socket.AF_UNIX)
unix.bind(tempfile.mkdtemp() + "/unseen.sock")
unix.listen()
print("ready", flush=True)
sys.stdin.read()
"""


class TestRefused:
    """What cannot be fronted says why."""

    @pytest.mark.parametrize("protocol", ["raw", "kv"])
    def test_protocols_whose_replies_name_nothing(self, straight: Line, protocol: str) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "-p", "4000", "--protocol", protocol)
        assert ended.code == 2
        assert "name" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_no_server(self, straight: Line) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "-p", "4000")
        assert ended.code == 1
        assert "no process of this host listens on UDP port 4000" in ended.stderr

    def test_a_server_that_is_written_to_unseen(self, straight: Line) -> None:
        server = straight.server.popen([sys.executable, "-c", UNSEEN, "4001"])
        assert server.stdout
        assert server.stdin
        assert server.stdout.readline() == "ready\n"
        try:
            where = ("-p", "4001", "--hook", "tc")
            ended = run(straight.server, "front", "-i", INTERFACE, *where)
            assert ended.code == 1
            assert "unseen.sock" in ended.stderr
            assert "--writes-elsewhere ttl" in ended.stderr
            with Carom(straight.server, *where, "--writes-elsewhere", "ttl", command="front"):
                pass
        finally:
            server.stdin.close()
            server.wait()
