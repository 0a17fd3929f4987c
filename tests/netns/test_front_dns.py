# SPDX-License-Identifier: Apache-2.0
"""`carom front --protocol dns` before a real name server (NSD)."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR

from carom.include.resource import Resource
from carom.vm.namespace import Namespace
from carom.vm.netns import SERVER_IPV6
from netns.line import Line
from netns.process import DEADLINE, Carom, run, until

PORT = 53
NXDOMAIN = 3

CONFIGURATION = """
server:
  port: {port}
  ip-address: 0.0.0.0
  ip-address: ::0
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/pid"
  xfrdfile: "{folder}/xfrd"
  zonelistfile: "{folder}/zonelist"
  answer-cookie: no
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: zone
"""

ZONE = """
$ORIGIN example.org.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
ns A 198.18.0.2
www 300 A 198.18.0.10
www 300 A 198.18.0.11
www 600 AAAA 2001:db8::10
alias CNAME www
brief 0 A 198.18.0.12
long TXT "{text}" "{text}"
"""


class NSD(Resource):
    """NSD with one zone; skips the test where it is not installed."""

    def __init__(self, namespace: Namespace, folder: Path, port: int = PORT):
        binary = shutil.which("nsd", path="/usr/sbin:/usr/bin")
        if not binary:
            pytest.skip("nsd is not installed")
        (folder / "nsd.conf").write_text(CONFIGURATION.format(folder=folder, port=port))
        (folder / "zone").write_text(ZONE.format(text="x" * 250))
        self._process = subprocess.Popen(
            namespace.argv([binary, "-d", "-c", str(folder / "nsd.conf")]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Resolver(namespace, "127.0.0.1", port) as resolver:
            until(lambda: resolver.tries("ns.example.org"), "NSD to answer")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


class Resolver(Resource):
    """Asks a name server."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.connect((address, port))
        self._id = 0

    def tries(self, name: str) -> bool:
        """Whether there is an answer within a moment."""
        try:
            self.ask(name, patience=0.2)
        except OSError:
            return False
        return True

    def ask(self, name: str, kind: str = "A", *, patience: float = DEADLINE, **fields: int) -> DNS:
        """Ask, and return the reply, which answers just this question."""
        self._id = self._id % 65_535 + 1
        self._socket.settimeout(patience)
        query = DNS(**{"id": self._id, "rd": 0} | fields, qd=DNSQR(qname=name, qtype=kind))
        self._socket.send(bytes(query))
        reply = DNS(self._socket.recv(65_536))
        assert (reply.id, reply.rd, reply.qr) == (query.id, query.rd, 1)
        assert bytes(reply.qd[0].qname).decode() == name + "."
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture(scope="module")
def nsd(straight: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NSD]:
    with NSD(straight.server, tmp_path_factory.mktemp("nsd")) as nsd:
        yield nsd


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, nsd: NSD) -> Iterator[Carom]:
    arguments = ("--protocol", "dns", "--hook", request.param, "--bind", "::", "--ttl", "1h")
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


@pytest.fixture(params=["198.18.0.2", SERVER_IPV6], ids=["ipv4", "ipv6"])
def resolver(request: pytest.FixtureRequest, straight: Line) -> Iterator[Resolver]:
    with Resolver(straight.client, request.param) as resolver:
        yield resolver


@pytest.fixture
def direct(straight: Line) -> Iterator[Resolver]:
    """Asks the server by loopback, where no fast path is."""
    with Resolver(straight.server, "127.0.0.1") as resolver:
        yield resolver


def records(reply: DNS) -> list[bytes]:
    """The answers without their TTLs."""
    found = []
    for one in reply.an or []:
        without = one.copy()
        without.ttl = 0
        found.append(bytes(without))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("www.example.org", "A"),
        ("www.example.org", "AAAA"),
        ("alias.example.org", "A"),
        ("long.example.org", "TXT"),
        ("example.org", "SOA"),
        ("example.org", "NS"),
        ("nope.example.org", "A"),
        ("ns.example.org", "MX"),
    ],
)
def test_learned(front: Carom, resolver: Resolver, direct: Resolver, name: str, kind: str) -> None:
    """The kernel answers as the server does, TTLs apart, which never exceed the server's."""
    expected = direct.ask(name, kind)
    run(front.namespace, "cache", "flush", "--pid", str(front.pid))
    before = front.counters()
    replies = [resolver.ask(name, kind) for _ in range(4)]
    changed = front.since(before)
    if expected.tc:
        assert changed.get("hit", 0) == 0, "a truncated reply is not learned"
    else:
        assert changed["hit"] == 3
    for reply in replies:
        assert (reply.rcode, reply.aa, reply.tc) == (expected.rcode, expected.aa, expected.tc)
        assert records(reply) == records(expected)
        for ours, theirs in zip(reply.an or [], expected.an or [], strict=True):
            assert ours.ttl <= theirs.ttl


def test_spelling_and_flags_are_the_clients_own(front: Carom, resolver: Resolver) -> None:
    resolver.ask("www.example.org")
    before = front.counters()
    for name in ("WWW.example.org", "wWw.ExAmPlE.oRg", "www.EXAMPLE.ORG"):
        resolver.ask(name)
    assert front.since(before)["hit"] == 3
    resolver.ask("www.example.org", rd=1)


def test_ttls_count_down(front: Carom, resolver: Resolver) -> None:
    run(front.namespace, "cache", "flush", "--pid", str(front.pid))
    resolver.ask("www.example.org")
    start = time.monotonic()
    first = resolver.ask("www.example.org").an[0].ttl
    until(lambda: time.monotonic() - start > 2, "two seconds to pass")
    assert resolver.ask("www.example.org").an[0].ttl <= first - 2


def test_a_ttl_of_0_is_not_kept(front: Carom, resolver: Resolver) -> None:
    before = front.counters()
    for _ in range(3):
        assert resolver.ask("brief.example.org").an[0].ttl == 0
    assert "hit" not in front.since(before)


def test_absent_names_say_so(front: Carom, resolver: Resolver) -> None:
    for _ in range(2):
        assert resolver.ask("nothing.example.org").rcode == NXDOMAIN


def test_drop_by_name(front: Carom, resolver: Resolver) -> None:
    resolver.ask("www.example.org", "AAAA")
    pid = ("--pid", str(front.pid))
    dropped = run(front.namespace, "cache", "drop", "www.example.org AAAA", *pid)
    assert dropped.stdout == "dropped\n"
    before = front.counters()
    resolver.ask("www.example.org", "AAAA")
    assert "hit" not in front.since(before)
