# SPDX-License-Identifier: Apache-2.0
"""With an allow-list: from which MACs its sources may come."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterable

from carom import log
from carom.daemon.fastpath import FastPath
from carom.daemon.thread import Thread
from carom.kernel.abi import NEIGHBOURS_MAX, WAYS_MAX
from carom.kernel.netlink import Address
from carom.kernel.ways import (
    Neighbour,
    Network,
    Route,
    Way,
    WayChanges,
    neighbours,
    routes,
    ways_by,
)

_WAIT = 0.25
_SHARE = 0.05
"""Reading all routes may take this share of one CPU."""


class Neighbours:
    """Keeps the fast path's tables of routes and neighbours as the kernel's own are.

    They hold only sources in the allowed prefixes, as no others are looked up. Requests from
    sources that are not there pass: the server answers, and the stack asks for the neighbour.
    """

    def __init__(
        self,
        fastpath: FastPath,
        allowed: Iterable[str],
        links: Iterable[int],
        changed: Callable[[], None] = lambda: None,
    ):
        """`changed` is called when the set of unknown sources has changed. Raises OSError."""
        self._changed = changed
        self._fastpath = fastpath
        self._allowed: list[Network] = [ipaddress.ip_network(prefix) for prefix in allowed]
        self._links = set(links)
        self._routes: list[Route] = []
        self._stations: dict[tuple[int, Address], bytes] = {}
        self._gateways: set[tuple[int, Address]] = set()
        self._stale = True
        self._not_before = 0.0
        self._full = False
        self._unknown: set[int] = set()
        self._changes = WayChanges()
        with contextlib.ExitStack() as stack:
            stack.callback(self._changes.close)
            self._step()
            self._thread = Thread("neighbours", self._step)
            stack.pop_all()

    def unknown(self) -> tuple[frozenset[int], str]:
        """The IP versions of which no source is answered now, and why."""
        if self._full:
            return frozenset({4, 6}), "too many routes lead to the prefixes of --allow"
        if not self._unknown:
            return frozenset(), ""
        answered = {network.version for network in self._allowed} - self._unknown
        return frozenset({4, 6} - answered), (
            "rules (ip rule) choose between tables of routes: whom a reply goes to is not known, "
            "which --allow asks for"
        )

    def look_again(self, links: Iterable[int]) -> None:
        """The interfaces may have changed: read all again."""
        self._links = set(links)
        self._stale = True

    def _step(self) -> float:
        changed, more = self._changes.wait(0 if self._stale else _WAIT)
        if more:
            self._stale = True
        if not self._stale:
            for neighbour in changed:
                self._follow(neighbour)
            return 0.0
        if time.monotonic() < self._not_before:
            self._fastpath.reach({})  # nothing is known until it is read again
            return _WAIT / 5
        self._read_all()
        return 0.0

    def _read_all(self) -> None:
        begun = time.monotonic()
        self._stale = False  # first, so that changes during the reading count
        self._routes, unknown = routes()
        unknown &= {network.version for network in self._allowed}
        if unknown - self._unknown:
            log.warning(
                "rules choose between tables of routes: whom a reply goes to is not known, and "
                "the server answers alone",
                ip=sorted(unknown),
            )
        known, self._unknown = self._unknown == unknown, unknown
        self._stations = {
            (neighbour.link, neighbour.address): neighbour.mac
            for neighbour in neighbours()
            if neighbour.mac and neighbour.link in self._links
        }
        self._gateways = {
            (hop.link, hop.gateway) for route in self._routes for hop in route.hops if hop.gateway
        }
        self._fastpath.know(self._stations_wanted())
        full = self._full
        self._reach()
        if not known or full != self._full:
            self._changed()
        taken = time.monotonic() - begun
        self._not_before = begun + taken / _SHARE

    def _wants(self, address: Address) -> bool:
        return any(
            network.version == address.version and address in network for network in self._allowed
        )

    def _stations_wanted(self) -> dict[tuple[int, Address], bytes]:
        wanted = {
            (link, address): mac
            for (link, address), mac in self._stations.items()
            if self._wants(address)
        }
        return dict(list(wanted.items())[:NEIGHBOURS_MAX])

    def _follow(self, neighbour: Neighbour) -> None:
        """One neighbour has come, moved or gone."""
        key = neighbour.link, neighbour.address
        if neighbour.link not in self._links or self._stations.get(key) == neighbour.mac:
            return
        if neighbour.mac:
            self._stations[key] = neighbour.mac
        else:
            self._stations.pop(key, None)
        if self._wants(neighbour.address):
            self._fastpath.know_one(neighbour.link, neighbour.address, neighbour.mac)
        if key in self._gateways:
            self._reach()

    def _reach(self) -> None:
        ways: dict[tuple[int, Network], Way] = {}
        for link in self._links:
            some = ways_by(link, self._routes, self._allowed, self._stations)
            ways |= {(link, network): way for network, way in some.items()}
        too_many = len(ways) > WAYS_MAX
        if too_many:
            if not self._full:
                log.warning(
                    "too many routes lead to the allowed prefixes: the server answers alone",
                    routes=len(ways),
                    most=WAYS_MAX,
                )
            ways = {}
        self._full = too_many
        self._fastpath.reach(ways)

    def close(self) -> None:
        """Stop following."""
        self._thread.close()
        self._changes.close()
