# SPDX-License-Identifier: Apache-2.0
"""Makes what services run on: first sockets and servers, then programs, then interfaces."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carom import log, protocols
from carom.daemon import pin_folder
from carom.daemon.attachments import Attacher, Attachments
from carom.daemon.backend import Backend
from carom.daemon.bound_addresses import BoundAddresses
from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock, jiffies_per_second
from carom.daemon.control import Control
from carom.daemon.doctor.start import said_at_start
from carom.daemon.fastpath import Attachment, FastPath, Room
from carom.daemon.filtering import Filtering
from carom.daemon.firewall import Ruleset
from carom.daemon.firewall_check import FirewallCheck
from carom.daemon.follower import Follower, Followers, Look
from carom.daemon.front import Front
from carom.daemon.fronted_backend import FrontedBackend
from carom.daemon.fronted_server import FrontedServer
from carom.daemon.grower import Grower
from carom.daemon.lease import LeaseKeeper
from carom.daemon.lifetimes import Settler
from carom.daemon.manager import Manager
from carom.daemon.notes import notes, notes_on_length, notes_on_sources
from carom.daemon.options import Options
from carom.daemon.own_socket import OwnSocket
from carom.daemon.publisher import Publisher, own_addresses
from carom.daemon.python_backend import PythonBackend
from carom.daemon.reach import port_words
from carom.daemon.receiver import Receiver, check_bind
from carom.daemon.running import OnInterfaces, Parts, Running
from carom.daemon.service import Service
from carom.daemon.silence import SilenceWatcher
from carom.daemon.status import calls
from carom.daemon.sweeper import Sweeper
from carom.errors import InterfaceError
from carom.filters import own
from carom.filters.filter import Filter
from carom.filters.names import NAMES, Name
from carom.kernel import capabilities, forked, links, netlink
from carom.kernel.abi import TTL_FLOOR, Hook
from carom.kernel.attached import ENDING
from carom.kernel.links import Interface
from carom.kernel.local_routes import LocalChanges

if TYPE_CHECKING:
    from carom.daemon.pinned import Pinned

FIREWALL_REST = 10.0
"""The pause after a look at the firewall, as a multiple of the time that the look took."""

FIREWALL_ANYWAY = 60.0
"""Seconds until it is looked at without an event: iptables' legacy rules send none."""

LOOK_ANYWAY = 10.0
"""Seconds until interfaces and servers are looked at without an event."""

HOST, FIREWALL = "host", "firewall"
"""Names of followers: of links, addresses and servers; of firewall rules."""


def assemble(
    services: Sequence[Service | Front],
    interface_names: Sequence[str],
    manager: Manager,
    *,
    least: bool = False,
) -> Running:
    """Start services with all that they run on. Raises CaromError, and then leaves nothing.

    The `manager` is told that the thread which renews the lease is alive. With `least` threads have
    no capability but those that are needed from then on.
    """
    stack = contextlib.ExitStack()
    try:
        assembly = Assembly(stack, services, interface_names, manager, least=least)
        running = Running(assembly.parts, stack)
        stack.callback(Control(calls(running)).close)
        running.start()
        if pinned := running.parts.pinned:
            pinned.publish()
            fastpath = running.parts.fastpath
            if fastpath and fastpath.taken_over:
                log.info("goes on with the cache of the carom before", entries=len(fastpath.store))
        stack.enter_context(forked.in_child(running.leave))
    except BaseException:
        stack.close()
        raise
    return running


def lasting(receivers: Iterable[Receiver], kept: Iterable[str]) -> set[str]:
    """The capabilities that are needed for as long as carom runs (docs/operating.md says for what).

    Those that are `kept` for handlers are among them.
    """
    needed = {"BPF", "PERFMON", "NET_ADMIN", *kept}
    for receiver in receivers:
        if isinstance(receiver, FrontedServer):
            needed |= {"SYS_PTRACE", "DAC_READ_SEARCH"}
            if not receiver.here:
                needed.add("SYS_ADMIN")
    return needed


def loaded(
    options: Options,
    receivers: Sequence[Receiver],
    room: Room,
    *,
    pinned: Pinned | None = None,
    services: Sequence[str] = (),
) -> FastPath:
    """A fast path for some services, of which `options` are the first one's. Raises as it does."""
    return FastPath(
        policy=options.policy,
        admit=options.admission(),
        capacity=options.capacity,
        memory=options.memory,
        languages={receiver.protocol for receiver in receivers},
        edge=any(receiver.learns for receiver in receivers),
        room=room,
        counted=len(receivers),
        max_hits=options.max_hits_per_cpu,
        shadow=options.shadow,
        pinned=pinned,
        services=services,
        hooks=(Hook.TC if options.hook == "tc" else Hook.XDP,),
    )


class Assembly:
    """The parts while they are made; `stack` removes them. Quick checks come first, and compiling
    last."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        services: Sequence[Service | Front],
        interface_names: Sequence[str],
        manager: Manager,
        *,
        least: bool,
    ):
        started, began = time.monotonic(), time.time()
        self._stack = stack
        self._manager = manager
        self._services = services
        self._options: Options = services[0].options
        self._bound = BoundAddresses(services)
        self._followers = Followers()
        self._interfaces = self._found(interface_names)
        rules = Ruleset() if self._has_fast_path() else None
        self._receivers: list[Receiver] = []
        for id, service in enumerate(services):
            receiver = self._receiver(service, id, rules)
            self._receivers.append(stack.enter_context(receiver))
            self._bound.add_port(receiver.server_port)
        if least:
            capabilities.settle(lasting(self._receivers, self._options.keep_capability))
        self._firewall = self._fastpath = None
        if rules:
            self._firewall = FirewallCheck(
                self._receivers, self._interfaces, rules, self._poke_host
            )
        self._room = self._counted()
        self._pinned = None
        if rules and self._options.pin:
            from carom.daemon.pinned import Pinned  # few starts need it

            self._pinned = stack.enter_context(Pinned(pin_folder.folder()))
        if rules:
            self._fastpath = self._loaded()
        filter = self._loaded_filter()
        either = self._fastpath or filter
        self._clock = JiffiesClock(either.read_jiffies) if either else None
        self._backends = [
            stack.enter_context(self._backend(service, receiver))
            for service, receiver in zip(services, self._receivers, strict=True)
        ]
        self._settle_replies()
        self._compare_replies()
        self._filtering = self._filtered(filter) if filter else None
        attached = None
        if self._interfaces and self._clock:
            attached = self._attached(self._clock)
        self.parts = Parts(
            started,
            began,
            self._backends,
            self._fastpath,
            self._firewall,
            self._filtering,
            self._followers,
            attached,
            self._pinned,
            self._notes(attached),
        )

    def _poke_host(self) -> None:
        """Look again: a server's sockets, or the translation of its requests, have changed."""
        self._followers.poke(HOST)

    def _has_fast_path(self) -> bool:
        options = [service.options for service in self._services]
        return any(
            service_options.hook != "none" and service_options.fast != "off"
            for service_options in options
        )

    def _found(self, names: Sequence[str]) -> list[Interface]:
        """The interfaces to attach to. Raises InterfaceError; UsageError for a missing address."""
        filtered = self._options.filter_place() in ("xdp", "tc")
        if not filtered and not self._has_fast_path():
            return []
        interfaces = links.interfaces(names, self._bound)
        for interface in interfaces:
            if interface.port:
                raise InterfaceError(port_words(interface))
        for service in self._services:
            check_bind(service.options.bind, interfaces)
        return interfaces

    def _receiver(self, service: Service | Front, id: int, rules: Ruleset | None) -> Receiver:
        if isinstance(service, Service):
            return OwnSocket(service.options, id, self._interfaces)
        cookies = protocols.spec(service.options.protocol).cookies
        if service.secret_file and cookies:
            cookies.check(service.secret_file)
        return FrontedServer(service, id, self._interfaces, rules)

    def _counted(self) -> Room:
        """How many endpoints, own addresses and prefixes the maps need room for."""
        endpoints = sum(
            len(list(receiver.places(Attachment(interface, "xdp", "native", False))))
            for receiver in self._receivers
            for interface in self._interfaces
        )
        own = len(own_addresses(self._interfaces))
        return Room(endpoints, own, len(self._options.allow) + 1)

    def _loaded(self) -> FastPath:
        """The fast path, which answers nothing yet; its socket's edge sees packets already."""
        fastpath = loaded(
            self._options,
            self._receivers,
            self._room,
            pinned=self._pinned,
            services=self._lasting_services(),
        )
        self._stack.enter_context(fastpath)
        fastpath.allow(())
        if fastpath.edge:
            fastpath.edge.attach(self._pinned.links if self._pinned else ENDING)
        return fastpath

    def _lasting_services(self) -> list[str]:
        """All services in words, if what any of them has cached is good after this carom's end."""
        lasting = any(one.learns or one.options.keep_replies for one in self._receivers)
        return [receiver.in_words() for receiver in self._receivers] if lasting else []

    def _loaded_filter(self) -> Filter | None:
        options, place = self._options, self._options.filter_place()
        if not options.filter or not place:
            return None
        known: Name | None = next((name for name in NAMES if name == options.filter), None)
        mine = None if known else own.made(Path(options.filter), place)
        room = self._room.sizes()["services"]
        filter = Filter(known or "simple", place, jiffies_per_second(), room=room)
        self._stack.enter_context(filter)
        if mine:
            filter.load_own(mine)
        return filter

    def _backend(self, service: Service | Front, receiver: Receiver) -> Backend:
        """A service's backend, with its cache if it has one."""
        options, fastpath, clock, cache = receiver.options, self._fastpath, self._clock, None
        if fastpath and clock and options.fast == "cache":
            cache = Cache(fastpath.store, clock, options.ttl, receiver.id, receiver.protocol)
        if isinstance(service, Service) and isinstance(receiver, OwnSocket):
            if fastpath:
                receiver.end_loops()
            if cache and fastpath and fastpath.taken_over and not options.keep_replies:
                cache.flush()  # they may be another process' state
            return PythonBackend(receiver, service, cache)
        assert isinstance(service, Front) and isinstance(receiver, FrontedServer)
        assert fastpath and fastpath.edge and clock and cache  # Front takes no other options
        return FrontedBackend(
            receiver, service, fastpath, fastpath.edge, clock, cache, self._poke_host
        )

    def _settle_replies(self) -> None:
        """Start the thread that finds out how long waiting replies hold."""
        fronted = [backend for backend in self._backends if isinstance(backend, FrontedBackend)]
        lifetimes = {backend.id: backend.lifetimes for backend in fronted if backend.lifetimes}
        edge = self._fastpath.edge if self._fastpath else None
        if edge and lifetimes:
            self._stack.callback(Settler(edge, lifetimes).close)

    def _compare_replies(self) -> None:
        """Start the thread that compares what the server says with what the cache has said."""
        if self._options.shadow and self._fastpath:
            from carom.daemon.shadow import ShadowCheck  # who asks for none need not load it

            check = ShadowCheck(self._fastpath, self._backends, self._poke_host)
            self._stack.callback(check.close)

    def _filtered(self, filter: Filter) -> Filtering:
        """The filter with the servers behind it, attached to their sockets if that is its place."""
        assert self._clock
        servers = [backend for backend in self._backends if isinstance(backend, PythonBackend)]
        filtering = Filtering(filter, self._clock, [server.values for server in servers])
        if self._options.filter_place() == "socket":
            for server in servers:
                filter.attach_socket(server.udp, TTL_FLOOR if self._fastpath else 0)
        return filtering

    def _attached(self, clock: JiffiesClock) -> OnInterfaces:
        """Attach to interfaces, publish, and follow changes; at the end the kernel answers."""
        stack, fastpath = self._stack, self._fastpath
        sweeper = None
        if fastpath and any(backend.cache for backend in self._backends):
            sweeper = Sweeper(fastpath.store, clock)
            stack.callback(sweeper.close)
            if fastpath.edge:
                stack.callback(Grower(fastpath.store).close)
        filter = self._filtering.filter if self._filtering else None
        # Opened before the first looks, so that no change is missed.
        changes = stack.enter_context(contextlib.closing(LocalChanges()))
        rules = stack.enter_context(contextlib.closing(netlink.RuleChanges()))
        attacher = Attacher(self._options, fastpath, filter)
        attachments = Attachments(attacher, self._interfaces, self._bound)
        publisher = Publisher(
            self._receivers,
            attachments,
            fastpath,
            filter,
            self._poke_host,
            lambda: self._moved(attachments),
        )
        stack.enter_context(publisher.allowed)
        publisher.publish()
        stack.enter_context(self._followers)
        looks = [
            Look(f"the server's sockets on port {backend.options.port}", backend.look_again)
            for backend in self._backends
        ]
        looks.append(Look("interfaces and addresses", publisher.follow_interfaces))
        self._followers.add(HOST, Follower(looks, changes, anyway=LOOK_ANYWAY))
        watcher = None
        if fastpath:
            self._follow_firewall(fastpath, attachments, rules)
            watcher = SilenceWatcher(fastpath, self._backends, lambda: attachments.current)
            stack.callback(watcher.close)
        keeper = LeaseKeeper(fastpath, clock, self._manager.alive)
        stack.callback(keeper.close)  # called first: from then on nothing is answered
        return OnInterfaces(attachments, publisher, sweeper, watcher, keeper)

    def _moved(self, attachments: Attachments) -> None:
        """The interfaces have changed: look at the firewall for these."""
        if self._firewall:
            self._firewall.moved(attachments.current)
            self._followers.poke(FIREWALL)

    def _follow_firewall(
        self, fastpath: FastPath, attachments: Attachments, rules: netlink.Changes
    ) -> None:
        assert self._firewall
        filtering = self._filtering

        def programs() -> list[int]:
            filters = [filtering.filter.program_id()] if filtering else []
            return [*fastpath.program_ids(), *filters]

        self._firewall.attached(attachments.current, programs)
        follower = Follower(
            [Look("the firewall", self._firewall.look_again)],
            rules,
            name="firewall",
            rest=FIREWALL_REST,
            anyway=FIREWALL_ANYWAY,
        )
        self._followers.add(FIREWALL, follower)

    def _notes(self, attached: OnInterfaces | None) -> list[str]:
        """Notes for whoever runs this, without those of the firewall check."""
        attachments = attached.attachments.current if attached else []
        unreached = attached.publisher.unreached if attached else {}
        remarks = [
            f"requests to port {self._receivers[id].options.port} cannot be answered: {why}"
            for (id, _), why in unreached.items()
        ]
        remarks += notes(attachments)
        remarks += [note for backend in self._backends for note in backend.notes()]
        if self._fastpath:
            options = [receiver.options for receiver in self._receivers]
            remarks += notes_on_length(attachments, options)
            remarks += notes_on_sources(attachments, options)
            remarks += said_at_start(attachments)
            remarks += [] if self._pinned else pin_folder.left()
        return remarks
