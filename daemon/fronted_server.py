# SPDX-License-Identifier: Apache-2.0
"""Somebody else's server on this host: where it receives, and the numbers of its addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from carom import log
from carom.daemon import identity, sockets
from carom.daemon.fastpath import Attachment
from carom.daemon.finder import Finder, Found
from carom.daemon.firewall import Ruleset
from carom.daemon.front import Front
from carom.daemon.identity import Server
from carom.daemon.places import Place
from carom.daemon.receiver import Receiver
from carom.daemon.sockets import Socket
from carom.daemon.translated import handing
from carom.daemon.views import Views
from carom.errors import ServerError
from carom.kernel.abi import VIEWS_MAX
from carom.kernel.links import Interface
from carom.kernel.netlink import Address


class FrontedServer(Receiver):
    """A server that others run on this host, in this network namespace or another."""

    learns = True

    def __init__(
        self, front: Front, id: int, interfaces: Sequence[Interface], rules: Ruleset | None
    ):
        """Look for the server, with the `rules` that may translate requests to it.

        Raises ServerError for none, several, or one that may be written to unseen.
        """
        super().__init__(front.options, id)
        self._wishes = front.wishes
        if rules:
            self.heed(rules, interfaces)
        self._finder = Finder(
            front,
            interfaces,
            self.wanted,
            lambda: self.translations,
            lambda ways: handing(rules, front.options.port, ways) if rules else [],
        )
        self._views = Views()
        self._not_numbered = ""
        self._number(self.found.server)

    def in_words(self) -> str:
        """As in Receiver, with what decides how long replies are good."""
        exptime, elsewhere = self._wishes.exptime, self._wishes.writes_elsewhere
        return f"{super().in_words()}, exptime {exptime}, writes_elsewhere {elsewhere}"

    @property
    def server_port(self) -> int:
        """The port that its server has itself, which requests may be translated to."""
        return self._finder.port

    @property
    def found(self) -> Found:
        """The server, as it was seen last."""
        return self._finder.found

    @property
    def first(self) -> Server:
        """The server, as it was at the start."""
        return self._finder.first

    @property
    def here(self) -> bool:
        """Whether it is in carom's own network namespace."""
        return self._finder.here

    def follow(self, claim: Callable[[Server], None]) -> Found:
        """Look again: it may have started again, perhaps elsewhere; `claim` as in Finder."""
        return self._finder.follow(claim)

    @property
    def everywhere(self) -> bool:
        """Whether its server receives at any address of the host."""
        bound = (socket.address for socket in self.found.server.sockets)
        return (
            super().everywhere
            and self._finder.here
            and any(address.is_unspecified for address in bound)
        )

    def processes(self) -> tuple[int, ...]:
        """The processes that hold the server's sockets."""
        return tuple(sorted(self.found.server.pids))

    def _number(self, server: Server) -> None:
        """Number the addresses of its sockets. Raises ServerError for too many.

        Those without a number are not answered, and nothing is learned there.
        """
        left = self._views.take(socket.bound for socket in server.sockets)
        if left:
            raise ServerError(
                f"the server on port {self.options.port} is bound to too many addresses, of which "
                f"{len(left)} are not answered: "
                f"{', '.join(str(address) for address, _ in left[:3])}...",
                hint=f"up to {VIEWS_MAX}, one by one; or to all at once (0.0.0.0, ::)",
            )

    def number_again(self, server: Server) -> None:
        """Number the addresses again after a look; log which ones get no number."""
        problem = ""
        try:
            self._number(server)
        except ServerError as error:
            problem = str(error)
            if problem != self._not_numbered:
                log.error("some of the server's addresses are not answered", error=problem)
        self._not_numbered = problem

    @property
    def views(self) -> int:
        """How many numbers have been given to its addresses, from 0 on."""
        return self._views.used

    def view_of(self, socket: Socket) -> int | None:
        """The number of the address that a socket of it is bound to, if it has one."""
        return self._views.of(socket.bound)

    def _comes(self, interface: str, address: Address) -> bool:
        """Whether a request to the address, by that interface, gets to its server."""
        return bool(self._finder.receivers(interface, address))

    def places(self, attachment: Attachment) -> Iterator[Place]:
        """Where on an interface it is answered: where the server itself receives."""
        name, vrf_of = attachment.interface.name, attachment.interface.vrf_of
        here = self._finder.here
        for place in super().places(attachment):
            receivers = self._finder.receivers(name, place.address)
            if here:
                link, vrf = place.link, vrf_of(place.link)
                receivers = [
                    socket for socket in receivers if sockets.takes_from(socket.device, link, vrf)
                ]
            nearest = identity.nearest(receivers, place.address)
            view = self._views.of(nearest.bound) if nearest else None
            if view is not None:
                yield place._replace(view=view)

    def goes_elsewhere(self, interface: Interface) -> Iterator[str]:
        """As in Receiver; nothing where no server is, which is what has to be reported then."""
        return super().goes_elsewhere(interface) if self.found.server.sockets else iter(())

    def server_name(self) -> str:
        """Who the server is, and where it receives."""
        return self._finder.described()

    def server_words(self) -> str:
        """Why requests do not get to the server: there is none, or it receives elsewhere."""
        if not self.found.server.sockets:
            return f"no server is there: {self._finder.gone()}"
        if not self._finder.here:
            return (
                "the server is in another network namespace, and bound to several addresses there: "
                f"{self._finder.described()}"
            )
        return f"the server receives elsewhere alone: {self._finder.described()}"
