# SPDX-License-Identifier: Apache-2.0
"""The way from a client to a server: straight, or through a router."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from carom.kernel import libbpf
from carom.vm.namespace import Namespace, join
from carom.vm.netns import (
    CLIENT_IPV6,
    SERVER_IPV6,
    NamespacePair,
    attach_pass,
)
from netns.process import INTERFACE

ROUTED_CLIENT, ROUTER_NEAR = "198.18.1.1", "198.18.1.2"
ROUTER_FAR, ROUTED_SERVER = "198.18.2.1", "198.18.2.2"
ROUTED_CLIENT6, ROUTER_NEAR6 = "2001:db8:1::1", "2001:db8:1::2"
ROUTER_FAR6, ROUTED_SERVER6 = "2001:db8:2::1", "2001:db8:2::2"


class Line(NamedTuple):
    """Two ends, and the addresses of server and client: IPv4's, and IPv6's."""

    client: Namespace
    server: Namespace
    address: str
    client_address: str
    address6: str
    client_address6: str

    def over(self, version: int) -> Line:
        """The same ends, with the addresses of this IP."""
        if version == 4:
            return self
        return self._replace(address=self.address6, client_address=self.client_address6)

    def offload(self, *, sender: bool, replier: bool) -> None:
        """Let the ends leave their checksums to their devices, or make them."""
        for end, on in ((self.client, sender), (self.server, replier)):
            end.run("ethtool", "-K", INTERFACE, "tx", "on" if on else "off")


def of_pair(pair: NamespacePair) -> Line:
    """A pair's own ends."""
    client, server = pair.client, pair.server
    return Line(
        client.namespace,
        server.namespace,
        server.address,
        client.address,
        SERVER_IPV6,
        CLIENT_IPV6,
    )


_CHOSEN = "52000 60999"
"""Ports that a client's kernel chooses from: none of them is one that tests forge requests from."""


def _choose_apart(client: Namespace) -> None:
    file = Path("/proc/sys/net/ipv4/ip_local_port_range")  # IPv6's too
    client.call(functools.partial(file.write_text, _CHOSEN))


def _verify_all(client: Namespace) -> None:
    """Let the client's kernel verify checksums that a veth would vouch for."""
    client.run("ethtool", "-K", INTERFACE, "rx", "off")


@contextlib.contextmanager
def straight() -> Iterator[Line]:
    """A pair as experiments use it."""
    with NamespacePair() as pair:
        _choose_apart(pair.client.namespace)
        _verify_all(pair.client.namespace)
        yield of_pair(pair)


@contextlib.contextmanager
def bare() -> Iterator[Line]:
    """A pair whose ends carry no XDP program, and take raw frames."""
    with NamespacePair(bare=True) as pair:
        _choose_apart(pair.client.namespace)
        yield of_pair(pair)


@contextlib.contextmanager
def met(line: Line) -> Iterator[None]:
    """A program at the client's end, as a carom in native mode wants to find one when it starts."""
    program = attach_pass(line.client, INTERFACE)
    try:
        yield
    finally:
        libbpf.close_link(program)


@contextlib.contextmanager
def routed() -> Iterator[Line]:
    """A pair with a router in between."""
    with contextlib.ExitStack() as stack:
        client, router, server = (
            stack.enter_context(Namespace(role)) for role in ("client", "router", "server")
        )
        join(client, INTERFACE, router, "near")
        join(router, "far", server, INTERFACE)
        for namespace, interface, address in (
            (client, INTERFACE, ROUTED_CLIENT),
            (client, INTERFACE, ROUTED_CLIENT6),
            (router, "near", ROUTER_NEAR),
            (router, "near", ROUTER_NEAR6),
            (router, "far", ROUTER_FAR),
            (router, "far", ROUTER_FAR6),
            (server, INTERFACE, ROUTED_SERVER),
            (server, INTERFACE, ROUTED_SERVER6),
        ):
            namespace.address(interface, address, 64 if ":" in address else 30)
        for near, interface, via in (
            (client, "near", (ROUTER_NEAR, ROUTER_NEAR6)),
            (server, "far", (ROUTER_FAR, ROUTER_FAR6)),
        ):
            near.neighbour(INTERFACE, via[1], router.mac(interface))
            for address in via:
                near.run("ip", "route", "add", "default", "via", address)
        router.neighbour("near", ROUTED_CLIENT6, client.mac(INTERFACE))
        router.neighbour("far", ROUTED_SERVER6, server.mac(INTERFACE))
        for forwards in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            file = Path("/proc/sys/net") / forwards
            router.call(functools.partial(file.write_text, "1"))
        # A veth sends what native XDP answers only to a peer that has a program too.
        stack.callback(os.close, attach_pass(router, "far"))
        _choose_apart(client)
        _verify_all(client)
        yield Line(client, server, ROUTED_SERVER, ROUTED_CLIENT, ROUTED_SERVER6, ROUTED_CLIENT6)


@contextlib.contextmanager
def forwarding(namespace: Namespace, interface: str = INTERFACE) -> Iterator[None]:
    """An interface that forwards: there a route can be asked for its MTU."""

    def write(value: str) -> None:
        for version in (4, 6):
            Path(f"/proc/sys/net/ipv{version}/conf/{interface}/forwarding").write_text(value)

    namespace.call(functools.partial(write, "1"))
    try:
        yield
    finally:
        namespace.call(functools.partial(write, "0"))
