# SPDX-License-Identifier: Apache-2.0
"""`carom lab bench --routes` measures every way that this host has, and leaves nothing."""

from __future__ import annotations

import os

from carom.lab.tools.route_bench import bench
from carom.routes import group


def test_every_way() -> None:
    costs, lacks = bench(rounds=3)
    ways = [cost.way for cost in costs]
    assert ways[0] == "plain" and costs[0].above == 0
    for wanted in ("a mark", "a program that only", "the switch", "carom route", "TC egress"):
        assert any(way.startswith(wanted) for way in ways), wanted
    assert {"nft", "a network namespace"} <= {
        way.split(":")[0].split(" behind")[0] for way in ways
    } or lacks
    assert all(cost.nanoseconds > 0 for cost in costs)
    led = next(cost for cost in costs if cost.way.startswith("carom route"))
    assert led.program, "its program ran for each datagram"
    assert not [name for name in group.names() if name.startswith(f"bench-{os.getpid()}")]
