# SPDX-License-Identifier: Apache-2.0
"""A Python service behind the fast path: its server and its caches."""

from __future__ import annotations

from typing import Any

from carom.daemon import udp_server
from carom.daemon.backend import Backend
from carom.daemon.cache import Cache
from carom.daemon.loops import Loops
from carom.daemon.options import Options
from carom.daemon.own_socket import OwnSocket
from carom.daemon.reply_times import told
from carom.daemon.service import Handler, Reply, Service
from carom.daemon.udp_server import UDPServer, UserspaceCache
from carom.errors import ServerError
from carom.protocols.spec import Store


def _refuse_in_child(_: bytes) -> None:
    raise ServerError(
        "a forked process cannot invalidate: it holds nothing of the service",
        hint="have it tell its parent, whose handler invalidates; or `carom cache drop`",
    )


class PythonBackend(Backend):
    """A service whose replies a Python handler makes, in this process."""

    def __init__(self, receiver: OwnSocket, service: Service, cache: Cache | None):
        """Make its server, behind the kernel's cache if it has one."""
        super().__init__(receiver, cache)
        options = self.options
        self._service = service
        self.userspace_cache: UserspaceCache | None = None
        assert service.handler
        handler = service.handler
        if options.work:
            handler = udp_server.with_work(handler, options.work)
        if options.userspace_cache:
            self.userspace_cache = UserspaceCache(options.userspace_cache, options.ttl)
            handler = self.userspace_cache.around(handler)
        if self.protocol.writes:
            handler = self._voiding(handler)
        with_loops = options.echoes and self.protocol.whole_key  # otherwise no reply is a request
        loops = Loops(options.echoes, cache) if with_loops else None
        self.udp = receiver.udp
        self.server = UDPServer(self.udp, handler, cache, loops)
        service._invalidate = self._invalidate

    def heed(self, options: Options) -> None:
        """As in Backend."""
        super().heed(options)
        self._service.options = options
        if self.userspace_cache:
            self.userspace_cache.ttl = options.ttl

    @property
    def replies(self) -> int:
        """How many the server has given."""
        return self.server.replies

    def tallies(self) -> dict[str, int]:
        """As in Backend, with those of the server itself."""
        server = self.server
        failed = {"handler_errors": server.handler_errors, "send_errors": server.send_errors}
        return super().tallies() | failed

    @property
    def values(self) -> Store | None:
        """The store that its handler answers from, if that can be watched."""
        store = getattr(self._service.handler, "__self__", None)
        return store if isinstance(store, Store) else None

    def _voiding(self, handler: Handler) -> Handler:
        """The handler of a protocol with writes: voids what a request has written."""

        def handled(request: bytes) -> bytes | Reply | None:
            reply = handler(request)
            read = self.protocol.read_of_written(request)
            if read is not None:
                self._invalidate(read)
            return reply

        return handled

    def close(self) -> None:
        """Stop invalidating: the fast path is removed next."""
        self._service._invalidate = None

    def leave(self) -> None:
        """In a forked process: refuse to invalidate, as it holds nothing of the service."""
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
            "reply_times": told(server.times.cells),
            "userspace_cache": userspace and {"hits": userspace.hits, "misses": userspace.misses},
        }

    def _loops(self, key: bytes, reply: bytes) -> bool:
        loops = self.server.loops
        return loops is not None and loops.restored(key, reply)

    def drop(self, key: str) -> bool:
        """Take back the reply of a name, given in hex; False when there was none."""
        # The inner cache first: the outer one is filled from it.
        inner = self.userspace_cache
        dropped = inner.drop(bytes.fromhex(key)) if inner else False
        return super().drop(key) or dropped

    def flush(self) -> int:
        """Take back everything. Returns the number of entries."""
        if self.userspace_cache:
            self.userspace_cache.flush()
        return super().flush()

    def _invalidate(self, request: bytes) -> None:
        if self.userspace_cache:
            self.userspace_cache.drop(request)
        if self.cache:
            self.cache.invalidate(request)
