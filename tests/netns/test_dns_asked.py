# SPDX-License-Identifier: Apache-2.0
"""DNS as people ask: every bit, option and spelling, before servers of all kinds.

Whatever is asked, the reply by carom is the one that the server gives at that moment, byte by byte,
but for its id and its TTLs, which are no larger.
"""

from __future__ import annotations

import itertools
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from carom.daemon import control
from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.process import DEADLINE, Carom
from netns.resolving import KINDS, NAMES, PORT, ZONES, running
from netns.sums import looks_half_made
from netns.tools import tell, tool
from prog.dns_bench import AAAA, AD, CD, DO, MX, RD, TXT, A, name, opt, query

FRONT = ("--protocol", "dns", "--ttl", "1h", "--prefix-rate", "0", "--total-rate", "0")
FLAGS = tuple(rd | ad | cd for rd in (0, RD) for ad in (0, AD) for cd in (0, CD))
EDNS = (b"", opt(), opt(ttl=DO))
TYPES = {"six": AAAA, "text": TXT, "": MX}
QUESTIONS = tuple(
    (".".join(filter(None, (one, zone))), TYPES.get(one, A)) for one in NAMES for zone in ZONES
)
COUNT, LONG = 1500, 30_000
EXACT = tuple(kind for kind in KINDS if kind != "dnsmasq")
"""dnsmasq says another thing of what it has than of what it hands on, to whoever asks."""


class Asker(Resource):
    """A client's socket."""

    def __init__(self, namespace: Namespace, address: str):
        self._socket = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.connect((address, PORT))
        self._socket.settimeout(DEADLINE)
        self._ids = itertools.count(1)

    def ask(self, qname: str, qtype: int, flags: int, edns: bytes) -> bytes:
        """The reply, without its id."""
        while True:
            ident = next(self._ids) & 0xFFFF
            asked = query(qname, qtype, flags=flags, edns=edns, ident=ident)
            if not looks_half_made(self._socket, asked):
                break
        self._socket.send(asked)
        while (reply := self._socket.recv(4096))[:2] != asked[:2]:
            pass
        return reply[2:]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Parted(NamedTuple):
    """A reply with zeros for its TTLs, and these."""

    rest: bytes
    ttls: tuple[int, ...]


def parted(reply: bytes) -> Parted:
    """`reply` is without its id. OPT's TTL is none."""
    data, ttls = bytearray(reply), []

    def behind_name(at: int) -> int:
        while data[at]:
            if data[at] >= 0xC0:
                return at + 2
            at += data[at] + 1
        return at + 1

    at = behind_name(10) + 4
    for _ in range(sum(struct.unpack_from("!3H", data, 4))):
        at = behind_name(at)
        kind, _, ttl, size = struct.unpack_from("!HHIH", data, at)
        if kind != 41:
            ttls.append(ttl)
            data[at + 4 : at + 8] = bytes(4)
        at += 10 + size
    assert at == len(data)
    return Parted(bytes(data), tuple(ttls))


def spelled(qname: str, chance: random.Random) -> str:
    """In small letters half the time; else anyhow."""
    if chance.random() < 0.5:
        return qname
    return "".join(one.upper() if chance.random() < 0.5 else one for one in qname)


class Fronted(NamedTuple):
    """A server of some kind, carom before it, and who asks through carom and past it."""

    kind: str
    carom: Carom
    line: Line
    asker: Asker
    direct: Asker


@pytest.fixture(scope="module", params=KINDS)
def fronted(
    request: pytest.FixtureRequest, straight: Line, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        running(straight.server, folder, request.param),
        Carom(straight.server, *FRONT, "--hook", "tc", command="front") as carom,
        Asker(straight.client, straight.address) as asker,
        Asker(straight.server, "127.0.0.1") as direct,
    ):
        yield Fronted(request.param, carom, straight, asker, direct)


def flush(fronted: Fronted) -> None:
    control.call("flush", fronted.carom.pid, timeout=DEADLINE)


def hits(fronted: Fronted, ask: Callable[[], object]) -> int:
    before = fronted.carom.counters()
    ask()
    return fronted.carom.since(before).get("hit", 0)


def test_the_same_as_the_server(fronted: Fronted, long_form: bool) -> None:
    """Random bits and spellings, in random order."""
    if fronted.kind not in EXACT:
        pytest.skip("its replies to one query differ")
    chance = random.Random(fronted.kind)
    for qname, qtype in QUESTIONS:  # a resolver says more once it knows more
        for edns in EDNS:
            fronted.direct.ask(qname, qtype, RD, edns)
    before, count = fronted.carom.counters(), LONG if long_form else COUNT
    for number in range(count):
        qname, qtype = chance.choice(QUESTIONS)
        if number % (count // 3) == 0:
            flush(fronted)
        asked = (spelled(qname, chance), qtype, chance.choice(FLAGS), chance.choice(EDNS))
        ours, theirs = parted(fronted.asker.ask(*asked)), parted(fronted.direct.ask(*asked))
        assert ours.rest == theirs.rest, f"{asked}: {ours.rest.hex()}, server {theirs.rest.hex()}"
        assert all(one <= other + 1 for one, other in zip(ours.ttls, theirs.ttls, strict=True))
    changed = fronted.carom.since(before)
    print(changed)
    assert changed["hit"] > count / 20


@pytest.mark.parametrize("edns", EDNS, ids=["plain", "edns", "do"])
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: f"{flags:#x}")
def test_whoever_asks_twice_is_answered(fronted: Fronted, flags: int, edns: bytes) -> None:
    """The second time by the kernel; but where the server refuses, as unbound does without RD."""
    flush(fronted)
    for qname, qtype in (("www.plain.test", A), ("www.signed.test", A), ("nothing.plain.test", A)):
        asked = (qname, qtype, flags, edns)
        first = fronted.asker.ask(*asked)
        again = hits(fronted, lambda asked=asked: fronted.asker.ask(*asked))
        refused = first[1] & 15 not in (0, 3)
        assert again == (not refused), asked
        assert not refused or (fronted.kind.startswith("unbound") and not flags & RD)


@pytest.mark.parametrize("edns", EDNS, ids=["plain", "edns", "do"])
def test_nobody_gets_what_another_asked(fronted: Fronted, edns: bytes) -> None:
    """Each of all ways to ask has a miss of its own."""
    flush(fronted)
    for flags in FLAGS:
        asked = ("www.signed.test", A, flags, edns)
        assert hits(fronted, lambda asked=asked: fronted.asker.ask(*asked)) == 0


def test_spellings(fronted: Fronted) -> None:
    """Where the server points to the question whatever it looks like, all are answered."""
    flush(fronted)

    def ask(qname: str) -> int:
        def once() -> None:
            reply = fronted.asker.ask(qname, A, RD, b"")
            assert reply[10 : 10 + len(name(qname))] == name(qname)

        return hits(fronted, once)

    assert [ask("www.plain.test") for _ in range(2)] == [0, 1]
    others = ("WWW.PLAIN.TEST", "Www.Plain.Test", "wWW.pLAIN.tEST")
    found = [ask(one) for one in others for _ in range(2)]
    assert ask("www.plain.test") == 1, "nobody pushes it out"
    if fronted.kind.startswith("bind"):
        assert found == [0] * 6
    elif fronted.kind in EXACT:
        assert found == [0, 1, 1, 1, 1, 1]
    else:
        assert found == [0, 0, 0, 1, 1, 1], "two others are the same"


DIG = {
    "dig": (),
    "dig +noedns": ("+noedns",),
    "dig +dnssec": ("+dnssec",),
    "dig +cd": ("+cd",),
    "dig +cd +dnssec": ("+cd", "+dnssec"),
    "dig +noad": ("+noadflag",),
    "dig +norec": ("+norecurse",),
    "kdig": (),
    "kdig +dnssec": ("+dnssec",),
}


@pytest.mark.parametrize("words", DIG)
def test_dig(fronted: Fronted, words: str) -> None:
    """As it asks by itself: AD is set, and a cookie sent."""
    if "+norec" in words and fronted.kind.startswith("unbound"):
        pytest.skip("unbound refuses it")
    flush(fronted)
    program, options = tool(words.split()[0]), ("+time=60", "+retry=0", *DIG[words])
    for one in ("www.plain.test", "www.signed.test", "nothing.plain.test"):
        asked = (f"@{fronted.line.address}", one, "A", *options)

        def ask(asked: tuple[str, ...] = asked) -> None:
            assert "status: N" in tell(fronted.line.client, program, *asked)

        assert [hits(fronted, ask) for _ in range(2)] == [0, 1]


GLIBC = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 1, socket.AF_INET)[0][4][0])"


@pytest.mark.parametrize("options", ["", "trust-ad", "edns0", "edns0 trust-ad"])
def test_glibc(fronted: Fronted, tmp_path: Path, options: str) -> None:
    """By getaddrinfo(3), with the resolv.conf of a systemd and without its options."""
    flush(fronted)
    file = tmp_path / "resolv.conf"
    told = f"options {options}\n" if options else ""
    file.write_text(f"nameserver {fronted.line.address}\n{told}")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    mounts = (
        f"mount --bind {file} $(readlink -f /etc/resolv.conf) && "
        f"mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf && "
    )
    python = f"exec {tool('python3')} -c '{GLIBC}' www.signed.test"
    command = (tool("unshare"), "-m", "sh", "-c", mounts + python)

    def ask() -> None:
        assert tell(fronted.line.client, *command) == "198.18.0.10\n"

    assert [hits(fronted, ask) for _ in range(2)] == [0, 1]
