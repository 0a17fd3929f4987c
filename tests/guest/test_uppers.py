# SPDX-License-Identifier: Apache-2.0
"""What takes in frames of the interface beside it: macvlans."""

from __future__ import annotations

from guest.ends import Ends, check_hits
from netns.process import Carom
from netns.wire import Client

UPPERS = {
    "macvlan0": ("macvlan mode bridge", "198.18.66.2"),
    "macvlan1": ("macvlan mode private", "198.18.67.2"),
}


def check(ends: Ends, uppers: dict[str, tuple[str, str]]) -> None:
    ends.addresses("eth0")
    for name, (kind, address) in uppers.items():
        ends.server.run(*f"ip link add {name} link eth0 type {kind}".split())
        ends.server.up(name)
        ends.server.address(name, address, 24)
        ends.client.run("ip", "route", "add", f"{address}/32", "dev", "eth0")
        ends.client.neighbour("eth0", address, ends.server.mac(name))
    with Carom(ends.server, "--mode", "native", interface="eth0") as carom:
        for _, address in uppers.values():
            with Client(ends.client, address) as client:
                check_hits(carom, client)


def test_macvlans(ends: Ends) -> None:
    check(ends, UPPERS)
