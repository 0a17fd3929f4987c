# SPDX-License-Identifier: Apache-2.0
"""From the kernel's routes and neighbours to the MACs that a source may come from."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import Any

import pytest

from carom.kernel.ways import (
    Hop,
    Network,
    Route,
    Way,
    neighbour_of,
    routes_of,
    usual_rules,
    ways_by,
)

LINK, OTHER = 3, 4
GATEWAY, SECOND = ipaddress.ip_address("198.18.0.9"), ipaddress.ip_address("198.18.0.10")
MAC, MAC2 = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
STATIONS = {(LINK, GATEWAY): MAC, (LINK, SECOND): MAC2, (OTHER, GATEWAY): MAC2}


class Message(dict[str, Any]):
    """A netlink message as pyroute2 shows it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def network(text: str) -> Network:
    return ipaddress.ip_network(text)


def route(text: str, *hops: Hop, metric: int = 0) -> Route:
    return Route(network(text), metric, hops)


def ways(routes: Iterable[Route], wanted: str = "0.0.0.0/0") -> dict[str, Way]:
    found = ways_by(LINK, routes, [network(wanted)], STATIONS)
    return {str(one): way for one, way in found.items()}


def message(**fields: Any) -> Message:
    base = {"family": 2, "table": 254, "tos": 0, "flags": 0, "type": 1, "dst_len": 0}
    return Message(base | {"RTA_OIF": LINK} | fields)


class TestRoutes:
    """What a dump of routes says."""

    def one(self, **fields: Any) -> Route | None:
        found = list(routes_of([message(**fields)]))
        return found[0] if found else None

    def test_direct(self) -> None:
        found = self.one(RTA_DST="198.18.0.0", dst_len=15)
        assert found == route("198.18.0.0/15", Hop(LINK, None))

    def test_default_by_a_gateway(self) -> None:
        found = self.one(RTA_GATEWAY="198.18.0.9", RTA_PRIORITY=100)
        assert found == route("0.0.0.0/0", Hop(LINK, GATEWAY), metric=100)

    def test_ipv6(self) -> None:
        found = self.one(family=10, RTA_GATEWAY="fe80::1")
        assert found == route("::/0", Hop(LINK, ipaddress.ip_address("fe80::1")))

    def test_a_gateway_of_the_other_ip(self) -> None:
        found = self.one(RTA_VIA={"family": 10, "addr": "fe80::1"})
        assert found == route("0.0.0.0/0", Hop(LINK, ipaddress.ip_address("fe80::1")))

    def test_several_hops(self) -> None:
        hops = (
            Message(oif=LINK, flags=0, RTA_GATEWAY="198.18.0.9"),
            Message(oif=OTHER, flags=0, RTA_GATEWAY="198.18.0.9"),
            Message(oif=LINK, flags=1, RTA_GATEWAY="198.18.0.10"),
        )
        found = self.one(RTA_MULTIPATH=hops)
        assert found == route("0.0.0.0/0", Hop(LINK, GATEWAY), Hop(OTHER, GATEWAY))

    @pytest.mark.parametrize(
        "fields",
        [{"type": 6}, {"flags": 1}, {"flags": 16}, {"RTA_ENCAP_TYPE": 1}],
        ids=["blackhole", "dead", "linkdown", "encapsulated"],
    )
    def test_nowhere(self, fields: dict[str, Any]) -> None:
        assert self.one(**fields) == route("0.0.0.0/0")

    @pytest.mark.parametrize(
        "fields",
        [{"table": 255}, {"RTA_TABLE": 100}, {"tos": 8}, {"flags": 0x200}, {"family": 28}],
        ids=["local", "other table", "tos", "cloned", "mpls"],
    )
    def test_not_looked_at(self, fields: dict[str, Any]) -> None:
        assert self.one(**fields) is None


class TestRules:
    """Whether routes are looked up by their destination alone."""

    def rules(self, *tables: tuple[int, int], family: int = 2) -> set[int]:
        rules = (Message(family=family, table=t, FRA_PRIORITY=p) for p, t in tables)
        return usual_rules(rules)

    def test_usual(self) -> None:
        assert 4 in self.rules((0, 255), (32766, 254), (32767, 253))
        assert 6 in self.rules((0, 255), (32766, 254), family=10)

    def test_others(self) -> None:
        assert self.rules((0, 255), (100, 7), (32766, 254)) == {6}
        assert self.rules((0, 255), (1000, 254), family=10) == {4}


class TestWays:
    """From routes to ways."""

    def test_direct_and_by_gateways(self) -> None:
        found = ways(
            [
                route("198.18.0.0/24", Hop(LINK, None)),
                route("0.0.0.0/0", Hop(LINK, GATEWAY), Hop(LINK, SECOND)),
            ]
        )
        assert found == {"198.18.0.0/24": Way(True, ()), "0.0.0.0/0": Way(False, (MAC, MAC2))}

    def test_the_lowest_metric(self) -> None:
        routes = [
            route("0.0.0.0/0", Hop(LINK, SECOND), metric=20),
            route("0.0.0.0/0", Hop(LINK, GATEWAY), metric=10),
            route("0.0.0.0/0", Hop(LINK, None), metric=30),
        ]
        assert ways(routes) == {"0.0.0.0/0": Way(False, (MAC,))}

    def test_paths_that_are_told_one_by_one(self) -> None:
        routes = [route("0.0.0.0/0", Hop(LINK, one), metric=10) for one in (GATEWAY, SECOND)]
        assert ways(routes) == {"0.0.0.0/0": Way(False, (MAC, MAC2))}

    def test_what_goes_another_way_is_there_as_well(self) -> None:
        """For it lies in what goes this way."""
        routes = [route("0.0.0.0/0", Hop(LINK, GATEWAY)), route("198.19.0.0/16", Hop(OTHER, None))]
        assert ways(routes)["198.19.0.0/16"] == Way(False, ())

    def test_an_unknown_gateway(self) -> None:
        assert ways([route("0.0.0.0/0", Hop(LINK, ipaddress.ip_address("198.18.0.1")))]) == {
            "0.0.0.0/0": Way(False, ())
        }

    def test_only_what_is_wanted(self) -> None:
        routes = [
            route("0.0.0.0/0", Hop(LINK, GATEWAY)),
            route("198.18.0.0/16", Hop(LINK, None)),
            route("198.19.0.0/16", Hop(LINK, None)),
            route("::/0", Hop(LINK, None)),
        ]
        assert set(ways(routes, "198.18.4.0/24")) == {"0.0.0.0/0", "198.18.0.0/16"}


class TestNeighbours:
    """The kernel's own messages."""

    def body(self, state: int, *attributes: tuple[int, bytes], flags: int = 0) -> bytes:
        made = struct.pack("=B3xiHBB", 2, LINK, state, flags, 1)
        for name, value in attributes:
            made += struct.pack("=HH", 4 + len(value), name) + value
            made += bytes(-len(value) % 4)
        return made

    ADDRESS = (1, GATEWAY.packed)

    def test_comes(self) -> None:
        for state in (0x02, 0x04, 0x08, 0x10, 0x40, 0x80):
            found = neighbour_of(28, self.body(state, self.ADDRESS, (2, MAC)))
            assert found == (LINK, GATEWAY, MAC)

    def test_goes(self) -> None:
        for kind, state in ((29, 0x02), (28, 0x20), (28, 0x01), (28, 0)):
            found = neighbour_of(kind, self.body(state, self.ADDRESS, (2, MAC)))
            assert found == (LINK, GATEWAY, None)
        assert neighbour_of(28, self.body(0x02, self.ADDRESS)) == (LINK, GATEWAY, None)

    def test_not_ours(self) -> None:
        assert neighbour_of(28, self.body(0x02, (2, MAC))) is None
        assert neighbour_of(28, self.body(0x02, self.ADDRESS, (2, MAC), flags=8)) is None
        assert neighbour_of(28, b"\7" + self.body(0x02, self.ADDRESS, (2, MAC))[1:]) is None
