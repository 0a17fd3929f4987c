# SPDX-License-Identifier: Apache-2.0
"""Clients that others wrote ask a name server through `carom front`, and notice nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.vm.namespace import Namespace
from netns import line as lines
from netns.line import Line
from netns.nameserver import NSD
from netns.process import Carom
from netns.tools import number, tell, tool

FRONT = ("--protocol", "dns", "--bind", "::", "--ttl", "1h")
QUESTIONS = ("www.example.org A", "www.example.org AAAA", "alias.example.org A", "ns.example.org A")
REPEATS = 250
DIG = {
    "dig": ("+nocmd", "+nostats", "+retry=0", "+time=60"),
    "kdig": ("+nostats", "+retry=0", "+time=60"),
}
ASKED = (*QUESTIONS, "nope.example.org A", "example.org SOA", "example.org NS")
OPTIONS = {
    "plain": ("+noedns",),
    "edns": ("+edns", "+bufsize=1232"),
    "dnssec": ("+dnssec",),
    "iterative": ("+norecurse",),
}


@pytest.fixture(scope="module", params=["xdp", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, nsd: NSD) -> Iterator[Carom]:
    with Carom(straight.server, *FRONT, "--hook", request.param, command="front") as carom:
        yield carom


@pytest.fixture
def questions(tmp_path: Path) -> str:
    """A file that dnsperf and kxdpgun read."""
    file = tmp_path / "questions"
    file.write_text("".join(f"{question}\n" for question in QUESTIONS))
    return str(file)


def apart(shown: str) -> tuple[str, list[int]]:
    """What dig or kdig shows, without id and TTLs, which may differ; and the TTLs."""
    record = re.compile(r"^([^;\s]\S*\s+)(\d+)(\s+IN\s)", re.MULTILINE)
    ttls = [int(ttl) for _, ttl, _ in record.findall(shown)]
    return re.sub(r"id: \d+", "", record.sub(r"\1\3", shown)), ttls


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", DIG)
def test_dig_shows_the_same(
    front: Carom, straight: Line, name: str, version: int, options: tuple[str, ...]
) -> None:
    """The kernel's answers, as the client reads them, are the server's, TTLs apart."""
    program, server = tool(name), straight.over(version).address

    def ask(namespace: Namespace, address: str, question: str) -> tuple[str, list[int]]:
        arguments = (f"@{address}", *question.split(), *DIG[name], *options)
        return apart(tell(namespace, program, *arguments))

    truth = [ask(straight.server, "127.0.0.1", question) for question in ASKED]
    front.flush()  # what it says over lo is learned, too
    before = front.counters()
    for question, (expected, longest) in zip(ASKED, truth, strict=True):
        assert "status: N" in expected, "NOERROR or NXDOMAIN"
        for _ in range(2):
            shown, ttls = ask(straight.client, server, question)
            assert shown == expected
            assert all(ttl <= most for ttl, most in zip(ttls, longest, strict=True))
    count, changed = len(ASKED), front.since(before)
    half_made = changed.pop("pass_checksum", 0)  # one sum in 65,536 looks so: the server answers
    assert half_made <= 2
    assert changed["hit"] >= count - half_made
    assert changed["hit"] + changed["miss"] + half_made == 2 * count
    assert half_made or changed == {"miss": count, "fills": count, "hit": count}
    question = "wWw.eXample.ORG A"
    expected, _ = ask(straight.server, "127.0.0.1", question)
    ask(straight.client, server, question)
    before = front.counters()
    assert ask(straight.client, server, question)[0] == expected
    changed = front.since(before)
    assert changed.get("hit", 0) + changed.get("pass_checksum", 0) == 1


@pytest.mark.parametrize("options", [(), ("-e",), ("-D",)], ids=["plain", "edns", "dnssec"])
@pytest.mark.parametrize("version", [4, 6])
def test_dnsperf(
    front: Carom, straight: Line, questions: str, version: int, options: tuple[str, ...]
) -> None:
    """Every query has its reply, and once the questions are known all are the kernel's."""
    program, server = tool("dnsperf"), straight.over(version).address
    asked = ("-s", server, "-d", questions, "-t", "60", *options)
    tell(straight.client, program, *asked, "-n", "1")
    before = front.counters()
    shown = tell(straight.client, program, *asked, "-n", str(REPEATS))
    sent = len(QUESTIONS) * REPEATS
    assert number("Queries sent:", shown) == sent
    assert number("Queries completed:", shown) == sent
    assert f"NOERROR {sent} (100.00%)" in shown
    changed = front.since(before)
    half_made = changed.pop("pass_checksum", 0)  # one sum in 65,536 looks so
    assert changed.pop("fills", 0) <= half_made  # those are the server's to answer
    assert changed == {"hit": sent - half_made}
    assert half_made <= sent / 100


@pytest.mark.parametrize("at", [("xdp", "native"), ("xdp", "generic"), ("tc", None)], ids=str)
def test_kxdpgun(tmp_path: Path, questions: str, at: tuple[str, str | None]) -> None:
    """It sends and takes frames by XDP sockets, from an interface without a program of ours."""
    program = tool("kxdpgun")
    where = ("--hook", at[0], *(("--mode", at[1]) if at[1] else ()))
    with lines.bare() as line, NSD(line.server, tmp_path):
        with lines.met(line):
            front = Carom(line.server, *FRONT, *where, command="front")
        with front:
            shoot = (program, "-t", "1", "-Q", "2000", "-i", questions, line.address)
            first = tell(line.client, *shoot)
            before = front.counters()
            second = tell(line.client, *shoot)
            changed = front.since(before)
        for shown in (first, second):
            assert number("responded NOERROR:", shown) == number("total replies:", shown)
        assert number("total replies:", second) > 1000
        assert not changed.keys() - {"hit", "pass_to_tc", "pass_checksum"}, "no miss"
        assert sum(changed.values()) >= number("total replies:", second)
