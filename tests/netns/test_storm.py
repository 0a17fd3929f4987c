# SPDX-License-Identifier: Apache-2.0
"""Two hosts that bounce to each other: no rule on ports can end that, the hops of a reply do."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from carom.daemon.fastpath import FastPath
from carom.daemon.places import Place
from carom.kernel import links
from carom.kernel.abi import TTL_FLOOR, Fast, Hook, Verdict
from carom.tc.link import TCLink
from carom.vm.namespace import Namespace
from netns.line import Line
from netns.process import INTERFACE, Carom, until
from netns.wire import Tap

PORTS = 51141, 51142


def bouncer(fastpath: FastPath, namespace: Namespace, address: str, port: int) -> TCLink:
    """Bounce at an address of a namespace, knowing no other port than its own."""
    interface = namespace.call(lambda: links.interface(INTERFACE))
    ours = ipaddress.ip_address(address)
    fastpath.clock[0], fastpath.lease[0] = 1, 2**63
    fastpath.refuse([ours])
    fastpath.answer_at(
        [Place(ours, port, interface.ifindex, interface.mac, 1500, fast=Fast.BOUNCE)]
    )
    return namespace.call(lambda: TCLink(fastpath.tc_program, interface))


@pytest.mark.parametrize("version", [4, 6])
def test_one_spoofed_packet(
    straight: Line, load_fastpath: Callable[..., FastPath], version: int
) -> None:
    line = straight.over(version)
    line.offload(sender=False, replier=False)
    paths = (
        load_fastpath(policy="lru", test_clock=True),
        load_fastpath(policy="fcfs", capacity=8, test_clock=True),
    )
    before = [path.verdicts(Hook.TC) for path in paths]

    def rose(verdict: Verdict) -> list[int]:
        pairs = zip(paths, before, strict=True)
        return [path.verdicts(Hook.TC)[verdict] - counts[verdict] for path, counts in pairs]

    ends = {"src": line.client_address, "dst": line.address}
    ip = IP(**ends, ttl=255) if version == 4 else IPv6(**ends, hlim=255)
    frame = Ether(src=line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
    frame /= ip / UDP(sport=PORTS[1], dport=PORTS[0]) / b"storm"
    with contextlib.ExitStack() as stack:
        for path, namespace, address, port in (
            (paths[0], line.server, line.address, PORTS[0]),
            (paths[1], line.client, line.client_address, PORTS[1]),
        ):
            stack.enter_context(bouncer(path, namespace, address, port))
        with Tap(line.client) as tap:
            tap.send(bytes(frame))
            until(lambda: sum(rose(Verdict.PASS_TTL)), "the storm to end")
            tap.frames()
        replies = 255 - TTL_FLOOR + 1
        assert sum(rose(Verdict.BOUNCE)) == replies
        assert rose(Verdict.BOUNCE) == [replies // 2, replies // 2]
        assert sum(rose(Verdict.PASS_TTL)) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_with_their_servers(straight: Line, version: int) -> None:
    """The last packet goes up to a server that echoes, and that must not begin it anew."""
    line = straight.over(version)
    line.offload(sender=False, replier=False)
    ends = {"src": line.client_address, "dst": line.address}
    ip = IP(**ends, ttl=255) if version == 4 else IPv6(**ends, hlim=255)
    frame = Ether(src=line.client.mac(INTERFACE), dst=line.server.mac(INTERFACE))
    frame /= ip / UDP(sport=PORTS[1], dport=PORTS[0]) / b"storm"
    common = ("-i", INTERFACE, "--hook", "tc", "--fast", "bounce", "--bind")
    with (
        Carom(line.server, *common, line.address, "-p", str(PORTS[0]), interface=None) as server,
        # The pair has a program of its own on the client's end.
        Carom(
            line.client, *common, line.client_address, "-p", str(PORTS[1]), interface=None
        ) as client,
        Tap(line.client) as tap,
    ):
        tap.send(bytes(frame))
        both = (server, client)
        until(lambda: sum(one.counters()["pass_ttl"] for one in both), "the storm to end")
        time.sleep(0.2)  # for a reply that must not come
        tap.frames()
        assert [one.counters()["replies"] for one in both] == [0, 0]
        assert sum(one.counters()["bounce"] for one in both) == 255 - TTL_FLOOR + 1
