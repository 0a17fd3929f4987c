# SPDX-License-Identifier: Apache-2.0
"""A zone that changes while dnsperf and readers ask for it through `carom front`.

Every reply is one to its query, id and spelling included, and no TTL is above the record's. A
record is given for no longer than its TTL (and SLACK) after the server gives another one. Who sends
a cookie gets it back, from a server that gives them. All the while somebody sends NOTIFY.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carom.protocols.dns import message as messages
from carom.protocols.dns.cookie import server_cookie
from carom.vm.namespace import Namespace
from netns.cookies import COOKIE, CookieServer
from netns.line import Line
from netns.nameserver import PORT, Resolver
from netns.process import Carom
from netns.tools import tool
from netns.torture import ASKS, READERS, Asker, Cell, Shared, crowd, enough, torture

NAMES = 12
SLACK = 1.0
"""Seconds: TTLs are whole ones, and a reply may be made just before and leave just after."""

CHANGES = 10_000
"""More than a test ever makes."""

FRONT = ("--protocol", "dns", "--ttl", "1h", "--prefix-rate", "0", "--total-rate", "0")
SECRET = bytes(range(16))
NOTIFY = 4 << 11
TXT, SOA, OPT = 16, 6, 41
_RECORD = struct.Struct("!HHHIHB")
"""Pointer to the name, type, class, TTL, lengths of data and text."""

TtlOf = Callable[[int], int]


def ttl_of(name: int) -> int:
    """1 to 3 seconds."""
    return 1 + name % 3


def zone(number: int, ttls: TtlOf) -> str:
    """A zone whose every record tells this number."""
    soa = f"@ SOA ns hostmaster {number} 3600 600 86400 1"
    head = f"$ORIGIN example.org.\n$TTL 3600\n{soa}\n@ NS ns\nns A 198.18.0.2\n"
    names = (f'name-{name} {ttls(name)} TXT "{name}:{number}"\n' for name in range(NAMES))
    return head + "".join(names)


def spelled(name: int, chance: random.Random, mixed: float) -> bytes:
    """A question for a name, each letter large or small (0x20), in so many of all cases."""
    labels = (f"name-{name}".encode(), b"example", b"org", b"")
    text = b"".join(bytes([len(label)]) + label for label in labels)
    if chance.random() >= mixed:
        return text
    return bytes(b ^ 0x20 if chr(b).isalpha() and chance.random() < 0.5 else b for b in text)


def made(asker: Asker, chance: random.Random) -> bytes:
    """A whole cookie of this client's, as the server makes them."""
    client = chance.randbytes(8)
    return client + server_cookie(SECRET, client, asker.address, int(time.time()))


def query_for(question: bytes, cookie: bytes, chance: random.Random) -> bytes:
    """A query, with this cookie if there is one."""
    head = struct.pack("!6H", chance.getrandbits(16), 0, 1, 0, 0, 1 if cookie else 0)
    if not cookie:
        return head + question
    option = struct.pack("!HH", COOKIE, len(cookie)) + cookie
    return head + question + struct.pack("!BHHIH", 0, OPT, 1232, 0, len(option)) + option


def number_in(reply: bytes, query: bytes, question: bytes, name: int, ttl: int) -> int | None:
    """The number that a reply tells; None for one that does not answer the query."""
    start = 12 + len(question)
    if reply[:2] != query[:2] or reply[12:start] != question:
        return None
    while 0 < reply[start] < 0xC0:  # BIND spells the owner as the zone does, and points to the rest
        start += 1 + reply[start]
    start -= reply[start] == 0  # _RECORD begins with two bytes, as of a pointer
    if len(reply) < start + _RECORD.size or reply[3] & 0x0F or reply[6:8] != b"\0\1":
        return None
    _, kind, _, given, _, length = _RECORD.unpack_from(reply, start)
    start += _RECORD.size
    told, _, number = reply[start : start + length].partition(b":")
    right = kind == TXT and given <= ttl and told == b"%d" % name and number.isdigit()
    return int(number) if right else None


def read(shared: Shared, address: str, reader: int, ttls: TtlOf, gives: bool, mixed: float) -> None:
    """Ask for names and judge each reply: `acknowledged` holds when each number was seen.

    Every other reader sends a cookie; `gives` says that it has to come back.
    """
    chance, asker, cells = random.Random(reader), Asker(address, PORT), shared.cells
    floors = [0] * NAMES
    while not cells[Cell.STOP]:
        name = chance.randrange(NAMES)
        question = spelled(name, chance, mixed) + struct.pack("!HH", TXT, 1)
        cookie = made(asker, chance)[: 24 if gives else 8] if reader % 2 else b""
        query = query_for(question, cookie, chance)
        old = time.monotonic_ns() - int((ttl_of(name) + SLACK) * 1e9)
        while 0 < shared.acknowledged[floors[name] + 1] <= old:
            floors[name] += 1
        reply = asker.ask(query)
        if reply is None:
            cells[Cell.LOST] += 1
            continue
        cells[Cell.ASKS + reader] += 1
        number = number_in(reply, query, question, name, ttls(name))
        returned = (messages.cookie_of(reply) or b"")[:8] == cookie[:8]
        if number is None or (gives and not returned):
            cells[Cell.UNKNOWN] += 1
        elif number < floors[name]:
            cells[Cell.STALE] += 1


def notify(shared: Shared, address: str) -> None:
    """Tell of changes twenty times a second: of no zone, of the server's, and of another."""
    zones = (b"", b"\7example\3org\0", b"\3com\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((address, PORT))
        for number in itertools.count():
            zone = zones[number % 3]
            question = zone + struct.pack("!HH", SOA, 1) if zone else b""
            udp.send(struct.pack("!6H", number & 0xFFFF, NOTIFY, bool(zone), 0, 0, 0) + question)
            time.sleep(0.05)
            if shared.cells[Cell.STOP]:
                return


def changes(
    shared: Shared, server: CookieServer, direct: Resolver, ttls: TtlOf
) -> Callable[[object], None]:
    """What reloads the zone, and notes when the server itself gives it."""
    numbers = itertools.count(1)

    def change(_: object) -> None:
        number = next(numbers)
        server.reload(zone(number, ttls))
        while direct.ask("name-0.example.org", "TXT").an[0].rdata != [b"0:%d" % number]:
            time.sleep(0.01)
        shared.acknowledged[number] = time.monotonic_ns()
        shared.cells[Cell.WRITES] += 1

    return change


@contextlib.contextmanager
def load(namespace: Namespace, address: str, folder: Path) -> Iterator[None]:
    """dnsperf asks for the same names."""
    program, file = tool("dnsperf"), folder / "questions"
    file.write_text("".join(f"name-{name}.example.org TXT\n" for name in range(NAMES)))
    asked = ("-s", address, "-d", str(file), "-q", "10", "-Q", "5000", "-l", "86400")
    with namespace.popen([program, *asked]) as process:
        try:
            yield
            assert process.poll() is None, "dnsperf gave up"
        finally:
            process.terminate()
            process.communicate()


@contextlib.contextmanager
def changing(
    line: Line, folder: Path, kind: str, *arguments: str, ttls: TtlOf = ttl_of
) -> Iterator[tuple[Carom, Shared, Callable[[object], None]]]:
    """A front before a server, the load and readers; and what makes a change."""
    shared, gives = Shared(CHANGES), kind != "unbound"
    mixed = (
        0.25 if kind == "bind" else 1
    )  # to other spellings it says other things: they are misses
    address = line.address
    told = (shared, address)
    jobs = [functools.partial(read, *told, i, ttls, gives, mixed) for i in range(READERS)]
    (secrets := folder / "secrets").touch(mode=0o600)
    secrets.write_text(SECRET.hex())
    cookies = ("--cookie-secret-file", str(secrets)) if gives else ()
    with (
        CookieServer(line.server, folder, kind, SECRET, zone=zone(0, ttls)) as server,
        Resolver(line.server, "127.0.0.1") as direct,
        Carom(line.server, *FRONT, *cookies, *arguments, command="front") as carom,
        load(line.client, address, folder),
        crowd(line.client, shared, *jobs, functools.partial(notify, shared, address)),
    ):
        yield carom, shared, changes(shared, server, direct, ttls)


@pytest.mark.parametrize(
    ("kind", "hook"), [("nsd", "xdp"), ("nsd", "tc"), ("bind", "xdp"), ("unbound", "tc")]
)
def test_nothing_outlives_its_ttl(
    straight: Line, tmp_path: Path, long_form: bool, kind: str, hook: str
) -> None:
    with changing(straight, tmp_path, kind, "--hook", hook) as (carom, shared, change):
        start, ended = time.monotonic(), enough(shared, long_form, 10)
        most = max(map(ttl_of, range(NAMES))) + 2 * SLACK
        torture(carom, shared, lambda: ended() and time.monotonic() - start > most, change)
        counters = carom.counters()
    print(shared, {name: n for name, n in counters.items() if n})
    assert shared.violations() == (0, 0)
    assert shared.cells[Cell.LOST] == 0
    assert counters["hit"] >= 0.5 * (shared.asks() + counters["miss"])
    assert counters["miss_expired"]
    assert shared.asks() >= ASKS


def test_the_judges_find_what_is_stale(straight: Line, tmp_path: Path) -> None:
    """Records that live longer than the judges believe: violations are found."""
    with changing(straight, tmp_path, "nsd", ttls=lambda name: 60) as (carom, shared, change):
        torture(carom, shared, lambda: shared.cells[Cell.STALE] > 0, change)
    assert shared.cells[Cell.UNKNOWN] == 0
