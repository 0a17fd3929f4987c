# SPDX-License-Identifier: Apache-2.0
"""Run services behind a fast path: build everything, publish it, take it all away again."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from carom import protocols
from carom.daemon.answered import Answered, check_bind
from carom.daemon.asking import Asking
from carom.daemon.clock import JiffiesClock
from carom.daemon.control import Control
from carom.daemon.fastpath import (
    Attachment,
    FastPath,
    Place,
    Room,
    jiffies_per_second,
)
from carom.daemon.filtering import Filtering
from carom.daemon.firewall import Ruleset
from carom.daemon.front import Front
from carom.daemon.fronted import Fronted
from carom.daemon.guard import Guard
from carom.daemon.keeper import Follower, Keeper, Look, Sweeper
from carom.daemon.lifetimes import Settler
from carom.daemon.neighbours import Neighbours
from carom.daemon.notes import notes, notes_on_length, notes_on_sources
from carom.daemon.options import SHARED, Options
from carom.daemon.reach import Reach, port_words, without
from carom.daemon.served import Served
from carom.daemon.service import Service
from carom.daemon.signals import Stop, ending, held
from carom.daemon.standing import Attacher, Standing
from carom.daemon.watcher import Watcher
from carom.errors import CaromError, InterfaceError, UsageError
from carom.filters.filter import Endpoint, Filter
from carom.kernel import forked, links, netlink
from carom.kernel.abi import SERVICES_MAX, TTL_FLOOR, Event, Hook, Verdict
from carom.kernel.links import Interface
from carom.kernel.local_routes import Asked, LocalChanges
from carom.kernel.netlink import Address
from carom.protocols.spec import Filled
from carom.xdp.link import Mode

FIREWALL_REST = 10.0
"""After a look at the firewall, so many times as long passes before the next."""

FIREWALL_ANYWAY = 60.0
"""Seconds until it is looked at though nothing tells of a change, as of iptables' legacy rules."""

LOOK_ANYWAY = 10.0
"""Seconds until interfaces and servers are looked at though nothing tells of a change."""

WAIT_STEP = 0.25
"""Seconds between two looks for what is waited for at the start."""

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
        self._followers: list[Follower] = []
        self._guard: Guard | None = None
        self._neighbours: Neighbours | None = None
        self._standing: Standing | None = None
        self._watcher: Watcher | None = None
        self._unreached: dict[tuple[int, int], str] = {}
        self._answered: list[Answered] = []
        with contextlib.ExitStack() as stack:
            self._stack = stack
            # What is found wrong soonest comes first, and compiling last.
            asked = Asking(services)
            interfaces = self._interfaces(services, interface_names, asked)
            rules = Ruleset() if self._has_fast_path(services) else None
            for id, service in enumerate(services):
                one: Answered = (
                    Served(service, id, interfaces)
                    if isinstance(service, Service)
                    else Fronted(service, id, interfaces, rules)
                )
                stack.callback(one.close)
                self._answered.append(one)
                asked.servers_port(one.server_port)
            if rules:
                self._guard = Guard(self._answered, interfaces, rules)
                self._load(self._room(interfaces))
            clock = self._load_filter(self._room(interfaces))
            for one in self._answered:
                stack.callback(one.stop)
                one.changed = self._poke
                one.prepare(self._fastpath, clock)
            self._settle_replies()
            self._filter_sockets()
            if interfaces and clock:
                self._attach(interfaces, clock, asked)
            self._control = Control(self._calls())
            stack.callback(self._control.close)
            self._start_threads()
            if self.options.cpu is not None:
                _pin(self.options.cpu)  # this thread; those beside it have started
            self._stack.enter_context(forked.in_child(self._leave))
            self._notes = [
                f"requests to port {self._answered[id].options.port} cannot be answered: {why}"
                for (id, _), why in self._unreached.items()
            ]
            self._notes += notes(self._attachments)
            self._notes += [note for one in self._answered for note in one.notes()]
            if self._fastpath:
                options = [one.options for one in self._answered]
                self._notes += notes_on_length(self._attachments, options)
                self._notes += notes_on_sources(self._attachments, options)
            self._stack = stack.pop_all()

    @staticmethod
    def _has_fast_path(services: Sequence[Service | Front]) -> bool:
        return any(one.options.hook != "none" and one.options.fast != "off" for one in services)

    @classmethod
    def _interfaces(
        cls, services: Sequence[Service | Front], names: Sequence[str], asked: Asked
    ) -> list[Interface]:
        """Those to attach to, once every address is found: before anything is compiled."""
        filtered = services[0].options.filter_place() in ("xdp", "tc")
        if not filtered and not cls._has_fast_path(services):
            return []
        interfaces = links.interfaces(names, asked)
        for interface in interfaces:
            if interface.port:
                raise InterfaceError(port_words(interface))
        for service in services:
            check_bind(service.options.bind, interfaces)
        return interfaces

    def _room(self, interfaces: list[Interface]) -> Room:
        """How much there is to make room for."""
        endpoints = sum(
            len(list(one.places(Attachment(interface, "xdp", "native", False))))
            for one in self._answered
            for interface in interfaces
        )
        return Room(endpoints, len(_own(interfaces)), len(self.options.allow) + 1)

    def _load(self, room: Room) -> None:
        options = self.options
        fastpath = FastPath(
            policy=options.policy,
            admit=options.admission(),
            capacity=options.entries(),
            languages={one.protocol for one in self._answered},
            edge=any(one.learns for one in self._answered),
            room=room,
            counted=len(self._answered),
        )
        self._fastpath = self._stack.enter_context(fastpath)
        fastpath.allow(options.allow)

    def _load_filter(self, room: Room) -> JiffiesClock | None:
        """The filter, where there is to be one; and the clock of whatever is in the kernel."""
        options, place = self.options, self.options.filter_place()
        filter = None
        if options.filter and place:
            filter = self._stack.enter_context(
                Filter(
                    options.filter,
                    place,
                    jiffies_per_second(),
                    room=room.defines()["ENDPOINT_ROOM"],
                )
            )
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

    def _settle_replies(self) -> None:
        """Find out how long those hold that wait for it."""
        waited = (one for one in self._answered if isinstance(one, Fronted))
        lifetimes = {one.id: one.lifetimes for one in waited if one.lifetimes}
        if self._fastpath and lifetimes:
            self._stack.callback(Settler(self._fastpath, lifetimes).close)

    def _attach(self, interfaces: list[Interface], clock: JiffiesClock, asked: Asked) -> None:
        cache = next((one.cache for one in self._answered if one.cache), None)
        if cache:
            self._sweeper = Sweeper(cache)
            self._stack.callback(self._sweeper.close)
        filter = self._filtering.filter if self._filtering else None
        changes = LocalChanges()  # before the first look, so that no change falls between
        self._stack.callback(changes.close)
        attacher = Attacher(self.options, self._fastpath, filter)
        self._standing = Standing(attacher, interfaces, asked)
        if self._fastpath and self.options.allow:
            self._neighbours = Neighbours(
                self._fastpath, self.options.allow, self._links(), self._poke
            )
            self._stack.callback(self._neighbours.close)
        self._unreached = self._why_not()  # the notes have these
        self._stand(self._attachments)
        self._follow(Follower(self._looks(), changes, anyway=LOOK_ANYWAY))
        if self._guard and self._fastpath:
            rules = netlink.RuleChanges()
            self._stack.callback(rules.close)
            self._guard.attached(self._attachments, self._fastpath.program_ids())
            look = Look("the firewall", self._guard.look_again)
            follower = Follower(
                [look], rules, name="firewall", rest=FIREWALL_REST, anyway=FIREWALL_ANYWAY
            )
            self._follow(follower)
        if self._fastpath:
            self._watcher = Watcher(self._fastpath, self._answered, lambda: self._attachments)
            self._stack.callback(self._watcher.close)
        keeper = Keeper(self._fastpath, clock)
        self._stack.callback(keeper.close)  # before all else: nothing is answered from then on

    def _follow(self, follower: Follower) -> None:
        self._followers.append(follower)
        self._stack.callback(follower.close)
        self._stack.callback(self._followers.clear)  # it is told nothing from then on

    @property
    def _attachments(self) -> list[Attachment]:
        return self._standing.attachments if self._standing else []

    def _poke(self) -> None:
        """A server has other sockets than before, and so other places."""
        for follower in self._followers[:1]:
            follower.poke()

    def _looks(self) -> list[Look]:
        """What is looked at again when links, addresses or servers may have changed."""
        servers = [
            Look(f"the server's sockets on port {one.options.port}", one.look_again)
            for one in self._answered
        ]
        return [*servers, Look("interfaces and addresses", self._follow_interfaces)]

    def _follow_interfaces(self) -> None:
        assert self._standing
        before = self._attachments
        try:
            self._standing.look_again()
        finally:
            self._stand(before)

    def _stand(self, before: list[Attachment]) -> None:
        """Answer where the services are now, and nowhere else."""
        now = self._attachments
        if now != before and self._guard:
            self._guard.moved(now)
            for follower in self._followers[1:]:
                follower.poke()
        if now != before and self._neighbours:
            self._neighbours.look_again(self._links())
        self._publish(
            [place for one in now for each in self._answered for place in each.places(one)]
        )
        self._say_reach()

    def _say_reach(self) -> None:
        """What can be answered now and could not be before, and the other way round."""
        now = self._why_not()
        for id, number in now.keys() | self._unreached.keys():
            port = self._answered[id].options.port
            why, before = now.get((id, number)), self._unreached.get((id, number))
            if why and why != before:
                log.warning("requests cannot be answered", port=port, why=why)
            elif before and not why:
                interface = self._attachments[number].interface.name
                log.info("requests are answered again", port=port, interface=interface)
        self._unreached = now

    def _why_not(self) -> dict[tuple[int, int], str]:
        """Of services that are not answered on an interface, why: by the numbers of both."""
        reaches = {
            (one.id, number): self._reach(one, attachment)
            for one in self._answered
            for number, attachment in enumerate(self._attachments)
        }
        return {of: one.why for of, one in reaches.items() if not one.answered}

    def _reach(self, one: Answered, attachment: Attachment) -> Reach:
        """Whether requests to a service can come in so and be answered, by an allow-list too."""
        found = one.reach(attachment)
        unknown, why = self._neighbours.unknown() if self._neighbours else (frozenset(), "")
        if not why:
            return found
        versions = {place.address.version for place in one.places(attachment)}
        return without(found, versions, unknown, why)

    def _links(self) -> set[int]:
        """The interfaces that have addresses to answer at: those on top of them too."""
        interfaces = [one.interface for one in self._attachments]
        return {
            index
            for one in interfaces
            for index in (one.ifindex, *(each.ifindex for each in one.uppers))
        }

    def _publish(self, places: list[Place]) -> None:
        """Answer there and nowhere else.

        What is no longer ours goes first, and goes whatever else fails. Called by the thread that
        starts, then by the follower's alone. Raises CaromError, OSError.
        """
        with contextlib.ExitStack() as stack:  # the last one first, each whatever the others do
            if self._fastpath:
                stack.callback(self._fastpath.serve, places)
                stack.callback(self._refuse_own)
                stack.callback(self._fastpath.withdraw, places)
            if self._filtering:
                stack.callback(
                    self._filtering.filter.filter,
                    [
                        Endpoint(one.address, one.port, one.ifindex, one.mac, one.outer, one.inner)
                        for one in places
                    ],
                )

    def _refuse_own(self) -> None:
        assert self._fastpath
        self._fastpath.refuse(_own([one.interface for one in self._attachments]))

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
            notes=[*self._notes, *(self._guard.notes() if self._guard else ())],
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

    def _leave(self) -> None:
        """In a process that a handler forked: all this is its parent's, which goes on."""
        self._left = self._stack.pop_all()  # never called
        for one in self._answered:
            one.leave()

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
            apps = protocols.words(one for one in protocols.SPECS.values() if one.filtered)
            hint = f"`carom serve --app {apps} --filter NAME`"
            raise UsageError("no filter runs here", hint=hint)
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
        services = [
            {
                **one.status(),
                "reach": [self._reach(one, each) for each in self._attachments],
                "silence": self._watcher and self._watcher.silences.get(one.id),
            }
            for one in self._answered
        ]
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
            "not_followed": {
                what: why for one in self._followers for what, why in dict(one.failing).items()
            },
            "filter": self._filtering and self._filtering.show(),
        }


def _own(interfaces: Sequence[Interface]) -> set[Address]:
    """This host's own addresses, as far as they are known one by one. Raises OSError."""
    return set(netlink.own_addresses()).union(*(one.hosts for one in interfaces))


def _total(services: list[dict[str, Any]], part: str) -> dict[str, int] | None:
    """The sum of a part over the services that have it."""
    parts = [one[part] for one in services if one[part]]
    if not parts:
        return None
    names = dict.fromkeys(name for one in parts for name in one)
    return {name: sum(one.get(name, 0) for one in parts) for name in names}


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
    if protocols.spec(service.options.protocol).learned:
        ours = " or ".join(one.name for one in protocols.filled_by(Filled.DAEMON))
        raise UsageError(
            f"a Python service does not speak {service.options.protocol}",
            hint=f"it speaks {ours}; `carom front` goes before a server that does",
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
    _check_apart([one.options for one in services if isinstance(one, Front)])
    fast = first.hook != "none" and any(one.options.fast != "off" for one in services)
    if fast and not interfaces:
        ours = all(isinstance(one, Service) for one in services)
        raise UsageError(
            "no interface to answer on",
            hint="name one with -i" + (", or say --hook none" if ours else ""),
        )
    if first.filter_place() in ("xdp", "tc") and not interfaces:
        raise UsageError(
            "no interface to filter on", hint="name one with -i, or say --filter-at socket"
        )


def _check_apart(fronts: Sequence[Options]) -> None:
    """Sockets of ours cannot have one port and address twice, and fronts may not."""
    for number, one in enumerate(fronts):
        for other in fronts[:number]:
            alike = one.bind == other.bind or any(
                ipaddress.ip_address(each.bind).is_unspecified for each in (one, other)
            )
            if one.port == other.port and alike:
                raise UsageError(
                    f"two services are to answer on port {one.port} at one address",
                    hint="give each an address of its own to bind, or leave one out",
                )


def _start(
    stack: contextlib.ExitStack,
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    patience: float,
) -> Running:
    """Running, closed with the stack: now, or when what is not there yet has come."""
    end, said = time.monotonic() + patience, ""
    while True:
        try:
            with held():
                running = contextlib.closing(Running(services, interfaces))
                return stack.enter_context(running)
        except CaromError as error:
            if not error.passing or time.monotonic() >= end:
                raise
            if str(error) != said:
                log.info("waiting", why=str(error))
            said = str(error)
        time.sleep(WAIT_STEP)


def serve(
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    *,
    json: bool = False,
    patience: float = 0,
) -> None:
    """Run services until SIGINT or SIGTERM; print one `ready` line once packets are answered.

    For so many seconds it waits for a server, an interface or an address that is not there yet.
    """
    _check(services, interfaces)
    with contextlib.suppress(Stop), ending(), contextlib.ExitStack() as stack:
        running = _start(stack, services, interfaces, patience)
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
