# SPDX-License-Identifier: Apache-2.0
"""A socket of carom's own, where a Python service receives its requests."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from carom.daemon import transport
from carom.daemon.fastpath import Attachment
from carom.daemon.options import Options
from carom.daemon.places import Place
from carom.daemon.receiver import Receiver
from carom.daemon.sockets import takes_from
from carom.errors import UsageError
from carom.kernel import forked
from carom.kernel.abi import TTL_FLOOR
from carom.kernel.links import Interface


def _vrf(interfaces: Sequence[Interface]) -> str:
    """The VRF that all these interfaces are in; "" for none. Raises UsageError for several."""
    vrfs = {interface.name: interface.master if interface.vrf else "" for interface in interfaces}
    if len(set(vrfs.values())) > 1:
        words = ", ".join(f"{name} in {vrf or 'none'}" for name, vrf in vrfs.items())
        raise UsageError(
            f"these interfaces are in different VRFs ({words}), and a socket receives in one",
            hint="run one carom for the interfaces of each",
        )
    return next(iter(vrfs.values()), "")


def _zone(bind: str, interfaces: Sequence[Interface]) -> int:
    """The ifindex of the link that has a link-local address; 0 for an address of another scope."""
    bound = ipaddress.ip_address(bind)
    if bound.version == 4 or not bound.is_link_local:
        return 0
    return next(
        (at.link for interface in interfaces for at in interface.reached if at.address == bound), 0
    )


class OwnSocket(Receiver):
    """A socket that is bound here: in the VRF of its interfaces, where they are in one."""

    def __init__(self, options: Options, id: int, interfaces: Sequence[Interface] = ()):
        """Bind it. Raises ServerError, PrivilegeError, UsageError."""
        super().__init__(options, id)
        self._vrf = _vrf(interfaces)
        self.udp = transport.bind(
            options.bind, options.port, self._vrf, _zone(options.bind, interfaces)
        )
        self._device = transport.device_of(self.udp)
        forked.keep(self.udp.fileno())

    def end_loops(self) -> None:
        """Refuse requests with a low TTL, as the fast path does: so every loop ends."""
        transport.refuse_below(self.udp, TTL_FLOOR)

    def places(self, attachment: Attachment) -> Iterator[Place]:
        """Where its socket receives what comes in by the interface."""
        interface = attachment.interface
        for place in super().places(attachment):
            if takes_from(self._device, place.link, interface.vrf_of(place.link)):
                yield place

    def server_words(self) -> str:
        """Where its socket receives, for when requests come in elsewhere."""
        return f"carom's socket receives {self._where()} alone: start it anew"

    def _where(self) -> str:
        return f"in the VRF {self._vrf}" if self._vrf else "outside of VRFs"

    def close(self) -> None:
        """Stop listening."""
        forked.forget(self.udp.fileno())
        self.udp.close()
