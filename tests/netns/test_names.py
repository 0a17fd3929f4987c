# SPDX-License-Identifier: Apache-2.0
"""Name servers that are told of changes: what they obey voids, and what they refuse does not."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from carom.kernel.abi import HOLD_MS
from netns.bind import BIND
from netns.forge import DESTINATION, HOP_BY_HOP, Forge
from netns.fronted import Fake, Request
from netns.fronts import fronts
from netns.line import Line
from netns.nameserver import Resolver
from netns.process import Carom, until
from netns.wire import Client

FAKE, NOTICED, REAL = 4153, 4154, 53
STRANGER = "198.18.0.5"
PAUSE = 0.02
HOLDS = 70
"""Requests, with pauses, that two holds may keep from being cached; each is of half a second."""
NOTIFY, UPDATE = 4, 5
NOERROR, REFUSED, NOTAUTH = 0, 5, 9


@pytest.fixture(scope="module")
def fake(line: Line) -> Iterator[Fake]:
    with Fake(line.server, FAKE) as fake:
        yield fake


@pytest.fixture(scope="module")
def carom(line: Line, fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carom]:
    """Before a server that is ours, and BIND."""
    with (
        BIND(line.server, tmp_path_factory.mktemp("bind"), line.client_address),
        fronts(line.server, f"dns:{FAKE}", f"dns:{REAL}") as carom,
    ):
        yield carom


@pytest.fixture
def forge(line: Line, carom: Carom) -> Iterator[Forge]:
    with Forge(line) as forge:
        yield forge


def message(opcode: int, number: int = 7, **fields: int) -> bytes:
    question = DNSQR(qname="example.org", qtype="SOA")
    return bytes(DNS(id=number, opcode=opcode, rd=0, qd=question, **fields))


def take(fake: Fake, data: bytes) -> Request:
    """What came with these bytes: carom itself asks the server about cookies, now and then."""
    while (request := fake.take()).data != data:
        pass
    return request


class Names:
    """Asks the fake for a name, and answers for it when it is asked."""

    def __init__(self, line: Line, fake: Fake):
        self.client = Client(line.client, line.address, fake.port)
        self._fake = fake
        self._ids = itertools.cycle(range(100, 60_000))  # with another flight each

    def is_asked(self, carom: Carom, name: str) -> bool:
        """Or does the kernel answer?"""
        number = next(self._ids)
        query = DNS(id=number, rd=0, qd=DNSQR(qname=name))
        before = carom.counters()["hit"]
        self.client.send(bytes(query))
        if carom.counters()["hit"] > before:
            assert DNS(self.client.receive()).an[0].rdata == "198.18.9.9"
            return False
        request = take(self._fake, bytes(query))
        answer = DNSRR(rrname=name, ttl=300, rdata="198.18.9.9")
        reply = DNS(id=number, qr=1, aa=1, rd=0, qd=DNSQR(qname=name), an=answer)
        self._fake.socket.sendto(bytes(reply), request.origin)
        self.client.receive()
        return True


@pytest.fixture
def names(line: Line, carom: Carom, fake: Fake) -> Iterator[Names]:
    found = Names(line, fake)
    yield found
    found.client.close()


@pytest.mark.parametrize(
    ("opcode", "rcode"),
    [
        *itertools.product((NOTIFY, UPDATE), (REFUSED, NOTAUTH, None)),
        (UPDATE, NOERROR),
        (NOTIFY, NOERROR),  # what it voids later is for no other test
    ],
)
@pytest.mark.parametrize("length", ["whole", "twelve bytes"])
def test_a_change_voids_if_the_server_obeys(
    carom: Carom,
    fake: Fake,
    forge: Forge,
    names: Names,
    opcode: int,
    rcode: int | None,
    length: str,
) -> None:
    """By whoever tells of it, as often as he likes: it is the server who knows.

    But for a NOTIFY, which a server may heed from anybody: that does once in ten seconds.
    """
    until(lambda: not names.is_asked(carom, "www.example.org"), "a hit")
    asked = 0
    for number in range(20):
        told = message(opcode, number)
        if length == "twelve bytes":
            told = struct.pack("!HBB", number, opcode << 3, 0) + bytes(8)
        forge.udp(told, source=STRANGER, dport=FAKE)
        request = take(fake, told)
        if rcode is not None:
            reply = told[:2] + bytes((0x80 | opcode << 3, rcode)) + told[4:]
            fake.socket.sendto(reply, request.origin)
        asked += names.is_asked(carom, "www.example.org")
    if opcode == UPDATE or rcode != NOERROR:
        assert asked == (20 if rcode == NOERROR else 0)


def test_a_notice_voids(line: Line, forge: Forge) -> None:
    """At once; what comes soon after, when ten seconds are over."""
    with Fake(line.server, NOTICED) as fake, fronts(line.server, f"dns:{NOTICED}") as carom:
        names = Names(line, fake)
        for _ in range(2):
            until(lambda: not names.is_asked(carom, "www.example.org"), "a hit")
            forge.udp(told := message(NOTIFY), source=STRANGER, dport=NOTICED)
            reply = told[:2] + bytes((0x80 | NOTIFY << 3, NOERROR)) + told[4:]
            fake.socket.sendto(reply, take(fake, told).origin)
            until(lambda: names.is_asked(carom, "www.example.org"), "a void")
        names.client.close()


@pytest.mark.parametrize("version", [4, 6])
def test_what_no_name_server_could_be_told_by(
    carom: Carom, fake: Fake, forge: Forge, names: Names, version: int
) -> None:
    """Nothing that comes in voids a name; more headers than are followed, rubbish, no header."""
    until(lambda: not names.is_asked(carom, "www.example.org"), "a hit")
    for data in (b"", b"x", b"\0" * 11, b"\xff" * 40, message(NOTIFY)[:13]):
        fields = {"extensions": (HOP_BY_HOP, *[DESTINATION] * 12)} if version == 6 else {}
        forge.udp(data, version=version, dport=FAKE, **fields)  # type: ignore[arg-type]
        take(fake, data)
        assert not names.is_asked(carom, "www.example.org")


def address_of(resolver: Resolver) -> str:
    (record,) = resolver.ask("www.example.org").an
    return str(record.rdata)


def test_updates_of_a_real_server(line: Line, carom: Carom, tmp_path: Path) -> None:
    """nsupdate is told that it is done: from then on the kernel says nothing older."""
    binary = shutil.which("nsupdate")
    if not binary:
        pytest.skip("nsupdate is not installed")
    with Resolver(line.client, line.address) as resolver:
        for number in range(10):
            address = f"198.18.7.{number}"
            commands = tmp_path / "update"
            commands.write_text(
                f"server {line.address}\nzone example.org\nupdate delete www.example.org A\n"
                f"update add www.example.org 300 A {address}\nsend\n"
            )
            done = subprocess.run(
                line.client.argv([binary, str(commands)]),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            for _ in range(3):
                assert address_of(resolver) == address

            def is_hit(address: str = address) -> bool:
                before = carom.counters()
                assert address_of(resolver) == address
                return carom.since(before).get("hit", 0) == 1

            until(is_hit, "the kernel to answer")


def test_changes_that_a_real_server_refuses(line: Line, carom: Carom, forge: Forge) -> None:
    """Of anybody else: what is cached stays, but for a NOTIFY in ten seconds, which BIND heeds."""
    with Resolver(line.client, line.address) as resolver:
        for told, least in ((UPDATE, 150), (NOTIFY, 150 - HOLDS)):
            time.sleep(2 * HOLD_MS / 1000)

            def is_hit() -> bool:
                before = carom.counters()
                resolver.ask("ns.example.org")
                return carom.since(before).get("hit", 0) == 1

            until(is_hit, "the kernel to answer")
            before = carom.counters()
            for number in range(150):
                forge.udp(message(told, number), source=STRANGER, dport=REAL)
                resolver.ask("ns.example.org")
                time.sleep(PAUSE)
            assert carom.since(before).get("hit", 0) >= least
