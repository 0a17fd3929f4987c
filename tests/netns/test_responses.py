# SPDX-License-Identifier: Apache-2.0
"""`front --protocol dns --responses-per-second`: a flood of spoofed sources, and a real client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netns.line import Line
from netns.nameserver import NSD, PORT, Resolver
from netns.process import INTERFACE, Carom, run, until
from netns.tools import tell, tool
from netns.wire import Tap

NAME = "www.example.org"
LIMIT, SLIP, FLOOD = 20, 4, 3000


@pytest.fixture(params=[("--mode", "native"), ("--hook", "tc")], ids=["native", "tc"])
def front(request: pytest.FixtureRequest, straight: Line, nsd: NSD) -> Iterator[Carom]:
    arguments = ("--protocol", "dns", "--ttl", "1h", "--responses-per-second", str(LIMIT))
    arguments += ("--slip", str(SLIP), *request.param)
    with Carom(straight.server, *arguments, command="front") as carom:
        yield carom


def flood(line: Line, sources: list[str], count: int) -> None:
    """So many queries, in turn from each of these."""
    query = bytes(DNS(id=7, rd=0, qd=DNSQR(qname=NAME)))
    ends = Ether(src=line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
    frames = [
        bytes(ends / IP(src=one, dst=line.address) / UDP(sport=5353, dport=PORT) / query)
        for one in sources
    ]
    with Tap(line.client) as tap:
        for n in range(count):
            tap.send(frames[n % len(frames)])


def answered(carom: Carom, before: dict[str, int], count: int) -> dict[str, int]:
    """The verdicts, once there are so many."""
    names = ("hit", "slip", "pass_responses")
    until(lambda: sum(carom.since(before).get(n, 0) for n in names) == count, "all of the flood")
    return {name: carom.since(before).get(name, 0) for name in names}


def test_a_flood(front: Carom, straight: Line) -> None:
    """One prefix gets no more than its share in each second that it lasts, whoever asks there."""
    with Resolver(straight.client, straight.address) as resolver:
        until(lambda: resolver.tries(NAME) and front.counters()["hit"], "a hit")
    before = front.counters()
    sources = [f"198.18.7.{n}" for n in range(1, 255)]
    flood(straight, sources, FLOOD)
    found = answered(front, before, FLOOD)
    seconds = found["hit"] / LIMIT
    assert found["hit"], "the first are answered"
    assert found["hit"] <= FLOOD / 10, f"{seconds} seconds' worth"
    beyond = found["slip"] + found["pass_responses"]
    assert abs(found["slip"] - beyond / SLIP) <= seconds + 1
    # Others are not the worse for it.
    with Resolver(straight.client, straight.address) as resolver:
        before = front.counters()
        assert resolver.ask(NAME).ancount == 2
        assert front.since(before).get("hit") == 1


def test_many_prefixes(front: Carom, straight: Line) -> None:
    """Each has its own."""
    with Resolver(straight.client, straight.address) as resolver:
        until(lambda: resolver.tries(NAME) and front.counters()["hit"], "a hit")
    before = front.counters()
    flood(straight, [f"198.19.{n}.9" for n in range(100)], 100 * LIMIT // 2)
    found = answered(front, before, 100 * LIMIT // 2)
    assert found["hit"] >= 0.9 * 100 * LIMIT // 2, "but where two share a cell"


def test_a_client_that_is_there_asks_again(straight: Line, nsd: NSD) -> None:
    """Over TCP, where the answer says so: dig does it by itself."""
    dig = tool("dig")
    ask = (f"@{straight.address}", NAME, "A", "+nocookie", "+noedns", "+time=20", "+tries=1")
    arguments = ("--protocol", "dns", "--ttl", "1h", "--responses-per-second", "1", "--slip", "1")
    with Carom(straight.server, *arguments, command="front") as front:
        with Resolver(straight.client, straight.address) as resolver:
            until(lambda: resolver.tries(NAME) and front.counters()["hit"], "a hit")

        def slipped() -> bool:
            before = front.counters()
            flood(straight, [straight.client_address], 3)
            shown = tell(straight.client, dig, *ask)
            assert "198.18.0.10" in shown
            assert "198.18.0.11" in shown
            over_tcp = "Truncated, retrying in TCP mode" in shown
            return over_tcp and front.since(before).get("slip", 0) > 0

        until(slipped, "dig to be told to ask over TCP")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "memcached", "--responses-per-second", "5"), "is for protocol dns"),
        (("--protocol", "dns", "--responses-per-second", "-1"), "out of range"),
        (("--protocol", "dns", "--slip", "-1"), "out of range"),
        (("--protocol", "dns", "--max-reply", "1473"), "1 to 1472"),
    ],
)
def test_wrong_usage(straight: Line, arguments: tuple[str, ...], said: str) -> None:
    ended = run(straight.server, "front", "-i", INTERFACE, *arguments)
    assert ended.code == 2
    assert said in ended.stderr
