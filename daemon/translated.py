# SPDX-License-Identifier: Apache-2.0
"""How this host translates requests before any socket has them: by rules, or by a process."""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from carom.daemon import ruleset, sockets
from carom.daemon.firewall import Ruleset, Way
from carom.daemon.ruleset import Requests
from carom.kernel import netlink
from carom.kernel.local_routes import is_local
from carom.kernel.netlink import Address

KEEPERS = ("docker-proxy", "conmon", "rootlessport")
"""Programs that hold a container's published port on the host, even where rules translate."""


class Translation(NamedTuple):
    """Where translated requests go, and what translates them.

    With `local` that is in this network namespace, and `address` is None where a rule leaves it to
    the interface. Otherwise it is in another namespace, or on another host.
    """

    address: Address | None
    port: int
    local: bool
    by: str

    def __str__(self) -> str:
        address = self.address or "this host's own address"
        shown = f"[{address}]" if self.address and self.address.version == 6 else str(address)
        return f"{shown}, port {self.port} ({self.by})"


Translations = Mapping[tuple[str, Address], Translation]
"""By an interface's name and the address that clients send to."""


def translations(rules: Ruleset, port: int, ways: Iterable[Way]) -> Translations:
    """How rules translate requests to a port of this host. Raises OSError."""
    by_way = {}
    own = functools.cache(netlink.own_addresses)  # asked for only where something is translated
    chains = list(rules.chains())
    for way in ways:
        requests = _asked(port, way)
        for chain, table in chains:
            to = chain.applies(requests) and ruleset.destination(chain, table, requests)
            if to:
                (address, at, local), by = to
                local = local or address is None or address in own() or is_local(address)
                by_way[way.interface, way.address] = Translation(address, at or port, local, by)
                break
    return by_way


def handing(rules: Ruleset, port: int, ways: Iterable[Way]) -> list[str]:
    """The rules that send on some requests to a port: some sources' only, or nobody knows where."""
    asked = [_asked(port, way) for way in ways]
    names = {
        rule: None
        for chain, table in rules.chains()
        for requests in asked
        if chain.applies(requests)
        for rule in ruleset.handing(chain, table, requests)
    }
    return list(names)


def _asked(port: int, way: Way) -> Requests:
    version, number = way.address.version, int(way.address)
    return Requests(
        version,
        ruleset.all_sources(version),
        ((number, number),),
        port,
        way.interface,
        way.lower,
        bridged=way.bridged,
    )


def is_keeper(pid: int) -> bool:
    """Whether a process holds its port for a container's server."""
    return any(sockets.runs(pid, program) for program in KEEPERS)


def kept_for(pid: int) -> Translation | None:
    """Where a keeper relays to, as docker-proxy's command line says; None if it does not say."""
    words = sockets.words(pid)
    options = dict(itertools.pairwise(words))
    try:
        address = ipaddress.ip_address(options["-container-ip"])
        return Translation(address, int(options["-container-port"]), False, sockets.name(pid))
    except (KeyError, ValueError):
        return None
