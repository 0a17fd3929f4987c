# SPDX-License-Identifier: Apache-2.0
"""dns.h beside a real authoritative server: what is given is what the server says itself."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import pytest

from carom.protocols.protocol import Intent
from prog.dns_bench import (
    AAAA,
    AD,
    CD,
    CNAME,
    COOKIE,
    DO,
    NS,
    NXDOMAIN,
    RD,
    RRSIG,
    SOA,
    TXT,
    A,
    DNSBench,
    Stored,
    opt,
    option,
    query,
)
from reference import dns as reference

TTL = 10_000
SERVER = "127.0.0.1"
SIGNED = "8 2 300 20400101000000 20200101000000 1 example. AAAA"

ZONE = f"""\
$ORIGIN example.
@ 3600 SOA ns mail 1 7200 900 1209600 600
@ 3600 NS ns
@ 3600 NS ns.elsewhere.test.
@ 3600 RRSIG SOA {SIGNED}
@ 3600 RRSIG DNSKEY {SIGNED}
@ 3600 RRSIG NS {SIGNED}
@ 600 NSEC www SOA NS RRSIG NSEC
@ 600 RRSIG NSEC {SIGNED}
ns 3600 A 192.0.2.53
ns 1800 AAAA 2001:db8::53
www 300 A 192.0.2.1
www 300 A 192.0.2.2
www 300 RRSIG A {SIGNED}
www 600 NSEC @ A RRSIG NSEC
www 600 RRSIG NSEC {SIGNED}
odd 77 TXT "odd" "numbers"
odd 78 MX 10 www
alias 200 CNAME www
far 200 CNAME www.elsewhere.test.
stray 200 CNAME nothing
*.wild 60 A 192.0.2.3
none 0 A 192.0.2.4
many 100 TXT {" ".join(f'"{n:100}"' for n in range(4))}
huge 100 TXT {" ".join(f'"{n:100}"' for n in range(20))}
below 900 NS ns.below
ns.below 900 A 192.0.2.5
MiXed 100 A 192.0.2.6
"""

CONFIGURATION = """\
server:
    ip-address: {server}@{port}
    username: ""
    chroot: ""
    server-count: 1
    zonesdir: "{folder}"
    database: ""
    zonelistfile: "{folder}/zone.list"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    pidfile: "{folder}/nsd.pid"
    logfile: "{folder}/nsd.log"
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    answer-cookie: {cookies}
remote-control:
    control-enable: no
zone:
    name: example
    zonefile: example.zone
"""

NAMES = [
    ("www.example", A),
    ("www.example", AAAA),
    ("www.example", RRSIG),
    ("odd.example", TXT),
    ("odd.example", 15),
    ("alias.example", A),
    ("alias.example", CNAME),
    ("far.example", A),
    ("stray.example", A),
    ("a.b.wild.example", A),
    ("a.wild.example", TXT),
    ("none.example", A),
    ("nothing.example", A),
    ("many.example", TXT),
    ("huge.example", TXT),
    ("www.below.example", A),
    ("mixed.example", A),
    ("example", SOA),
    ("example", NS),
    ("example", 250),
    ("elsewhere.test", A),
]

EDNS = {
    "none": b"",
    "EDNS": opt(),
    "DO": opt(ttl=DO),
    "small": opt(size=512),
    "cookie": opt(option(COOKIE, b"8 bytes.")),
}


def free_port() -> int:
    """A port that is free for UDP and for TCP."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind((SERVER, 0))
            port = int(udp.getsockname()[1])
            with contextlib.suppress(OSError):  # taken by another's connection
                tcp.bind((SERVER, port))
                return port


class Server:
    """NSD with one zone, asked over the loopback interface."""

    def __init__(self, folder: Path, cookies: bool):
        port = free_port()
        (folder / "example.zone").write_text(ZONE)
        words = {"server": SERVER, "port": port, "folder": folder}
        configuration = folder / "nsd.conf"
        configuration.write_text(CONFIGURATION.format(**words, cookies="yes" if cookies else "no"))
        self.cookies = cookies
        self.log = folder / "nsd.log"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((SERVER, port))
        self._socket.settimeout(0.2)
        self._process = subprocess.Popen(["nsd", "-d", "-c", str(configuration)])

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.ask(query("example", SOA))
            except OSError:  # refused, or no answer in time
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"nsd does not answer: {self.log.read_text()}")

    def ask(self, request: bytes) -> bytes:
        """Its reply."""
        self._socket.send(request)
        while True:
            reply = self._socket.recv(65535)
            if reply[:2] == request[:2]:
                return reply

    def close(self) -> None:
        """End it, and the children that it made."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def bench() -> Iterator[DNSBench]:
    with DNSBench() as bench:
        yield bench


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "cookies"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if not shutil.which("nsd"):
        pytest.skip("there is no nsd: apt-get install --no-install-recommends nsd")
    server = Server(tmp_path_factory.mktemp("nsd"), request.param)
    try:
        server.wait()
        yield server
    finally:
        server.close()


FLAGS = (0, RD, CD, RD | AD, RD | CD, RD | CD | AD)


@dataclass
class Tally:
    """How many replies were learned, of what kind, and how many were given."""

    learned: int = 0
    cookies: int = 0
    signed: int = 0
    denials: int = 0
    given: int = 0
    shorter: int = 0
    kept_back: int = 0

    def learn(self, reply: bytes, stored: Stored) -> None:
        self.learned += 1
        self.cookies += stored.length < len(reply)
        self.signed += bytes([0, RRSIG, 0, 1]) in reply
        self.denials += reply[3] & 0xF == NXDOMAIN


def forms() -> Iterator[tuple[int, bytes]]:
    """Flags and OPT record of several requests."""
    for flags in FLAGS:
        for edns in EDNS.values():
            yield flags, edns


def test_what_is_given_is_what_the_server_says(bench: DNSBench, server: Server) -> None:
    """Learn from one client, give to all others that have the same key."""
    tally = Tally()
    for name, qtype in NAMES:
        for flags, edns in forms():
            request = query(name, qtype, flags=flags, edns=edns, ident=0x1001)
            reply = server.ask(request)
            intent, key = bench.request(request)
            if intent is not Intent.READ:
                assert qtype == 250
                continue
            assert key is not None
            stored, what = bench.learned(reply, TTL, key[-1]), reference.learn(reply, TTL, key[-1])
            assert (stored is None) == (what is None), reply.hex()
            if stored is not None:
                assert stored.key == key
                tally.learn(reply, stored)
                give_to_others(bench, server, stored, (name, qtype), tally)
    assert (tally.cookies > 0) == server.cookies
    assert tally.signed > 50
    assert tally.denials > 20
    assert tally.learned > 250
    assert tally.given > 1000
    assert 0 < tally.shorter < tally.given / 10
    assert 0 < tally.kept_back < tally.given / 10


def give_to_others(
    bench: DNSBench, server: Server, stored: Stored, question: tuple[str, int], tally: Tally
) -> None:
    """Ask the server the same in another spelling, and compare what it says with what is given."""
    name, qtype = question
    for ident, (flags, edns) in enumerate(forms(), start=0x2000):
        request = query(name.swapcase(), qtype, flags=flags, edns=edns, ident=ident)
        if bench.request(request)[1] != stored.key:
            continue
        reply = without_cookie(server.ask(request), stored.key[-1])
        given = bench.given(stored.for_all(), request, 0)
        if given is None:
            assert stored.length > 512, "only for its length"
            tally.kept_back += 1
        elif given == reply:
            tally.given += 1
        else:
            less_is_said(given, reply)
            tally.shorter += 1


def without_cookie(reply: bytes, asked: int) -> bytes:
    what = reference.learn(reply, TTL, asked)
    return what.reply if what else reply


def less_is_said(given: bytes, reply: bytes) -> None:
    """What was learned from a client that takes less may lack additional records, and no other."""
    short, full = dns.message.from_wire(given), dns.message.from_wire(reply)
    assert len(given) < len(reply)
    assert (short.id, short.flags, short.question) == (full.id, full.flags, full.question)
    assert (short.answer, short.authority) == (full.answer, full.authority)
    assert all(rrset in full.additional for rrset in short.additional)


def test_a_reply_grows_old(bench: DNSBench, server: Server) -> None:
    """Apart from the TTLs, which are smaller by the age, it stays what the server says."""
    given_ = 0
    for name, qtype in NAMES:
        request = query(name.upper(), qtype, edns=opt(ttl=DO), ident=0x3001)
        reply = server.ask(request)
        stored = bench.learned(server.ask(query(name, qtype, edns=opt(ttl=DO))), TTL)
        given = stored and bench.given(stored.for_all(), request, 50)
        if given is None:
            continue
        given_ += 1
        young, old = dns.message.from_wire(reply), dns.message.from_wire(given)
        assert young == old
        for section, other in zip(young.sections[1:], old.sections[1:], strict=True):
            assert [rrset.ttl - 50 for rrset in section] == [rrset.ttl for rrset in other]
    assert given_ >= 12
