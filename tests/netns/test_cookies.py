# SPDX-License-Identifier: Apache-2.0
"""DNS cookies: real servers that give them, and clients that insist on them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import pytest

from carom.protocols.dns import message as messages
from carom.protocols.dns.cookie import server_cookie
from netns import line as lines
from netns.cookies import CookieServer, Discarded, Stub
from netns.line import Line
from netns.process import HERE, INTERFACE, Carom, run, until
from netns.tools import tell, tool

SECRET, OTHER = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf"), bytes(range(16))
TIMES = 10
FRONT = ("--protocol", "dns", "--bind", "::", "--ttl", "1h")
HOOKS = {
    "generic": ("--hook", "xdp", "--mode", "generic"),
    "native": ("--hook", "xdp", "--mode", "native"),
    "tc": ("--hook", "tc"),
}
KINDS = [("bind", "native"), ("nsd", "native"), ("knot", "native"), ("nsd", "generic")]
KINDS += [("bind", "tc")]


def secret_file(folder: Path, *secrets: bytes) -> Path:
    """A file with these, put in place at once."""
    file, new = folder / "secrets", folder / "secrets.new"
    new.touch(mode=0o600)
    new.write_text("".join(f"{secret.hex()}\n" for secret in secrets))
    new.rename(file)
    return file


def front(line: Line, *arguments: str) -> Carom:
    return Carom(line.server, *FRONT, "--hook", "tc", *arguments, command="front")


def only_hits(carom: Carom, before: dict[str, int]) -> int:
    """How many hits there were since, and nothing else; a veth has no room for some of them.

    A request whose sum looks half-made is the server's, and counts as one.
    """
    changed = carom.since(before)
    half_made = changed.pop("pass_checksum", 0)
    assert half_made <= 1
    assert changed.pop("fills", 0) <= half_made
    assert not changed.keys() - {"hit", "pass_to_tc"}
    return changed.get("hit", 0) + half_made


class Fronted(NamedTuple):
    """A name server behind carom."""

    server: CookieServer
    carom: Carom
    line: Line

    def cookies(self) -> dict[str, Any]:
        """What carom knows of its cookies."""
        found: dict[str, Any] = self.carom.status()["services"][0]["cookies"]
        return found

    def learn(self, *names: str, kind: str = "A", flags: int = 0) -> None:
        """Have the kernel know these names, as clients without a cookie ask for them.

        At both addresses: BIND has a socket for each, and what one says is not the other's.
        """
        for version in (4, 6):
            with Stub(self.line.client, self.line.over(version).address) as stub:
                for name in names:
                    query = stub.query(name, kind, flags=flags)
                    until(lambda query=query: self._hits(stub, query), f"a hit of {name}")

    def _hits(self, stub: Stub, query: bytes) -> bool:
        before = self.carom.counters()
        stub.exchange(query)
        return self.carom.since(before).get("hit", 0) > 0


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def shared(
    request: pytest.FixtureRequest, straight: Line, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    """A server that has its secret in common with carom."""
    kind, hook = request.param
    folder = tmp_path_factory.mktemp(kind)
    file = secret_file(folder, OTHER, SECRET)
    with (
        CookieServer(straight.server, folder, kind, SECRET) as server,
        Carom(
            straight.server,
            *FRONT,
            *HOOKS[hook],
            "--cookie-secret-file",
            str(file),
            command="front",
        ) as carom,
    ):
        yield Fronted(server, carom, straight)


@pytest.fixture(params=[4, 6])
def stub(request: pytest.FixtureRequest, straight: Line) -> Iterator[Stub]:
    with Stub(straight.client, straight.over(request.param).address) as stub:
        yield stub


def test_the_secret_is_the_servers(shared: Fronted) -> None:
    """It was asked before anything was answered, so that this is known from the start."""
    found = shared.cookies()
    assert (found["server"], found["secret"], found["secrets"]) == ("gives", "right", 2)
    assert not found["advice"]
    assert not [note for note in shared.carom.ready["notes"] if "cookie" in note]
    shown = run(shared.carom.namespace, "status", "--pid", str(shared.carom.pid))
    assert "cookies: hits return them" in shown.stdout


@pytest.mark.parametrize("spelled", ["www.example.org", "wWw.eXAMple.oRG"])
def test_a_careful_client_is_answered_by_hits(shared: Fronted, stub: Stub, spelled: str) -> None:
    shared.learn("www.example.org")
    hits = TIMES
    if spelled != "www.example.org" and shared.server.kind == "bind":
        hits = 0  # it would spell it in its own way
    else:
        shared.learn(spelled)
    stub.ask("ns.example.org")
    assert len(stub.server) == 16
    before = shared.carom.counters()
    for _ in range(TIMES):
        reply = stub.ask(spelled)
        assert reply.question[0].name.to_text(True) == spelled
        assert [str(one) for one in reply.answer[0]] == ["198.18.0.10"]
    if hits:
        assert only_hits(shared.carom, before) == hits
    else:
        assert "hit" not in shared.carom.since(before)


@pytest.mark.parametrize("name", ["odd", "even", "some", "large"])
def test_what_is_given_is_what_the_server_says(shared: Fronted, stub: Stub, name: str) -> None:
    """But for TTLs; of all lengths, also those that XDP leaves to TC."""
    name += ".example.org"
    shared.learn(name, kind="TXT")
    cookie = made(stub, 0)
    query = stub.query(name, "TXT", cookie)
    with Stub(shared.line.server, "127.0.0.1") as direct:
        its = direct.exchange(direct.query(name, "TXT", made(direct, 0)))
    before = shared.carom.counters()
    given = stub.exchange(query)
    assert only_hits(shared.carom, before) == 1
    assert messages.cookie_of(given) == cookie
    ours, theirs = dns.message.from_wire(given), dns.message.from_wire(its)
    theirs.id = ours.id
    assert ours == theirs
    assert (ours.edns, ours.ednsflags, ours.flags) == (theirs.edns, theirs.ednsflags, theirs.flags)
    assert len(given) == len(its)


def made(stub: Stub, age: int, **changes: Any) -> bytes:
    """A whole cookie of a client's, made so many seconds ago."""
    facts: dict[str, Any] = {"secret": SECRET, "client": stub.address, "version": 1} | changes
    part = server_cookie(
        facts["secret"],
        stub.client,
        facts["client"],
        int(time.time()) - age,
        version=facts["version"],
    )
    return stub.client + part


HIT, PASSES = "hit", "pass_cookie"
ROWS: dict[str, tuple[Callable[[Stub], bytes], str]] = {
    "the client's part": (lambda stub: stub.client, PASSES),
    "now": (lambda stub: made(stub, 0), HIT),
    "20 minutes": (lambda stub: made(stub, 1200), HIT),
    "40 minutes": (lambda stub: made(stub, 2400), PASSES),
    "65 minutes": (lambda stub: made(stub, 3900), PASSES),
    "4 minutes ahead": (lambda stub: made(stub, -240), HIT),
    "6 minutes ahead": (lambda stub: made(stub, -360), PASSES),
    "wrong": (lambda stub: stub.client + os.urandom(16), PASSES),
    "another secret": (lambda stub: made(stub, 0, secret=bytes(16)), PASSES),
    "another client": (lambda stub: made(stub, 0, client="198.18.7.7"), PASSES),
    "another version": (lambda stub: made(stub, 0, version=2), PASSES),
    "16 bytes": (lambda stub: stub.client + os.urandom(8), PASSES),
    "40 bytes": (lambda stub: made(stub, 0) + os.urandom(16), PASSES),
    "7 bytes": (lambda stub: stub.client[:7], "pass_request"),
    "41 bytes": (lambda stub: made(stub, 0) + os.urandom(17), "pass_request"),
}
STRICT = {"the client's part", "65 minutes", "wrong", "another secret", "another client"}
"""Cookies that Knot refuses, and the others answer."""


@pytest.mark.parametrize(("make", "verdict"), ROWS.values(), ids=ROWS)
def test_each_kind_of_cookie(
    request: pytest.FixtureRequest,
    shared: Fronted,
    stub: Stub,
    make: Callable[[Stub], bytes],
    verdict: str,
) -> None:
    shared.learn("www.example.org")
    sent = make(stub)
    before = shared.carom.counters()
    reply = stub.exchange(stub.query("www.example.org", "A", sent))
    changed = shared.carom.since(before)
    assert changed[verdict] == 1
    assert verdict == HIT or "hit" not in changed
    parsed, got = dns.message.from_wire(reply), messages.cookie_of(reply)
    row = request.node.callspec.id.split("-")[-1]
    if verdict == HIT:
        assert got == sent
    elif verdict == "pass_request":
        assert parsed.rcode() == dns.rcode.FORMERR
        return
    elif row in STRICT and shared.server.kind == "knot":
        assert parsed.rcode() == dns.rcode.BADCOOKIE
        assert got is not None
        assert got[:8] == stub.client
        return
    elif len(sent) in (8, 24) and got:  # the server's own, by the secret that they share
        assert got[:8] == stub.client
        seconds = int.from_bytes(got[12:16])
        assert got[8:] == server_cookie(SECRET, stub.client, stub.address, seconds)
    if parsed.rcode() == dns.rcode.NOERROR:
        assert [str(one) for one in parsed.answer[0]] == ["198.18.0.10"]
    else:
        assert (shared.server.kind, parsed.rcode()) == ("knot", dns.rcode.BADCOOKIE)


def test_two_cookies_and_others_beside_one(shared: Fronted, stub: Stub) -> None:
    """What the server makes of them is its own to say."""
    shared.learn("www.example.org")
    cookie = made(stub, 0)
    before = shared.carom.counters()
    stub.exchange(stub.query("www.example.org", "A", cookie, cookie))
    query = bytearray(stub.query("www.example.org", "A", cookie))
    at = len(query) - 28 - 2
    query[at : at + 2] = (32).to_bytes(2)
    stub.exchange(bytes(query) + b"\0\3\0\0")  # NSID
    changed = shared.carom.since(before)
    assert changed["pass_request"] == 2
    assert "hit" not in changed


@pytest.mark.parametrize("program", ["dig", "kdig"])
def test_dig(shared: Fronted, straight: Line, stub: Stub, program: str) -> None:
    for flags in (0, dns.flags.AD):  # dig sets it
        shared.learn("www.example.org", flags=flags)
    address = stub._socket.getpeername()[0]
    cookie = made(stub, 0).hex()
    shown = ""
    before = shared.carom.counters()
    for _ in range(2):
        shown = tell(
            straight.client,
            tool(program),
            *(f"@{address}", "www.example.org", "A", "+norecurse", f"+cookie={cookie}"),
        )
    assert only_hits(shared.carom, before) == 2
    assert "198.18.0.10" in shown
    assert cookie in shown.replace(" ", "").lower()


def test_dig_with_what_it_was_given(shared: Fronted, straight: Line) -> None:
    """A first query without a server's part, and a second with the one that came."""
    shared.learn("www.example.org")
    asked = (f"@{straight.address}", "www.example.org", "+norecurse")
    shown = tell(straight.client, tool("dig"), *asked, "+cookie=0011223344556677")
    (cookie,) = re.findall(r"COOKIE: ([0-9a-f]{48}) \(good\)", shown)
    before = shared.carom.counters()
    shown = tell(straight.client, tool("dig"), *asked, f"+cookie={cookie}")
    assert only_hits(shared.carom, before) == 1
    assert cookie in shown


NAMES = [f"name{number}.example.org" for number in range(TIMES)]


def cares(line: Line, address: str) -> int:
    """How many of the names c-ares has an answer to."""
    pytest.importorskip("pycares")
    script = str(HERE / "cares.py")
    return int(tell(line.client, sys.executable, "-P", script, address, "ns.example.org", *NAMES))


@pytest.mark.parametrize("version", [4, 6])
def test_c_ares(shared: Fronted, straight: Line, version: int) -> None:
    shared.learn(*NAMES, "ns.example.org", flags=dns.flags.RD)
    run(shared.carom.namespace, "cache", "drop", "ns.example.org", "--pid", str(shared.carom.pid))
    before = shared.carom.counters()
    assert cares(straight, straight.over(version).address) == 1 + TIMES
    changed = shared.carom.since(before)
    assert changed["hit"] + changed.get("pass_checksum", 0) == TIMES


# Servers of which carom knows less.


@pytest.fixture(scope="module", params=["bind", "nsd", "knot"])
def unshared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    """A server that gives cookies by a secret that nobody knows, on a pair of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    with (
        lines.straight() as line,
        CookieServer(line.server, folder, request.param) as server,
        front(line) as carom,
    ):
        yield Fronted(server, carom, line)


@pytest.fixture(params=[4, 6])
def other(request: pytest.FixtureRequest, unshared: Fronted) -> Iterator[Stub]:
    """A careful client of that server."""
    line = unshared.line
    with Stub(line.client, line.over(request.param).address) as stub:
        yield stub


def test_without_a_secret_it_is_said(unshared: Fronted) -> None:
    """In the ready line's notes, in the log and in the status; with what to do."""
    notes = [note for note in unshared.carom.ready["notes"] if "cookie" in note]
    assert len(notes) == 1
    assert "--cookie-secret-file" in notes[0]
    assert notes[0] in unshared.carom.stderr()
    found = unshared.cookies()
    assert (found["server"], found["secret"], found["advice"]) == ("gives", "none", notes[0])
    shown = run(unshared.carom.namespace, "status", "--pid", str(unshared.carom.pid))
    assert notes[0] in shown.stdout


def test_without_a_secret_the_server_answers(unshared: Fronted, other: Stub) -> None:
    unshared.learn("www.example.org")
    other.ask("ns.example.org")
    before = unshared.carom.counters()
    for _ in range(TIMES):
        assert [str(one) for one in other.ask("www.example.org").answer[0]] == ["198.18.0.10"]
    changed = unshared.carom.since(before)
    assert "hit" not in changed
    assert changed["pass_cookie"] == TIMES


def test_c_ares_without_a_secret(unshared: Fronted) -> None:
    unshared.learn(*NAMES, "ns.example.org", flags=dns.flags.RD)
    before = unshared.carom.counters()
    assert cares(unshared.line, unshared.line.address) == 1 + TIMES
    assert "hit" not in unshared.carom.since(before)


def test_those_without_a_cookie_are_answered_all_the_same(unshared: Fronted, other: Stub) -> None:
    unshared.learn("www.example.org")
    before = unshared.carom.counters()
    for _ in range(TIMES):
        other.exchange(other.query("www.example.org"))
    assert only_hits(unshared.carom, before) == TIMES


@pytest.mark.parametrize("kind", ["bind", "nsd", "knot"])
def test_a_secret_that_is_rolled(own_line: Line, tmp_path: Path, kind: str) -> None:
    """By the server alone: all pass, and it is said. Then in the file too: they are hits again."""
    file = secret_file(tmp_path, SECRET)
    with (
        CookieServer(own_line.server, tmp_path, kind, SECRET) as server,
        front(own_line, "--cookie-secret-file", str(file)) as carom,
        Stub(own_line.client, own_line.address) as stub,
    ):
        fronted = Fronted(server, carom, own_line)
        fronted.learn("www.example.org")
        stub.ask("ns.example.org")
        old = stub.server
        assert hits(fronted, stub) == TIMES

        server.restart(OTHER)
        until(lambda: judged(fronted, own_line, "secret") == "wrong", "the new secret to be seen")
        fronted.learn("www.example.org")
        assert hits(fronted, stub) == 0  # it has the old cookie, and then a new one
        assert stub.server != old
        assert hits(fronted, stub) == 0
        advice = fronted.cookies()["advice"]
        assert "is not in" in advice
        until(lambda: advice in carom.stderr(), "it to be logged")

        secret_file(tmp_path, OTHER, SECRET)
        until(lambda: fronted.cookies()["secret"] == "right", "the file to be read")
        assert not fronted.cookies()["advice"]
        fronted.learn("www.example.org")
        assert hits(fronted, stub) == TIMES


def judged(fronted: Fronted, line: Line, what: str) -> str:
    """What is known of the `server`, or the `secret`, once another client has asked it."""
    with Stub(line.client, line.address) as another:
        another.ask("ns.example.org")
    return str(fronted.cookies()[what])


def hits(fronted: Fronted, stub: Stub) -> int:
    """How many of ten queries of a careful client, all answered, are hits; none other has one."""
    before = fronted.carom.counters()
    for _ in range(TIMES):
        assert [str(one) for one in stub.ask("www.example.org").answer[0]] == ["198.18.0.10"]
    changed = fronted.carom.since(before)
    found = changed.get("hit", 0)
    assert changed.get("pass_cookie", 0) >= TIMES - found
    return found


def test_a_server_that_gives_none_and_then_does(own_line: Line, tmp_path: Path) -> None:
    """Clients with their own part are answered as by the server; until it gives cookies."""
    with (
        CookieServer(own_line.server, tmp_path, "nsd", cookies=False) as server,
        front(own_line) as carom,
        Stub(own_line.client, own_line.address) as stub,
    ):
        fronted = Fronted(server, carom, own_line)
        assert fronted.cookies()["server"] == "none"
        assert not [note for note in carom.ready["notes"] if "cookie" in note]
        fronted.learn("www.example.org")
        before = carom.counters()
        for _ in range(TIMES):
            stub.ask("www.example.org")
        assert stub.server == b""
        assert only_hits(carom, before) == TIMES
        # Who has a cookie was given it, by whomever: the server says what it says.
        whole = stub.query("www.example.org", "A", made(stub, 0))
        before = carom.counters()
        assert messages.cookie_of(stub.exchange(whole)) == b""
        assert carom.since(before)["pass_cookie"] == 1

        server.restart(cookies=True)
        until(lambda: judged(fronted, own_line, "server") == "gives", "its cookies to be seen")
        assert "--cookie-secret-file" in fronted.cookies()["advice"]
        fronted.learn("www.example.org")
        assert hits(fronted, stub) == 0
        assert stub.server

        server.restart(cookies=False)
        until(lambda: judged(fronted, own_line, "server") == "none", "them to be off again")
        with Stub(own_line.client, own_line.address) as other:
            fronted.learn("www.example.org")
            assert hits_without(fronted, other) == TIMES


def hits_without(fronted: Fronted, stub: Stub) -> int:
    before = fronted.carom.counters()
    for _ in range(TIMES):
        stub.ask("www.example.org")
    return fronted.carom.since(before).get("hit", 0)


def test_a_hit_without_a_cookie_would_be_discarded(own_line: Line, tmp_path: Path) -> None:
    """What this is all for: a careful client takes no reply without the cookie that it had."""
    with (
        CookieServer(own_line.server, tmp_path, "nsd", SECRET) as server,
        Stub(own_line.client, own_line.address) as stub,
    ):
        stub.ask("www.example.org")
        assert stub.server
        server.restart(cookies=False)
        with pytest.raises(Discarded):
            stub.ask("www.example.org")


WRONG = {
    "absent": (None, 0o600, "cannot read"),
    "readable": (f"{SECRET.hex()}\n", 0o644, "others than its owner"),
    "empty": ("# none yet\n", 0o600, "has no cookie secrets"),
    "short": (f"{SECRET.hex()}\n0123\n", 0o600, "line 2"),
    "many": ("".join(f"{n:032x}\n" for n in range(5)), 0o600, "5 cookie secrets"),
}


@pytest.mark.parametrize(("text", "mode", "said"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_do(
    straight: Line, tmp_path: Path, text: str | None, mode: int, said: str
) -> None:
    """Exit 2, and no secret is told."""
    file = tmp_path / "secrets"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    asked = ("front", "-i", INTERFACE, *FRONT, "--cookie-secret-file", str(file))
    ended = run(straight.server, *asked)
    assert ended.code == 2
    assert said in ended.stderr
    assert SECRET.hex() not in ended.stderr
    assert "Traceback" not in ended.stderr
