# SPDX-License-Identifier: Apache-2.0
"""`carom front` before a real memcached: what is learned, what never is, and nothing stale."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from scapy.layers.inet import IP, UDP

from carom.kernel import libbpf
from carom.kernel.abi import USAGE
from carom.kernel.waiting import readable
from carom.protocols.memcached import HEADER
from carom.vm.netns import SERVER_IPV6
from netns import line as lines
from netns.fronted import edge, hits_of, until_hit
from netns.line import Line
from netns.memcache import PORT, Memcached, TCPClient, UDPClient, value_of, values_of
from netns.process import ARRAY_MAP, DEADLINE, INTERFACE, Carom, map_of, run, until
from prog import memcached_binary
from prog.memcached_binary import binary

SECONDS = 3.0
"""Of the torture test."""


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, memcached: Memcached) -> Iterator[Carom]:
    """memcached, fronted at either hook."""
    arguments = ("--hook", request.param, "--bind", "::", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.mark.parametrize("size", [0, 1, 20, 64, 400, 600, 940])
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


def test_several_keys(front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient) -> None:
    """They are answered by the kernel, in one datagram, while it knows them all."""
    values = {b"several-%d" % n: os.urandom(40 * n) for n in range(5)}
    for key, value in values.items():
        tcp.set(key, value)
        until_hit(front, udp, key, value)
    text = b"get %b\r\n" % b" ".join(values)
    before = front.counters()
    assert values_of(udp.ask(text)) == values
    assert front.since(before)["hit"] == 1
    tcp.set(b"several-2", b"new")
    before = front.counters()
    with UDPClient(straight.client, straight.address) as other:
        other.send(text)
        reply = b""
        while not reply.endswith(b"END\r\n"):  # memcached 1.6 sends a datagram for each value
            reply += other.socket.recv(65_536)[HEADER.size :]
    assert values_of(reply) == values | {b"several-2": b"new"}
    assert front.since(before).get("hit", 0) == 0


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
    key = f"w-{name}-{over}".encode()  # of its own: gat's is not filled for a minute
    command, expected = WRITES[name][0].replace(b" w", b" " + key), WRITES[name][1]
    tcp.set(key, b"100")
    until_hit(front, udp, key, b"100")
    asked = (udp if over == "udp" else tcp).ask(command)
    assert not asked.startswith((b"ERROR", b"CLIENT_ERROR")), asked
    before = front.counters()
    with UDPClient(straight.client, straight.address) as other:
        assert other.get(key) == expected
    assert front.since(before).get("hit", 0) == 0


def answers_to(tcp: TCPClient, end: bytes, count: int) -> bytes:
    """What comes back until so many replies have ended."""
    got = b""
    while got.count(end) < count:
        received = tcp.socket.recv(65_536)
        assert received, got
        got += received
    return got


def binary_replies(tcp: TCPClient, count: int) -> list[bytes]:
    """The next replies in binary, each with its body; no other may follow at once."""
    got, replies = b"", list[bytes]()
    while len(replies) < count:
        received = tcp.socket.recv(65_536)
        assert received, got
        got += received
        while len(got) >= memcached_binary.HEADER.size:
            magic, *_, body, _, _ = memcached_binary.HEADER.unpack_from(got)
            assert magic == 0x81, got
            size = memcached_binary.HEADER.size + body
            if len(got) < size:
                break
            replies.append(got[:size])
            got = got[size:]
    assert not got and len(replies) == count
    return replies


class TestStream:
    """TCP connections: the keys that they write are void, and others are not."""

    OTHERS = (b"other", b"another")
    """One of them might share its slot with a key that a test writes."""

    @pytest.fixture(autouse=True)
    def one_cpu(self, memcached: Memcached) -> Iterator[None]:
        with memcached.on_one_cpu():
            yield

    @pytest.fixture
    def written(self) -> bytes:
        """The key that a test writes; its own, where it leaves the key held for half a minute."""
        return b"written"

    @pytest.fixture
    def fresh(
        self, front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient, written: bytes
    ) -> Iterator[TCPClient]:
        """A connection that began under carom's eyes, beside keys that another one wrote."""
        for key in (written, *self.OTHERS):
            tcp.set(key, b"old")
        for key in (written, *self.OTHERS):
            until_hit(front, udp, key, b"old")
        with TCPClient(straight.client, straight.address) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client

    @pytest.fixture
    def one_key(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> Iterator[None]:
        """The test changes the one key, and sees that; another stays a hit."""
        seen = edge(front)
        yield
        after = edge(front)
        voids = ("write_all_seen", "stream_lost", "busy")
        assert {name: after[name] - seen[name] for name in voids} == dict.fromkeys(voids, 0)
        before = front.counters()
        for key in self.OTHERS:
            assert udp.get(key) == b"old"
        changed = front.since(before)  # a fill of before may be counted only now
        assert changed.get("hit", 0) >= 1
        assert not changed.keys() - {"hit", "miss", "miss_void", "fills"}

    @pytest.mark.usefixtures("one_key")
    @pytest.mark.parametrize("size", [1, 100, 600])
    def test_one_segment(self, udp: UDPClient, fresh: TCPClient, size: int) -> None:
        fresh.set(b"written", b"x" * size)
        assert udp.get(b"written") == b"x" * size
        assert fresh.ask(b"get a b c\r\n") == b"END\r\n"

    @pytest.mark.usefixtures("one_key")
    @pytest.mark.parametrize("piece", [700, 9_000, 100_100])
    def test_a_value_of_many_segments(
        self, udp: UDPClient, tcp: TCPClient, fresh: TCPClient, piece: int
    ) -> None:
        """Its bytes are full of commands, which nobody is to take for such."""
        value = (b"\r\nflush_all\r\nset other 0 0 1\r\n" * 4000)[:100_000]
        command = b"set written 0 0 100000\r\n" + value + b"\r\n"
        for at in range(0, len(command), piece):
            fresh.socket.sendall(command[at : at + piece])
        assert answers_to(fresh, b"\r\n", 1) == b"STORED\r\n"
        assert udp.socket.send(struct.pack("!HHHH", 0, 0, 1, 0) + b"get written\r\n")
        number, _, parts, _ = struct.unpack_from("!HHHH", first := udp.socket.recv(65_536))
        assert (number, parts > 1, first[8:31]) == (0, True, b"VALUE written 0 100000\r")
        for _ in range(parts - 1):
            udp.socket.recv(65_536)
        fresh.set(b"written", b"new")
        assert udp.get(b"written") == b"new"

    @pytest.mark.usefixtures("one_key")
    @pytest.mark.parametrize("cut", [2, 8, 19, 20, 21, 24, 25])
    def test_a_command_in_two_parts(self, udp: UDPClient, fresh: TCPClient, cut: int) -> None:
        command = b"set written 0 0 3\r\nnew\r\n"
        assert len(command) == 24
        command += b"delete written-too\r\n"
        fresh.socket.sendall(command[:cut])
        fresh.socket.sendall(command[cut:])
        answers_to(fresh, b"\r\n", 2)
        assert udp.get(b"written") == b"new"

    @pytest.mark.usefixtures("one_key", "fresh")
    def test_hop_by_hop_options(self, straight: Line, udp: UDPClient) -> None:
        with TCPClient(straight.client, SERVER_IPV6, options=True) as optional:
            optional.set(b"written", b"new")
            assert udp.get(b"written") == b"new"

    @pytest.mark.usefixtures("one_key")
    def test_a_part_that_looks_like_a_read(self, udp: UDPClient, fresh: TCPClient) -> None:
        fresh.socket.sendall(b"set written 0 0 12\r\nnew")
        fresh.socket.sendall(b"\r\nget b\r\n\r\n")
        assert answers_to(fresh, b"\r\n", 1) == b"STORED\r\n"
        assert udp.get(b"written") == b"new\r\nget b\r\n"

    @pytest.mark.usefixtures("one_key")
    @pytest.mark.parametrize("written", [b"one-of-ten"])
    def test_ten_at_once(self, udp: UDPClient, fresh: TCPClient, written: bytes) -> None:
        """Again and again: all of them are answered in between."""
        for n in range(10):
            keys = [written, *(b"ten%d" % n for n in range(9))]
            text = b"".join(b"set %b 0 0 3\r\nn%02d\r\n" % (key, n) for key in keys)
            fresh.socket.sendall(text)
            assert answers_to(fresh, b"\r\n", 10) == b"STORED\r\n" * 10
            for key in keys:
                assert udp.get(key) == b"n%02d" % n

    @pytest.mark.usefixtures("one_key")
    def test_gets_at_once(self, udp: UDPClient, fresh: TCPClient) -> None:
        """Reads want no account, however many there are, and writes among them are seen."""
        for n in range(5):
            gets = b"get other\r\n" * 60
            fresh.socket.sendall(gets + b"set written 0 0 1\r\n%d\r\n" % n + gets)
            assert answers_to(fresh, b"END\r\n", 120).count(b"STORED\r\n") == 1
            assert udp.get(b"written") == b"%d" % n

    @pytest.mark.usefixtures("one_key")
    def test_writes_without_acknowledgement(self, udp: UDPClient, fresh: TCPClient) -> None:
        for n in range(40):
            fresh.socket.sendall(b"set quiet 0 0 2 noreply\r\n%02d\r\n" % n)
        fresh.set(b"written", b"new")
        assert udp.get(b"quiet") == b"39"

    @pytest.mark.parametrize("count", [17, 40])
    @pytest.mark.parametrize("sends", [1, 40])
    def test_many_at_once(
        self, front: Carom, udp: UDPClient, fresh: TCPClient, count: int, sends: int
    ) -> None:
        """More than a connection has cells for: what falls out is held, and no other key."""
        keys = [*(b"many%d" % n for n in range(count - 1)), b"written"]
        commands = [b"set %b 0 0 3\r\nnew\r\n" % key for key in keys]
        lost = edge(front)["stream_lost"]
        for send in [b"".join(commands)] if sends == 1 else commands:
            fresh.socket.sendall(send)
        assert answers_to(fresh, b"\r\n", count) == b"STORED\r\n" * count
        for key in keys:
            assert udp.get(key) == b"new"
        assert edge(front)["stream_lost"] == lost
        for key in self.OTHERS:
            until_hit(front, udp, key, b"old")
        lost = edge(front)["stream_lost"]
        fresh.set(b"written", b"newer")
        assert udp.get(b"written") == b"newer"
        assert any(hits_of(front, udp, key, b"old", 1) for key in self.OTHERS)
        assert edge(front)["stream_lost"] == lost

    def test_too_many_for_one_segment(
        self, front: Carom, udp: UDPClient, fresh: TCPClient, memcached: Memcached
    ) -> None:
        lost = edge(front)["stream_lost"]
        memcached.stop()
        try:
            fresh.socket.sendall(b"mn\r\n" * 2000 + b"set written 0 0 3\r\nnew\r\n")
            until(lambda: edge(front)["stream_lost"] > lost, "the stream to be lost")
        finally:
            memcached.go_on()
        assert answers_to(fresh, b"\r\n", 2001).endswith(b"STORED\r\n")
        assert udp.get(b"written") == b"new"
        assert edge(front)["stream_lost"] > lost
        until_hit(front, udp, b"written", b"new")
        fresh.set(b"written", b"newer")
        assert udp.get(b"written") == b"newer"

    def test_a_flush(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        lost = edge(front)["stream_lost"]
        assert fresh.ask(b"flush_all\r\n") == b"OK\r\n"
        assert udp.get(b"other") is None
        assert edge(front)["stream_lost"] == lost, "it is understood"

    def test_in_binary(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        """Each write voids its key alone, with what else the connection is used for around it."""
        lost = edge(front)["stream_lost"]
        for value in (b"new", b"newer"):
            requests = [binary(0x00, b"other"), binary(0x01, b"written", value), binary(0x0A)]
            fresh.socket.sendall(b"".join(requests))
            assert [reply[1] for reply in binary_replies(fresh, 3)] == [0x00, 0x01, 0x0A]
            assert udp.get(b"written") == value
            until_hit(front, udp, b"written", value)
            before = front.counters()
            assert udp.get(b"other") == b"old"
            assert front.since(before).get("hit") == 1, "void with another's write"
        assert edge(front)["stream_lost"] == lost

    @pytest.mark.parametrize("written", [b"one-of-many"])
    def test_many_in_binary(
        self, front: Carom, udp: UDPClient, fresh: TCPClient, written: bytes
    ) -> None:
        """As many as a connection has cells for, and more: no other key is void."""
        for count in (16, 16, 40):
            lost = edge(front)["stream_lost"]
            value, keys = b"%d" % count, [*(b"many%d" % n for n in range(count - 1)), written]
            fresh.socket.sendall(b"".join(binary(0x01, key, value) for key in keys))
            assert {reply[1] for reply in binary_replies(fresh, count)} == {0x01}
            for key in keys:
                assert udp.get(key) == value
            assert edge(front)["stream_lost"] == lost
        until_hit(front, udp, b"other", b"old")

    def test_quiet_in_binary(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        """Nothing tells when it is done: a key that was written so is not filled for a while."""
        fresh.socket.sendall(binary(0x11, b"written", b"quiet") + binary(0x0A))
        assert [reply[1] for reply in binary_replies(fresh, 1)] == [0x0A]
        assert udp.get(b"written") == b"quiet"
        before = front.counters()
        assert udp.get(b"written") == b"quiet"
        assert front.since(before).get("hit") is None

    def test_a_flush_in_binary(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        lost = edge(front)["stream_lost"]
        fresh.socket.sendall(binary(0x08))
        binary_replies(fresh, 1)
        assert udp.get(b"other") is None
        assert edge(front)["stream_lost"] == lost, "it is understood"

    def test_text_where_binary_is_shown(self, own_line: Line) -> None:
        """A server that was told to speak text only finds commands in what looks like a value."""
        with (
            Memcached(own_line.server, options=("-B", "ascii")),
            Carom(own_line.server, "--hook", "tc", command="front") as front,
            UDPClient(own_line.client, own_line.address) as udp,
            TCPClient(own_line.client, own_line.address) as tcp,
        ):
            for value in (b"old", b"new"):
                tcp.set(b"hidden", b"old")
                until_hit(front, udp, b"hidden", b"old")
                hidden = b"\r\nset hidden 0 0 3\r\n%b\r\n" % value
                with TCPClient(own_line.client, own_line.address) as writer:
                    writer.socket.sendall(binary(0x01, b"k", hidden))
                    answers_to(writer, b"STORED\r\n", 1)
                assert udp.get(b"hidden") == value

    def test_unknown_in_binary(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        """memcached loses its place behind such a request: all that passes is void from then on."""
        lost = edge(front)["stream_lost"]
        fresh.socket.sendall(binary(0x1B, extras=4))
        until(lambda: edge(front)["stream_lost"] > lost, "the stream to be lost")
        lost = edge(front)["stream_lost"]
        fresh.socket.sendall(binary(0x0A))
        until(lambda: edge(front)["stream_lost"] > lost, "what passes to be void")

    def test_an_urgent_byte(self, front: Carom, udp: UDPClient, fresh: TCPClient) -> None:
        """The server does not see it, so what it reads is not what was sent."""
        fresh.socket.sendall(b"set writt")
        fresh.socket.send(b"X", socket.MSG_OOB)
        fresh.socket.sendall(b"en 0 0 3\r\nnew\r\n")
        assert answers_to(fresh, b"\r\n", 1) == b"STORED\r\n"
        assert udp.get(b"written") == b"new"

    def test_a_connection_from_before(self, own_line: Line) -> None:
        """What was said on it before carom came is not known, so anything on it may be a write."""
        with (
            Memcached(own_line.server),
            TCPClient(own_line.client, own_line.address) as old,
            UDPClient(own_line.client, own_line.address) as udp,
        ):
            old.socket.sendall(b"set before 0 0 13\r\nold\r\nget x")
            with Carom(own_line.server, "--hook", "tc", command="front") as front:
                lost = edge(front)["stream_lost"]
                assert old.ask(b"old\r\n") == b"STORED\r\n"
                assert edge(front)["stream_lost"] >= lost + 2, "the rest and its reply"
                until_hit(front, udp, b"before", b"old\r\nget xold")
                lost = edge(front)["stream_lost"]
                old.set(b"before", b"new")
                assert udp.get(b"before") == b"new"
                assert edge(front)["stream_lost"] >= lost + 2

    def test_a_port_used_again(self, front: Carom, straight: Line, udp: UDPClient) -> None:
        """A new connection from it is a new one, whatever became of the last."""
        port = 0
        for last in (b"unheard of\r\n", b"get x\r\n", b""):
            lost = edge(front)["stream_lost"]
            with TCPClient(straight.client, straight.address, port=PORT, source=port) as client:
                port = client.socket.getsockname()[1]
                client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                client.set(b"again", b"value " + last)
                assert udp.get(b"again") == b"value " + last
                assert edge(front)["stream_lost"] == lost
                if last:
                    client.ask(last)


DIALECTS: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    "text": (lambda key: b"set %b 0 0 3\r\nnew\r\n" % key, b"STORED\r\n"),
    "binary": (lambda key: binary(0x01, key, b"new"), b"\x81" + binary(0x01)[1:24]),
}
"""What makes a value new, and what the server says of it."""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_acknowledgements_one_by_one(straight: Line, dialect: str) -> None:
    """Answered slowly, and by parts: a value is old until its own acknowledgement has left."""
    port, (set_of, stored) = 4003, DIALECTS[dialect]
    keys = [b"key%02d" % n for n in range(32)]
    sets = [set_of(key) for key in keys]
    with (
        straight.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        straight.server.call(lambda: socket.create_server(("0.0.0.0", port))) as listener,
        UDPClient(straight.client, straight.address, port) as reader,
        ExitStack() as stack,
    ):
        server.bind(("0.0.0.0", port))
        arguments = ("-p", str(port), "--hook", "tc")
        stack.enter_context(Carom(straight.server, *arguments, command="front"))
        writer = stack.enter_context(TCPClient(straight.client, straight.address, port))
        accepted = stack.enter_context(listener.accept()[0])
        writer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def write(texts: list[bytes]) -> None:
            writer.socket.sendall(text := b"".join(texts))
            assert len(accepted.recv(len(text), socket.MSG_WAITALL)) == len(text)

        def acknowledge(count: int) -> None:
            accepted.sendall(stored * count)
            answers_to(writer, stored, count)

        def asks_the_server(key: bytes) -> bool:
            """Ask for a key; the server says old, if it is asked."""
            number = reader.send(b"get %b\r\n" % key)
            asked = server in readable([server, reader.socket], DEADLINE)
            if asked:
                request, origin = server.recvfrom(100)
                server.sendto(request[:8] + b"VALUE %b 0 3\r\nold\r\nEND\r\n" % key, origin)
            assert value_of(reader.receive(number)) == b"old"
            return asked

        until(lambda: not asks_the_server(keys[0]), "an old value to be learned")
        write(sets[:16])
        assert asks_the_server(keys[0]), "void when the write comes, too"
        for n in (0, 15):
            until(lambda n=n: not asks_the_server(keys[n]), "an old value to be learned")
        acknowledge(1)
        assert asks_the_server(keys[0]) and asks_the_server(keys[15])
        write(sets[16:])
        assert all(asks_the_server(keys[1]) for _ in range(3)), "it fell out, and is held"
        acknowledge(30)
        assert asks_the_server(keys[1])
        acknowledge(1)
        assert asks_the_server(keys[31])


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


def test_a_get_by_another_way_is_learned_from(
    front: Carom, straight: Line, udp: UDPClient, tcp: TCPClient
) -> None:
    """Tokens are taken at the server's socket, whichever way a request came to it."""
    keys = (b"local-%d" % n for n in itertools.count())

    def first_is_a_hit() -> bool:
        """What is learned may have to wait until the server has said how long it lives."""
        key = next(keys)
        tcp.set(key, b"x")
        with UDPClient(straight.server, "127.0.0.1") as local:
            assert local.get(key) == b"x"
        return hits_of(front, udp, key, b"x", 1) == 1

    until(first_is_a_hit, "a hit without a miss before it")


def test_a_reply_that_nobody_asked_for_is_not_learned(straight: Line) -> None:
    """The server itself sends it, to one who has asked for nothing, or whom it has answered."""
    port, reply = 4004, b"VALUE k 0 1\r\nx\r\nEND\r\n"
    with (
        straight.server.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        UDPClient(straight.client, straight.address, port) as udp,
    ):
        server.settimeout(DEADLINE)
        server.bind(("0.0.0.0", port))
        with Carom(straight.server, "-p", str(port), "--hook", "tc", command="front") as front:
            number = udp.send(b"get absent\r\n")
            request, origin = server.recvfrom(100)
            server.sendto(request[:8] + b"END\r\n", origin)
            assert udp.receive(number) == b"END\r\n"
            before = edge(front)
            for head in (request[:8], bytes((255, 255, 0, 0, 0, 1, 0, 0))):
                server.sendto(head + reply, origin)
                udp.socket.recv(100)
            after = edge(front)
            assert (after["learned"], after["unasked"]) == (0, before["unasked"] + 2)


def test_a_full_cache_learns_what_was_missed_before(straight: Line) -> None:
    port, keys = 4003, [b"one-of-many-%d" % n for n in range(300)]
    arguments = ("-p", str(port), "--hook", "tc", "--ttl", "1h", "--capacity", "64")
    with (
        Memcached(straight.server, port),
        Carom(straight.server, *arguments, command="front") as front,
        UDPClient(straight.client, straight.address, port) as udp,
    ):
        for key in (*keys, b"new"):
            assert udp.ask(b"set %b 0 0 5\r\nvalue\r\n" % key) == b"STORED\r\n"
        assert hits_of(front, udp, keys[0], b"value", 2) == 1, "there is room at first"
        for key in keys[1:]:
            assert udp.get(key) == b"value"
        before = edge(front)
        assert before["learned"] <= 64
        assert before["learned"] + before["not_admitted"] == len(keys)
        assert front.status()["cache"]["not_admitted"] == before["not_admitted"]
        assert hits_of(front, udp, b"new", b"value", 4) == 2
        after = edge(front)
        changed = {name: after[name] - before[name] for name in ("learned", "not_admitted")}
        assert changed == {"learned": 1, "not_admitted": 1}
        assert new_entries(front) == before["learned"], "one that was missed before is not new"


def new_entries(front: Carom) -> int:
    """How many entries the store has had that would make room first."""
    usage = map_of(front.pid, 4, USAGE.size, kind=ARRAY_MAP, entries=1)
    try:
        value = libbpf.lookup(usage, bytes(4), USAGE.size)
    finally:
        os.close(usage)
    assert value
    return int(USAGE.unpack(value)[2])


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
                number += 1
                value = b"%d" % number
                sets = (b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value) for key in keys)
                tcp.socket.sendall(b"".join(sets))
                answers_to(tcp, b"\r\n", len(keys))
                acknowledged.update(dict.fromkeys(keys, number))
                time.sleep(0.01)  # or no value lives long enough to be learned

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


def test_a_second_port_of_the_server(own_line: Line) -> None:
    """It is watched too, over TCP and UDP: whoever writes there voids."""
    where = "::,0.0.0.0,0.0.0.0:11212"
    with (
        Memcached(own_line.server, addresses=where),
        Carom(own_line.server, "--ttl", "1h", command="front") as carom,
        UDPClient(own_line.client, own_line.address) as udp,
        TCPClient(own_line.client, own_line.address) as first,
        TCPClient(own_line.client, own_line.address, 11212) as tcp,
        UDPClient(own_line.client, own_line.address, 11212) as other,
    ):
        first.set(b"k", b"old")
        until_hit(carom, udp, b"k", b"old")
        tcp.set(b"k", b"by tcp")
        until_hit(carom, udp, b"k", b"by tcp")
        assert other.ask(b"set k 0 0 6\r\nby udp\r\n") == b"STORED\r\n"
        until_hit(carom, udp, b"k", b"by udp")


ON_ITS_WAY = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], int(sys.argv[2])))
there, here = socket.socketpair()
socket.send_fds(there, [b"x"], [udp.fileno()])
udp.close()
print("ready", flush=True)
sys.stdin.read()
"""

WORKERS = """
import os, socket, sys, time
def bound():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    udp.bind(("0.0.0.0", int(sys.argv[1])))
    return udp
first, parent = bound(), os.getpid()
if not os.fork():
    print("ready", flush=True)
    while os.getppid() == parent:
        worker = os.fork()
        if not worker:
            own = bound()
            time.sleep(0.003)
            os._exit(0)
        os.waitpid(worker, 0)
    os._exit(0)
sys.stdin.read()
"""


def test_workers_that_come_and_go(straight: Line) -> None:
    """Sockets are closed while they are looked at: the server is found, and followed."""
    with straight.server.popen([sys.executable, "-c", WORKERS, "4007"]) as server:
        assert server.stdin
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        try:
            arguments = ("-p", "4007", "--protocol", "dns", "--hook", "tc")
            with Carom(straight.server, *arguments, command="front") as front:
                until(lambda: edge(front)["bound"] > 200, "many workers")
                assert "could not be followed" not in front.stderr()
        finally:
            server.stdin.close()


STRANGER = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 11211))
print("ready", flush=True)
for line in sys.stdin:
    host, port, reply = line.split()
    udp.sendto(bytes.fromhex(reply), (host, int(port)))
    print("sent", flush=True)
"""


def test_a_server_of_another_namespace(own_line: Line) -> None:
    """One with the same addresses and port, that replies to what it was not asked, is not learned
    from: its namespace does not hold the service."""
    line = own_line
    with (
        Memcached(line.server) as memcached,
        Carom(line.server, "--ttl", "1h", command="front") as carom,
        TCPClient(line.client, line.address) as tcp,
        UDPClient(line.client, line.address) as udp,
        lines.straight() as other,
    ):
        stranger = other.server.popen([sys.executable, "-c", STRANGER, other.address])
        assert stranger.stdin
        assert stranger.stdout
        assert stranger.stdout.readline() == "ready\n"
        tcp.set(b"k", b"right")
        memcached.stop()
        number = udp.send(b"get k\r\n")
        until(lambda: carom.counters()["miss"] == 1, "a token to be left")
        reply = struct.pack("!HHHH", number, 0, 1, 0) + b"VALUE k 0 5\r\nwrong\r\nEND\r\n"
        host, port = udp.socket.getsockname()
        stranger.stdin.write(f"{host} {port} {reply.hex()}\n")
        stranger.stdin.flush()
        assert stranger.stdout.readline() == "sent\n"
        assert carom.status()["edge"]["learned"] == 0
        memcached.go_on()
        assert value_of(udp.receive(number)) == b"right"
        until_hit(carom, udp, b"k", b"right")
        stranger.stdin.close()
        stranger.wait()


class TestRefused:
    """What cannot be fronted says why."""

    @pytest.mark.parametrize("protocol", ["raw", "kv"])
    def test_protocols_whose_replies_name_nothing(self, straight: Line, protocol: str) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "-p", "4000", "--protocol", protocol)
        assert ended.code == 2
        assert "name" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_a_part_of_a_second(self, straight: Line) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "--ttl", "1500ms")
        assert ended.code == 2
        assert "ttl 1.5 is not whole seconds" in ended.stderr

    def test_no_server(self, straight: Line) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "-p", "4000")
        assert ended.code == 1
        assert "no process of this host listens on UDP port 4000" in ended.stderr

    @pytest.mark.parametrize("address", ["", "127.0.0.9"])
    def test_a_socket_that_nobody_holds(self, straight: Line, address: str) -> None:
        """Of the server, or of a stranger, where nothing from outside reaches it."""
        with ExitStack() as stack:
            if address:
                addresses = f"127.0.0.1,{straight.address}"
                stack.enter_context(Memcached(straight.server, 4008, addresses=addresses))
            server = stack.enter_context(
                straight.server.popen(
                    [sys.executable, "-c", ON_ITS_WAY, address or straight.address, "4008"]
                )
            )
            assert server.stdout
            assert server.stdin
            stack.callback(server.stdin.close)
            assert server.stdout.readline() == "ready\n"
            where = ("-p", "4008", "--hook", "tc")
            if not address:
                ended = run(straight.server, "front", "-i", INTERFACE, *where)
                assert ended.code == 1
                assert "no process is seen to hold the socket on UDP port 4008" in ended.stderr
                assert "--writes-elsewhere ttl" in ended.stderr
                where = (*where, "--writes-elsewhere", "ttl")
            with Carom(straight.server, *where, command="front"):
                pass

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
            with (  # its namespace has no part in our service
                lines.straight() as other,
                Memcached(other.server, 4001),
                Carom(other.server, *where, command="front"),
            ):
                pass
        finally:
            server.stdin.close()
            server.wait()
