# SPDX-License-Identifier: Apache-2.0
"""Where a client sends to: an address, with its zone if it is link-local, or a name."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, NamedTuple

from carom.errors import UsageError


class Target(NamedTuple):
    """What an address or name is to sockets; `said` is how it was given."""

    said: str
    family: socket.AddressFamily
    address: tuple[Any, ...]

    def refused(self, error: OSError) -> UsageError:
        """What to say where nothing can be sent there."""
        hint = "is the address right, and is there a route?"
        host = ipaddress.ip_address(self.address[0])
        if host.version == 6 and host.is_link_local and not self.address[3]:
            hint = f"a link-local address needs its interface: {self.said}%eth0"
        return UsageError(f"cannot send to {self.said}: {error.strerror or error}", hint=hint)


def resolved(address: str, port: int) -> Target:
    """Of a name's addresses the first, IPv4's before IPv6's. Raises UsageError."""
    try:
        addresses = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot send to {address or repr(address)}, which is no address: "
            f"{getattr(error, 'strerror', None) or error}",
            hint="an address of IPv4 or IPv6 (fe80::1%eth0), or a name that resolves to one",
        ) from error
    family, _, _, _, target = min(addresses, key=lambda entry: entry[0] == socket.AF_INET6)
    return Target(address, family, target)
