# SPDX-License-Identifier: Apache-2.0
"""What came, what was decided on it, and what drivers made of that: it adds up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.kernel import libbpf
from carom.vm.netns import attach_pass
from netns import line as lines
from netns.line import Line
from netns.process import INTERFACE, Carom, run, until
from netns.services import PORT, sized_reply, sized_request
from netns.test_metrics import one, told
from netns.wire import Client, Tap

ROUND = 50


@pytest.fixture
def line() -> Iterator[Line]:
    """A pair without programs, and without GRO."""
    with lines.bare() as line:
        line.client.run("ethtool", "-K", INTERFACE, "gro", "off")
        yield line


def interface_of(carom: Carom) -> dict[str, Any]:
    (interface,) = carom.status()["interfaces"]
    return dict(interface)


def settled(carom: Carom, packets: int) -> dict[str, Any]:
    """Its status once so many packets of clients have a verdict."""

    def all_came() -> bool:
        counts = carom.counters()
        return (
            sum(counts.get(name, 0) for name in ("bounce", "drop_loop", "hit", "miss")) == packets
        )

    until(all_came, f"{packets} verdicts")
    return carom.status()


def check_sums(status: dict[str, Any]) -> None:
    """Nothing is lost or counted twice between the driver and the verdicts."""
    (interface,) = status["interfaces"]
    packets = status["packets"]
    assert interface["unknown"] == ""
    assert interface["received"] == sum(packets.values())
    assert packets["answered"] == interface["sent"] + interface["lost"]


def test_native_until_its_peer_loses_its_program(line: Line) -> None:
    """Of each ten equal bounces one is dropped, as a loop; the others are sent, or lost."""
    program = attach_pass(line.client, INTERFACE)
    options = ("--mode", "native", "--fast", "bounce", "--echoes", "10")
    try:
        with (
            Carom(line.server, *options) as carom,
            Client(line.client, line.address, own=45_678) as client,
        ):
            for _ in range(ROUND):
                client.send(b"the same")
            status = settled(carom, ROUND)
            check_sums(status)
            assert (status["packets"]["answered"], status["packets"]["dropped"]) == (45, 5)
            assert (interface_of(carom)["sent"], interface_of(carom)["lost"]) == (45, 0)
            assert status["packets"]["passed"] == sum(status["verdicts"].values()) - ROUND
            libbpf.close_link(program)
            program = -1
            for _ in range(ROUND):
                client.send(b"the same")
            status = settled(carom, 2 * ROUND)
            check_sums(status)
            assert (interface_of(carom)["sent"], interface_of(carom)["lost"]) == (45, 45)
            text = told("--pid", str(carom.pid)).stdout
            name = "carom_interface_replies_total"
            assert one(text, name, interface=INTERFACE, outcome="sent") == 45
            assert one(text, name, interface=INTERFACE, outcome="lost") == 45
            received = one(text, "carom_interface_received_packets_total", interface=INTERFACE)
            assert received >= 2 * ROUND
            shown = run(line.server, "status", "--pid", str(carom.pid)).stdout
            assert f"45 replies were lost after the verdict: the driver of {INTERFACE}" in shown
    finally:
        if program >= 0:
            libbpf.close_link(program)


def test_hits_and_misses(line: Line) -> None:
    """What goes up to the server is not the driver's to send."""
    request = sized_request(20, 33)
    with (
        lines.met(line),
        Carom(line.server, "--mode", "native", "--app", "services:sized") as carom,
        Client(line.client, line.address) as client,
    ):
        for _ in range(ROUND):
            assert client.ask(request) == sized_reply(request)
        status = settled(carom, ROUND)
        check_sums(status)
        (service,) = status["services"]
        own = {"answered": ROUND - 1, "missed": 1, "passed": 0, "dropped": 0}
        assert service["packets"] == own
        assert {name: status["packets"][name] for name in ("answered", "missed", "dropped")} == {
            name: own[name] for name in ("answered", "missed", "dropped")
        }


def test_what_an_earlier_carom_lost_is_not_this_ones(line: Line) -> None:
    program = attach_pass(line.client, INTERFACE)
    try:
        for _ in range(2):
            with (
                Carom(line.server, "--mode", "native", "--fast", "bounce") as carom,
                Client(line.client, line.address) as client,
            ):
                before = interface_of(carom)
                assert (before["sent"], before["lost"]) == (0, 0)
                assert client.ask(b"once") == b"once"
                check_sums(carom.status())
    finally:
        libbpf.close_link(program)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--mode", "generic"), "generic XDP: replies are counted with all that it sends"),
        (("--hook", "tc"), "TC: replies are counted with all that it sends"),
    ],
)
def test_what_is_not_known_is_said(line: Line, options: tuple[str, ...], why: str) -> None:
    with (
        Carom(line.server, *options, "--fast", "bounce") as carom,
        Client(line.client, line.address) as client,
    ):
        assert client.ask(b"once") == b"once"
        interface = interface_of(carom)
        assert interface["unknown"] == why
        assert [interface[name] for name in ("received", "sent", "lost")] == [None] * 3
        text = told("--pid", str(carom.pid)).stdout
        assert "carom_interface_replies_total{" not in text


def test_a_reply_that_xdp_leaves_to_tc_is_counted_once(line: Line) -> None:
    """A long one, to a short request: on a veth in native mode XDP has no room for most."""
    request = sized_request(600, 40)
    with (
        lines.met(line),
        Carom(line.server, "--mode", "native", "--app", "services:sized") as carom,
        Client(line.client, line.address) as client,
    ):
        for _ in range(10):
            assert client.ask(request) == sized_reply(request)
        status = carom.status()
        assert status["hooks"]["xdp"]["pass_to_tc"] == status["hooks"]["tc"]["hit"] > 0
        (service,) = status["services"]
        assert service["packets"] == {"answered": 9, "missed": 1, "passed": 0, "dropped": 0}


def test_without_a_fast_path(line: Line) -> None:
    with Carom(line.server, "--hook", "none", "--app", "services:sized", interface=None) as carom:
        status = carom.status()
        assert (status["interfaces"], status["packets"], status["programs"]) == ([], None, {})
        assert status["lease_age_seconds"] is None
        assert told("--pid", str(carom.pid)).code == 0


def test_an_interface_that_goes(line: Line) -> None:
    options = ("-i", INTERFACE, "--mode", "native", "--fast", "bounce")
    with lines.met(line), Carom(line.server, *options, interface=None) as carom:
        line.server.run("ip", "link", "delete", INTERFACE)
        until(lambda: interface_of(carom)["unknown"] == "it is gone", "the interface to go")
        assert interface_of(carom)["lost"] is None
        assert told("--pid", str(carom.pid)).code == 0


def mixed(line: Line, chance: random.Random) -> list[bytes]:
    """Frames of every fate, in any order: bounced, dropped as a loop, passed for many reasons."""
    ends = {"src": line.client_address, "dst": line.address}
    frame = Ether(src=line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
    udp = UDP(sport=45_678, dport=PORT)
    kinds = [
        frame / IP(**ends) / udp / b"the same",
        frame / IP(**ends) / udp / b"the same",
        frame / IP(**ends) / UDP(sport=53, dport=PORT) / b"from a low port",
        frame / IP(**ends) / UDP(sport=45_678, dport=PORT + 9) / b"to nobody",
        frame / IP(**ends) / UDP(sport=45_678, dport=PORT, chksum=0xBAD) / b"a wrong sum",
        frame / IP(**ends, ttl=9) / udp / b"far away",
        frame / IP(**ends, flags="MF") / udp / b"in parts",
        frame / IP(**ends, proto=47) / b"no UDP",
        frame / IP(**ends, options=b"\x01" * 4) / udp / b"options",
        Ether(src=frame.src, dst=frame.dst, type=0x88B5) / bytes(46),
    ]
    frames = [bytes(kind) for kind in kinds for _ in range(chance.randrange(5, ROUND))]
    chance.shuffle(frames)
    return frames


def test_a_mix(line: Line) -> None:
    """Whatever comes, and whether or not the other end takes replies in: it adds up."""
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    program = attach_pass(line.client, INTERFACE)
    options = ("--mode", "native", "--fast", "bounce", "--echoes", "10")
    try:
        with Carom(line.server, *options) as carom, Tap(line.client) as tap:
            frames = mixed(line, chance)
            half = len(frames) // 2
            for frame in frames[:half]:
                tap.send(frame)
            until(lambda: interface_of(carom)["received"] >= half, "the first half")
            check_sums(carom.status())
            libbpf.close_link(program)
            program = -1
            for frame in frames[half:]:
                tap.send(frame)
            until(lambda: interface_of(carom)["received"] >= len(frames), "all")
            status = carom.status()
            check_sums(status)
            (interface,) = status["interfaces"]
            assert interface["sent"] > 0
            assert interface["lost"] > 0
            assert status["packets"]["dropped"] > 0
            seen = {name for name, count in status["verdicts"].items() if count}
            assert seen >= {
                *("bounce", "drop_loop", "pass_source_low", "pass_service", "pass_checksum"),
                *("pass_ttl", "pass_fragment", "pass_protocol", "pass_options", "pass_ethertype"),
            }
    finally:
        if program >= 0:
            libbpf.close_link(program)
