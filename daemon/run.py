# SPDX-License-Identifier: Apache-2.0
"""Run a service behind its fast path: build everything, publish it, take it all away again."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog

from carom.daemon import server as servers
from carom.daemon import transport
from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock
from carom.daemon.control import Control
from carom.daemon.keeper import Keeper, Sweeper
from carom.daemon.options import Options
from carom.daemon.server import Server, Stop, UserspaceCache
from carom.daemon.service import Service
from carom.errors import UsageError
from carom.include import netlink
from carom.include.abi import Entry, Fast
from carom.include.netlink import Interface
from carom.xdp.fastpath import FastPath
from carom.xdp.link import Mode

log = structlog.get_logger()


class Ready(msgspec.Struct, kw_only=True):
    """The one line on stdout once packets are answered."""

    address: str
    port: int
    protocol: str
    fast: str
    interface: str | None
    mode: Mode | None
    pid: int

    def __str__(self) -> str:
        where = f"xdp/{self.mode} on {self.interface}" if self.mode else "userspace only"
        return (
            f"ready {self.address}:{self.port} {self.protocol} {self.fast} {where} pid {self.pid}"
        )


_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise Stop in the main thread, once."""
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a service runs in the main thread only", hint="signals end it")

    def stop(number: int, frame: object) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise Stop

    saved = {number: signal.signal(number, stop) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back; threads started meanwhile never take one.

    One that another thread took would not wake the main thread, which has to act on it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


class Running:
    """A service with everything that it runs on; what the control socket talks to."""

    def __init__(self, service: Service, options: Options, interface_name: str | None):
        self.options = options
        self.started = time.monotonic()
        self._stack = contextlib.ExitStack()
        self._fastpath: FastPath | None = None
        self._cache: Cache | None = None
        self._sweeper: Sweeper | None = None
        self.mode: Mode | None = None
        self.interface: Interface | None = None
        self._userspace_cache: UserspaceCache | None = None
        with self._stack:
            udp = self._stack.enter_context(transport.bind(options.bind, options.port))
            if options.hook == "xdp" and options.fast != "off" and interface_name:
                self._start_fastpath(netlink.interface(interface_name))
            self._server = self._make_server(service, udp)
            service._invalidate = self._invalidate
            self._stack.callback(setattr, service, "_invalidate", None)
            self._control = Control(self._calls())
            self._stack.callback(self._control.close)
            if options.cpu is not None:
                _pin(options.cpu)  # this thread; those beside it have started
            self._stack = self._stack.pop_all()

    def _start_fastpath(self, interface: Interface) -> None:
        options = self.options
        self.interface = interface
        self._addresses(interface)  # a wrong --bind is found before anything is compiled
        fastpath = FastPath(policy=options.policy, capacity=options.capacity)
        self._fastpath = self._stack.enter_context(fastpath)
        clock = JiffiesClock(fastpath)
        if options.fast == "cache":
            self._cache = Cache(fastpath, clock, options.ttl)
            self._sweeper = Sweeper(self._cache)
            self._stack.callback(self._sweeper.close)
        self.mode = fastpath.attach(interface, options.mode)
        keeper = Keeper(fastpath, clock, interface, self._publish)
        self._stack.callback(keeper.close)
        self._publish(interface)

    def _addresses(self, interface: Interface) -> tuple[ipaddress.IPv4Address, ...]:
        bound = ipaddress.IPv4Address(self.options.bind)
        if bound.is_unspecified:
            return interface.addresses
        if bound not in interface.addresses:
            raise UsageError(
                f"{interface.name} does not have the address {bound}",
                hint=f"it has {', '.join(map(str, interface.addresses)) or 'none'}",
            )
        return (bound,)

    def _publish(self, interface: Interface) -> None:
        """Answer for the addresses that the interface has now."""
        assert self._fastpath
        self.interface = interface
        try:
            addresses = self._addresses(interface)
        except UsageError as error:
            log.warning("the fast path answers nothing for now", reason=str(error))
            addresses = ()
        else:
            if not addresses or not interface.up:
                log.warning(
                    "no requests can come in: the interface has no IPv4 address or is down",
                    interface=interface.name,
                )
        self._fastpath.describe(interface, skb_mode=self.mode == "generic")
        fast = Fast[self.options.fast.upper()]
        self._fastpath.serve(addresses, self.options.port, fast)

    def _make_server(self, service: Service, udp: socket.socket) -> Server:
        handler = service.handler
        assert handler
        if self.options.work:
            handler = servers.with_work(handler, self.options.work)
        if self.options.userspace_cache:
            cache = UserspaceCache(self.options.userspace_cache, self.options.ttl)
            self._userspace_cache = cache
            handler = cache.around(handler)
        return Server(udp, handler, self._cache)

    def ready(self) -> Ready:
        """What is answered, and where."""
        return Ready(
            address=self.options.bind,
            port=self.options.port,
            protocol=self.options.protocol,
            fast=self.options.fast if self.mode else "off",
            interface=self.interface.name if self.interface else None,
            mode=self.mode,
            pid=os.getpid(),
        )

    def run(self) -> None:
        """Serve until Stop."""
        self._server.run(self.options.wait)

    def close(self) -> None:
        """Take everything away, last made first."""
        self._stack.close()

    # What `carom status` and `carom cache` call.

    def _calls(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "list": self._list,
            "get": self._get,
            "drop": self._drop,
            "flush": self._flush,
        }

    def status(self) -> dict[str, Any]:
        """Everything that `carom status` shows."""
        cache, server = self._cache, self._server
        user = time.process_time()
        return {
            "ready": self.ready(),
            "options": self.options,
            "uptime_seconds": time.monotonic() - self.started,
            "cpu_seconds": user,
            "server": {
                "replies": server.replies,
                "handler_errors": server.handler_errors,
                "send_errors": server.send_errors,
            },
            "userspace_cache": self._userspace_cache
            and {"hits": self._userspace_cache.hits, "misses": self._userspace_cache.misses},
            "cache": cache
            and {
                "entries": cache.count(),
                "capacity": self.options.capacity,
                "fills": cache.fills,
                "refused": cache.refused,
                "unfit": cache.unfit,
                "swept": self._sweeper.swept if self._sweeper else 0,
            },
            "verdicts": {
                verdict.name.lower(): count for verdict, count in self._fastpath.verdicts().items()
            }
            if self._fastpath
            else {},
        }

    def _need_cache(self) -> Cache:
        if not self._cache:
            raise UsageError("this service has no cache in the kernel", hint="--fast cache has one")
        return self._cache

    def _describe(self, entry: Entry) -> dict[str, Any]:
        cache = self._need_cache()
        return {
            "key": entry.key.hex(),
            "reply_bytes": len(entry.reply),
            "state": cache.state(entry),
            "ttl_seconds": cache.seconds_left(entry),
        }

    def _list(self, limit: int) -> dict[str, Any]:
        cache = self._need_cache()
        entries = [self._describe(entry) for entry in itertools.islice(cache.entries(), limit)]
        return {"entries": entries, "total": cache.count()}

    def _get(self, key: str) -> dict[str, Any] | None:
        entry = self._need_cache().get(bytes.fromhex(key))
        if not entry:
            return None
        return {**self._describe(entry), "reply": base64.b64encode(entry.reply).decode()}

    def _drop(self, key: str) -> bool:
        request = bytes.fromhex(key)
        dropped = self._need_cache().drop(request)
        if self._userspace_cache:
            dropped |= self._userspace_cache.drop(request)
        return dropped

    def _flush(self) -> int:
        flushed = self._need_cache().flush()
        if self._userspace_cache:
            self._userspace_cache.flush()
        return flushed

    def _invalidate(self, request: bytes) -> None:
        if self._userspace_cache:
            self._userspace_cache.drop(request)
        if self._cache:
            self._cache.invalidate(request)


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise UsageError(
            f"cannot run on CPU {cpu}",
            hint=f"this host has {sorted(os.sched_getaffinity(0))}",
        ) from error


def serve(service: Service, options: Options, interface: str | None, *, json: bool = False) -> None:
    """Run `service` until SIGINT or SIGTERM; print one `ready` line once packets are answered."""
    if options.hook == "xdp" and options.fast != "off" and not interface:
        raise UsageError("no interface to answer on", hint="name one with -i, or say --hook none")
    with contextlib.suppress(Stop), _signals(), contextlib.ExitStack() as stack:
        with _signals_held():
            running = stack.enter_context(contextlib.closing(Running(service, options, interface)))
        ready = running.ready()
        print(msgspec.json.encode(ready).decode() if json else ready, flush=True)
        try:
            running.run()
        except Stop:
            _summarise(running)


def _summarise(running: Running) -> None:
    status = running.status()
    verdicts = status["verdicts"]
    log.info(
        "stopped",
        seconds=round(status["uptime_seconds"], 1),
        hits=verdicts.get("hit", 0),
        bounces=verdicts.get("bounce", 0),
        replies=status["server"]["replies"],
    )
    sys.stderr.flush()
