# SPDX-License-Identifier: Apache-2.0
"""One service with all that answers it: its socket, its server, its caches."""

from __future__ import annotations

import base64
import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from carom.daemon import server as servers
from carom.daemon import transport
from carom.daemon.cache import Cache, Clock
from carom.daemon.fastpath import Attachment, FastPath, Place
from carom.daemon.options import Options
from carom.daemon.server import Server, UserspaceCache
from carom.daemon.service import Service
from carom.errors import UsageError
from carom.include.abi import Entry, Fast, Protocol
from carom.include.netlink import Address, Interface
from carom.include.resource import Resource


class Served(Resource):
    """A service that listens; `id` is its number among those of one fast path."""

    def __init__(self, service: Service, id: int):
        """Bind its socket. Raises ServerError, PrivilegeError."""
        self.options: Options = service.options
        self.id = id
        self.cache: Cache | None = None
        self.userspace_cache: UserspaceCache | None = None
        self._service = service
        self._udp = transport.bind(self.options.bind, self.options.port)

    def prepare(self, fastpath: FastPath | None, clock: Clock | None) -> None:
        """Make its server, behind a cache where there is a fast path to read it."""
        service, options = self._service, self.options
        assert service.handler
        handler = service.handler
        if fastpath and clock and options.fast == "cache":
            self.cache = Cache(fastpath, clock, options.ttl, self.id)
        if options.work:
            handler = servers.with_work(handler, options.work)
        if options.userspace_cache:
            self.userspace_cache = UserspaceCache(options.userspace_cache, options.ttl)
            handler = self.userspace_cache.around(handler)
        self.server = Server(self._udp, handler, self.cache)
        service._invalidate = self._invalidate

    def close(self) -> None:
        """Stop listening."""
        self._service._invalidate = None
        self._udp.close()

    def places(self, attachment: Attachment) -> Iterator[Place]:
        """Where on an interface it is answered."""
        interface = attachment.interface
        for address in wanted_of(interface.addresses, self.options.bind):
            yield self._place(attachment, address, interface.mac, interface.mtu)
        for vlan in interface.vlans:
            for address in wanted_of(vlan.addresses, self.options.bind):
                place = self._place(attachment, address, vlan.mac, vlan.mtu)
                yield place._replace(outer=vlan.outer, inner=vlan.inner)

    def _place(self, attachment: Attachment, address: Address, mac: bytes, mtu: int) -> Place:
        options = self.options
        return Place(
            address=address,
            port=options.port,
            ifindex=attachment.interface.ifindex,
            mac=mac,
            mtu=mtu,
            service=self.id,
            fast=Fast[options.fast.upper()],
            protocol=Protocol[options.protocol.upper()],
            skb_mode=attachment.mode == "generic",
            second_tier=attachment.second_tier,
            multiple=options.amplify,
            allow_list=bool(options.allow),
        )

    # What the control socket calls.

    def status(self) -> dict[str, Any]:
        """Its counters."""
        cache, server, userspace = self.cache, self.server, self.userspace_cache
        return {
            "port": self.options.port,
            "server": {
                "replies": server.replies,
                "handler_errors": server.handler_errors,
                "send_errors": server.send_errors,
            },
            "userspace_cache": userspace and {"hits": userspace.hits, "misses": userspace.misses},
            "cache": cache
            and {
                "entries": cache.count(),
                "fills": cache.fills,
                "refused": cache.refused,
                "unfit": cache.unfit,
            },
        }

    def _need_cache(self) -> Cache:
        if not self.cache:
            raise UsageError("this service has no cache in the kernel", hint="--fast cache has one")
        return self.cache

    def _describe(self, entry: Entry) -> dict[str, Any]:
        cache = self._need_cache()
        return {
            "key": entry.key.hex(),
            "reply_bytes": entry.length,
            "state": cache.state(entry),
            "ttl_seconds": cache.seconds_left(entry),
        }

    def list(self, limit: int) -> dict[str, Any]:
        """Up to `limit` entries, and how many there are."""
        cache = self._need_cache()
        entries = [self._describe(entry) for entry in itertools.islice(cache.entries(), limit)]
        return {"entries": entries, "total": cache.count()}

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a request, given in hex, with its reply in base64."""
        cache = self._need_cache()
        entry = cache.get(bytes.fromhex(key))
        reply = cache.reply(entry) if entry else None
        if not entry or reply is None:
            return None
        return {**self._describe(entry), "reply": base64.b64encode(reply).decode()}

    def drop(self, key: str) -> bool:
        """Take the reply to a request back; False when there was none."""
        request, cache = bytes.fromhex(key), self._need_cache()
        # The inner cache first: the outer one is filled from it.
        dropped = self.userspace_cache.drop(request) if self.userspace_cache else False
        return cache.drop(request) or dropped

    def flush(self) -> int:
        """Take everything back; how many entries that were."""
        cache = self._need_cache()
        if self.userspace_cache:
            self.userspace_cache.flush()
        return cache.flush()

    def _invalidate(self, request: bytes) -> None:
        if self.userspace_cache:
            self.userspace_cache.drop(request)
        if self.cache:
            self.cache.invalidate(request)


def wanted_of(addresses: Iterable[Address], bind: str) -> tuple[Address, ...]:
    """Those addresses that a socket bound to `bind` receives at."""
    bound = ipaddress.ip_address(bind)
    if not bound.is_unspecified:
        return tuple(address for address in addresses if address == bound)
    return tuple(a for a in addresses if bound.version == 6 or a.version == 4)


def check_bind(bind: str, interfaces: Iterable[Interface]) -> None:
    """Raises UsageError when no interface has the address."""
    interfaces = list(interfaces)
    bound = ipaddress.ip_address(bind)
    has = [a for one in interfaces for a in (*one.addresses, *_on_vlans(one))]
    if not bound.is_unspecified and bound not in has:
        names = ", ".join(one.name for one in interfaces)
        raise UsageError(
            f"{names} does not have the address {bound}",
            hint=f"it has {', '.join(map(str, has)) or 'none'}",
        )


def _on_vlans(interface: Interface) -> tuple[Address, ...]:
    return tuple(address for vlan in interface.vlans for address in vlan.addresses)
