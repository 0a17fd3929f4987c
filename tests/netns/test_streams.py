# SPDX-License-Identifier: Apache-2.0
"""TCP connections to a memcached: what is written by them, and what strangers may send to them.

TCP itself says what of a stream the server has. So no segment of no connection, no wrong number and
no flood voids anything; and whatever order segments come in, what was acknowledged is what is read.

Tests that see that nothing is void come first: what cannot be read voids once more when
UNREAD_SECONDS are over.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from netns import line as lines
from netns.byhand import RAW, ByHand
from netns.forge import ACK, FIN, PSH, RST, SYN, URG, Forge
from netns.fronted import edge, hits_of, until_hit
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import PORT, Memcached, TCPClient, UDPClient, set_of, value_of
from netns.process import INTERFACE, Carom
from prog.memcached_binary import binary

NOBODY = "198.18.0.5"
"""An address of the client's link that no host has: strangers'."""

SPARED = b"spared"
"""A second key that nobody writes: the first might share its slot with one that a test does."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with lines.straight() as line:
        line.server.neighbour(INTERFACE, RAW, line.client.mac(INTERFACE))
        yield line


@pytest.fixture(scope="module")
def memcached(line: Line) -> Iterator[Memcached]:
    with Memcached(line.server) as memcached:
        yield memcached


@pytest.fixture(scope="module")
def front(line: Line, memcached: Memcached) -> Iterator[Carom]:
    with fronts(line.server, f"memcached:{PORT}:ttl") as carom:
        yield carom


@pytest.fixture
def forge(line: Line) -> Iterator[Forge]:
    with Forge(line) as forge:
        yield forge


@pytest.fixture
def udp(line: Line, front: Carom) -> Iterator[UDPClient]:
    with UDPClient(line.client, line.address) as client:
        yield client


@pytest.fixture
def tcp(line: Line, front: Carom) -> Iterator[TCPClient]:
    with TCPClient(line.client, line.address) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


@pytest.fixture
def kept(line: Line, front: Carom, udp: UDPClient) -> bytes:
    """A key that the kernel answers for, and nobody writes from now on."""
    with TCPClient(line.client, line.address) as tcp:
        for key in (b"kept", SPARED):
            tcp.set(key, b"v")
    for key in (b"kept", SPARED):
        until_hit(front, udp, key, b"v")
    return b"kept"


@pytest.fixture
def hand(forge: Forge, front: Carom) -> Iterator[ByHand]:
    with ByHand(forge) as hand:
        yield hand


def undisturbed(front: Carom, udp: UDPClient, kept: bytes, lost: int) -> None:
    """Nothing is void, and no stream was lost since there were `lost`."""
    assert 3 in [hits_of(front, udp, key, b"v") for key in (kept, SPARED)]
    assert edge(front)["stream_lost"] == lost


SEGMENTS: dict[str, tuple[bytes, int]] = {
    "data": (b"x", PSH | ACK),
    "a write": (set_of(b"kept", b"evil"), PSH | ACK),
    "data and an end": (b"flush_all\r\n", FIN | PSH | ACK),
    "data without a flag": (b"x", 0),
    "urgent": (b"x", URG | ACK),
    "a reset": (b"x", RST),
    "a beginning with data": (b"x\r\n", SYN),
    "everything": (b"x", 0x3F),
    "nothing": (b"", ACK),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_of_no_connection(
    front: Carom, udp: UDPClient, forge: Forge, kept: bytes, name: str
) -> None:
    data, flags = SEGMENTS[name]
    lost = edge(front)["stream_lost"]
    chance = random.Random(name)
    for number in range(200):
        forge.tcp(
            data,
            source=NOBODY,
            sport=33_000 + number,
            sequence=chance.getrandbits(32),
            acknowledged=1,
            flags=flags,
        )
    undisturbed(front, udp, kept, lost)


@pytest.mark.parametrize("flags", [PSH | ACK, ACK, URG | ACK, FIN | ACK, RST | ACK, SYN, 0])
def test_a_live_connection_with_any_number(
    front: Carom, udp: UDPClient, hand: ByHand, kept: bytes, flags: int
) -> None:
    """Somebody who sees nothing of a connection but knows that it is there.

    The numbers are none that TCP might take (WINDOW_MAX in cgroup/stream.h).
    """
    hand.say(b"get x\r\n")
    hand.hear(b"END\r\n")
    lost, chance, near = edge(front)["stream_lost"], random.Random(flags), 1 << 26
    for _ in range(500):
        number = hand.next + chance.randrange(near + 1500, 2**32 - near - 1500)
        acknowledged = chance.getrandbits(32)
        hand.segment(set_of(b"kept", b"evil"), number, flags, acknowledged=acknowledged)
    undisturbed(front, udp, kept, lost)
    hand.say(set_of(b"other", b"x"))
    hand.hear(b"STORED\r\n")
    undisturbed(front, udp, kept, lost)


def test_old_and_early_segments(front: Carom, udp: UDPClient, hand: ByHand, kept: bytes) -> None:
    """Duplicates of all kinds, keepalives, what is far ahead, and impossible acknowledgements."""
    lost = edge(front)["stream_lost"]
    text = set_of(b"mine", b"x")
    begun = hand.next
    hand.say(text)
    hand.hear(b"STORED\r\n")
    hand.segment(text, begun)
    hand.segment(text[3:], begun + 3)
    hand.segment(text[:5], begun)
    hand.segment(b"y" * len(text), begun)
    hand.segment(b"\0", hand.next - 1)
    hand.segment(b"", hand.next - 1)
    hand.segment(b"evil", begun - 20_000)
    hand.segment(set_of(b"kept", b"evil"), hand.next + 200_000)
    for theirs in (hand.theirs + 50_000_000, hand.theirs - 50_000_000):
        hand.segment(b"set kept", acknowledged=theirs)
        hand.segment(b"evil", hand.next - 2, acknowledged=theirs)
        hand.segment(b"", flags=URG | ACK, urgent=3, acknowledged=theirs)
    undisturbed(front, udp, kept, lost)
    hand.say(set_of(b"mine", b"y"))
    hand.hear(b"STORED\r\n")
    assert udp.get(b"mine") == b"y"
    undisturbed(front, udp, kept, lost)


@pytest.fixture
def losing(line: Line) -> Iterator[Callable[[int], None]]:
    """Drop one in so many TCP packets that come to the server."""
    try:
        line.server.run("nft", "add table inet lossy")
    except Exception as error:
        pytest.skip(f"nftables is not here: {error}")
    line.server.run("nft", "add chain inet lossy in { type filter hook prerouting priority -300; }")

    def lose(one_in: int) -> None:
        line.server.run(
            "nft", f"add rule inet lossy in tcp dport {PORT} numgen random mod {one_in} == 0 drop"
        )

    yield lose
    line.server.run("nft", "delete table inet lossy")


def test_many_connections_at_once(line: Line, front: Carom, udp: UDPClient, kept: bytes) -> None:
    """Each has a state of its own, for as long as it lives."""
    lost = edge(front)["stream_lost"]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TCPClient(line.client, line.address)) for _ in range(300)]
        for client in clients:
            client.socket.sendall(b"set many 0 0 3\r\n")
        for number, client in enumerate(clients):
            client.socket.sendall(b"%03d\r\n" % number)
            assert client.socket.recv(100) == b"STORED\r\n"
            if number % 20 == 0:
                assert udp.get(b"many") == b"%03d" % number
    undisturbed(front, udp, kept, lost)


@pytest.mark.parametrize("data", [b"", b"get x\r\n", set_of(b"kept", b"evil")])
def test_floods_of_beginnings(
    long_form: bool,
    front: Carom,
    udp: UDPClient,
    tcp: TCPClient,
    forge: Forge,
    kept: bytes,
    data: bytes,
) -> None:
    """SYNs from everywhere, and data behind each: what lives is not disturbed."""
    with TCPClient(forge.line.client, forge.line.address) as before:
        before.ask(b"get x\r\n")
        lost = edge(front)["stream_lost"]
        for number in range(40_000 if long_form else 4_000):
            source = f"198.18.{1 + number // 250 % 200}.{1 + number % 250}"
            sport = 1024 + number % 60_000
            forge.tcp(b"", source=source, sport=sport, sequence=number, flags=SYN)
            if data:
                forge.tcp(data, source=source, sport=sport, sequence=number + 1, acknowledged=1)
        for one in (before, tcp):
            one.ask(b"get x\r\n")
            one.set(b"other", b"x")
            undisturbed(front, udp, kept, lost)


@pytest.mark.parametrize("one_in", [20, 6])
def test_one_request_at_a_time_under_loss(
    line: Line,
    front: Carom,
    udp: UDPClient,
    kept: bytes,
    losing: Callable[[int], None],
    one_in: int,
) -> None:
    """What TCP sends again is read once, and the connection is understood on and on."""
    with TCPClient(line.client, line.address) as tcp:
        losing(one_in)
        lost = edge(front)["stream_lost"]
        for number in range(80):
            tcp.set(b"lossy", b"%d" % number)
            assert udp.get(b"lossy") == b"%d" % number
        undisturbed(front, udp, kept, lost)


def test_a_long_segment_with_a_wrong_checksum(
    front: Carom, udp: UDPClient, hand: ByHand, kept: bytes
) -> None:
    """Exactly in place: whoever sends that has an eye on the wire. Nothing stale comes of it."""
    hand.segment(set_of(b"z", b"x" * 200), wrong=True)
    time.sleep(0.05)
    for value in (b"one", b"two"):
        hand.say(set_of(b"kept", value))
        hand.hear(b"STORED\r\n")
        assert udp.get(b"kept") == value


SPLITS: dict[str, Callable[[ByHand, bytes], None]] = {}
"""Ways in which one text may come: each sends all of it, somehow."""


def split(function: Callable[[ByHand, bytes], None]) -> Callable[[ByHand, bytes], None]:
    SPLITS[function.__name__] = function
    return function


@split
def in_order(hand: ByHand, text: bytes) -> None:
    hand.say(text)


@split
def byte_by_byte(hand: ByHand, text: bytes) -> None:
    for n in range(len(text)):
        hand.say(text[n : n + 1])


@split
def halves_the_wrong_way_round(hand: ByHand, text: bytes) -> None:
    half = len(text) // 2
    hand.segment(text[half:], hand.next + half)
    hand.segment(text[:half])
    hand.next += len(text)


@split
def backwards(hand: ByHand, text: bytes) -> None:
    for n in reversed(range(0, len(text), 7)):
        hand.segment(text[n : n + 7], hand.next + n)
    hand.next += len(text)


@split
def overlapping(hand: ByHand, text: bytes) -> None:
    for n in range(0, len(text), 5):
        hand.segment(text[n : n + 12], hand.next + n)
    hand.next += len(text)


@split
def shuffled(hand: ByHand, text: bytes) -> None:
    parts = list(range(0, len(text), 4))
    random.Random(len(text)).shuffle(parts)
    for n in parts:
        hand.segment(text[n : n + 9], hand.next + n)
    hand.next += len(text)


@split
def another_text_first(hand: ByHand, text: bytes) -> None:
    """A hole's far side comes twice, with other bytes: TCP takes the first."""
    half = len(text) // 2
    hand.segment(text[half:], hand.next + half)
    hand.segment(b"get " + b"z" * (len(text) - half - 6) + b"\r\n", hand.next + half)
    hand.segment(text[:half])
    hand.next += len(text)


@split
def a_lie_and_then_the_truth(hand: ByHand, text: bytes) -> None:
    """A segment that TCP refuses, for it acknowledges too much, and then what it takes."""
    theirs, hand.theirs = hand.theirs, hand.theirs + 5_000_000
    hand.segment(b"get " + b"z" * (len(text) - 6) + b"\r\n")
    hand.theirs = theirs
    hand.say(text)


@split
def with_an_end(hand: ByHand, text: bytes) -> None:
    hand.segment(text, flags=FIN | PSH | ACK)
    hand.next += len(text) + 1


@split
def retransmitted(hand: ByHand, text: bytes) -> None:
    hand.segment(text[:9])
    hand.segment(text)
    hand.next += len(text)


@pytest.mark.parametrize("number", [1_000_000, 2**32 - 20, 2**31 - 30], ids=["", "wraps", "sign"])
@pytest.mark.parametrize("name", SPLITS)
def test_whatever_order_segments_come_in(
    front: Carom, udp: UDPClient, tcp: TCPClient, forge: Forge, name: str, number: int
) -> None:
    """What was acknowledged is what is read, from the first write of a connection to its last."""
    key = name.encode()
    tcp.set(key, b"old")
    with ByHand(forge, number) as hand:
        for round in range(3):
            until_hit(front, udp, key, value_of(tcp.ask(b"get %b\r\n" % key)) or b"")
            SPLITS[name](hand, set_of(key, b"value %d" % round))
            hand.hear(b"STORED\r\n")
            assert udp.get(key) == b"value %d" % round
            if name == "with_an_end":
                break


def test_what_comes_with_the_handshake(
    front: Carom, udp: UDPClient, tcp: TCPClient, forge: Forge
) -> None:
    """The acknowledgement that ends it may have data already, and so does the next segment."""
    tcp.set(b"hand", b"old")
    for value in (b"one", b"two", b"three"):
        until_hit(front, udp, b"hand", value_of(tcp.ask(b"get hand\r\n")) or b"")
        with ByHand(forge, whole=False) as hand:
            text = set_of(b"hand", value)
            hand.segment(text[:8])
            hand.segment(text[8:], hand.next + 8)
            hand.next += len(text)
            hand.hear(b"STORED\r\n")
            assert udp.get(b"hand") == value


URGENT: dict[str, Callable[[ByHand, int], None]] = {
    "alone": lambda hand, at: hand.segment(b"", flags=URG | ACK, urgent=at),
    "with a byte that came before": lambda hand, at: hand.segment(
        b"\0", hand.next - 1, URG | ACK, urgent=at + 1
    ),
    "with one that comes too early": lambda hand, at: hand.segment(
        b"e", hand.next + 1, URG | ACK, urgent=at - 1
    ),
    "acknowledging nothing new": lambda hand, at: hand.segment(
        b"", flags=URG | ACK, urgent=at, acknowledged=hand.theirs - 8
    ),
}
"""How TCP is told that a byte is not for the stream, which comes only later."""


@pytest.mark.parametrize("name", URGENT)
@pytest.mark.parametrize("wait", [0, 35], ids=["at once", "later"])
def test_urgent_bytes_that_come_later(
    long_form: bool,
    front: Carom,
    udp: UDPClient,
    tcp: TCPClient,
    hand: ByHand,
    name: str,
    wait: int,
) -> None:
    """The server reads a length without its last digit, and so what is no value is a command."""
    if wait and not long_form:
        pytest.skip("with --long")
    tcp.set(b"hidden", b"old")
    hand.say(set_of(b"a", b"x"))
    hand.hear(b"STORED\r\n")
    value = b"xx\r\n" + set_of(b"hidden", b"new")
    line = b"set b 0 0 %d" % (len(value) - 2)
    before = b"get a\r\n"
    URGENT[name](hand, wait * len(before) + len(line))
    for _ in range(wait):
        hand.say(before)
        time.sleep(1)
    until_hit(front, udp, b"hidden", b"old")
    hand.say(line + b"\r\n" + value)
    hand.hear(b"STORED\r\nSTORED\r\n")
    assert udp.get(b"hidden") == b"new"


GARBAGE: dict[str, bytes] = {
    "a line": b"nonsense\r\n",
    "lines": b"nonsense\r\nand more\r\n",
    "what a browser says": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "a line without an end": b"nonsense",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "a refused number": b"incr absent x\r\n",
    "reads": b"get absent\r\nmg absent v\r\nversion\r\n",
    "binary": binary(0x00, b"absent"),
    "half of binary": binary(0x00, b"absent")[:20],
    "binary of another kind": b"\x80" + bytes(60),
    "a reply in binary": b"\x81" + bytes(60),
    "noise": random.Random(1).randbytes(300),
    "a long line": b"x" * 1500,
    "half a store": b"set absent 0 0 100\r\nx",
    "too long a key": b"get " + b"k" * 300 + b"\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_real_connections(
    line: Line, front: Carom, udp: UDPClient, kept: bytes, name: str
) -> None:
    """Anybody may connect and say what he likes: what others have cached stays, or nearly all.

    Whenever it is void it is learned anew, so that tells how often.
    """
    learned, connections = edge(front)["learned"], 60
    for _ in range(connections):
        with TCPClient(line.client, line.address) as stranger:
            stranger.socket.sendall(GARBAGE[name])
            stranger.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while stranger.socket.recv(65_536):
                    pass
        assert udp.get(kept) == b"v"
    until_hit(front, udp, kept, b"v")
    assert edge(front)["learned"] - learned <= 0.2 * connections


@pytest.mark.parametrize("one_in", [20, 6])
def test_pipelines_under_loss(
    line: Line,
    front: Carom,
    udp: UDPClient,
    kept: bytes,
    losing: Callable[[int], None],
    one_in: int,
) -> None:
    """TCP keeps what comes behind a hole, unseen: what it says then is void, and nothing stale."""
    with TCPClient(line.client, line.address) as tcp:
        losing(one_in)
        for round in itertools.count():
            if round >= 15 and tcp.sent_again():
                break
            assert round < 200, "nothing is lost on the way"
            values = [b"%d-%d" % (one_in, round * 8 + n) for n in range(8)]
            tcp.socket.sendall(b"".join(set_of(b"lossy", value) for value in values))
            got = b""
            while got.count(b"STORED\r\n") < 8:
                got += tcp.socket.recv(65_536)
            assert udp.get(b"lossy") == values[-1]
            large = bytes([round]) * 20_000
            tcp.socket.sendall(set_of(b"large", large))
            assert tcp.socket.recv(100) == b"STORED\r\n"
    until_hit(front, udp, kept, b"v")
