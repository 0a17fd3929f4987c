# SPDX-License-Identifier: Apache-2.0
"""Which addresses services are bound to, so that those in a large local prefix are known."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from carom.daemon import sockets
from carom.daemon.front import Front
from carom.daemon.service import Service
from carom.errors import ServerError
from carom.kernel.netlink import Address


class BoundAddresses:
    """The addresses of services, and of the sockets here at the ports of fronted servers."""

    def __init__(self, services: Sequence[Service | Front]):
        self._binds = [ipaddress.ip_address(service.options.bind) for service in services]
        fronts = [service for service in services if isinstance(service, Front)]
        self._ports = {front.server_port or front.options.port for front in fronts}

    def add_port(self, port: int) -> None:
        """Look at a server's own port too, which requests are translated to."""
        if self._ports:
            self._ports.add(port)

    def __call__(self) -> set[Address]:
        """The addresses that are bound now, without the unspecified ones."""
        addresses = {address for address in self._binds if not address.is_unspecified}
        with contextlib.suppress(ServerError):  # what looks for the server reports it
            at_port = sockets.bound(Path("/proc/self"), stream=False) if self._ports else ()
            addresses |= {
                socket.address for socket in at_port if socket.serves and socket.port in self._ports
            }
        return {address for address in addresses if not address.is_unspecified}
