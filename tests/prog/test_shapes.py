# SPDX-License-Identifier: Apache-2.0
"""Each shape of frames has a program of constant offsets: it does what one for all shapes does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

from carom.daemon.fastpath import FastPath
from carom.kernel.abi import Fast, Hook, Verdict
from prog.conftest import GENERIC, SETTINGS
from prog.host import Action, Host, Outcome, Setting
from prog.mutations import frames, right_sums
from prog.packets import PORT, Wire
from prog.test_fuzz import ASKED, REPLIES, refused_by_the_kernel

COUNT, LONG = 300, 10_000
NAMES = {Hook.XDP: "xdp_any", Hook.TC: "tc_any"}


@pytest.fixture(params=SETTINGS + GENERIC, ids=str)
def host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """With the program for all shapes beside."""
    beside = (Path(__file__).with_name("shapes.c"),)
    setting: Setting = request.param
    host = Host(load_fastpath(policy="lru", test_clock=True, beside=beside), setting)
    for payload, stored in REPLIES.items():
        host.fill(payload, stored)
    return host


def at_edges(wire: Wire) -> Iterator[bytes]:
    """What mutations seldom make: every cut, headers in between, and lengths that disagree."""
    whole = wire.request(b"k")
    yield from (whole[:length] for length in range(15, len(whole) + 1))
    udp = UDP(sport=40_000, dport=PORT) / Raw(b"k")
    ends = {"src": wire.client, "dst": wire.host}
    if wire.version == 4:
        for count in (1, 4, 40):
            yield wire.ethernet(IP(**ends, options=[IPOption_NOP()] * count) / udp)
        for field in ({"flags": "MF"}, {"frag": 1}, {"frag": 8191}, {"flags": "DF"}):
            yield wire.ethernet(IP(**ends, **field) / udp)
        yield from (wire.request(b"k", ip={"ihl": ihl}) for ihl in range(16))
    else:
        for kind in (
            IPv6ExtHdrHopByHop,
            IPv6ExtHdrDestOpt,
            IPv6ExtHdrFragment,
            IPv6ExtHdrRouting,
        ):
            yield wire.ethernet(IPv6(**ends) / kind() / udp)
            yield wire.ethernet(IPv6(**ends) / kind() / kind() / udp)
    yield from (wire.request(b"k", ip={"version": version}) for version in range(16))
    for said in range(13):
        yield right_sums(wire, wire.request(b"k", udp={"len": said}))
        yield right_sums(wire, wire.request(b"k", udp={"len": said}, ip=wire.length(said)))
        yield right_sums(wire, wire.request(b"k", ip=wire.length(said)))
    for padding in (1, 18, 1400):
        yield wire.request(b"k", padding=b"\xff" * padding)
    yield from (wire.request(b"k", udp={"chksum": sum}) for sum in (0, 1, 0xFFFF))
    yield wire.request(b"k", udp={"chksum": wire.pseudo_sum(1)})


def told(wire: Wire, outcome: Outcome) -> Outcome:
    """Without what is drawn: the id of a reply that may be fragmented, and the sum over it."""
    if wire.version == 6 or outcome.action is not Action.ANSWER:
        return outcome
    frame, at = bytearray(outcome.frame), wire.network
    frame[at + 4 : at + 6] = frame[at + 10 : at + 12] = bytes(2)
    return outcome._replace(frame=bytes(frame))


@pytest.mark.parametrize("fast", ASKED, ids=lambda fast: fast.name.lower())
def test_the_same_by_one_program_for_all(host: Host, long_form: bool, fast: Fast) -> None:
    host.serve(fast)
    general = host.fastpath._beside[0].program(NAMES[host.hook])
    made_up = frames(host.wire, ASKED[fast], LONG if long_form else COUNT)
    seen: Counter[Verdict] = Counter()
    for frame in (*at_edges(host.wire), *made_up):
        if refused_by_the_kernel(host, frame):
            continue
        outcome = told(host.wire, host.run(frame))
        assert outcome == told(host.wire, host.run(frame, general)), frame.hex()
        seen[outcome.verdict] += 1
    assert seen[Verdict.BOUNCE] + seen[Verdict.HIT] > COUNT // 10, seen
