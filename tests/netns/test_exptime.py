# SPDX-License-Identifier: Apache-2.0
"""What comes to an end later, before a real memcached: what it gives no more, carom gives no more.

Nothing here is judged by a clock. memcached itself is asked first: once it says that an item is
gone, whoever asks carom behind that is told the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest

from netns.fronts import fronts
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import INTERFACE, Carom, run, until
from prog.memcached_binary import binary

SOON = 4
"""Seconds that items of these tests live: enough for a reply to be kept before."""

LONG = 100_000

BEFORE = 15
"""Seconds that items live which are stored before carom starts."""

Ends = Callable[[bytes, TCPClient], bytes]
"""A command that gives a key an end."""


@pytest.fixture(scope="module")
def front(straight: Line, memcached: Memcached) -> Iterator[Carom]:
    with Carom(straight.server, "--hook", "tc", "--ttl", "1h", command="front") as carom:
        yield carom


@pytest.fixture
def itself(straight: Line) -> Iterator[TCPClient]:
    """memcached, asked where carom does not answer."""
    with TCPClient(straight.server, "127.0.0.1") as client:
        yield client


@pytest.fixture
def watcher(straight: Line) -> Iterator[TCPClient]:
    """The same, for reading alone: replies on a connection void what was written on it."""
    with TCPClient(straight.server, "127.0.0.1") as client:
        yield client


def hit(carom: Carom, udp: UDPClient, key: bytes) -> bool:
    before = carom.counters()["hit"]
    udp.get(key)
    return carom.counters()["hit"] > before


def until_hit(carom: Carom, udp: UDPClient, key: bytes) -> None:
    until(lambda: hit(carom, udp, key), f"{key!r} to be given by the kernel")


def until_hits(carom: Carom, udp: UDPClient, keys: Iterable[bytes]) -> None:
    """The same of several, in turns: behind an end of items each takes a second by itself."""
    left = list(keys)

    def none_left() -> bool:
        left[:] = [key for key in left if not hit(carom, udp, key)]
        return not left

    until(none_left, "each to be given by the kernel")


def has(itself: TCPClient, key: bytes) -> bool:
    return itself.ask(b"get %b\r\n" % key) != b"END\r\n"


class Seconds:
    """The clock of a memcached, which moves once a second: no item ends in between.

    To ask for it voids nothing.
    """

    def __init__(self, watcher: TCPClient):
        self._watcher = watcher
        self._second = uptime(watcher)
        self._moved: float | None = None

    def is_about_to_move(self) -> bool:
        """Whether it may be soon, or nobody knows yet when it was last."""
        second = uptime(self._watcher)
        if second != self._second:
            self._second, self._moved = second, time.monotonic()
        return self._moved is None or time.monotonic() - self._moved > 0.9


def follow(udp: UDPClient, watcher: TCPClient, keys: set[bytes]) -> None:
    """Ask until memcached has none of these keys, and carom at every step what it has.

    Steps follow each other at once where an item may end.
    """
    left, seconds = set(keys), Seconds(watcher)
    while left:
        near = seconds.is_about_to_move()
        for key in sorted(left):
            there = has(watcher, key)
            value = udp.get(key)
            if not there:
                assert value is None, f"{key!r} is given, and memcached has it no more"
                left.remove(key)
        if left and not near:
            time.sleep(0.02)
    for key in keys:
        assert udp.get(key) is None


def fresh(itself: TCPClient, key: bytes) -> None:
    assert itself.ask(b"delete %b\r\n" % key) in (b"DELETED\r\n", b"NOT_FOUND\r\n")


def cas_of(itself: TCPClient, key: bytes) -> bytes:
    return itself.ask(b"gets %b\r\n" % key).split()[4]


def absent(text: bytes) -> Ends:
    """A command for a key that is not there."""

    def command(key: bytes, itself: TCPClient) -> bytes:
        fresh(itself, key)
        return text % key

    return command


TEXT: dict[str, bytes | Ends] = {
    "set": b"set %%b 0 %d 1\r\n7\r\n" % SOON,
    "set without an answer": b"set %%b 0 %d 1 noreply\r\n7\r\n" % SOON,
    "add": absent(b"add %%b 0 %d 1\r\n7\r\n" % SOON),
    "replace": b"replace %%b 0 %d 1\r\n7\r\n" % SOON,
    "cas": lambda key, itself: b"cas %b 0 %d 1 %b\r\n7\r\n" % (key, SOON, cas_of(itself, key)),
    "touch": b"touch %%b %d\r\n" % SOON,
    "touch without an answer": b"touch %%b %d noreply\r\n" % SOON,
    "gat": b"gat %d %%b\r\n" % SOON,
    "gats": b"gats %d %%b\r\n" % SOON,
    "gat of two": b"gat %d %%b other\r\n" % SOON,
    "ms": b"ms %%b 1 T%d\r\n7\r\n" % SOON,
    "ms appends": absent(b"ms %%b 1 MA N%d\r\n7\r\n" % SOON),
    "mg": b"mg %%b T%d\r\n" % SOON,
    "mg makes": absent(b"mg %%b N%d v\r\n" % SOON),
    "ma": b"ma %%b T%d\r\n" % SOON,
    "ma makes": absent(b"ma %%b N%d J7\r\n" % SOON),
    "md marks": b"md %%b I T%d\r\n" % SOON,
    "absolute": lambda key, _: b"set %b 0 %d 1\r\n7\r\n" % (key, time.time() + SOON),
    "touch absolute": lambda key, _: b"touch %b %d\r\n" % (key, time.time() + SOON),
    "over": b"touch %b -1\r\n",
    "long over": b"set %b 0 2592001 1\r\n7\r\n",
}
BINARY: dict[str, bytes | Ends] = {
    "set": lambda key, _: binary(0x01, key, b"7", exptime=SOON),
    "setq": lambda key, _: binary(0x11, key, b"7", exptime=SOON) + binary(0x0A),
    "add": lambda key, itself: (fresh(itself, key), binary(0x02, key, b"7", exptime=SOON))[1],
    "replace": lambda key, _: binary(0x03, key, b"7", exptime=SOON),
    "touch": lambda key, _: binary(0x1C, key, exptime=SOON),
    "gat": lambda key, _: binary(0x1D, key, exptime=SOON),
    "gatq": lambda key, _: binary(0x1E, key, exptime=SOON),
    "gatk": lambda key, _: binary(0x23, key, exptime=SOON),
    "gatkq": lambda key, _: binary(0x24, key, exptime=SOON),
    "increment": lambda key, itself: (fresh(itself, key), binary(0x05, key, exptime=SOON))[1],
    "absolute": lambda key, _: binary(0x01, key, b"7", exptime=int(time.time()) + SOON),
}


def tell(datagrams: UDPClient, text: bytes) -> None:
    """Send a command, in whatever datagrams it is answered, and return when it is done."""
    datagrams.send(text)
    datagrams.send(b"mn\r\n")
    while not datagrams.socket.recv(65_536).endswith(b"MN\r\n"):
        pass


KINDS = {"udp": TEXT, "tcp": TEXT, "binary": BINARY}


@pytest.mark.parametrize("over", KINDS)
def test_every_command_that_gives_an_end(
    front: Carom,
    straight: Line,
    udp: UDPClient,
    itself: TCPClient,
    watcher: TCPClient,
    over: str,
) -> None:
    """Each on a key that did not end by itself, and was known for that."""
    keys = {
        b"%b-%b" % (over.encode(), name.replace(" ", "-").encode()): name for name in KINDS[over]
    }
    for key in keys:
        itself.set(key, b"5")
    until_hits(front, udp, keys)
    with (
        UDPClient(straight.client, straight.address) as datagrams,
        TCPClient(straight.client, straight.address) as connection,
    ):
        for key, name in keys.items():
            made = KINDS[over][name]
            text = made % key if isinstance(made, bytes) else made(key, itself)
            if over == "udp":
                tell(datagrams, text)
            elif name.endswith("without an answer"):
                assert connection.ask(text + b"mn\r\n") == b"MN\r\n"
            else:
                connection.ask(text)
            udp.get(key)  # learned anew, if it is there
        missing = [key for key in keys if b" exp=-1 " in itself.ask(b"me %b\r\n" % key)]
        assert missing == [], "these did not get an end: they test nothing"
    follow(udp, watcher, set(keys))


def test_items_from_before_carom(straight: Line) -> None:
    """Stored, touched, and flushed for later, when nobody looked yet."""
    assert any(before_carom(straight, BEFORE << n) for n in range(5)), "carom was always too late"


def before_carom(straight: Line, seconds: int) -> bool:
    """The same with items that live for so long; False where carom did not start in that time."""
    port, keys = 4005, {b"before-%d" % n for n in range(3)}
    arguments = ("-p", str(port), "--hook", "tc", "--ttl", "1h")
    with (
        Memcached(straight.server, port),
        TCPClient(straight.server, "127.0.0.1", port) as itself,
        UDPClient(straight.client, straight.address, port) as udp,
    ):
        for n, key in enumerate(sorted(keys)):
            exptime = seconds if n < 2 else time.time() + seconds
            assert itself.ask(b"set %b 0 %d 1\r\n5\r\n" % (key, exptime)) == b"STORED\r\n"
        itself.set(b"flushed", b"5")
        assert itself.ask(b"flush_all %d\r\n" % (2 * seconds)) == b"OK\r\n"
        itself.close()
        with (
            Carom(straight.server, *arguments, command="front") as front,
            TCPClient(straight.server, "127.0.0.1", port) as itself,
        ):
            follow(udp, itself, keys)
            if not kept(front, udp, itself, b"flushed"):
                return False
            follow(udp, itself, {b"flushed"})
            return True


def kept(carom: Carom, udp: UDPClient, itself: TCPClient, key: bytes) -> bool:
    """Ask for a key until the kernel answers; False where memcached has it no more."""
    while has(itself, key):
        if hit(carom, udp, key):
            return True
    return False


FLUSHES = {
    "udp": [b"flush_all %d\r\n" % SOON],
    "tcp": [b"flush_all %d\r\n" % SOON],
    "without an answer": [b"flush_all %d noreply\r\n" % SOON],
    "absolute": [],
    "a sooner one behind": [b"flush_all %d\r\n" % LONG, b"flush_all %d\r\n" % SOON],
    "now": [b"flush_all 0\r\n"],
    "now, in spite of a later one": [b"flush_all %d\r\n" % LONG, b"flush_all\r\n"],
    "binary": [binary(0x08, extras=4, exptime=SOON)],
    "binary, quiet": [binary(0x18, extras=4, exptime=SOON) + binary(0x0A)],
}


@pytest.mark.parametrize("name", FLUSHES)
def test_a_flush_that_comes_later(
    front: Carom,
    straight: Line,
    udp: UDPClient,
    itself: TCPClient,
    watcher: TCPClient,
    name: str,
) -> None:
    keys = {b"flushed-%d" % n for n in range(3)}
    for key in keys:
        itself.set(key, b"5")
    until_hits(front, udp, keys)
    texts = FLUSHES[name] or [b"flush_all %d\r\n" % (time.time() + SOON)]
    with (
        UDPClient(straight.client, straight.address) as datagrams,
        TCPClient(straight.client, straight.address) as connection,
    ):
        for text in texts:
            if b"noreply" in text:
                connection.socket.sendall(text + b"mn\r\n")
                assert connection.socket.recv(100) == b"MN\r\n"
            else:
                (datagrams if name == "udp" else connection).ask(text)
    follow(udp, watcher, keys)
    until(lambda: stored(itself, udp), "memcached to keep what is stored behind the flush")
    until_hit(front, udp, b"behind")


def stored(itself: TCPClient, udp: UDPClient) -> bool:
    """memcached flushes what is stored in the second of the flush, too."""
    itself.set(b"behind", b"5")
    return has(itself, b"behind")


def test_a_flush_that_another_puts_off(
    front: Carom, straight: Line, udp: UDPClient, itself: TCPClient
) -> None:
    """By a connection of its own: what the server says on it voids what was flushed on it."""
    itself.set(b"put-off", b"5")
    until_hit(front, udp, b"put-off")
    with TCPClient(straight.client, straight.address) as flushing:
        assert flushing.ask(b"flush_all %d\r\n" % SOON) == b"OK\r\n"
        udp.get(b"put-off")
        assert flushing.ask(b"flush_all %d\r\n" % LONG) == b"OK\r\n"
    until_hit(front, udp, b"put-off")
    with TCPClient(straight.server, "127.0.0.1") as asking:
        begun = uptime(asking)
        until(lambda: uptime(asking) > begun + SOON, "the first to have been due")
    assert hit(front, udp, b"put-off"), "it is kept until the second"
    assert udp.get(b"put-off") == b"5"
    assert itself.ask(b"flush_all\r\n") == b"OK\r\n"
    assert udp.get(b"put-off") is None


def uptime(itself: TCPClient) -> int:
    text = itself.ask(b"stats\r\n")
    while not text.endswith(b"END\r\n"):
        text += itself.socket.recv(65_536)
    return int(text.split(b"STAT uptime ")[1].split(b"\r\n")[0])


def test_an_end_that_is_put_off(front: Carom, udp: UDPClient, itself: TCPClient) -> None:
    assert itself.ask(b"set longer 0 %d 1\r\n5\r\n" % SOON) == b"STORED\r\n"
    udp.get(b"longer")
    assert itself.ask(b"touch longer %d\r\n" % LONG) == b"TOUCHED\r\n"
    until_hit(front, udp, b"longer")
    begun = uptime(itself)
    until(lambda: uptime(itself) > begun + SOON, "the first end to have come")
    assert udp.get(b"longer") == b"5"
    until_hit(front, udp, b"longer")


@pytest.mark.parametrize("exptime", [0, LONG, 2_592_000, 0x7FFFFFFF])
def test_hits_of_what_stays(front: Carom, udp: UDPClient, itself: TCPClient, exptime: int) -> None:
    assert itself.ask(b"set stays 0 %d 1\r\n5\r\n" % exptime) == b"STORED\r\n"
    until_hit(front, udp, b"stays")
    assert udp.get(b"stays") == b"5"


def test_a_mark_keeps_its_token(front: Carom, udp: UDPClient, itself: TCPClient) -> None:
    """The first who reads an item that is marked stale is told to make it anew: not carom."""
    itself.set(b"stale", b"5")
    assert itself.ask(b"md stale I T%d\r\n" % LONG) == b"HD\r\n"
    until_hit(front, udp, b"stale")
    assert itself.ask(b"mg stale v\r\n").split(b"\r\n")[0].split()[-1] == b"W"


SETS = {
    "udp": (b"set known 0 0 1\r\n5\r\n", False),
    "tcp": (b"set known 0 0 1\r\n5\r\n", False),
    "binary": (binary(0x01, b"known", b"5"), False),
    "behind another": (b"set known 0 100 1\r\n7\r\ndelete known\r\nset known 0 0 1\r\n5\r\n", True),
    "add": (b"add known 0 0 1\r\n5\r\n", True),
    "cut": (b"set known 0 0 1\r\n", True),
    "without an answer": (b"set known 0 0 1 noreply\r\n5\r\n", True),
}


UNDONE = {
    "behind quit": b"quit\r\nset known 0 0 1\r\n7\r\n",
    "behind quit in binary": binary(0x07) + binary(0x01, b"known", b"7"),
    "by who watches": b"watch fetchers\r\nset known 0 0 1\r\n7\r\n",
}
"""What a client says, of which the server leaves the set undone."""

KNOWN = b"known"
ALONE = dict(zip((*SETS, *UNDONE), range(4050, 4070), strict=False))
"""The ports of servers that each have one test alone."""


@pytest.fixture(scope="module")
def before_each(straight: Line) -> Iterator[Carom]:
    """One before each of them; an item that a set leaves undone was there before carom."""
    with ExitStack() as stack:
        for name, port in ALONE.items():
            stack.enter_context(Memcached(straight.server, port))
            if name in UNDONE:
                with TCPClient(straight.server, "127.0.0.1", port) as itself:
                    stored = itself.ask(b"set %b 0 %d 1\r\n5\r\n" % (KNOWN, LONG))
                    assert stored == b"STORED\r\n"
        services = [f"memcached:{port}" for port in ALONE.values()]
        yield stack.enter_context(fronts(straight.server, *services))


def asked(front: Carom) -> int:
    """How many items it has asked about."""
    count: int = front.status()["cache"]["asked"]
    return count


@pytest.mark.parametrize("over", SETS)
def test_whether_it_is_asked_about(before_each: Carom, straight: Line, over: str) -> None:
    """A set that was seen to give no end is enough, unless it may not be the last that is done."""
    text, is_asked = SETS[over]
    begun = asked(before_each)
    fills = before_each.counters()["fills"]
    with (
        UDPClient(straight.client, straight.address, ALONE[over]) as udp,
        TCPClient(straight.client, straight.address, ALONE[over]) as tcp,
    ):
        if over == "cut":
            tcp.socket.sendall(text)
            assert udp.get(KNOWN) is None
            text = b"5\r\n"
        if over == "udp":
            assert udp.ask(text) == b"STORED\r\n"
        else:
            tcp.socket.sendall(text)
        until(lambda: udp.get(KNOWN) == b"5", "the item to be there")
        until_hit(before_each, udp, KNOWN)
        assert (asked(before_each) > begun) == is_asked
        assert before_each.counters()["fills"] > fills


@pytest.mark.parametrize("name", UNDONE)
def test_a_set_that_is_not_done(before_each: Carom, straight: Line, name: str) -> None:
    """It says nothing of the item that was stored before carom came, and that ends."""
    with (
        UDPClient(straight.client, straight.address, ALONE[name]) as udp,
        TCPClient(straight.client, straight.address, ALONE[name]) as tcp,
    ):
        begun, seen = asked(before_each), before_each.status()["edge"]["write_seen"]
        with contextlib.suppress(ConnectionError):
            tcp.ask(UNDONE[name])
        time.sleep(0.2)
        assert udp.get(KNOWN) == b"5", "it was done: this tests nothing"
        until_hit(before_each, udp, KNOWN)
        assert asked(before_each) > begun
        assert before_each.status()["edge"]["write_seen"] > seen


class TestRefused:
    """A server that cannot be asked, and how to go on without."""

    SILENT = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
others = 0
while True:
    request, origin = udp.recvfrom(2048)
    text = request[8:]
    others += not text.startswith((b"set ", b"get ", b"asked", b"flush_all "))
    answer = b"ERROR\\r\\n"
    if text == b"asked\\r\\n":
        answer = b"%d others\\r\\n" % others
    elif text.startswith(b"set "):
        answer = b"STORED\\r\\n"
    elif text.startswith(b"flush_all "):
        answer = b"OK\\r\\n"
    elif text.startswith(b"get "):
        answer = b"VALUE %b 0 1\\r\\n5\\r\\nEND\\r\\n" % text.split()[1]
    udp.sendto(request[:8] + answer, origin)
"""

    @pytest.fixture
    def silent(self, straight: Line) -> Iterator[None]:
        server = straight.server.popen(["/usr/bin/python3", "-c", self.SILENT, "4006"])
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            server.kill()
            server.wait()

    WHERE = ("-p", "4006", "--hook", "tc")

    @pytest.mark.usefixtures("silent")
    def test_a_server_that_does_not_say(self, straight: Line) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, *self.WHERE, "--exptime", "ask")
        assert ended.code == 1
        assert "does not say when its items end" in ended.stderr
        assert "--exptime ttl" in ended.stderr
        assert "Traceback" not in ended.stderr
        with Carom(straight.server, *self.WHERE, "--exptime", "ttl", command="front") as front:
            assert not any("items end" in note for note in front.ready["notes"])

    @pytest.mark.usefixtures("silent")
    def test_what_is_no_memcached_is_not_asked(self, straight: Line) -> None:
        """Nor is what may end kept then: of what else was written, the reply is."""
        with (
            Carom(straight.server, *self.WHERE, command="front") as front,
            UDPClient(straight.client, straight.address, 4006) as udp,
        ):
            assert any("does not say when its items end" in note for note in front.ready["notes"])
            assert udp.ask(b"set stays 0 0 1\r\n5\r\n") == b"STORED\r\n"
            assert udp.ask(b"set ends 0 100 1\r\n5\r\n") == b"STORED\r\n"
            assert not hit(front, udp, b"stays")
            assert hit(front, udp, b"stays")
            for _ in range(3):
                assert udp.get(b"ends") == b"5"
                assert not hit(front, udp, b"ends")
            assert front.status()["edge"]["ending"] >= 3
            assert udp.ask(b"flush_all 100\r\n") == b"OK\r\n"
            for _ in range(3):
                assert not hit(front, udp, b"stays")
            assert udp.ask(b"asked\r\n") == b"0 others\r\n"

    def test_an_unknown_way(self, straight: Line) -> None:
        ended = run(straight.server, "front", "-i", INTERFACE, "--exptime", "never")
        assert ended.code == 2
        assert "ask | ttl" in ended.stderr
