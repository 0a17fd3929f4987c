# SPDX-License-Identifier: Apache-2.0
"""The public API: a UDP service in Python, answered by the kernel once a reply is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from carom.daemon.options import Options, options_of, with_options
from carom.errors import ServerError


class Reply(NamedTuple):
    """A reply that sets its caching: for `ttl` seconds, not the service's TTL; or not at all."""

    data: bytes
    ttl: float | None = None
    cache: bool = True


Handler = Callable[[bytes], "bytes | Reply | None"]
"""From a request's payload to its reply; None sends none."""


class Service:
    """One UDP service.

    >>> service = Service(port=51141, ttl=60)
    >>> @service.reply
    ... def answer(request: bytes) -> bytes:
    ...     return request.upper()
    >>> service.run("eth0")  # doctest: +SKIP

    Takes the fields of `carom.daemon.options.Options`; raises UsageError for a wrong one.
    """

    def __init__(self, port: int, **options: object):
        self.options: Options = options_of({"port": port, **options})
        self.handler: Handler | None = None
        self._invalidate: Callable[[bytes], None] | None = None

    def reply(self, handler: Handler) -> Handler:
        """Decorate the function that answers a request."""
        self.handler = handler
        return handler

    def invalidate(self, request: bytes) -> None:
        """Take back what was answered to `request`: the next such request reaches the handler.

        Once this returns no cache answers with the old reply. A reply being made in another thread
        meanwhile is not kept either. Raises ServerError when the service does not run.
        """
        if self._invalidate is None:
            raise ServerError("the service does not run", hint="invalidate while run() runs")
        self._invalidate(request)

    def run(self, interface: str | None = None, **options: object) -> None:
        """Serve until SIGINT or SIGTERM, with requests on `interface` answered by its fast path.

        Options given here override the service's own. Without an interface, or with
        `hook="none"`, Python answers everything. Call it from the main thread.

        Raises CaromError: for what cannot be bound, attached, compiled or loaded.
        """
        self.options = with_options(self.options, options)
        run([self], [interface] if interface else [])


def run(services: Sequence[Service], interfaces: Sequence[str] = ()) -> None:
    """Serve several services together until SIGINT or SIGTERM, each in a thread of its own.

    They share the cache's memory and the interfaces' fast path, and so the options that
    `carom.daemon.options.SHARED` names. Otherwise as `Service.run`.
    """
    from carom.daemon.run import run_services  # imports BPF only where something is served

    run_services(services, interfaces)
