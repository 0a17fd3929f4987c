# SPDX-License-Identifier: Apache-2.0
"""A service of ours: its socket, its server, its caches."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from carom.daemon import server as servers
from carom.daemon import transport
from carom.daemon.answered import Answered
from carom.daemon.fastpath import Attachment, FastPath, Place
from carom.daemon.loops import Loops
from carom.daemon.server import Server, UserspaceCache
from carom.daemon.service import Handler, Reply, Service
from carom.daemon.sockets import takes_from
from carom.errors import ServerError, UsageError
from carom.kernel import forked
from carom.kernel.abi import TTL_FLOOR
from carom.kernel.links import Interface
from carom.protocols.spec import Clock, Store


def _refuse_in_child(_: bytes) -> None:
    raise ServerError(
        "a forked process cannot invalidate: it holds nothing of the service",
        hint="have it tell its parent, whose handler invalidates; or `carom cache drop`",
    )


def _vrf(interfaces: Sequence[Interface]) -> str:
    """The VRF that all of some interfaces are in; "" for none. Raises UsageError for several."""
    vrfs = {one.name: one.master if one.vrf else "" for one in interfaces}
    if len(set(vrfs.values())) > 1:
        words = ", ".join(f"{one} in {vrf or 'none'}" for one, vrf in vrfs.items())
        raise UsageError(
            f"these interfaces are in different VRFs ({words}), and a socket receives in one",
            hint="run one carom for the interfaces of each",
        )
    return next(iter(vrfs.values()), "")


def _zone(bind: str, interfaces: Sequence[Interface]) -> int:
    """The ifindex of what has a link-local address; 0 for one of another scope."""
    bound = ipaddress.ip_address(bind)
    if bound.version == 4 or not bound.is_link_local:
        return 0
    return next((at.link for one in interfaces for at in one.reached if at.address == bound), 0)


class Served(Answered):
    """A service that listens: in the VRF of its interfaces, where they are in one."""

    def __init__(self, service: Service, id: int, interfaces: Sequence[Interface] = ()):
        """Bind its socket. Raises ServerError, PrivilegeError, UsageError."""
        super().__init__(service.options, id)
        self.userspace_cache: UserspaceCache | None = None
        self._service = service
        self._vrf = _vrf(interfaces)
        self._udp = transport.bind(
            self.options.bind, self.options.port, self._vrf, _zone(self.options.bind, interfaces)
        )
        self._device = transport.device_of(self._udp)
        forked.keep(self._udp.fileno())

    def prepare(self, fastpath: FastPath | None, clock: Clock | None) -> None:
        """Make its server, behind a cache where there is a fast path to read it."""
        super().prepare(fastpath, clock)
        service, options = self._service, self.options
        assert service.handler
        if fastpath:
            transport.refuse_below(self._udp, TTL_FLOOR)
        handler = service.handler
        if options.work:
            handler = servers.with_work(handler, options.work)
        if options.userspace_cache:
            self.userspace_cache = UserspaceCache(options.userspace_cache, options.ttl)
            handler = self.userspace_cache.around(handler)
        if self.protocol.writes:
            handler = self._voiding(handler)
        with_loops = options.echoes and self.protocol.whole_key  # else no reply is a request
        loops = Loops(options.echoes, self.cache) if with_loops else None
        self.server = Server(self._udp, handler, self.cache, loops)
        service._invalidate = self._invalidate

    @property
    def socket(self) -> socket.socket:
        """Where requests come up."""
        return self._udp

    @property
    def replies(self) -> int:
        """How many the server has given."""
        return self.server.replies

    @property
    def store(self) -> Store | None:
        """What its handler answers from, where that can be watched."""
        store = getattr(self._service.handler, "__self__", None)
        return store if isinstance(store, Store) else None

    def places(self, attachment: Attachment) -> Iterator[Place]:
        """Where its socket receives what comes in by the interface."""
        interface = attachment.interface
        for place in super().places(attachment):
            if takes_from(self._device, place.link, interface.vrf_of(place.link)):
                yield place

    def server_words(self) -> str:
        """What its socket is bound to, where that is not where requests come in."""
        return f"carom's socket receives {self._where()} alone: start it anew"

    def _where(self) -> str:
        return f"in the VRF {self._vrf}" if self._vrf else "outside of VRFs"

    def _voiding(self, handler: Handler) -> Handler:
        """The handler of a protocol that has writes: what one writes is void once it is written."""

        def handled(request: bytes) -> bytes | Reply | None:
            reply = handler(request)
            read = self.protocol.read_of_written(request)
            if read is not None:
                self._invalidate(read)
            return reply

        return handled

    def close(self) -> None:
        """Stop listening."""
        self._service._invalidate = None
        forked.forget(self._udp.fileno())
        self._udp.close()

    def leave(self) -> None:
        """In a process that was forked: it has nothing of the service."""
        self._service._invalidate = _refuse_in_child

    def status(self) -> dict[str, Any]:
        """Its counters."""
        server, userspace = self.server, self.userspace_cache
        return {
            **super().status(),
            "server": {
                "replies": server.replies,
                "handler_errors": server.handler_errors,
                "send_errors": server.send_errors,
                "loops_ended": server.loops.ended if server.loops else 0,
            },
            "userspace_cache": userspace and {"hits": userspace.hits, "misses": userspace.misses},
        }

    def drop(self, key: str) -> bool:
        """Take the reply of a name, given in hex, back; False when there was none."""
        # The inner cache first: the outer one is filled from it.
        inner = self.userspace_cache
        dropped = inner.drop(bytes.fromhex(key)) if inner else False
        return super().drop(key) or dropped

    def flush(self) -> int:
        """Take everything back; how many entries that were."""
        if self.userspace_cache:
            self.userspace_cache.flush()
        return super().flush()

    def _invalidate(self, request: bytes) -> None:
        if self.userspace_cache:
            self.userspace_cache.drop(request)
        if self.cache:
            self.cache.invalidate(request)
