# SPDX-License-Identifier: Apache-2.0
"""Run services behind a fast path: build everything, publish it, take it all away again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from carom.daemon.answered import Answered, check_bind
from carom.daemon.clock import JiffiesClock
from carom.daemon.control import Control
from carom.daemon.fastpath import Attachment, FastPath, HookOption, jiffies_per_second
from carom.daemon.filtering import Filtering
from carom.daemon.fronted import Front, Fronted
from carom.daemon.keeper import Keeper, Sweeper
from carom.daemon.notes import notes
from carom.daemon.options import SHARED, Options
from carom.daemon.served import Served
from carom.daemon.service import Service
from carom.daemon.signals import Stop, ending, held
from carom.errors import InterfaceError, UsageError
from carom.filters.filter import Endpoint, Filter
from carom.include import netlink
from carom.include.abi import SERVICES_MAX, TTL_FLOOR, Event, Hook, Verdict
from carom.include.netlink import Interface
from carom.xdp.link import Mode

OURS = ("raw", "kv")
"""Protocols of Python services; replies of the others are learned from their servers."""

_PATIENCE = 1.0  # seconds for a service's thread to end

log = structlog.get_logger()


class ReadyInterface(msgspec.Struct, kw_only=True):
    """An interface that the fast path is on; `mode` is XDP's."""

    name: str
    hook: str
    mode: Mode | None

    def __str__(self) -> str:
        return f"{self.hook}{'/' + self.mode if self.mode else ''} on {self.name}"


class ReadyService(msgspec.Struct, kw_only=True):
    """A service that is answered."""

    address: str
    port: int
    protocol: str
    fast: str

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port} {self.protocol} {self.fast}"


class ReadyFilter(msgspec.Struct, kw_only=True):
    """A filter before the services, and where it is."""

    name: str
    place: str

    def __str__(self) -> str:
        return f"filter {self.name} at {self.place} "


class Ready(msgspec.Struct, kw_only=True):
    """The one line on stdout once packets are answered."""

    services: list[ReadyService]
    interfaces: list[ReadyInterface]
    filter: ReadyFilter | None = None
    notes: list[str]
    pid: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.interfaces)) or "userspace only"
        return (
            f"ready {', '.join(map(str, self.services))} {self.filter or ''}{where} pid {self.pid}"
        )


class Running:
    """Services with everything that they run on; what the control socket talks to."""

    def __init__(self, services: Sequence[Service | Front], interface_names: Sequence[str]):
        self.options: Options = services[0].options
        self.started = time.monotonic()
        self._fastpath: FastPath | None = None
        self._filtering: Filtering | None = None
        self._sweeper: Sweeper | None = None
        self._attachments: list[Attachment] = []
        self._answered: list[Answered] = []
        with contextlib.ExitStack() as stack:
            self._stack = stack
            # What is found wrong soonest comes first, and compiling last.
            for id, service in enumerate(services):
                one: Answered = (
                    Served(service, id) if isinstance(service, Service) else Fronted(service, id)
                )
                stack.callback(one.close)
                self._answered.append(one)
            interfaces = self._interfaces(services, interface_names)
            if self._has_fast_path(services):
                self._load()
            clock = self._load_filter()
            for one in self._answered:
                one.prepare(self._fastpath, clock)
            self._filter_sockets()
            if interfaces and clock:
                self._attach(interfaces, clock)
            self._control = Control(self._calls())
            stack.callback(self._control.close)
            self._start_threads()
            if self.options.cpu is not None:
                _pin(self.options.cpu)  # this thread; those beside it have started
            ports = sorted({one.options.port for one in self._answered})
            self._notes = list(notes(self._attachments, ports if self._attachments else ()))
            self._stack = stack.pop_all()

    @staticmethod
    def _has_fast_path(services: Sequence[Service | Front]) -> bool:
        return any(one.options.hook != "none" and one.options.fast != "off" for one in services)

    @classmethod
    def _interfaces(
        cls, services: Sequence[Service | Front], names: Sequence[str]
    ) -> list[Interface]:
        """Those to attach to, once every address is found: before anything is compiled."""
        filtered = services[0].options.filter_place() in ("xdp", "tc")
        if not filtered and not cls._has_fast_path(services):
            return []
        interfaces = [netlink.interface(name) for name in names]
        for service in services:
            check_bind(service.options.bind, interfaces)
        return interfaces

    def _load(self) -> None:
        options = self.options
        fastpath = FastPath(
            policy=options.policy,
            admit=options.admission(),
            capacity=options.entries(),
            languages={one.protocol for one in self._answered},
            edge=any(one.learns for one in self._answered),
        )
        self._fastpath = self._stack.enter_context(fastpath)
        fastpath.allow(options.allow)

    def _load_filter(self) -> JiffiesClock | None:
        """The filter, where there is to be one; and the clock of whatever is in the kernel."""
        options, place = self.options, self.options.filter_place()
        filter = None
        if options.filter and place:
            filter = self._stack.enter_context(Filter(options.filter, place, jiffies_per_second()))
        either = self._fastpath or filter
        clock = JiffiesClock(either.read_jiffies) if either else None
        if filter and clock:
            stores = [one.store for one in self._servers()]
            self._filtering = Filtering(filter, clock, stores)
        return clock

    def _filter_sockets(self) -> None:
        if self._filtering and self.options.filter_place() == "socket":
            for one in self._servers():
                floor = TTL_FLOOR if self._fastpath else 0
                self._filtering.filter.attach_socket(one.socket, floor)

    def _attach(self, interfaces: list[Interface], clock: JiffiesClock) -> None:
        cache = next((one.cache for one in self._answered if one.cache), None)
        if cache:
            self._sweeper = Sweeper(cache)
            self._stack.callback(self._sweeper.close)
        for interface in interfaces:
            self._attachments.append(self._attach_to(interface))
        keeper = Keeper(self._fastpath, clock, self._look_again)
        self._stack.callback(keeper.close)
        self._publish()

    def _attach_to(self, interface: Interface) -> Attachment:
        options, place = self.options, self.options.filter_place()
        filter = self._filtering.filter if self._filtering and place != "socket" else None
        attachment = None
        if self._fastpath:
            behind = filter if place == options.hook else None
            attachment = self._fastpath.attach(interface, options.hook, options.mode, behind)
            if behind:
                return attachment
        if filter:
            mode = filter.attach(interface, options.mode)
            hook: HookOption = "tc" if place == "tc" else "xdp"
            attachment = attachment or Attachment(interface, hook, mode, False)
        assert attachment
        return attachment

    def _look_again(self) -> None:
        """Interfaces or addresses may have changed."""
        for one in self._answered:
            one.look_again()
        now = []
        for attachment in self._attachments:
            name = attachment.interface.name
            try:
                interface = netlink.interface(name)
            except InterfaceError as error:
                log.warning("the interface is gone: the server answers alone", error=str(error))
                interface = attachment.interface._replace(addresses=(), vlans=())
            now.append(attachment._replace(interface=interface))
        changed = now != self._attachments
        self._attachments = now
        self._publish(warn=changed)

    def _publish(self, *, warn: bool = True) -> None:
        """Answer for the addresses that the interfaces have now."""
        places = []
        for attachment in self._attachments:
            interface = attachment.interface
            if warn and not interface.up:
                log.warning("no requests can come in: it is down", interface=interface.name)
            for served in self._answered:
                found = list(served.places(attachment))
                places += found
                if warn and not found:
                    log.warning(
                        "no requests can come in: the interface lacks the address",
                        interface=interface.name,
                        address=served.options.bind,
                        port=served.options.port,
                    )
        if self._filtering:
            self._filtering.filter.filter(
                Endpoint(one.address, one.port, one.ifindex, one.mac, one.outer, one.inner)
                for one in places
            )
        if self._fastpath:
            self._fastpath.refuse(netlink.own_addresses())
            self._fastpath.serve(places)

    def _start_threads(self) -> None:
        """Every server but the first has a thread of its own; the first runs in the main one."""
        for served in self._servers()[1:]:
            thread = threading.Thread(
                target=served.server.run_until_stopped,
                args=(served.options.wait,),
                name=f"port {served.options.port}",
                daemon=True,
            )
            thread.start()
            self._stack.callback(thread.join, _PATIENCE)
            self._stack.callback(served.server.stop)

    def _servers(self) -> list[Served]:
        return [one for one in self._answered if isinstance(one, Served)]

    def ready(self) -> Ready:
        """What is answered, and where."""
        return Ready(
            services=[
                ReadyService(
                    address=one.options.bind,
                    port=one.options.port,
                    protocol=one.options.protocol,
                    fast=one.options.fast if self._attachments else "off",
                )
                for one in self._answered
            ],
            interfaces=[
                ReadyInterface(name=one.interface.name, hook=one.hook, mode=one.mode)
                for one in self._attachments
            ],
            filter=self._ready_filter(),
            notes=self._notes,
            pid=os.getpid(),
        )

    def _ready_filter(self) -> ReadyFilter | None:
        if not self._filtering:
            return None
        filter = self._filtering.filter
        return ReadyFilter(name=filter.name, place=filter.place)

    def run(self) -> None:
        """Serve until Stop."""
        servers = self._servers()
        if servers:
            servers[0].server.run(self.options.wait)
        while True:  # the kernel and somebody else's server do the work
            signal.pause()

    def close(self) -> None:
        """Take everything away, last made first."""
        self._stack.close()

    # What `carom status` and `carom cache` call.

    def _calls(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "list": lambda limit, port=None: self._find(port).list(limit),
            "get": lambda key, port=None: self._find(port).get(key),
            "drop": lambda key, port=None: self._find(port).drop(key),
            "flush": lambda port=None: self._find(port).flush(),
            "filter": lambda: self._need_filter().show(),
            "filter_use": lambda filter: self._need_filter().use(filter),
            "filter_set": lambda setting, value: self._need_filter().filter.set(setting, value),
            "filter_captures": lambda rate, limit: self._need_filter().captures(rate, limit),
        }

    def _need_filter(self) -> Filtering:
        if not self._filtering:
            raise UsageError("no filter runs here", hint="`carom serve --app kv --filter NAME`")
        return self._filtering

    def _find(self, port: int | None) -> Answered:
        """The service on a port; without one, the only one."""
        found = [one for one in self._answered if port in (None, one.options.port)]
        if len(found) != 1:
            ports = ", ".join(str(one.options.port) for one in self._answered)
            raise UsageError(
                f"no service on port {port}" if port else "several services run",
                hint=f"--port takes one of {ports}",
            )
        return found[0]

    def _events(self) -> dict[Event, int]:
        return self._fastpath.events() if self._fastpath else {}

    def status(self) -> dict[str, Any]:
        """Everything that `carom status` shows: totals, and each service's own."""
        services = [one.status() for one in self._answered]
        hooks = (
            {
                hook.name.lower(): {
                    verdict.name.lower(): count
                    for verdict, count in self._fastpath.verdicts(hook).items()
                }
                for hook in Hook
            }
            if self._fastpath
            else {}
        )
        cache = _total(services, "cache")
        if cache:
            cache["capacity"] = self.options.entries()
            cache["swept"] = self._sweeper.swept if self._sweeper else 0
        return {
            "ready": self.ready(),
            "options": self.options,
            "uptime_seconds": time.monotonic() - self.started,
            "cpu_seconds": time.process_time(),
            "server": _total(services, "server"),
            "userspace_cache": _total(services, "userspace_cache"),
            "cache": cache,
            "verdicts": {
                verdict.name.lower(): sum(one[verdict.name.lower()] for one in hooks.values())
                for verdict in (Verdict if hooks else ())
            },
            "hooks": hooks,
            "edge": {event.name.lower(): count for event, count in self._events().items()},
            "services": services,
            "filter": self._filtering and self._filtering.show(),
        }


def _total(services: list[dict[str, Any]], part: str) -> dict[str, int] | None:
    """The sum of a part over the services that have it."""
    parts = [one[part] for one in services if one[part]]
    return {name: sum(one[name] for one in parts) for name in parts[0]} if parts else None


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise UsageError(
            f"cannot run on CPU {cpu}",
            hint=f"this host has {sorted(os.sched_getaffinity(0))}",
        ) from error


def _check_service(service: Service) -> None:
    if service.handler is None:
        raise UsageError(
            f"the service on port {service.options.port} has no handler",
            hint="decorate one with @service.reply",
        )
    if service.options.protocol not in OURS:
        raise UsageError(
            f"a Python service does not speak {service.options.protocol}",
            hint=f"it speaks {' or '.join(OURS)}; `carom front` goes before a server that does",
        )


def _check(services: Sequence[Service | Front], interfaces: Sequence[str]) -> None:
    """What no single service's options can show. Raises UsageError."""
    first = services[0].options
    if len(services) > SERVICES_MAX:
        raise UsageError(f"{len(services)} services are too many", hint=f"up to {SERVICES_MAX}")
    for service in services:
        if isinstance(service, Service):
            _check_service(service)
        for name in SHARED:
            mine, theirs = getattr(first, name), getattr(service.options, name)
            if mine != theirs:
                raise UsageError(
                    f"services that run together share {name}: {mine!r} is not {theirs!r}",
                    hint="give it to all of them, or run them apart",
                )
    fast = first.hook != "none" and any(one.options.fast != "off" for one in services)
    if fast and not interfaces:
        raise UsageError("no interface to answer on", hint="name one with -i, or say --hook none")
    if first.filter_place() in ("xdp", "tc") and not interfaces:
        raise UsageError(
            "no interface to filter on", hint="name one with -i, or say --filter-at socket"
        )


def serve(
    services: Sequence[Service | Front], interfaces: Sequence[str], *, json: bool = False
) -> None:
    """Run services until SIGINT or SIGTERM; print one `ready` line once packets are answered."""
    _check(services, interfaces)
    with contextlib.suppress(Stop), ending(), contextlib.ExitStack() as stack:
        with held():
            running = stack.enter_context(contextlib.closing(Running(services, interfaces)))
        ready = running.ready()
        for note in ready.notes:
            log.warning(note)
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
        replies=status["server"]["replies"] if status["server"] else 0,
    )
    sys.stderr.flush()
