# SPDX-License-Identifier: Apache-2.0
"""Replies of other lengths than their requests': XDP carries them, or TC ingress does."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from carom import apps
from carom.daemon import control
from carom.kernel.abi import REPLY_MAX, WHOLE_MAX
from netns.line import Line, forwarding
from netns.process import INTERFACE, Carom
from netns.services import sized_reply, sized_request
from netns.wire import Client, Tap, check_sums, checksum_errors

OWN_PORT = 40_000
"""Of clients whose requests are counted: with any port, one sum in 65,536 looks half made."""

AROUND_THE_SHORTEST_FRAME = (17, 18, 19)
REPLIES = (
    0,
    1,
    2,
    *AROUND_THE_SHORTEST_FRAME,
    *range(31, 34),
    *range(48, REPLY_MAX, 24),
    REPLY_MAX,
)
ROUNDS = 5
LONGEST6 = REPLY_MAX - 20
"""What an MTU of 1500 takes after IPv6 and UDP."""

ANY = ("--amplify", "0", "--max-reply", str(REPLY_MAX), "--prefix-rate", "0", "--total-rate", "0")
"""Of any length, as often as wanted."""


HOW = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "tc": ("--hook", "tc"),
}


@pytest.fixture(scope="module", params=HOW)
def how(request: pytest.FixtureRequest) -> str:
    """Either mode of XDP, or TC alone."""
    return str(request.param)


@pytest.fixture(scope="module")
def carom(straight: Line, how: str) -> Iterator[Carom]:
    """A carom whose clients choose the lengths of replies."""
    sized = ("--app", "services:sized", "--bind", "::")
    with (
        forwarding(straight.server),
        Carom(straight.server, *HOW[how], *sized, *ANY) as carom,
    ):
        assert not any("forward" in note for note in carom.ready["notes"])
        yield carom


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def line(straight: Line, request: pytest.FixtureRequest) -> Line:
    """The pair, over either IP."""
    return straight.over(request.param)


@pytest.mark.parametrize("sender", [True, False], ids=["sender-tx-on", "sender-tx-off"])
@pytest.mark.parametrize("length", [2, 32, WHOLE_MAX])
def test_every_length_is_answered(
    carom: Carom, straight: Line, line: Line, how: str, length: int, sender: bool
) -> None:
    """By XDP or by TC ingress, as there is room in this frame or not, and once by the server."""
    line.offload(sender=sender, replier=True)
    control.call("flush", carom.pid)
    errors = checksum_errors(line.client)
    longest = REPLY_MAX if ":" not in line.address else LONGEST6
    sizes = [n for n in REPLIES if n <= longest] + ([longest] if longest < REPLY_MAX else [])
    at_tc = {}
    client = Client(line.client, line.address, own=OWN_PORT)
    with client, Tap(line.client) as tap:
        for reply_bytes in sizes:
            request = sized_request(reply_bytes, length)
            reply = sized_reply(request)
            before = carom.counters()
            for _ in range(1 + ROUNDS):
                assert client.ask(request) == reply
            at_tc[reply_bytes] = carom.since(before).get("pass_to_tc", 0)
            carom.expect(
                before,
                miss=1,
                hit=ROUNDS,
                pass_to_tc=at_tc[reply_bytes],
                replies=1,
                fills=1,
            )
        assert client.nothing_more()
        frames = tap.frames()
    assert len(frames) == 2 * len(sizes) * (1 + ROUNDS)
    for frame in frames:
        check_sums(frame)
    assert checksum_errors(line.client) == errors
    shrunk = {reply_bytes: n for reply_bytes, n in at_tc.items() if reply_bytes <= length}
    assert set(shrunk.values()) == {0}, "a shorter reply always fits"
    grown = [n for reply_bytes, n in at_tc.items() if reply_bytes > length]
    assert any(grown) == (how != "tc"), "XDP hands over to TC, or TC is the only one"
    if line is straight:  # a veth has room for some of IPv4's, and in native mode few of IPv6's
        assert 0 in grown, "none ever grew at the first hook"
        assert (ROUNDS in grown) == (how != "tc")


@pytest.mark.parametrize("reply_bytes", [LONGEST6 + 1, REPLY_MAX])
def test_longer_than_ipv6_takes(carom: Carom, straight: Line, reply_bytes: int) -> None:
    """Its header is longer: the server fragments what IPv4 has room for."""
    line = straight.over(6)
    request = sized_request(reply_bytes, WHOLE_MAX)
    with Client(line.client, line.address) as client:
        assert client.ask(request) == sized_reply(request)
        before = carom.counters()
        assert client.ask(request) == sized_reply(request)
        carom.expect(before, pass_room=1, replies=1, fills=1)
        assert client.nothing_more()


@pytest.mark.parametrize("reply_bytes", [REPLY_MAX + 1, 2000, 8000, 65_507])
def test_longer_than_a_frame(carom: Carom, straight: Line, reply_bytes: int) -> None:
    """The server sends them, in fragments, time and again."""
    request = sized_request(reply_bytes, 32)
    before = carom.counters()
    with Client(straight.client, straight.address) as client:
        for _ in range(2):
            assert client.ask(request) == sized_reply(request)
    carom.expect(before, miss=2, replies=2, unfit=2)


def test_longer_than_a_datagram(carom: Carom, straight: Line) -> None:
    """Such a reply cannot be sent: that is counted and logged in a line, and the server goes on."""
    sendable = sized_request(5, 32)
    before = carom.counters()
    with Client(straight.client, straight.address) as client:
        client.send(sized_request(65_508, 32))
        assert client.ask(sendable) == sized_reply(sendable)
        assert client.nothing_more()
    changed = carom.since(before)
    assert changed["send_errors"] == changed["unfit"] == 1
    (line,) = [line for line in carom.stderr().splitlines() if "could not be sent" in line]
    assert "Message too long" in line


def test_longer_than_the_mtu(own_line: Line) -> None:
    """A hit that the interface's MTU does not take goes up to the server, which fragments it."""
    fits, long = (sized_request(n, WHOLE_MAX) for n in (200, 280))
    for end in (own_line.client, own_line.server):
        end.run("ip", "link", "set", INTERFACE, "mtu", "300")
    with (
        Carom(own_line.server, "--mode", "generic", "--app", "services:sized", *ANY) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        for request in (fits, long):
            assert client.ask(request) == sized_reply(request)
        before = carom.counters()
        assert client.ask(fits) == sized_reply(fits)
        carom.expect(before, hit=1)
        before = carom.counters()
        assert client.ask(long) == sized_reply(long)
        carom.expect(before, pass_room=1, replies=1, fills=1)
        assert client.nothing_more()


def test_mixed_sizes(own_line: Line, how: str) -> None:
    """10,000 requests of 1 to 256 bytes, each reply compared: none is wrong, none is lost."""
    source = random.Random(10_000)
    handler = apps.mixed.handler
    assert handler
    requests = [source.randbytes(source.randint(1, WHOLE_MAX)) for _ in range(400)]
    replies = {request: handler(request) for request in requests}
    assert len(replies) == len(set(replies.values())) > 390
    wrong = 0
    with (
        forwarding(own_line.server),
        Carom(own_line.server, *HOW[how], "--app", "carom.apps:mixed", *ANY) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        for _ in range(10_000):
            request = source.choice(requests)
            wrong += client.ask(request) != replies[request]
        assert client.nothing_more()
        counters = carom.counters()
    assert wrong == 0
    assert counters["hit"] + counters["replies"] == 10_000
    assert counters["miss"] == len(replies)
    assert counters["miss"] == counters["replies"]
    if how == "tc":
        assert counters["pass_to_tc"] == 0
    else:
        assert 0 < counters["pass_to_tc"] < counters["hit"]
