# SPDX-License-Identifier: Apache-2.0
"""With an allow-list, whoever borrows an allowed address gets nothing from the kernel."""

from __future__ import annotations

import ipaddress

from carom.kernel.abi import GATEWAYS_MAX, Fast, Verdict
from carom.kernel.ways import Way
from prog.host import IFINDEX, Host, mac_of, passed
from prog.packets import CLIENT_MAC

PAYLOAD, ANSWER = b"a question", b"what there is to say"
OTHER_MAC = "02:de:ad:be:ef:01"
ELSEWHERE = IFINDEX + 1
NETWORK = {4: "198.18.0.0/24", 6: "2001:db8::/64"}
INSIDE = {4: "198.18.0.0/30", 6: "2001:db8::/126"}
DIRECT = Way(True, ())


def ready(host: Host) -> Host:
    host.fill(PAYLOAD, ANSWER)
    host.describe(allow_list=True)
    host.fastpath.allow(NETWORK.values())
    host.fastpath.reach({})
    host.fastpath.know({})
    return host


def reach(host: Host, **ways: Way) -> None:
    """By the name of a prefix of this wire's: `network`, or `inside` it."""
    named = {"network": NETWORK, "inside": INSIDE}
    networks = {name: ipaddress.ip_network(named[name][host.wire.version]) for name in ways}
    host.fastpath.reach({(IFINDEX, networks[name]): way for name, way in ways.items()})


def verdict(host: Host, mac: str = CLIENT_MAC) -> Verdict:
    frame = host.wire.request(PAYLOAD, eth={"src": mac})
    outcome = host.run(frame)
    if outcome.verdict is Verdict.PASS_NEIGHBOUR:
        assert outcome == passed(Verdict.PASS_NEIGHBOUR, frame)
    return outcome.verdict


def test_no_route(any_host: Host) -> None:
    assert verdict(ready(any_host)) is Verdict.PASS_NEIGHBOUR


def test_a_neighbour(any_host: Host) -> None:
    """The MAC that the kernel knows for that address on that link, and no other."""
    host, fastpath = ready(any_host), any_host.fastpath
    client = ipaddress.ip_address(host.wire.client)
    reach(host, network=DIRECT)
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    fastpath.know({(ELSEWHERE, client): mac_of(CLIENT_MAC)})
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    fastpath.know({(IFINDEX, client): mac_of(CLIENT_MAC)})
    assert verdict(host) is Verdict.HIT
    assert verdict(host, OTHER_MAC) is Verdict.PASS_NEIGHBOUR
    fastpath.know_one(IFINDEX, client, mac_of(OTHER_MAC))
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    assert verdict(host, OTHER_MAC) is Verdict.HIT
    fastpath.know_one(IFINDEX, client, None)
    assert verdict(host, OTHER_MAC) is Verdict.PASS_NEIGHBOUR


def test_gateways(any_host: Host) -> None:
    """Any of a route's, by its MAC; a neighbour's own does not matter there."""
    host = ready(any_host)
    client = ipaddress.ip_address(host.wire.client)
    macs = tuple(bytes([2, 0, 0, 0, 1, n]) for n in range(GATEWAYS_MAX))
    reach(host, network=Way(False, macs))
    host.fastpath.know({(IFINDEX, client): mac_of(CLIENT_MAC)})
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    assert {verdict(host, mac.hex(":")) for mac in macs} == {Verdict.HIT}
    reach(host, network=Way(False, macs[:1]))
    assert {verdict(host, mac.hex(":")) for mac in macs[1:]} == {Verdict.PASS_NEIGHBOUR}
    assert verdict(host, "00:00:00:00:00:00") is Verdict.PASS_NEIGHBOUR


def test_the_longest_prefix_decides(any_host: Host) -> None:
    host = ready(any_host)
    mine = Way(False, (mac_of(CLIENT_MAC),))
    reach(host, network=mine, inside=Way(False, ()))
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    reach(host, network=Way(False, ()), inside=mine)
    assert verdict(host) is Verdict.HIT


def test_the_link_is_the_vlans_own(any_host: Host) -> None:
    host = ready(any_host)
    client = ipaddress.ip_address(host.wire.client)
    network = ipaddress.ip_network(NETWORK[host.wire.version])
    host.fastpath.reach({(ELSEWHERE, network): DIRECT})
    host.fastpath.know({(ELSEWHERE, client): mac_of(CLIENT_MAC)})
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    host.describe(link=ELSEWHERE)
    assert verdict(host) is Verdict.HIT


def test_bounced(any_host: Host) -> None:
    host = ready(any_host)
    host.serve(Fast.BOUNCE)
    assert verdict(host) is Verdict.PASS_NEIGHBOUR
    reach(host, network=Way(False, (mac_of(CLIENT_MAC),)))
    assert verdict(host) is Verdict.BOUNCE


def test_without_a_list_nobody_is_looked_up(any_host: Host) -> None:
    host = ready(any_host)
    host.describe(allow_list=False)
    assert verdict(host, OTHER_MAC) is Verdict.HIT
