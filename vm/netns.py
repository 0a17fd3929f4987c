# SPDX-License-Identifier: Apache-2.0
"""The pair that works on every Linux: two network namespaces joined by a veth."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from carom.errors import ExperimentError
from carom.kernel import libbpf
from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace, join
from carom.vm.pair import offloads

INTERFACE = "carom0"
CLIENT = "198.18.0.1"
SERVER = "198.18.0.2"
PREFIX_LENGTH = 29
CLIENT_IPV6 = "2001:db8::1"
SERVER_IPV6 = "2001:db8::2"
PREFIX_LENGTH_IPV6 = 64


class NamespaceHost:
    """One end of the pair."""

    interface = INTERFACE
    python = sys.executable
    silence = 0.0

    def __init__(self, namespace: Namespace, address: str):
        self.namespace = namespace
        self.address = address

    def popen(self, argv: Sequence[str], *, listens: bool = False) -> subprocess.Popen[str]:
        """Start a program there, with pipes on stdin and stdout; it dies with this process."""
        return self.namespace.popen(argv)

    def driver(self) -> str:
        """The network driver of the interface."""
        return "veth"

    def offloads(self) -> dict[str, bool]:
        """Offloads of the interface, as ethtool names them."""
        return offloads(self.namespace.run("ethtool", "-k", INTERFACE))

    def ended(self, status: int) -> ExperimentError:
        """The error for a program there that ended before it was told to."""
        return ExperimentError(
            f"the lab's agent on {self.address} ended (status {status})",
            hint="its last words are above",
        )


class NamespacePair(Resource):
    """Two namespaces: made on creation, removed on exit.

    The client's end has an XDP program that passes everything: without one a veth loses what native
    XDP sends back. With `bare` it has none, and the server's end has GRO on, so that it takes raw
    frames. With `tx_checksum` off both ends write whole checksums, as devices without offload do;
    with it on, the default, they leave them half-made, as the kernel prefers.
    """

    name = "netns"
    one_machine = True

    def __init__(self, *, tx_checksum: bool = True, bare: bool = False):
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(Namespace("client"))
            server = stack.enter_context(Namespace("server"))
            wire(client, server)
            for namespace in (client, server):
                namespace.up("lo")
                if not tx_checksum:
                    namespace.run("ethtool", "-K", INTERFACE, "tx", "off")
            if bare:
                server.run("ethtool", "-K", INTERFACE, "gro", "on")
            else:
                stack.callback(os.close, attach_pass(client, INTERFACE))
            self.client = NamespaceHost(client, CLIENT)
            self.server = NamespaceHost(server, SERVER)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Remove the pair and end what runs in it."""
        self._stack.close()


def wire(client: Namespace, server: Namespace) -> None:
    """Join two namespaces by a veth, with addresses, each with the other's MAC as a neighbour."""
    join(client, INTERFACE, server, INTERFACE)
    ends = (
        (client, (CLIENT, CLIENT_IPV6), server, (SERVER, SERVER_IPV6)),
        (server, (SERVER, SERVER_IPV6), client, (CLIENT, CLIENT_IPV6)),
    )
    for end, addresses, far_end, other_addresses in ends:
        lengths = (PREFIX_LENGTH, PREFIX_LENGTH_IPV6)
        for address, length in zip(addresses, lengths, strict=True):
            end.address(INTERFACE, address, length)
        for address in other_addresses:
            end.neighbour(INTERFACE, address, far_end.mac(INTERFACE))


def attach_pass(namespace: Namespace, interface: str) -> int:
    """Attach an XDP program that passes everything; closing the returned descriptor removes it."""
    program = libbpf.load_xdp_pass()
    try:
        return namespace.call(
            lambda: libbpf.link_xdp(
                program, socket.if_nametoindex(interface), libbpf.XDP_FLAGS_DRV_MODE
            )
        )
    finally:
        os.close(program)
