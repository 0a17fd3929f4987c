# SPDX-License-Identifier: Apache-2.0
"""Clients that send hundreds of commands at once: none of their writes stays unseen, and who only
reads takes nobody's hits away."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from netns.fronted import edge, until_hit
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient, set_of
from netns.process import Carom
from prog.memcached_binary import binary

PORT = 4190
MORE_THAN_ARE_READ = 134
"""Commands of a segment, if they are no short reads."""


@pytest.fixture(scope="module")
def memcached(straight: Line) -> Iterator[Memcached]:
    with Memcached(straight.server, PORT, threads=4, options=("-m", "512")) as one:
        yield one


@pytest.fixture(scope="module")
def carom(straight: Line, memcached: Memcached) -> Iterator[Carom]:
    with fronts(straight.server, f"memcached:{PORT}:ttl") as carom:
        with TCPClient(straight.client, straight.address, PORT) as tcp:
            tcp.set(b"big", b"v" * 1_000_000)
            tcp.set(b"small", b"v")
        yield carom


@pytest.fixture
def reader(straight: Line, carom: Carom) -> Iterator[UDPClient]:
    with UDPClient(straight.client, straight.address, PORT) as one:
        yield one


@pytest.fixture
def other(straight: Line, carom: Carom) -> Iterator[TCPClient]:
    with TCPClient(straight.client, straight.address, PORT) as one:
        yield one


@pytest.fixture
def tcp(straight: Line, carom: Carom) -> Iterator[TCPClient]:
    """The client whose commands are many."""
    with TCPClient(straight.client, straight.address, PORT) as one:
        yield one


def drain(tcp: TCPClient, end: bytes) -> bytes:
    """Take all that the server says, up to this; the last of it."""
    tail = b""
    while not tail.endswith(end):
        some = tcp.socket.recv(1 << 20)
        assert some, tail
        tail = (tail + some)[-2000:]
    return tail


@pytest.fixture
def one_cpu(memcached: Memcached) -> Iterator[None]:
    with memcached.on_one_cpu():
        yield


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.parametrize(
    "reads",
    [
        b"get small\r\n" * 1500 + b"mn\r\n",
        b"mg small v\r\n" * 1500 + b"mn\r\n",
        binary(0x0D, b"small") * 1500 + binary(0x0A),
    ],
    ids=["get", "meta", "binary"],
)
def test_who_only_reads(
    carom: Carom, reader: UDPClient, other: TCPClient, tcp: TCPClient, reads: bytes
) -> None:
    """Before the tests of lost connections, the last of which voids some seconds later."""
    other.set(b"shared", b"v")
    until_hit(carom, reader, b"shared", b"v")
    lost, counters = edge(carom)["stream_lost"], carom.counters()
    end = binary(0x0A)[1:8] if reads[:1] == b"\x80" else b"MN\r\n"
    for _ in range(20):
        tcp.socket.sendall(reads)
        tail = b""
        while end not in tail[-24:]:
            tail = (tail + tcp.socket.recv(1 << 20))[-100:]
        assert reader.get(b"shared") == b"v"
    assert edge(carom)["stream_lost"] == lost
    assert carom.since(counters)["hit"] == 20


@pytest.mark.parametrize(
    ("write", "said"),
    [(b"incr %b 1\r\n", b"6\r\n"), (b"ms %b 1\r\n6\r\n", b"HD\r\n"), (b"", b"STORED\r\n")],
    ids=["incr", "meta", "set"],
)
def test_behind_what_is_read(
    carom: Carom,
    memcached: Memcached,
    reader: UDPClient,
    other: TCPClient,
    tcp: TCPClient,
    write: bytes,
    said: bytes,
) -> None:
    """Its connection begins anew with the next command; replies to former reads bear it out."""
    key = b"behind-" + said[:2].strip()
    other.set(key, b"5")
    memcached.stop()
    reads = b"get big\r\n" * 40 + b"verbosity 1\r\n" * MORE_THAN_ARE_READ
    tcp.socket.sendall(reads + (write % key if write else set_of(key, b"6")))
    time.sleep(0.2)
    tcp.socket.sendall(b"get last\r\n")
    time.sleep(0.2)
    memcached.go_on()
    time.sleep(11)  # what cannot be read voids once more
    until_hit(carom, reader, key, b"5")
    drain(tcp, said + b"END\r\n")
    assert reader.get(key) == b"6"


def test_behind_what_is_read_in_binary(
    carom: Carom, memcached: Memcached, reader: UDPClient, other: TCPClient, tcp: TCPClient
) -> None:
    other.set(b"behind", b"5")
    memcached.stop()
    reads = binary(0x00, b"big") * 40 + binary(0x0A) * MORE_THAN_ARE_READ
    tcp.socket.sendall(reads + binary(0x01, b"behind", b"6"))
    time.sleep(0.2)
    tcp.socket.sendall(binary(0x00, b"none"))
    time.sleep(0.2)
    memcached.go_on()
    time.sleep(11)
    until_hit(carom, reader, b"behind", b"5")
    drain(tcp, b"Not found")
    assert reader.get(b"behind") == b"6"


@pytest.mark.parametrize("behind", ["sets", "quiet sets"])
@pytest.mark.parametrize("before", [b"", set_of(b"first", b"1") + b"get none\r\n" * 19])
@pytest.mark.parametrize("kind", ["set", "flush"])
def test_what_falls_out_of_the_last_writes(
    carom: Carom,
    reader: UDPClient,
    other: TCPClient,
    tcp: TCPClient,
    kind: str,
    before: bytes,
    behind: str,
) -> None:
    """It is acknowledged when nothing is left of it: whatever came before and behind."""
    key = b"-".join((kind.encode(), behind[:5].strip().encode(), before[4:9])).strip(b"-")
    other.set(key, b"old")
    other.set(b"big", b"v" * 1_000_000)
    option = b" noreply" if behind == "quiet sets" else b""
    sets = [b"set %d 0 0 1%b\r\n1\r\n" % (n, option) for n in range(31)]
    write = set_of(key, b"new") if kind == "set" else b"flush_all\r\n"
    tcp.socket.sendall(before + b"get big\r\n" * 20 + write + b"".join(sets[:13]))
    time.sleep(0.5)
    tcp.socket.sendall(b"".join(sets[13:]) + b"get last\r\n")
    time.sleep(1.5)
    for _ in range(3):
        assert reader.get(key) == b"old"
    drain(tcp, b"END\r\n" if option else b"STORED\r\nEND\r\n")
    while tcp.ask(b"mn\r\n") != b"MN\r\n":
        pass  # that END was of a former get
    assert reader.get(key) == (b"new" if kind == "set" else None)


def test_a_refusal_and_a_number(
    carom: Carom, reader: UDPClient, other: TCPClient, tcp: TCPClient
) -> None:
    """Of as many bytes as two refusals."""
    other.set(b"number", b"12345")
    tcp.ask(b" bogus\r\n")  # such a line voids at once, but once in ten seconds
    until_hit(carom, reader, b"number", b"12345")
    assert tcp.ask(b" bogus\r\nincr number 1\r\n") == b"ERROR\r\n12346\r\n"
    assert reader.get(b"number") == b"12346"


def test_before_a_long_reply(
    carom: Carom, reader: UDPClient, other: TCPClient, tcp: TCPClient
) -> None:
    """On a lost connection, however often its client has only read."""
    other.set(b"before", b"old")
    other.set(b"middle", b"v" * 600)
    for _ in range(13):
        tcp.socket.sendall(b" x\r\nget middle\r\n")
        drain(tcp, b"END\r\n")
    until_hit(carom, reader, b"before", b"old")
    tcp.socket.sendall(b" x\r\n" + set_of(b"before", b"new") + b"get middle\r\n")
    assert drain(tcp, b"END\r\n").startswith(b"ERROR\r\nSTORED\r\nVALUE middle")
    assert reader.get(b"before") == b"new"
