# SPDX-License-Identifier: Apache-2.0
"""A client's destination: an address, with its zone if it is link-local, or a name."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, NamedTuple

from carom.errors import UsageError


class Target(NamedTuple):
    """A destination as sockets take it; `given` is the user's text for it."""

    given: str
    family: socket.AddressFamily
    address: tuple[Any, ...]

    def refused(self, error: OSError) -> UsageError:
        """The error for a destination that cannot be sent to."""
        hint = "is the address right, and is there a route?"
        host = ipaddress.ip_address(self.address[0])
        if host.version == 6 and host.is_link_local and not self.address[3]:
            hint = f"a link-local address needs its interface: {self.given}%eth0"
        return UsageError(f"cannot send to {self.given}: {error.strerror or error}", hint=hint)


def resolved(address: str, port: int) -> Target:
    """The first address of a name, IPv4 before IPv6. Raises UsageError."""
    try:
        addresses = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot send to {address or repr(address)}, which is no address: "
            f"{getattr(error, 'strerror', None) or error}",
            hint="use an IPv4 or IPv6 address (fe80::1%eth0), or a name that resolves to one",
        ) from error
    family, _, _, _, target = min(addresses, key=lambda entry: entry[0] == socket.AF_INET6)
    return Target(address, family, target)
