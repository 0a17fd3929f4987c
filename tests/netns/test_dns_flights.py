# SPDX-License-Identifier: Apache-2.0
"""Which of several requests on their way is a DNS reply to? What it does not tell is never guessed.

The server is the test: it answers in any order, and with an address that tells what was asked. Its
replies return nothing of that but RD.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from carom.kernel.abi import HOLD_MS
from carom.kernel.resource import Resource
from carom.kernel.waiting import readable
from netns.forge import DESTINATION, Forge
from netns.fronted import Fake, Request
from netns.fronts import fronts
from netns.line import Line
from netns.process import DEADLINE, Carom, until
from netns.sums import looks_half_made
from prog.dns_bench import AD, CD, DO, ECS, QR, RA, RD, A, name, opt, option, query, record, reply

PORT = 5353
UPDATE = 5 << 11  # among the flags (RFC 2136)
FLOOD, LONG = 20_000, 100_000
CROWD = 10


class Asked(NamedTuple):
    """What a request says besides its question."""

    flags: int = RD
    edns: bytes = b""

    @property
    def answer(self) -> bytes:
        """The data of the one record that it gets."""
        return bytes(
            (198, 18, len(self.edns) + (self.edns[7:8] == b"\x80"), self.flags >> 4 & 0xFF)
        )


PLAIN, NOTHING = Asked(), Asked(0)
WAYS = (PLAIN, Asked(RD | AD), Asked(RD | CD), Asked(RD, opt()), Asked(RD, opt(ttl=DO)))
PAIRS = tuple(itertools.permutations(WAYS, 2))


@pytest.fixture(scope="module")
def fake(line: Line) -> Iterator[Fake]:
    with Fake(line.server, PORT) as fake:
        yield fake


@pytest.fixture(scope="module")
def carom(line: Line, fake: Fake) -> Iterator[Carom]:
    with fronts(line.server, f"dns:{PORT}") as carom:
        yield carom


class Client(Resource):
    """One that may ask several things by one id."""

    def __init__(self, line: Line, fake: Fake, qname: str, version: int = 4):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self.socket = line.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.socket.connect((line.over(version).address, PORT))
        self.socket.settimeout(DEADLINE)
        self.port = self.socket.getsockname()[1]
        self.ident = 1
        self._fake = fake
        self._name = qname

    def query(self, asked: Asked) -> bytes:
        return query(self._name, A, flags=asked.flags, edns=asked.edns, ident=self.ident)

    def next(self, *ways: Asked) -> None:
        """Use the next id, by which none of these is passed for its checksum."""
        self.ident += 1
        while any(looks_half_made(self.socket, self.query(asked)) for asked in ways):
            self.ident += 1

    def ask(self, asked: Asked) -> Request:
        """Ask; what the server has of it, which has to be asked."""
        self.socket.send(self.query(asked))
        return self.taken()

    def taken(self) -> Request:
        """The next request for this name."""
        return self._fake.take_what_has(name(self._name))

    def answer(self, request: Request, asked: Asked) -> None:
        """Have the server answer a request that asks so, and take the reply."""
        self._fake.socket.sendto(self.reply(asked), request.origin)
        assert self.socket.recv(4096) == self.reply(asked)

    def reply(self, asked: Asked) -> bytes:
        """It returns RD alone; an OPT record, if at all, without flags."""
        flags = QR | RA | asked.flags & RD
        return reply(
            record(A, asked.answer),
            qname=self._name,
            flags=flags,
            additional=(opt(),) if asked.edns else (),
            ident=self.ident,
        )

    def is_asked(self, asked: Asked) -> bool:
        """Ask by an id of its own: is it the server who answers? The reply is right in any case."""
        self.next(asked)
        self.socket.send(self.query(asked))
        while self._fake.socket in readable([self._fake.socket, self.socket], 9):
            request = self._fake.take()
            if name(self._name) in request.data:
                self.answer(request, asked)
                return True
        got, expected = self.socket.recv(4096), self.reply(asked)
        at = expected.index(asked.answer) - 4  # in the TTL, which counts down
        assert (got[:at], got[at + 2 :]) == (expected[:at], expected[at + 2 :])
        return False

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def client(line: Line, fake: Fake, test: str, version: int = 4) -> Client:
    """For names of a test of its own."""
    return Client(line, fake, f"{test}.test", version)


def nothing_is_learned(client: Client, *ways: Asked) -> None:
    """The server is asked for each once; then none is any more."""
    for asked in ways:
        assert client.is_asked(asked), asked
    for asked in ways:
        assert not client.is_asked(asked), asked


def test_one_after_another(line: Line, fake: Fake, carom: Carom) -> None:
    """Whatever was asked before by the same id."""
    with client(line, fake, "one") as asker:
        for asked in WAYS:
            asker.answer(asker.ask(asked), asked)
        for asked in WAYS:
            assert not asker.is_asked(asked)


@pytest.mark.parametrize("last", [False, True], ids=["in-order", "last-first"])
def test_two_at_once(line: Line, fake: Fake, carom: Carom, last: bool) -> None:
    """By one id, for one name: nothing is learned of either."""
    for number, (one, other) in enumerate(PAIRS):
        with client(line, fake, f"two{number}-{last}") as asker:
            asker.next(one, other)
            first, second = asker.ask(one), asker.ask(other)
            order = [(first, one), (second, other)]
            for request, asked in reversed(order) if last else order:
                asker.answer(request, asked)
            nothing_is_learned(asker, one, other)


def test_two_of_a_kind(line: Line, fake: Fake, carom: Carom) -> None:
    """Sent again, it is the same request."""
    with client(line, fake, "kind") as asker:
        asker.next(PLAIN)
        for request in [asker.ask(PLAIN), asker.ask(PLAIN)]:
            asker.answer(request, PLAIN)
        assert not asker.is_asked(PLAIN)


def test_beside_what_is_no_read(line: Line, fake: Fake, carom: Carom) -> None:
    """A query with an option has a reply that looks like any."""
    for number, first in enumerate((False, True)):
        with client(line, fake, f"read{number}") as asker:
            asker.next(NOTHING)
            subnet = opt(option(ECS, b"\0\1\x18\0\xc0\0\2"))
            told = Asked(0, subnet)
            ways = (told, NOTHING) if first else (NOTHING, told)
            requests = [asker.ask(asked) for asked in ways]
            by_subnet = requests[0 if first else 1]
            of_subnet = asker.reply(NOTHING)[:-4] + b"\xc6\x12\xff\xff"
            fake.socket.sendto(of_subnet, by_subnet.origin)
            assert asker.socket.recv(4096) == of_subnet
            asker.answer(requests[1 if first else 0], NOTHING)
            nothing_is_learned(asker, NOTHING)


def test_behind_an_update(line: Line, fake: Fake, carom: Carom) -> None:
    """Its one reply counts it off: what is asked next by its id is learned."""
    with client(line, fake, "behind") as asker:
        asker.next(PLAIN)
        request = asker.ask(Asked(UPDATE))
        done = request.data[:2] + struct.pack("!H", QR | UPDATE) + request.data[4:]
        fake.socket.sendto(done, request.origin)
        assert asker.socket.recv(4096) == done
        time.sleep(1.5 * HOLD_MS / 1000)
        asker.answer(asker.ask(PLAIN), PLAIN)
        assert not asker.is_asked(PLAIN)


def test_a_wrong_checksum_that_the_server_has_all_the_same(
    line: Line, fake: Fake, carom: Carom
) -> None:
    asked = Asked(RD | CD)
    with client(line, fake, "wrong") as asker, Forge(line) as forge:
        asker.next(PLAIN, asked)
        forge.udp(asker.query(asked), sport=asker.port, dport=PORT, checksum="left")
        hidden = asker.taken()
        second = asker.ask(PLAIN)
        asker.answer(hidden, asked)
        asker.answer(second, PLAIN)
        nothing_is_learned(asker, PLAIN)


def test_whose_port_cannot_be_read(line: Line, fake: Fake, carom: Carom) -> None:
    """Behind more than eight extension headers: for a minute nothing of this client is learned."""
    asked = Asked(RD | CD)
    with client(line, fake, "six", 6) as asker, Forge(line) as forge:
        until(lambda: not asker.is_asked(PLAIN), "a hit")
    with client(line, fake, "seven", 6) as asker, Forge(line) as forge:
        asker.next(PLAIN, asked)
        headers = [DESTINATION] * 9
        forge.udp(asker.query(asked), version=6, sport=asker.port, dport=PORT, extensions=headers)
        hidden = asker.taken()
        second = asker.ask(PLAIN)
        asker.answer(hidden, asked)
        asker.answer(second, PLAIN)
        assert asker.is_asked(PLAIN)
        assert asker.is_asked(PLAIN)
        assert asker.is_asked(asked)


def flood(line: Line, fake: Fake, count: int) -> None:
    """Requests of many ids and ports that nobody answers, which all cells have some of."""
    with Forge(line) as forge:
        for number in range(count):
            head = struct.pack("!H", number & 0xFFFF)
            payload = head + query("nobody.test", flags=RD | AD, ident=0)[2:]
            forge.udp(payload, sport=20_000 + number % 30_000, dport=PORT)
            if number % 200 == 0:
                fake.drain()
    fake.drain()


def test_a_flood_makes_nobody_forget(line: Line, fake: Fake, carom: Carom, long_form: bool) -> None:
    """Strangers push the first of two requests by one id out of its cell before the second.

    It is the last test, for it leaves something in every cell.
    """
    asked = Asked(RD | CD)
    with contextlib.ExitStack() as stack:
        askers = [stack.enter_context(client(line, fake, f"flood{n}")) for n in range(CROWD)]
        waiting = []
        for asker in askers:
            asker.next(PLAIN, asked)
            waiting.append(asker.ask(PLAIN))
        flood(line, fake, LONG if long_form else FLOOD)
        for asker, first in zip(askers, waiting, strict=True):
            second = asker.ask(asked)
            asker.answer(first, PLAIN)
            asker.answer(second, asked)
            for one in WAYS:
                assert asker.is_asked(one)
    with client(line, fake, "fresh") as asker:
        tries = next(n for n in range(1, 100) if not asker.is_asked(PLAIN))
    assert tries <= 10, "others are learned as before"
