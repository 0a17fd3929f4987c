# SPDX-License-Identifier: Apache-2.0
"""Who the server is: its own sockets are learned from, and nobody else's have any effect.

Servers and strangers are processes of their own (puppet.py). Strangers do what any user may: bind
the port elsewhere, or in namespaces of their own, and say from there what they like.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carom.daemon.sockets import bound
from carom.kernel import libbpf
from carom.kernel.abi import MARK, MarkKind
from carom.vm.namespace import Namespace
from netns import line as lines
from netns.forge import Forge, head
from netns.fronted import edge, until_hit, value_reply
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import INTERFACE, Carom, map_of, run, until
from netns.puppet import (
    NETWORK_OF_NOTHING,
    NOBODY,
    ROOT_OF_NOTHING,
    SOMEBODY,
    Puppet,
    Socket,
)
from netns.sums import looks_half_made

SECOND, LATER, ELSEWHERE = "198.18.0.3", "198.18.0.4", "198.19.7.1"
"""More addresses of the interface, from the beginning or not, and one of another interface."""

ONE, TWO, APART, EVERY, HELD, WORKERS, EARLY, AWAY, AGAIN, OTHERS, MORE, NAMES = range(4200, 4212)
"""Ports: each has a service of its own."""


def query(name: bytes, number: int) -> bytes:
    """A question of DNS."""
    labels = b"".join(bytes([len(one)]) + one for one in name.split(b"."))
    return struct.pack("!HHHHHH", number, 0, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def answer(asked: bytes, address: bytes) -> bytes:
    """Its answer: one address."""
    flags = b"\x84\0\0\1\0\1\0\0\0\0"
    return asked[:2] + flags + asked[12:] + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4" + address


class House:
    """Servers of all kinds, and one carom before them."""

    def __init__(self, line: Line, away: Namespace, stack: ExitStack):
        self.line = line
        self._stack = self._whole = stack
        line.server.address(INTERFACE, SECOND, 29)
        line.client.neighbour(INTERFACE, SECOND, line.server.mac(INTERFACE))
        line.client.neighbour(INTERFACE, LATER, line.server.mac(INTERFACE))
        for command in (
            "ip link add elsewhere type veth peer name elsewhere1",
            f"ip address add {ELSEWHERE}/24 dev elsewhere",
            "ip link set elsewhere up",
            "ip link set elsewhere1 up",
        ):
            line.server.run(*command.split())
        away.up("lo")
        one = self.puppet().udp(line.address, ONE)
        first = self.puppet()
        second = self.puppet()
        self.two = [first.udp(line.address, TWO), second.udp(SECOND, TWO)]
        both = self.puppet()
        self.apart = [both.udp(line.address, APART), both.udp(SECOND, APART)]
        every = self.puppet()
        self.every = [
            every.udp("0.0.0.0", EVERY, "reuseaddr"),
            every.udp("::", EVERY, "reuseaddr", "v6only"),
            every.udp(SECOND, EVERY, "reuseaddr"),
        ]
        self.supervisor = self.puppet(name="supervisor")
        self.held = self.supervisor.udp("0.0.0.0", HELD)
        self.supervisor.call("unix", "private-of-the-supervisor")
        self.supervisors_own = self.supervisor.tcp("0.0.0.0", 4299)
        self.kept = self.supervisor.spawn(self.held)
        self.one = one
        self.workers = self.puppet()
        self.worker = self.workers.udp("0.0.0.0", WORKERS, "reuseport")
        self.early = self.puppet()
        self.early_udp = self.early.udp("0.0.0.0", EARLY)
        self.listener = self.early.tcp("0.0.0.0", EARLY)
        self.accepted_at = [
            stack.enter_context(TCPClient(line.client, line.address, EARLY)) for _ in range(2)
        ]
        self.accepted = self.listener.accept()
        self.away = self.puppet(away).udp("0.0.0.0", AWAY)
        self.again = self.puppet()
        self.again_udp = self.again.udp("0.0.0.0", AGAIN)
        self.others = self.puppet()
        self.others.udp("0.0.0.0", OTHERS)
        self.memcached = stack.enter_context(Memcached(line.server, MORE, addresses="::,0.0.0.0"))
        self.names = self.puppet().udp(line.address, NAMES)
        services = [f"memcached:{port}:ttl" for port in range(ONE, NAMES)]
        self.carom = stack.enter_context(fronts(line.server, *services, f"dns:{NAMES}"))
        self.forge = stack.enter_context(Forge(line))

    def puppet(
        self,
        namespace: Namespace | None = None,
        prefix: tuple[str, ...] = (),
        name: str = "server",
    ) -> Puppet:
        """A process on the server's end."""
        where = namespace or self.line.server
        return self._stack.enter_context(Puppet(where, prefix, name=name))

    def lasting(self) -> Puppet:
        """One that stays for the tests to come."""
        return self._whole.enter_context(Puppet(self.line.server))

    def client(self, port: int, address: str = "") -> UDPClient:
        """A client of one of the servers."""
        made = UDPClient(self.line.client, address or self.line.address, port)
        return self._stack.enter_context(made)

    def closing(self, stack: ExitStack) -> None:
        """What is opened from here on ends with another stack."""
        self._stack = stack


@pytest.fixture(scope="module")
def whole() -> Iterator[House]:
    with lines.straight() as line, Namespace("away") as away, ExitStack() as stack:
        yield House(line, away, stack)


@pytest.fixture
def house(whole: House) -> Iterator[House]:
    """It, with what a test opens closed behind it."""
    with ExitStack() as stack:
        whole.closing(stack)
        yield whole


STRANGERS = {
    "another user, another interface's address": (NOBODY, ELSEWHERE),
    "another user, loopback": (NOBODY, "127.0.0.1"),
    "another user, another address of the interface": (NOBODY, SECOND),
    "a user namespace": (ROOT_OF_NOTHING, SECOND),
    "a network namespace of one's own": (NETWORK_OF_NOTHING, "0.0.0.0"),
    "one with the server's address": (NETWORK_OF_NOTHING, "198.18.0.2"),
    "one, over IPv6": (NETWORK_OF_NOTHING, "::"),
}


def stranger(house: House, name: str, port: int) -> Socket:
    """Somebody who has the port, somewhere, and a way to everybody."""
    prefix, address = STRANGERS[name]
    puppet = house.puppet(prefix=prefix, name="stranger")
    if "--net" in prefix:
        for command in (
            "ip link add ve0 type veth peer name ve1",
            f"ip address add {'198.19.3.1' if ':' in address else address}/24 dev ve0"
            if address != "0.0.0.0"
            else "ip address add 198.19.3.1/24 dev ve0",
            "ip link set ve0 up",
            "ip link set ve1 up",
            "ip link set lo up",
            "ip route add default dev ve0",
        ):
            puppet.call("run", *command.split())
    return puppet.udp(address, port)


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("asked", ["seen by the server", "with a wrong checksum"])
def test_a_stranger_fills_nothing(house: House, name: str, asked: str) -> None:
    """An accomplice asks for a key; a stranger answers, as from the port, and then the server."""
    key = b"%d-%b" % (list(STRANGERS).index(name), asked[:4].encode())
    evil = stranger(house, name, ONE)
    learned = edge(house.carom)["learned"]
    wrong = "wrong" if asked.startswith("with") else "right"
    house.forge.udp(head(7) + b"get %b\r\n" % key, dport=ONE, checksum=wrong)
    request = house.one.take() if wrong == "right" else None
    host = house.line.client_address
    if name == "one, over IPv6":
        host = f"::ffff:{host}"
    for _ in range(3):
        with contextlib.suppress(OSError):  # not from loopback
            evil.send(head(7) + value_reply(key, b"evil"), host, 40_000)
    if request:
        house.one.answer(request, value_reply(key, b"right"))
    victim = house.client(ONE)
    if not house.one.is_asked(victim, key, b"right"):
        assert request, "the kernel answers what the server was never asked"
    assert edge(house.carom)["learned"] == learned + 1


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_voids_nothing(house: House, name: str) -> None:
    """Whatever he says to himself, at his port."""
    victim = house.client(ONE)
    house.one.learned(victim, b"kept", b"v")
    noise = stranger(house, name, ONE)
    to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(STRANGERS[name][1], STRANGERS[name][1])
    other = noise.puppet.udp(to, ONE + 1000)
    for text in (
        b"x\r\n",
        b"flush_all\r\n",
        b"set kept 0 0 1\r\nx\r\n",
        b"\x80",
        b"a\r\nb\r\n",
    ) * 4:
        other.send(head(1) + text, to, ONE)
        found = noise.take()
        noise.send(head(1) + b"STORED\r\n", found.host, found.port)
        other.take()
        assert not house.one.is_asked(victim, b"kept", b"v")
    noise.close()
    assert not house.one.is_asked(victim, b"kept", b"v"), "nor his socket's end"


@pytest.mark.parametrize("flag", ["reuseport", "reuseaddr"])
def test_a_hijacker_gets_in_nowhere(house: House, flag: str) -> None:
    """The kernel keeps other users from a port, unless the server itself allows it."""
    with pytest.raises(OSError) as refused:
        house.puppet(prefix=NOBODY).udp(house.line.address, ONE, flag)
    assert refused.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError):
        house.puppet(prefix=NOBODY).udp("0.0.0.0", WORKERS, flag)


def test_a_hijacker_whom_the_server_lets_in(house: House) -> None:
    """SO_REUSEADDR at a server's socket lets any user have its port: he answers for himself."""
    client = house.client(EVERY)
    house.every[0].learned(client, b"ours", b"v")
    thief = house.puppet(prefix=NOBODY, name="stranger").udp("0.0.0.0", EVERY, "reuseaddr")
    learned = edge(house.carom)["learned"]
    for key in (b"first", b"second", b"first", b"second"):
        assert thief.is_asked(client, key, b"stolen"), "it is not kept"
    assert edge(house.carom)["learned"] == learned
    thief.close()
    house.every[0].learned(client, b"first", b"right")


def test_names_are_not_poisoned(house: House) -> None:
    """The same with DNS: by a user's own namespaces, and by another address."""
    for number, name in enumerate(STRANGERS):
        evil = stranger(house, name, NAMES)
        asked = query(b"www%d.example.org" % number, 7)
        house.forge.udp(asked, dport=NAMES, sport=40_001)
        while (request := house.names.take()).data != asked:
            pass  # carom itself asks about cookies, now and then
        host = house.line.client_address
        host = f"::ffff:{host}" if name == "one, over IPv6" else host
        with contextlib.suppress(OSError):  # not from loopback
            evil.send(answer(asked, b"\xc6\x12\x42\x42"), host, 40_001)
        house.names.send(answer(request.data, b"\xc6\x12\1\1"), request.host, request.port)
        victim = house.client(NAMES)
        before = house.carom.counters()
        queries = (query(b"www%d.example.org" % number, id) for id in itertools.count(99))
        victim.socket.send(next(q for q in queries if not looks_half_made(victim.socket, q)))
        assert victim.socket.recv(600)[-4:] == b"\xc6\x12\1\1"
        assert house.carom.since(before).get("hit") == 1
        evil.close()


@pytest.mark.parametrize("port", [TWO, APART], ids=["two processes", "one process"])
def test_each_address_answers_for_itself(house: House, port: int) -> None:
    sockets = house.two if port == TWO else house.apart
    clients = [house.client(port, address) for address in (house.line.address, SECOND)]
    for key in (b"k", b"l"):
        for one, client, value in zip(sockets, clients, (b"from A", b"from B"), strict=True):
            assert one.is_asked(client, key, value), "the other's answer is not given"
            assert not one.is_asked(client, key, value)
    number = clients[0].send(b"set k 0 0 3\r\nnew\r\n")
    sockets[0].answer(sockets[0].take(), b"STORED\r\n")
    assert clients[0].receive(number) == b"STORED\r\n"
    assert sockets[0].is_asked(clients[0], b"k", b"new")


def test_one_for_each_ip_and_one_for_an_address(house: House) -> None:
    """0.0.0.0 and :: and an address: whoever gets the question is learned from for it alone."""
    addresses = (house.line.address, house.line.address6, SECOND)
    clients = [house.client(EVERY, address) for address in addresses]
    for number, (one, client) in enumerate(zip(house.every, clients, strict=True)):
        value = b"from %d" % number
        assert one.is_asked(client, b"mine", value)
        assert not one.is_asked(client, b"mine", value)


def test_where_nobody_listens_nobody_answers(house: House) -> None:
    """A server of one address is not answered for at others, old or new."""
    house.one.learned(house.client(ONE), b"secret", b"v")
    house.line.server.address(INTERFACE, LATER, 29)
    for address in (SECOND, LATER):
        other = house.client(ONE, address)
        with pytest.raises(ConnectionRefusedError):
            other.ask(b"get secret\r\n")
    house.line.server.run("ip", "address", "del", f"{LATER}/29", "dev", INTERFACE)


def test_a_supervisor_is_no_server(house: House) -> None:
    """It holds the socket that its child answers at, and has others of its own."""
    client = house.client(HELD)
    one = house.kept.passed()
    one.learned(client, b"k", b"v")
    stranger = house.puppet(name="stranger").connect("127.0.0.1", 4299)
    private = house.supervisors_own.accept()
    for text in (b"set k 0 0 1\r\nx\r\n", b"nonsense\r\n", b"flush_all\r\n"):
        stranger.send(text)
        private.take()
        private.send(b"OK\r\n")
        stranger.take()
        assert not one.is_asked(client, b"k", b"v"), "its own port is watched"
    house.supervisor.udp("0.0.0.0", 4298)
    assert not one.is_asked(client, b"k", b"v")


def test_its_child_begun_anew(house: House) -> None:
    """The socket stays, and so do those who serve there: what was cached is void by and by."""
    client = house.client(HELD)
    house.kept.kill()
    child = house.supervisor.spawn(house.held)
    one = child.passed()
    one.learned(client, b"anew", b"v")
    number = client.send(b"set anew 0 0 3\r\nnew\r\n")
    one.answer(one.take(), b"STORED\r\n")
    client.receive(number)
    assert one.is_asked(client, b"anew", b"new")


def test_workers_that_come_later(house: House) -> None:
    """Of the same user: what is written by them is void at once, and they are learned from."""
    clients = [house.client(WORKERS) for _ in range(60)]
    for client in clients:
        house.worker.learned(client, b"k", b"v")
    late = [
        house.workers.udp("0.0.0.0", WORKERS, "reuseport"),
        house.puppet().udp("0.0.0.0", WORKERS, "reuseport"),
    ]

    def by_late(client: UDPClient, text: bytes, reply: bytes) -> Socket | None:
        """Which of them was asked, if any: the client has its reply."""
        number, sockets = client.send(text), [house.worker, *late]
        while True:
            for one in sockets:
                if found := one.ready(0.0):
                    one.answer(found, reply)
                    assert client.receive(number) == reply
                    return one

    before = edge(house.carom)
    seen = {by_late(client, b"set k 0 0 3\r\nnew\r\n", b"STORED\r\n") for client in clients[:45]}
    assert seen >= set(late), "no client of theirs"
    after = edge(house.carom)
    assert after["write_seen"] == before["write_seen"] + 45, "all are seen at once"

    def all_hits() -> bool:
        hits = house.carom.counters()["hit"]
        for client in clients:
            number = client.send(b"get late\r\n")
            for one in (house.worker, *late):
                if found := one.ready(0.005):
                    one.answer(found, value_reply(b"late", b"v"))
            client.receive(number)
        return house.carom.counters()["hit"] - hits == len(clients)

    until(all_hits, "hits, whoever answered first")
    for one in late:
        one.close()


@pytest.mark.parametrize("which", ["accepted before", "in the queue", "begun behind"])
def test_connections_from_before(house: House, which: str) -> None:
    """What is written by them is void, whenever they were accepted."""
    client = house.client(EARLY)
    key = which.replace(" ", "-").encode()
    with ExitStack() as stack:
        if which == "accepted before":
            writer, served = house.accepted_at[0], house.accepted
        else:
            if which == "in the queue":
                writer = house.accepted_at[1]
            else:
                writer = TCPClient(house.line.client, house.line.address, EARLY)
                stack.enter_context(writer)
            served = house.listener.accept()
        for _ in range(2):
            house.early_udp.learned(client, key, b"old")
            writer.socket.sendall(b"set %b 0 0 3\r\nnew\r\n" % key)
            served.take()
            house.early_udp.learned(client, key, b"old")
            served.send(b"STORED\r\n")
            assert writer.socket.recv(100) == b"STORED\r\n"
            assert house.early_udp.is_asked(client, key, b"old")


def test_a_server_of_another_namespace(house: House) -> None:
    """It is learned from there: whoever has its port here is nobody."""
    # No way leads to it in this test, so its own reply is all that there is to be seen.
    learned = edge(house.carom)["learned"]
    client = house.away.puppet.udp("127.0.0.1", 4290)
    client.send(head(3) + b"get k\r\n", "127.0.0.1", AWAY)
    house.away.answer(house.away.take(), value_reply(b"k", b"v"))
    client.take()
    assert edge(house.carom)["learned"] == learned + 1
    for name in ("another user, loopback", "a network namespace of one's own"):
        evil = stranger(house, name, AWAY)
        client.send(head(4) + b"get l\r\n", "127.0.0.1", AWAY)
        request = house.away.take()
        evil.send(head(4) + value_reply(b"l", b"evil"), "127.0.0.1", 4290)
        house.away.answer(request, b"END\r\n")
        client.take()
        evil.close()
    assert edge(house.carom)["learned"] == learned + 1


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_server_that_is_gone(house: House, end: str) -> None:
    """Nothing is answered for it from that moment on; its successor begins with nothing."""
    client, key = house.client(AGAIN), end.encode()
    house.again_udp.learned(client, key, b"old")
    if end == "closed":
        house.again_udp.close()
    else:
        house.again.kill()
    with pytest.raises(ConnectionRefusedError):
        client.ask(b"get %b\r\n" % key)
    if end == "killed":
        house.again = house.lasting()
    house.again_udp = house.again.udp("0.0.0.0", AGAIN)
    assert house.again_udp.is_asked(client, key, b"new")
    house.again_udp.learned(client, key, b"new")


def test_sockets_that_are_lost_one_by_one(house: House) -> None:
    """A look may find the server half gone: its successor is read from the first byte."""
    writes = b"set k 0 0 1\r\nv\r\n"
    listener = house.again.tcp("0.0.0.0", AGAIN)
    time.sleep(0.3)  # for carom to look
    listener.close()
    time.sleep(0.3)
    house.again.kill()
    house.again = house.lasting()
    before = edge(house.carom)
    listener = house.again.tcp("0.0.0.0", AGAIN)
    with TCPClient(house.line.client, house.line.address, AGAIN) as client:
        client.socket.sendall(writes)
        until(lambda: edge(house.carom)["write_seen"] > before["write_seen"], "it to be read")
    assert edge(house.carom)["stream_lost"] == before["stream_lost"]
    listener.close()
    house.again_udp = house.again.udp("0.0.0.0", AGAIN)


def test_a_successor_of_another_user(house: House) -> None:
    """Who has the port when the server is gone is not the server."""
    client = house.client(OTHERS)
    house.others.kill()
    thief = house.puppet(prefix=SOMEBODY, name="stranger").udp("0.0.0.0", OTHERS)
    learned = edge(house.carom)["learned"]
    for _ in range(3):
        assert thief.is_asked(client, b"k", b"stolen")
    time.sleep(0.2)  # for carom to look
    assert thief.is_asked(client, b"k", b"stolen")
    assert edge(house.carom)["learned"] == learned
    thief.close()
    again = house.puppet().udp("0.0.0.0", OTHERS)
    again.learned(client, b"k", b"right")


def test_a_successor_that_is_another_services_server(house: House) -> None:
    """What is written through the one would have to be void for both: only the first is fronted."""
    first, second = house.client(AGAIN), house.client(EARLY)
    house.early.kill()
    both = house.again.udp("0.0.0.0", EARLY)
    learned = edge(house.carom)["learned"]
    until(lambda: "carom fronts already" in house.carom.stderr(), "its word")
    for _ in range(3):
        assert both.is_asked(second, b"k", b"asked for")
    assert edge(house.carom)["learned"] == learned
    house.again_udp.learned(first, b"first", b"old")
    number = second.send(b"set first 0 0 3\r\nnew\r\n")
    both.answer(both.take(), b"STORED\r\n")
    assert second.receive(number) == b"STORED\r\n"
    assert house.again_udp.is_asked(first, b"first", b"new")
    both.close()
    again = house.lasting().udp("0.0.0.0", EARLY)
    again.learned(second, b"k", b"right")


def test_doors_that_a_server_opens_later(house: House) -> None:
    """Ports that it binds while it runs: what is written there is void, from the first command."""
    client = house.client(AGAIN)
    for flavour in ("udp", "tcp"):
        key = flavour.encode()
        house.again_udp.learned(client, key, b"old")
        if flavour == "udp":
            door = house.again.udp("0.0.0.0", 4291)
            writer = house.client(4291)
            number = writer.send(b"set %b 0 0 3\r\nnew\r\n" % key)
            request = door.take()
            door.answer(request, b"STORED\r\n")
            assert writer.receive(number) == b"STORED\r\n"
        else:
            door = house.again.tcp("0.0.0.0", 4292)
            with TCPClient(house.line.client, house.line.address, 4292) as tcp:
                served = door.accept()
                tcp.socket.sendall(b"set %b 0 0 3\r\nnew\r\n" % key)
                served.take()
                served.send(b"STORED\r\n")
                assert tcp.socket.recv(100) == b"STORED\r\n"
        assert house.again_udp.is_asked(client, key, b"new")


def test_taken_for_a_door_at_first(house: House) -> None:
    """A socket may be bound between two glances of one look. The next look puts it right."""
    client, pid = house.client(AGAIN), house.carom.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        house.again_udp.close()
        house.again_udp = house.again.udp("0.0.0.0", AGAIN)
        held = bound(Path(f"/proc/{house.again.pid}"), stream=False)
        (cookie,) = (one.cookie for one in held if one.port == AGAIN)
        with os.fdopen(map_of(pid, 8, MARK.size)) as marked:
            mark = MARK.pack(AGAIN - ONE, 0, MarkKind.DOOR)
            libbpf.update(marked.fileno(), struct.pack("=Q", cookie), mark)
        assert house.again_udp.is_asked(client, b"early", b"v"), "that brings the mark to it"
    finally:
        os.kill(pid, signal.SIGCONT)
    house.again_udp.learned(client, b"early", b"v")


@pytest.mark.parametrize("how", ["ended", "killed"])
@pytest.mark.parametrize("more", ["", ",0.0.0.0:4293"], ids=["as before", "with more ports"])
def test_memcached_begun_anew(house: House, how: str, more: str) -> None:
    """It is empty, and may listen at more ports: what is set by any is not hidden by what was."""
    line, client = house.line, house.client(MORE)
    with TCPClient(line.client, line.address, MORE) as tcp:
        tcp.set(b"k", b"old")
        until_hit(house.carom, client, b"k", b"old")
        if how == "ended":
            house.memcached.close()
        else:
            house.memcached.process.kill()
            house.memcached.process.wait()
    house.memcached = Memcached(line.server, MORE, addresses="::,0.0.0.0" + more)
    assert client.get(b"k") is None
    with TCPClient(line.client, line.address, 4293 if more else MORE) as tcp:
        for value in (b"by tcp", b"and again"):
            tcp.set(b"k", value)
            until_hit(house.carom, client, b"k", value)
    if more:
        with UDPClient(line.client, line.address, 4293) as udp:
            for value in (b"by udp", b"again by udp"):
                assert udp.ask(b"set k 0 0 %d\r\n%b\r\n" % (len(value), value)) == b"STORED\r\n"
                until_hit(house.carom, client, b"k", value)


def test_memcached_begun_anew_and_written_to_at_once(house: House) -> None:
    """By the port that nobody knows of yet, before anybody has looked."""
    line, client = house.line, house.client(MORE)
    for round in range(3):
        port, key = 4294 + round, b"at once %d" % round
        key = key.replace(b" ", b"-")
        house.memcached.close()
        house.memcached = Memcached(line.server, MORE, addresses=f"::,0.0.0.0,0.0.0.0:{port}")
        with TCPClient(line.client, line.address, port) as tcp:
            for number in range(20):
                tcp.set(key, b"%d" % number)
                assert client.get(key) == b"%d" % number


class TestRefused:
    """At the start: what is not to be told apart is not learned from."""

    @staticmethod
    def front(line: Line, port: int, *arguments: str) -> tuple[int, str]:
        ended = run(line.server, "front", "-i", INTERFACE, "-p", str(port), *arguments)
        assert "Traceback" not in ended.stderr
        return ended.code, ended.stderr

    def test_several_users(self, house: House) -> None:
        house.puppet().udp(house.line.address, 4280)
        house.puppet(prefix=NOBODY).udp(SECOND, 4280)
        code, said = self.front(house.line, 4280)
        assert code == 1
        assert "several servers hold UDP port 4280" in said
        assert "--bind" in said

    def test_several_users_of_one_address(self, house: House) -> None:
        house.puppet().udp("0.0.0.0", 4281, "reuseaddr")
        house.puppet(prefix=NOBODY).udp("0.0.0.0", 4281, "reuseaddr")
        code, said = self.front(house.line, 4281, "--bind", house.line.address)
        assert code == 1
        assert "several servers" in said

    @pytest.mark.parametrize("prefix", [NETWORK_OF_NOTHING], ids=["of a user's own"])
    def test_a_namespace_that_is_not_ours(self, house: House, prefix: tuple[str, ...]) -> None:
        house.puppet(prefix=prefix).udp("0.0.0.0", 4282)
        code, said = self.front(house.line, 4282)
        assert code == 1
        assert "no process of this host listens on UDP port 4282" in said

    def test_several_addresses_in_another_namespace(self, house: House) -> None:
        with Namespace("apart") as apart:
            apart.up("lo")
            server = house.puppet(apart)
            for address in ("127.0.0.1", "127.0.0.2"):
                server.udp(address, 4287)
            code, said = self.front(house.line, 4287)
            assert code == 1
            assert "127.0.0.1:4287, 127.0.0.2:4287" in said
            assert "in another network namespace" in said

    def test_where_no_request_comes(self, house: House) -> None:
        house.puppet().udp("127.0.0.1", 4283)
        code, said = self.front(house.line, 4283)
        assert code == 1
        assert "127.0.0.1:4283" in said
        assert f"bind it to an address of the interface: {house.line.address}" in said

    def test_at_another_interface(self, house: House) -> None:
        """By its address, or by its device: that is named, and is the way."""
        house.puppet().udp(ELSEWHERE, 4273)
        house.puppet().udp("0.0.0.0", 4274, "on elsewhere")
        for port, words in (
            (4273, "-i elsewhere, which has its address"),
            (4274, "-i elsewhere, the device that it is bound to"),
        ):
            code, said = self.front(house.line, port)
            assert code == 1
            assert f"which no request by {INTERFACE} reaches" in said
            assert words in said
            assert "VRF" not in said
            arguments = ("-p", str(port))
            with Carom(
                house.line.server, *arguments, command="front", interface="elsewhere"
            ) as carom:
                (reach,) = carom.status()["services"][0]["reach"]
                assert reach["answered"]

    def test_memcached_on_a_unix_socket(self, house: House, tmp_path: Path) -> None:
        """It has UDP by -U alone; of DNS nothing of that is said."""
        path = tmp_path / "socket"
        argv = ("memcached", "-u", "root", "-s", str(path))
        with subprocess.Popen(house.line.server.argv(argv)) as process:
            try:
                until(path.exists, "memcached to listen")
                code, said = self.front(house.line, 4275)
            finally:
                process.kill()
        assert code == 1
        assert "a memcached with -U 4275" in said
        code, said = self.front(house.line, 4275, "--protocol", "dns")
        assert code == 1
        assert "memcached" not in said

    def test_where_none_comes_in_another_namespace(self, house: House) -> None:
        with Namespace("apart") as apart:
            apart.up("lo")
            house.puppet(apart).udp("127.0.0.1", 4288)
            code, said = self.front(house.line, 4288)
            assert code == 1
            assert "127.0.0.1:4288" in said
            assert "nothing from outside reaches" in said

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_over_tcp_alone(self, house: House, elsewhere: bool) -> None:
        """As memcached is without -U, here and in a container."""
        with Namespace("apart") as apart:
            house.puppet(apart if elsewhere else None).tcp("0.0.0.0", 4289)
            code, said = self.front(house.line, 4289)
            assert code == 1
            assert "no process of this host listens on UDP port 4289, and over TCP alone" in said
            assert "-U 4289" in said

    def test_one_that_only_keeps_a_socket(self, house: House) -> None:
        """A supervisor whose server has not begun: what it has is not known for the server's."""
        keeper = house.puppet(name="supervisor")
        keeper.udp("0.0.0.0", 4284)
        keeper.call("unix", "of-a-keeper")
        code, said = self.front(house.line, 4284)
        assert code == 1
        assert "@of-a-keeper" in said or "of-a-keeper" in said
        assert "start that first" in said

    def test_two_ports_of_one_server(self, house: House) -> None:
        with Memcached(house.line.server, 4285, addresses="0.0.0.0,0.0.0.0:4286"):
            services = ("memcached:4285", "memcached:4286")
            with pytest.raises(AssertionError, match="get ready") as failed:
                fronts(house.line.server, *services)
        assert "4286" in str(failed.value)
        assert "carom fronts already" in str(failed.value)
        assert "Traceback" not in str(failed.value)
