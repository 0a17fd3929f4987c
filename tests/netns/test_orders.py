# SPDX-License-Identifier: Apache-2.0
"""Orders of datagrams and segments in which acknowledgements are easily missed: all void."""

from __future__ import annotations

import contextlib
import mmap
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from carom.kernel.abi import FLIGHT_SECONDS, UNREAD_SECONDS
from netns.byhand import RAW, ByHand
from netns.forge import ACK, PSH, Forge
from netns.fronted import Fake, edge, until_hit, value_reply
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient, set_of
from netns.process import DEADLINE, INTERFACE, Carom
from netns.stuck import Stuck
from prog.memcached_binary import binary

PORT, REAL = 4180, 4181
_HEADER = struct.Struct("!HHHH")


@pytest.fixture(scope="module")
def listener(straight: Line) -> Iterator[socket.socket]:
    """The fake server's TCP side."""
    with straight.server.call(lambda: socket.create_server(("0.0.0.0", PORT))) as one:
        one.settimeout(DEADLINE)
        yield one


@pytest.fixture(scope="module")
def fake(straight: Line, listener: socket.socket) -> Iterator[Fake]:
    with Fake(straight.server, PORT, "0.0.0.0") as fake:
        yield fake


class Before:
    """Connections to the real server from before carom's start, of which one waits for data."""

    def __init__(self, line: Line, stack: contextlib.ExitStack):
        self.pool = [
            stack.enter_context(TCPClient(line.client, line.address, REAL)) for _ in range(8)
        ]
        self.halfway = stack.enter_context(TCPClient(line.client, line.address, REAL))
        for one in self.pool:
            one.set(b"pool", b"old")
        self.halfway.socket.sendall(b"set half 0 0 30\r\n")
        self.in_binary = stack.enter_context(TCPClient(line.client, line.address, REAL))
        self.in_binary.ask(binary(0x0A))


@pytest.fixture(scope="module")
def before(straight: Line) -> Iterator[Before]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(Memcached(straight.server, REAL, threads=4))
        yield Before(straight, stack)


@pytest.fixture(scope="module")
def carom(straight: Line, fake: Fake, before: Before) -> Iterator[Carom]:
    with fronts(straight.server, f"memcached:{PORT}:ttl", f"memcached:{REAL}") as carom:
        yield carom


@pytest.fixture
def reader(straight: Line, carom: Carom) -> Iterator[UDPClient]:
    with UDPClient(straight.client, straight.address, PORT) as one:
        yield one


@pytest.fixture
def real_reader(straight: Line, carom: Carom) -> Iterator[UDPClient]:
    with UDPClient(straight.client, straight.address, REAL) as one:
        yield one


class OneId:
    """A client whose requests all have one id."""

    def __init__(self, line: Line):
        self.socket = line.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.settimeout(DEADLINE)
        self.socket.connect((line.address, PORT))

    def send(self, text: bytes) -> None:
        self.socket.send(_HEADER.pack(5, 0, 1, 0) + text)

    def receive(self) -> bytes:
        return self.socket.recv(65_536)[_HEADER.size :]


@pytest.fixture
def one(straight: Line, carom: Carom) -> Iterator[OneId]:
    client = OneId(straight)
    with client.socket:
        yield client


QUIET = {
    b"md q q C9\r\n": b"EX\r\n",
    b"ms q 1 q ME\r\nx\r\n": b"NS\r\n",
    b"incr q 1 \r\n": b"6\r\n",
    b"touch q 0 \r\n": b"NOT_FOUND\r\n",
}
"""What may go without a reply, and has one."""


@pytest.mark.parametrize("quiet", ["", *map(bytes.decode, QUIET)])
def test_a_quiet_ones_reply_counts_no_write_down(
    fake: Fake, reader: UDPClient, one: OneId, quiet: str
) -> None:
    key = b"counted-%d" % len(quiet)
    one.send(set_of(key, b"new"))
    write = fake.take_what_has(b"set")
    fake.learned(reader, key, b"old")
    if quiet:
        one.send(quiet.encode())
        fake.answer(fake.take_what_has(b" q "), QUIET[quiet.encode()])
        one.receive()
    one.send(set_of(b"other", b"x"))
    fake.take_what_has(b"other")
    fake.learned(reader, key, b"old")
    fake.answer(write, b"STORED\r\n")
    assert one.receive() == b"STORED\r\n"
    assert fake.is_asked(reader, key, b"new")


@pytest.mark.parametrize("write", [b"flush_all\r\n", b"ms explained 3\r\nnew\r\n"])
def test_a_query_explains_no_more_than_its_own_reply(
    fake: Fake, reader: UDPClient, one: OneId, write: bytes
) -> None:
    one.send(write)
    request = fake.take_what_has(write[:3])
    one.send(b"md q q C9\r\n")
    fake.answer(fake.take_what_has(b" q "), b"EX\r\n")
    one.receive()
    one.send(b"mg z v\r\n")
    fake.take_what_has(b"mg z")
    time.sleep(0.6)  # longer than HOLD_MS
    fake.learned(reader, b"explained", b"old")
    fake.answer(request, b"HD\r\n")
    one.receive()
    assert fake.is_asked(reader, b"explained", b"new")


def test_the_rest_of_a_reply_ends_no_doubt(fake: Fake, reader: UDPClient, one: OneId) -> None:
    one.send(b"get big\r\n")
    big = fake.take_what_has(b"big")
    fake.answer(big, b"VALUE big 0 2000\r\n" + b"x" * 1300, part=0, parts=2)
    one.receive()
    one.send(b"incr  k 1\r\n")
    write = fake.take_what_has(b"incr")
    fake.answer(big, b"x" * 700 + b"\r\nEND\r\n", part=1, parts=2)
    one.receive()
    one.send(set_of(b"other", b"x"))
    fake.take_what_has(b"other")
    fake.learned(reader, b"k", b"5")
    fake.answer(write, b"6\r\n")
    assert one.receive() == b"6\r\n"
    assert fake.is_asked(reader, b"k", b"6")


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"incr %b 1\r\n", b"6\r\n"),
        (b"incr %b 1 \r\n", b"6\r\n"),
        (b"delete %b 0 \r\n", b"DELETED\r\n"),
        (b"touch %b -1\r\n", b"TOUCHED\r\n"),
        (b"mg %b q T-1\r\n", b"HD\r\n"),
    ],
)
def test_what_is_not_taken_apart_is_acknowledged(
    fake: Fake, reader: UDPClient, one: OneId, text: bytes, reply: bytes
) -> None:
    """Another write waits, which would explain it."""
    key = b"apart-%d" % len(text)
    one.send(set_of(b"other", b"x"))
    fake.take_what_has(b"other")
    one.send(text % key)
    write = fake.take_what_has(key)
    time.sleep(0.6)
    assert fake.is_asked(reader, key, b"5")
    fake.is_asked(reader, key, b"5")  # learned, or not
    fake.answer(write, reply)
    assert one.receive() == reply
    assert fake.is_asked(reader, key, b"6")


def test_an_error_ends_its_write(
    straight: Line, carom: Carom, before: Before, real_reader: UDPClient
) -> None:
    """What is written after it, by the same id, can be kept."""

    def falls_out(number: int) -> bool:
        with UDPClient(straight.client, straight.address, REAL) as writer:
            writer.ask(set_of(b"text", b"x"))
            fallen = edge(carom)["fell_out"]
            for key in (b"text", *(b"u%d" % n for n in range(12))):
                text = b"incr text 1\r\n" if key == b"text" else set_of(key, b"x")
                writer.socket.send(_HEADER.pack(number, 0, 1, 0) + text)
                writer.socket.recv(100)
            for n in range(12):
                until_hit(carom, real_reader, b"u%d" % n, b"x")
            return edge(carom)["fell_out"] > fallen

    # A flight may share its cell with one of before.
    assert not all(falls_out(number) for number in (7, 8, 9))


@pytest.mark.parametrize("piece", [b"y\nzzz", b"yyzzz", b"END\r\n", b"yyyy\n", b"ERROR\r\n"])
def test_a_piece_of_a_reply_settles_nothing(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, piece: bytes
) -> None:
    """It looks like a whole one, to the line in doubt that came meanwhile."""
    with TCPClient(straight.client, straight.address, PORT) as writer:
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def say(text: bytes) -> None:
                server.sendall(text)
                assert writer.socket.recv(65_536) == text

            writer.socket.sendall(b"get big\r\n")
            server.recv(100)
            say(b"VALUE big 0 %d\r\n" % (1001 + 2 * len(piece)) + b"x" * 1000)
            say(piece)
            writer.socket.sendall(b"incr  tk 1\r\n")
            server.recv(100)
            say(piece)
            say(b"z\r\nEND\r\n")
            fake.learned(reader, b"tk", b"5")
            say(b"6\r\n")
            assert fake.is_asked(reader, b"tk", b"6")


@pytest.mark.parametrize("unit", [b"END\r\n", b"6\r\n\r\n", b"end.."])
def test_a_piece_of_a_real_reply_settles_nothing(
    carom: Carom, before: Before, straight: Line, real_reader: UDPClient, unit: bytes
) -> None:
    for _ in range(3):
        with (
            TCPClient(straight.client, straight.address, REAL) as tcp,
            straight.client.call(lambda: socket.socket()) as writer,
        ):
            tcp.set(b"big", unit * (1_000_000 // len(unit)))
            tcp.set(b"rk", b"5")
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            writer.settimeout(DEADLINE)
            writer.connect((straight.address, REAL))
            writer.sendall(b"get" + b" big" * 12 + b"\r\n")
            got = 0
            while got < 300_000:
                got += len(writer.recv(16_384))
            writer.sendall(b"incr  rk 1\r\n")
            while got < 700_000:
                got += len(writer.recv(16_384))
            real_reader.get(b"rk")
            reply = b""
            while not reply.endswith(b"END\r\n6\r\n"):
                reply = (reply + writer.recv(65_536))[-100:]
            assert real_reader.get(b"rk") == b"6"


@pytest.mark.parametrize("first", [b"key=a exp=-1\r\n", b"ITEM a [1 b; 0 s]\r\n", b"VA 9 t1\r\n"])
def test_a_line_of_a_longer_reply_settles_nothing(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, first: bytes
) -> None:
    """The line that ends it, then, is not taken for a write's acknowledgement."""
    key = b"behind-%d" % len(first)
    with TCPClient(straight.client, straight.address, PORT) as writer:
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def say(text: bytes) -> None:
                server.sendall(text)
                assert writer.socket.recv(65_536) == text

            writer.socket.sendall(b"lru_crawler metadump all\r\n")
            server.recv(100)
            say(first)
            writer.socket.sendall(set_of(key, b"new"))
            server.recv(100)
            say(b"END\r\n")
            fake.learned(reader, key, b"old")
            say(b"STORED\r\n")
            assert fake.is_asked(reader, key, b"new")


@contextlib.contextmanager
def both_ends(line: Line, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the client's end, and the fake server's."""
    with TCPClient(line.client, line.address, PORT) as client:
        server, _ = listener.accept()
        server.settimeout(DEADLINE)
        with server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client.socket, server


@contextlib.contextmanager
def dropping(line: Line) -> Iterator[None]:
    """The server's host sends nothing, and TCP is told so."""
    queue = ("tc", "qdisc", "replace", "dev", INTERFACE, "root", "handle", "7:", "pfifo")
    line.server.run(*queue, "limit", "0")
    try:
        yield
    finally:
        line.server.run("tc", "qdisc", "del", "dev", INTERFACE, "root")


@pytest.mark.parametrize("refusal", [b"SERVER_ERROR out of memory\r\n", b"NS\r\n", b"EX\r\n"])
def test_the_refusal_of_a_quiet_one_settles_nothing(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, refusal: bytes
) -> None:
    key = b"not-%d" % len(refusal)
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(b"ms quiet 1 q ME\r\nx\r\n")
        server.recv(100)
        writer.sendall(set_of(key, b"new"))
        server.recv(100)
        server.sendall(refusal)
        assert writer.recv(100) == refusal
        fake.learned(reader, key, b"old")
        server.sendall(b"STORED\r\n")
        assert writer.recv(100) == b"STORED\r\n"
        assert fake.is_asked(reader, key, b"new")


@pytest.mark.parametrize("more", [3, 30])
def test_many_quiet_ones_before_one_that_is_answered(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, more: int
) -> None:
    """Its reply tells that they are done, however long that took."""
    key = b"bulk-%d" % more
    names = [key, *(b"%b-%d" % (key, n) for n in range(more))]
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(b"".join(b"ms %b 3 q\r\nnew\r\n" % name for name in names) + b"mn\r\n")
        server.recv(10_000)
        time.sleep(0.6)
        assert fake.is_asked(reader, key, b"old")
        fake.is_asked(reader, key, b"old")  # learned, or not
        server.sendall(b"MN\r\n")
        assert writer.recv(100) == b"MN\r\n"
        assert fake.is_asked(reader, key, b"new")


def test_a_quiet_one_behind_what_is_answered(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient
) -> None:
    """It is not done yet when that has its reply."""
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(b"get any\r\n")
        server.recv(100)
        writer.sendall(b"set late 0 0 3 noreply\r\nnew\r\n")
        server.recv(100)
        server.sendall(b"END\r\n")
        assert writer.recv(100) == b"END\r\n"
        time.sleep(0.6)
        fake.learned(reader, b"late", b"old")
        writer.sendall(b"mn\r\n")
        server.recv(100)
        server.sendall(b"MN\r\n")
        assert writer.recv(100) == b"MN\r\n"
        assert fake.is_asked(reader, b"late", b"new")


@pytest.mark.parametrize("how", ["by the client", "in good order"])
def test_a_connection_that_ends_before_its_acknowledgement(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, how: str
) -> None:
    """The server has done what it was told when it closes its end."""
    key = b"ended-%d" % len(how)
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(set_of(key, b"new"))
        assert server.recv(100) == set_of(key, b"new")
        fake.learned(reader, key, b"old")
        if how == "by the client":
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                server.recv(100)
        server.close()
        assert fake.is_asked(reader, key, b"new")


def test_another_language(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient
) -> None:
    """As TLS: no line ever ends, and any payload may acknowledge a write."""
    with both_ends(straight, listener) as (writer, server):
        for record in (b"\x16\x03\x01\0\x20", b"\x17\x03\x03\0\x20"):
            key = b"hidden-%d" % record[0]
            writer.sendall(record + b"q" * 32)
            server.recv(100)
            time.sleep(0.6)
            fake.learned(reader, key, b"old")
            server.sendall(record + b"a" * 32)
            writer.recv(100)
            assert fake.is_asked(reader, key, b"new")


@pytest.mark.parametrize("refusal", [b"ERROR\r\n", b"CLIENT_ERROR bad command line format\r\n"])
@pytest.mark.parametrize("together", [True, False])
def test_data_that_is_taken_for_a_command(
    fake: Fake,
    listener: socket.socket,
    straight: Line,
    reader: UDPClient,
    refusal: bytes,
    together: bool,
) -> None:
    """A server that does not know `ms`, or another one, reads on behind its line."""
    key = b"spilt-%d-%d" % (len(refusal), together)
    hidden = b"delete %b\r\n" % key
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(b"ms k %d T0\r\n%b" % (len(hidden) - 2, hidden))
        server.recv(100)
        fake.learned(reader, key, b"old")
        said = refusal + b"DELETED\r\n"
        for part in (said,) if together else (refusal, b"DELETED\r\n"):
            server.sendall(part)
            writer.recv(100)
        assert fake.is_asked(reader, key, b"new")


HIDDEN = {
    "in data": (b"ms k 21 T0\r\ndelete hid-0 noreply\r\n", b"ERROR\r\n"),
    "in binary": (binary(0x01, b"k", b"\ndelete hid-1 noreply\r\n"), b"ERROR\r\n"),
}
"""Quiet writes where a server that does not know what is around them finds them."""


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_quiet_one(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient, name: str
) -> None:
    text, refusal = HIDDEN[name]
    key = b"hid-%d" % list(HIDDEN).index(name)
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(text)
        server.recv(100)
        fake.learned(reader, key, b"old")
        server.sendall(refusal)
        writer.recv(100)
        time.sleep(UNREAD_SECONDS + 5)
        assert fake.is_asked(reader, key, b"new")


def test_a_reply_that_the_servers_own_queue_drops(
    fake: Fake, listener: socket.socket, straight: Line, reader: UDPClient
) -> None:
    """TCP sends it again as if it were new; but a write that has come meanwhile is not answered."""
    key = b"dropped"
    with both_ends(straight, listener) as (writer, server):
        writer.sendall(b"get absent\r\n")
        server.recv(100)
        with dropping(straight):
            server.sendall(b"END\r\n")
            writer.sendall(set_of(key, b"new"))
            server.recv(100)
            time.sleep(1)
        assert writer.recv(100) == b"END\r\n"
        fake.learned(reader, key, b"old")
        server.sendall(b"STORED\r\n")
        assert writer.recv(100) == b"STORED\r\n"
        assert fake.is_asked(reader, key, b"new")


CWR = 0x80


@pytest.fixture
def forge(straight: Line) -> Iterator[Forge]:
    straight.server.neighbour(INTERFACE, RAW, straight.client.mac(INTERFACE))
    with Forge(straight) as forge:
        yield forge


def test_a_far_side_that_comes_twice_while_the_server_sends(
    fake: Fake, listener: socket.socket, forge: Forge, reader: UDPClient
) -> None:
    """TCP takes the first; but what comes meanwhile waits, and its numbers say nothing of it."""
    key, first = b"far-one", b"get filler\r\n"
    value = b"v" * (mmap.PAGESIZE - len(b"VALUE big 0 4000\r\n\r\nEND\r\n"))
    reply = b"VALUE big 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)
    with ByHand(forge, server=PORT) as hand, Stuck() as page:
        server, _ = listener.accept()
        server.settimeout(DEADLINE)
        with server, ThreadPoolExecutor() as threads:
            hand.say(b"get big\r\n")
            server.recv(100)
            hand.segment(b"delete far-one\r\n", hand.next + len(first))
            sending = threads.submit(server.sendall, page.memory)
            try:
                time.sleep(0.2)
                hand.segment(first)
                hand.segment(b"delete far-two\r\n", hand.next + len(first), ACK | PSH | CWR)
                time.sleep(0.2)
            finally:
                page.release(reply)
            sending.result()
            hand.next += len(first) + len(b"delete far-one\r\n")
            hand.hear(b"END\r\n")
            assert server.recv(100) == first + b"delete far-one\r\n"
            fake.learned(reader, key, b"old")
            for said in (b"END\r\n", b"DELETED\r\n"):
                server.sendall(said)
                hand.hear(said)
            assert fake.is_asked(reader, key, b"new")


ANSWERED = {
    "text": (set_of(b"KEY", b"v"), b"get KEY\r\n"),
    "meta": (b"ms KEY 1\r\nv\r\n", b"mg KEY t v\r\n"),
    "binary": (binary(0x01, b"KEY", b"v"), binary(0x00, b"KEY")),
    "noreply": (b"set KEY 0 0 1 noreply\r\nv\r\nget KEY\r\n",),
    "a quiet one": (b"ms KEY 1 q\r\nv\r\nmn\r\n",),
    "quiet in binary": (binary(0x11, b"KEY", b"v") + binary(0x0A),),
}
"""A write and a read of the same key, each of which has one reply, or one that is for both."""


@pytest.mark.parametrize("way", ANSWERED)
def test_what_is_answered_is_void_once(
    carom: Carom, before: Before, straight: Line, real_reader: UDPClient, way: str
) -> None:
    """A client that waits for each reply keeps nobody else's hits away, however much it writes."""
    name = bytes((65 + list(ANSWERED).index(way), 95))
    with TCPClient(straight.client, straight.address, REAL) as tcp:
        done = edge(carom)["write_done"]
        for _ in range(2):
            for n in range(20):
                for command in ANSWERED[way]:
                    tcp.ask(command.replace(b"KEY", name + b"%c" % (65 + n)))
        assert edge(carom)["write_done"] == done + 40
        until_hit(carom, real_reader, name + b"A", b"v")
        tcp.ask(ANSWERED[way][-1].replace(b"KEY", name + b"B"))
        before_that = carom.counters()
        assert real_reader.get(name + b"A") == b"v"
        assert carom.since(before_that)["hit"] == 1


@pytest.fixture(scope="module")
def known(carom: Carom, before: Before) -> None:
    """They have begun anew, each with a command that was answered, half a minute ago."""
    for one in before.pool[:4]:
        assert one.ask(b"get pool\r\n") == b"VALUE pool 0 3\r\nold\r\nEND\r\n"
    for one in before.pool[4:]:
        one.set(b"pool", b"old")
    before.in_binary.ask(binary(0x01, b"binary", b"first"))
    time.sleep(FLIGHT_SECONDS / 2 + 1)
    for one in before.pool:
        one.ask(b"get pool\r\n")
    before.in_binary.ask(binary(0x00, b"pool"))


def test_connections_from_before(
    carom: Carom, before: Before, known: None, real_reader: UDPClient
) -> None:
    """Then they disturb nobody."""
    until_hit(carom, real_reader, b"pool", b"old")
    lost = edge(carom)["stream_lost"]
    for n in range(20):
        for at, one in enumerate(before.pool):
            one.ask(b"get pool absent\r\n")
            one.set(b"mine-%d" % at, b"%d" % n)
        assert real_reader.get(b"pool") == b"old"
    until_hit(carom, real_reader, b"pool", b"old")
    assert edge(carom)["stream_lost"] == lost
    for at, one in enumerate(before.pool):
        one.set(b"pool", b"%d" % at)
        assert real_reader.get(b"pool") == b"%d" % at


def test_a_connection_from_before_in_binary(
    carom: Carom, before: Before, known: None, real_reader: UDPClient
) -> None:
    until_hit(carom, real_reader, b"binary", b"first")
    lost = edge(carom)["stream_lost"]
    for n in range(20):
        assert before.in_binary.ask(binary(0x00, b"pool"))[:1] == b"\x81"
        before.in_binary.ask(binary(0x01, b"binary", b"%d" % n))
        assert real_reader.get(b"binary") == b"%d" % n
    assert edge(carom)["stream_lost"] == lost


def test_a_connection_from_before_within_a_value(
    carom: Carom, before: Before, real_reader: UDPClient
) -> None:
    """What looks like a command there is data: its acknowledgement is void all the same."""
    door = before.halfway.socket
    for text in (b"get half\r\n", b"mn\r\n", b"get x\r\n"):
        door.sendall(text)
        assert real_reader.get(b"half") is None
    before.pool[0].set(b"half", b"old")
    until_hit(carom, real_reader, b"half", b"old")
    door.sendall(b"set half \r\n"[:9] + b"\r\n")
    assert door.recv(100) == b"STORED\r\n"
    assert real_reader.get(b"half") == b"get half\r\nmn\r\nget x\r\nset half "
    for value in (b"a", b"b"):
        before.halfway.set(b"half", value)
        assert real_reader.get(b"half") == value


def test_values_of_the_fake(fake: Fake, reader: UDPClient) -> None:
    """The control of all this: what nobody writes is kept."""
    fake.learned(reader, b"control", b"v")
    assert not fake.is_asked(reader, b"control", b"v")
    assert value_reply(b"control", b"v")


def test_a_flush_by_one_id_is_over_when_it_is_answered(
    carom: Carom, before: Before, straight: Line, real_reader: UDPClient
) -> None:
    """It holds nothing when other keys take its place among those that wait."""
    with UDPClient(straight.client, straight.address, REAL) as writer:
        fallen = edge(carom)["fell_out"]
        for text in (b"flush_all\r\n", *(set_of(b"f%d" % n, b"x") for n in range(12))):
            writer.socket.send(_HEADER.pack(9, 0, 1, 0) + text)
            assert writer.socket.recv(100)[_HEADER.size :] in (b"OK\r\n", b"STORED\r\n")
        for n in range(12):
            until_hit(carom, real_reader, b"f%d" % n, b"x")
        assert edge(carom)["fell_out"] == fallen
