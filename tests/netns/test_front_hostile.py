# SPDX-License-Identifier: Apache-2.0
"""A fronted server before clients that write in every way that it understands, and garbage."""

from __future__ import annotations

import resource
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from carom.daemon import control
from carom.kernel.waiting import readable
from netns.fronted import hits_of, until_hit
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient, value_of
from netns.process import DEADLINE, INTERFACE, Carom, start, until

PORT = 4021

_HEADER = struct.Struct("!HHHH")


@pytest.fixture(scope="module")
def memcached(straight: Line) -> Iterator[Memcached]:
    """One of several threads, on a port of this file's."""
    with Memcached(straight.server, PORT, threads=4) as memcached:
        yield memcached


@pytest.fixture(scope="module")
def front(straight: Line, memcached: Memcached) -> Iterator[Carom]:
    """It is fronted."""
    arguments = ("-p", str(PORT), "--hook", "tc", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.fixture
def udp(straight: Line) -> Iterator[UDPClient]:
    """A client over UDP."""
    with UDPClient(straight.client, straight.address, PORT) as client:
        yield client


@pytest.fixture
def tcp(straight: Line) -> Iterator[TCPClient]:
    """The same over TCP."""
    with TCPClient(straight.client, straight.address, PORT) as client:
        yield client


def edge(carom: Carom) -> dict[str, int]:
    counters: dict[str, int] = carom.status()["edge"]
    return counters


def is_hit(carom: Carom, udp: UDPClient, key: bytes) -> bool:
    """Whether the kernel answers a get of a key."""
    before = carom.counters()["hit"]
    udp.get(key)
    return carom.counters()["hit"] > before


def learned(carom: Carom, udp: UDPClient, tcp: TCPClient, key: bytes, value: bytes) -> None:
    """Have the cache hold a value, which the server has too."""
    tcp.set(key, value)
    until(lambda: is_hit(carom, udp, key), f"a hit of {key!r}")
    assert udp.get(key) == value


AT_ONCE = 16384 - 42
"""With what is around it in a datagram: as much as one run sums (SUM_AT_ONCE of cgroup/edge.h)."""


class TestChecksums:
    """Made by the sender, as every request has them that came by a wire."""

    @pytest.fixture(autouse=True)
    def made(self, straight: Line) -> Iterator[None]:
        straight.offload(sender=False, replier=True)
        yield
        straight.offload(sender=True, replier=True)

    @pytest.mark.parametrize(
        "size", [1, 30, 31, 32, 33, 64, 100, 500, 1100, 2100, AT_ONCE, AT_ONCE + 1, 20_000, 60_000]
    )
    def test_right(self, front: Carom, udp: UDPClient, tcp: TCPClient, size: int) -> None:
        """A write without acknowledgement is seen, whatever it is long."""
        key = b"sum%d" % size
        learned(front, udp, tcp, key, b"old")
        before = edge(front)
        udp.send(b"set %b 0 0 %d noreply\r\n%b\r\n" % (key, size, b"x" * size))
        until(lambda: edge(front)["write_seen"] > before["write_seen"], "the write to be seen")
        assert edge(front)["wrong_sum"] == before["wrong_sum"]
        udp.send(b"get %b\r\n" % key)
        assert udp.socket.recv(65_536)[8:].startswith(b"VALUE %b 0 %d\r\n" % (key, size))

    @pytest.mark.parametrize("size", [100, 1100, 2100, AT_ONCE, AT_ONCE + 1, 20_000, 60_000])
    def test_wrong(
        self, front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient, size: int
    ) -> None:
        """It reaches no server, and voids nothing."""
        key = b"wrong%d" % size
        learned(front, udp, tcp, key, b"old")
        before = edge(front)
        text = b"set %b 0 0 %d noreply\r\n%b\r\n" % (key, size, b"x" * size)
        ports = UDP(sport=40_000, dport=PORT, chksum=0x1234)
        packet = IP(src=straight.client_address, dst=straight.address) / ports
        packet /= _HEADER.pack(1, 0, 1, 0) + text
        with straight.client.call(
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        ) as raw:
            for part in packet.fragment(1400):
                raw.sendto(bytes(part), (straight.address, 0))
        until(lambda: edge(front)["wrong_sum"] > before["wrong_sum"], "the sum to be found wrong")
        assert is_hit(front, udp, key)
        assert value_of(tcp.ask(b"get %b\r\n" % key)) == b"old"


ACKNOWLEDGED = [
    (b" delete %b\r\n", b"DELETED\r\n"),
    (b"delete  %b\r\n", b"DELETED\r\n"),
    (b"delete %b\0\r\n", b"DELETED\r\n"),
    (b" set %b 0 0 1\r\n6\r\n", b"STORED\r\n"),
    (b"set  %b 0 0 1\r\n6\r\n", b"STORED\r\n"),
    (b"incr  %b 1\r\n", b"6\r\n"),
    (b" incr %b 1\r\n", b"6\r\n"),
    (b" md %b\r\n", b"HD\r\n"),
    (b"md  %b\r\n", b"HD\r\n"),
    (b" ms %b 1\r\n6\r\n", b"HD\r\n"),
    (b"ma  %b v\r\n", b"VA 1\r\n6\r\n"),
    (b" ma %b v\r\n", b"VA 1\r\n6\r\n"),
    (b" flush_all\r\n", b"OK\r\n"),
    (b"flush_all \r\n", b"OK\r\n"),
    (b"mn\r\n" * 120 + b"flush_all\r\n", b"OK\r\n"),
    (b"mn\r\n" * 120 + b"md %b\r\n", b"HD\r\n"),
    (b"mn\r\n" * 120 + b"ma %b v\r\n", b"VA 1\r\n6\r\n"),
    (b"get \r\n" * 20 + b"incr  %b 1\r\n", b"6\r\n"),
    (b"get \r\n" * 20 + b" md %b\r\n", b"HD\r\n"),
]
"""Writes as memcached takes them, though no description has them so, and how each reply ends."""


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("number", range(len(ACKNOWLEDGED)))
def test_acknowledged_in_any_form(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient, number: int, stream: bool
) -> None:
    text, end = ACKNOWLEDGED[number]
    key = b"any%d-%d" % (number, stream)
    text = text % key if b"%b" in text else text
    learned(front, udp, tcp, key, b"5")
    if stream:
        with TCPClient(straight.client, straight.address, PORT) as writer:
            writer.socket.sendall(text)
            reply = b""
            while not reply.endswith(end):
                reply += writer.socket.recv(65_536)
    else:
        with UDPClient(straight.client, straight.address, PORT) as writer:
            number = writer.send(text)
            while writer.receive(number) != end:
                pass
    assert udp.get(key) != b"5"


def unread_void_is_spent(straight: Line, port: int = PORT) -> None:
    """What nobody can read voids once in ten seconds; what comes behind has to do without."""
    with UDPClient(straight.client, straight.address, port) as stranger:
        stranger.send(b" bogus\r\n")


@pytest.mark.parametrize("before", [b"mg absent q\r\n", b"get \r\n", b"get \r\nmg absent q\r\n"])
@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b" flush_all\r\n", b"OK\r\n"),
        (b" md %b\r\n", b"HD\r\n"),
        (b" ms %b 1\r\n6\r\n", b"HD\r\n"),
        (b"ma  %b v\r\n", b"VA 1\r\n6\r\n"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_acknowledged_behind_what_is_not(
    front: Carom,
    straight: Line,
    udp: UDPClient,
    tcp: TCPClient,
    before: bytes,
    text: bytes,
    end: bytes,
    together: bool,
) -> None:
    """Another request of the same id has no reply, or a refusal that may be the write's."""
    key = b"behind%d-%d" % (len(before), len(text))
    text = text % key if b"%b" in text else text
    unread_void_is_spent(straight)
    learned(front, udp, tcp, key, b"5")
    with UDPClient(straight.client, straight.address, PORT) as writer:
        for one in [before + text] if together else [before, text]:
            writer.socket.send(_HEADER.pack(7, 0, 1, 0) + one)
        while not writer.socket.recv(65_536).endswith(end):
            pass
    assert udp.get(key) != b"5"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"md  %b\r\n", b"HD\r\n"),
        (b"ma  %b v\r\n", b"VA 1\r\n6\r\n"),
        (b"incr  %b 1\r\n", b"6\r\n"),
        (b"delete  %b\r\n", b"DELETED\r\n"),
    ],
)
def test_an_earlier_refusal_on_a_connection(
    front: Carom,
    memcached: Memcached,
    straight: Line,
    udp: UDPClient,
    tcp: TCPClient,
    text: bytes,
    end: bytes,
) -> None:
    """It is sent before the server reads the line that it may be of, which the kernel has seen."""
    key = b"earlier%d" % len(text)
    unread_void_is_spent(straight)
    learned(front, udp, tcp, key, b"5")
    filler = b"set filler 0 0 20000 noreply\r\n" + b"x" * 20_000 + b"\r\n"
    seen = edge(front)["write_seen"]
    with TCPClient(straight.client, straight.address, PORT) as writer:
        memcached.stop()
        writer.socket.sendall(b"get \r\n" + filler + text % key)
        until(lambda: edge(front)["write_seen"] > seen, "the write to be seen")
        memcached.go_on()
        reply = b""
        while not reply.endswith(end):
            reply += writer.socket.recv(65_536)
    assert udp.get(key) != b"5"


def test_a_connection_that_is_refused_once(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient
) -> None:
    """A client asks for what this server does not know: no other reply of it voids anything."""
    learned(front, udp, tcp, b"kept", b"5")
    with TCPClient(straight.client, straight.address, PORT) as client:
        for _ in range(3):
            assert client.ask(b"config get cluster\r\n") == b"ERROR\r\n"
            assert value_of(client.ask(b"get kept\r\n")) == b"5"
            assert client.ask(b"get absent\r\n") == b"END\r\n"
            assert client.ask(b"version\r\n").startswith(b"VERSION")
        assert 5 in (hits_of(front, udp, b"kept", b"5", 5) for _ in range(2)), "a void was put off"


UNACKNOWLEDGED = (
    b" delete %b noreply\r\n",
    b"delete  %b noreply\r\n",
    b" set %b 0 0 3 noreply\r\nnew\r\n",
    b"ms  %b 3 q\r\nnew\r\n",
    b" md %b q\r\n",
    b" flush_all noreply\r\n%%%b",
)


def test_unacknowledged_in_any_form(straight: Line) -> None:
    """Void before long: of what cannot be read a stranger may send as much as he likes.

    Each before a server of its own, or one would be void with another; and when the client's
    network has nothing left that would void at once.
    """
    forms = [(text, stream) for text in UNACKNOWLEDGED for stream in (False, True)]
    ports = range(PORT + 100, PORT + 100 + len(forms))
    left = {}
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(Memcached(straight.server, port, threads=4))
        front = stack.enter_context(fronts(straight.server, *(f"memcached:{one}" for one in ports)))
        for port, (text, stream) in zip(ports, forms, strict=True):
            udp, tcp, writer = (
                stack.enter_context(kind(straight.client, straight.address, port))
                for kind in (UDPClient, TCPClient, TCPClient if stream else UDPClient)
            )
            key = b"quiet%d" % port  # what voids a key voids it for all services
            unread_void_is_spent(straight, port)
            learned(front, udp, tcp, key, b"5")
            writer.socket.send((b"" if stream else _HEADER.pack(7, 0, 1, 0)) + text % key)
            left[key] = udp

        def all_void() -> bool:
            for key, udp in list(left.items()):
                if udp.get(key) != b"5":
                    del left[key]
            return not left

        until(all_void, "every old value to be void")


def test_a_store_whose_data_comes_late(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient
) -> None:
    """It is done when its data is there, which nothing acknowledges."""
    key = b"late"
    learned(front, udp, tcp, key, b"old")
    with TCPClient(straight.client, straight.address, PORT) as writer:
        writer.socket.sendall(b"set %b 0 0 3 noreply\r\n" % key)
        until_hit(front, udp, key, b"old")
        writer.socket.sendall(b"new\r\n")
        until(lambda: udp.get(key) == b"new", "the new value")


@pytest.mark.parametrize(
    "text",
    [
        b"mg %b\r\n",
        b"mg %b t v\r\n",
        b"mg %b v q\r\n",
        b"mg absent\r\n",
        b"mg \r\n",
        b"mg %b v v\r\n",
        b"me %b\r\n",
        b"me absent\r\n",
        b"md \r\n",
        b"gat x\r\n",
        b"flush_allx\r\n",
        b"delete \r\n",
        b"delete\r\n",
        b"incr other\r\n",
        b"ms other S1\r\n",
        b"set other\r\n",
        b"stats\r\n",
        b"stats items\r\n",
        b"stats cachedump 1 0\r\n",
        b"shutdown\r\n",
        b"lru tune 90 90 1 1\r\n",
        b"stats detail off\r\n",
        b"verbosity 0\r\n",
        b"version\r\n",
        b"get %b other\r\n",
        b"unheard of\r\n",
        b" \r\n",
        b"\0\r\n",
        b"\x80\x0b" + bytes(22),
        b"\x80" + bytes(23),
    ],
)
def test_what_writes_nothing_voids_nothing(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient, text: bytes
) -> None:
    """Nor what cannot be read, but for once in a long while."""
    key = b"kept"
    learned(front, udp, tcp, key, b"5")
    misses = 0
    with UDPClient(straight.client, straight.address, PORT) as stranger:
        for _ in range(20):
            stranger.send(text.replace(b"%b", key))
            assert udp.ask(b"version\r\n").startswith(b"VERSION")
            stranger.socket.setblocking(False)
            while True:
                try:
                    stranger.socket.recv(65_536)
                except BlockingIOError:
                    break
            if not is_hit(front, udp, key):
                misses += 1
                until(lambda: is_hit(front, udp, key), "a hit again")
    assert misses <= 2


def test_data_with_the_last_of_the_handshake(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient
) -> None:
    """It comes to the listener, and to the connection by no way that is seen."""
    learned(front, udp, tcp, b"third", b"old")
    with straight.client.call(lambda: socket.socket()) as writer:
        writer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        writer.connect((straight.address, PORT))
        writer.sendall(b"set third 0 0 3 noreply\r\nnew\r\n")
        until(lambda: udp.get(b"third") == b"new", "the old value to be void")


class TestThreads:
    """A server of several threads, of which each answers when it likes."""

    PORT = 4022

    @pytest.fixture(scope="module")
    @classmethod
    def server(cls, straight: Line) -> Iterator[socket.socket]:
        with straight.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            one.settimeout(DEADLINE)
            one.bind(("0.0.0.0", cls.PORT))
            yield one

    @pytest.fixture(scope="module")
    @classmethod
    def front(cls, straight: Line, server: socket.socket) -> Iterator[Carom]:
        arguments = ("-p", str(cls.PORT), "--hook", "tc", "--ttl", "1h")
        with Carom(straight.server, *arguments, command="front") as carom:
            yield carom

    @pytest.fixture
    def client(self, straight: Line) -> Iterator[socket.socket]:
        """One whose requests all have one id."""
        with straight.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as one:
            one.settimeout(DEADLINE)
            one.connect((straight.address, self.PORT))
            yield one

    @pytest.mark.parametrize(
        ("other", "reply"),
        [
            (b"mg z v\r\n", b"EN\r\n"),
            (b"mg z v\r\n", b"VA 1\r\nx\r\n"),
            (b"stats items\r\n", b"END\r\n"),
            (b"bget z\r\n", b"END\r\n"),
            (b" get z\r\n", b"END\r\n"),
            (b"get y z\r\n", b"END\r\n"),
        ],
    )
    def test_a_reply_takes_no_others_token(
        self,
        front: Carom,
        straight: Line,
        server: socket.socket,
        client: socket.socket,
        other: bytes,
        reply: bytes,
    ) -> None:
        """A read that is answered late is not as new as the next one."""
        key, id = b"t%d" % len(other + reply), _HEADER.pack(5, 0, 1, 0)
        old = id + b"VALUE %b 0 3\r\nold\r\nEND\r\n" % key
        client.send(id + b"get %b\r\n" % key)
        _, origin = server.recvfrom(100)
        client.send(id + other)
        server.recvfrom(100)
        server.sendto(id + reply, origin)
        client.recv(100)
        with UDPClient(straight.client, straight.address, self.PORT) as writer:
            number = writer.send(b"set %b 0 0 3\r\nnew\r\n" % key)
            request, writes_from = server.recvfrom(100)
            server.sendto(request[:8] + b"STORED\r\n", writes_from)
            assert writer.receive(number) == b"STORED\r\n"
        client.send(id + b"get %b\r\n" % key)
        server.recvfrom(100)
        server.sendto(old, origin)
        assert client.recv(100) == old
        client.send(id + b"get %b\r\n" % key)
        assert server.recvfrom(100)[0].endswith(b"get %b\r\n" % key), "the server is asked"

    @pytest.mark.parametrize(
        ("write", "done"), [(b"ma %b v\r\n", b"VA 1\r\n6\r\n"), (b"flush_all\r\n", b"OK\r\n")]
    )
    @pytest.mark.parametrize(
        "reply",
        [
            _HEADER.pack(5, 1, 2, 0) + b"the rest of a value\r\nEND\r\n",
            _HEADER.pack(5, 0, 1, 0) + b"VERSION 1.6.18\r\n",
            _HEADER.pack(5, 0, 1, 0) + b"END\r\n",
            _HEADER.pack(5, 0, 1, 0) + b"ERROR\r\n",
        ],
    )
    def test_a_reply_is_no_others_acknowledgement(
        self,
        front: Carom,
        straight: Line,
        server: socket.socket,
        client: socket.socket,
        write: bytes,
        done: bytes,
        reply: bytes,
    ) -> None:
        key, id = b"w%d-%d" % (len(write), len(reply)), _HEADER.pack(5, 0, 1, 0)
        client.send(id + (write % key if b"%b" in write else write))
        _, origin = server.recvfrom(100)
        server.sendto(reply, origin)
        client.recv(100)
        with UDPClient(straight.client, straight.address, self.PORT) as reader:

            def asks_the_server() -> bool:
                number = reader.send(b"get %b\r\n" % key)
                ready = readable([server, reader.socket], DEADLINE)
                if server in ready:
                    request, reads_from = server.recvfrom(100)
                    value = b"VALUE %b 0 1\r\n5\r\nEND\r\n" % key
                    server.sendto(request[:8] + value, reads_from)
                assert value_of(reader.receive(number)) == b"5"
                return server in ready

            until(lambda: not asks_the_server(), "the old value to be learned")
            server.sendto(id + done, origin)
            client.recv(100)
            assert asks_the_server()


def test_connections_that_come_while_carom_starts(straight: Line) -> None:
    """Every one is seen, whether it was there, or came by a listener that was just found."""
    port, connections, stopping = 4023, list[socket.socket](), threading.Event()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))

    def come() -> None:
        while not stopping.wait(0.002) and len(connections) < limits[1] // 2:
            connections.append(socket.create_connection((straight.address, port), DEADLINE))

    with Memcached(straight.server, port, options=("-c", str(limits[1]))), ExitStack() as stack:
        thread = threading.Thread(target=straight.client.call, args=(come,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stopping.set)
        arguments = ("-p", str(port), "--hook", "tc", "--ttl", "1h")
        front = stack.enter_context(Carom(straight.server, *arguments, command="front"))
        stopping.set()
        thread.join()
        assert connections
        for one in connections:
            one.sendall(b"set k 0 0 1\r\nx\r\n")
            assert one.recv(100) == b"STORED\r\n"
            one.close()
        assert edge(front)["write_seen"] == len(connections)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def has_maps(pid: int) -> bool:
    """Whether a carom has maps: that comes behind all looking."""
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed already
            if str(one.readlink()) == "anon_inode:bpf-map":
                return True
    return False


def test_a_server_that_begins_anew_while_carom_starts(straight: Line) -> None:
    """It is the one that is followed; nobody saw the first one end."""
    port = 4024
    with ExitStack() as stack:
        first = Memcached(straight.server, port)
        arguments = ("front", "-i", INTERFACE, "-p", str(port), "--hook", "tc")
        carom = stack.enter_context(start(straight.server, *arguments))
        stack.callback(carom.terminate)
        until(lambda: has_maps(carom.pid), "carom to have maps, and the server found")
        first.close()
        stack.enter_context(Memcached(straight.server, port))
        assert carom.stdout
        assert carom.stdout.readline().startswith("ready")
        udp = stack.enter_context(UDPClient(straight.client, straight.address, port))
        tcp = stack.enter_context(TCPClient(straight.client, straight.address, port))
        tcp.set(b"k", b"v")

        def status() -> Any:
            return control.call("status", carom.pid)

        until(lambda: len(status()["services"][0]["behind"]["sockets"]) == 2, "its sockets")
        before = status()["edge"]["learned"]

        def learned() -> bool:
            assert udp.get(b"k") == b"v"
            return bool(status()["edge"]["learned"] > before)

        until(learned, "a reply of the new one to be learned")
