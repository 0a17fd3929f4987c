# SPDX-License-Identifier: Apache-2.0
"""The fast path's programs and maps, compiled, loaded and attached: userspace's side of the C."""

from __future__ import annotations

import contextlib
import ipaddress
import mmap
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from carom import cgroup, protocols, tc, xdp
from carom.cgroup.link import EDGES, link_name
from carom.cgroup.link import Edge as EdgeName
from carom.daemon.clock import jiffies_per_second
from carom.daemon.edge import EDGE_CHAIN, HOOKS, Edge
from carom.daemon.hooked import CHAINS, STEPS, TRACED, Hooked, steps
from carom.daemon.mirror import Mirror
from carom.daemon.own_addresses import OwnAddresses
from carom.daemon.places import Place, Places
from carom.daemon.store import CALLED, DRAINS, Admit, Extent, Policy, Store, check_memory
from carom.errors import BPFError, BusyError, UsageError
from carom.filters.filter import Filter
from carom.kernel import libbpf
from carom.kernel.abi import (
    ENDPOINT,
    ENDPOINTS_MAX,
    GATEWAYS_MAX,
    NEIGHBOUR,
    NEIGHBOURS_MAX,
    PLACES_MAX,
    PREFIX,
    STATION,
    STRAY,
    VERDICTS,
    WAY,
    WAY_PREFIX,
    WAYS_MAX,
    Hook,
    Noted,
    Verdict,
    packed_address,
)
from carom.kernel.attached import ENDING, Attached, replaced
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.links import Interface
from carom.kernel.netlink import Address
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing
from carom.kernel.ways import Network, Way
from carom.protocols import SPECS
from carom.protocols.spec import Spec
from carom.tc.link import TCLink
from carom.xdp.link import Link, Mode, ModeOption
from carom.xdp.probe import check_arrival

if TYPE_CHECKING:
    from carom.daemon.pinned import Pinned

HookOption = Literal["xdp", "tc", "none"]

_ANY_IPV4 = ipaddress.ip_address("0.0.0.0")
OWN_LEAST = 131_072
"""The least room for own addresses: a bucket of 16 bytes for each, and more once it is used."""

ROOM_MAX = 1_000_000
"""The most places that a map of addresses gets; half of them may be taken at the start."""


class Room(NamedTuple):
    """How many endpoints, own addresses and allowed prefixes to make room for."""

    endpoints: int = 0
    own: int = 0
    prefixes: int = 0

    def sizes(self) -> dict[str, int]:
        """The sizes of their maps: twice as many, for later ones. UsageError for too many."""
        return {
            "services": room_for(self.endpoints, ENDPOINTS_MAX, "endpoints to answer at"),
            "own_addresses": room_for(self.own, OWN_LEAST, "own addresses"),
            "allowed": room_for(self.prefixes, ENDPOINTS_MAX, "allowed prefixes"),
        }


def room_for(count: int, least: int, things: str) -> int:
    """Twice `count` places, and no fewer than `least`. Raises UsageError for too many `things`."""
    if 2 * count > ROOM_MAX:
        raise UsageError(
            f"{count:,} {things} are too many", hint=f"carom has room for {ROOM_MAX // 2:,}"
        )
    return max(least, 2 * count)


class Stray(NamedTuple):
    """A packet to a service's port that no service is found for; `seen` of them so far."""

    address: Address
    port: int
    ifindex: int
    outer: int
    inner: int
    seen: int


class Attachment(NamedTuple):
    """How the fast path is attached to an interface: `mode` is XDP's, None with `hook` tc.

    `failed` says why it could not be attached again; it is empty otherwise.
    """

    interface: Interface
    hook: HookOption
    mode: Mode | None
    hands_over: bool
    failed: str = ""


def _folder(package: object) -> Path:
    return Path(str(package.__file__)).resolve().parent  # type: ignore[attr-defined]


SOURCES = (
    _folder(xdp) / "fastpath.c",
    _folder(xdp) / "hand.c",
    _folder(xdp) / "clock.c",
    _folder(tc) / "fastpath.c",
    _folder(cgroup) / "edge.c",
    _folder(cgroup) / "learn.c",
    _folder(cgroup) / "sockets.c",
)
INCLUDE = (*protocols.INCLUDE, _folder(xdp), _folder(cgroup))


def recipe(defines: Mapping[str, str | int | None] | None = None) -> Recipe:
    """The fast path for every protocol: which of them a start wants is a parameter.

    With `defines` of its own it is none that comes with carom.
    """
    at_tc = (f"tc_{name}" for name in (*STEPS, "handover", *TRACED))
    return Recipe(
        *SOURCES,
        include=INCLUDE,
        written=protocols.headers(SPECS.values()),
        defines=defines,
        hooks={**dict.fromkeys(at_tc, "tc"), **HOOKS},
        packaged="" if defines else "fastpath",
    )


PAIRS_BYTES = 2**20
"""Of pairs of replies that wait to be compared, some 230: one that finds no room is left out."""

_LASTING_LEAST = 65_536  # LASTING_ROOM of lasting.h


_OF_A_TRACE = ("samples", "samplers", "tracings")
"""The maps of trace.h."""

_REST = 0.1
"""Seconds from when packets come to other programs to when those before are removed.

A packet may be on its way through them: that takes microseconds, and is not preempted.
"""


def _beside(source: Path) -> Recipe:
    """A C file whose programs share the fast path's maps; those named tc_... run at TC."""
    at_tc = re.findall(r"^int (tc_\w+)\(", source.read_text(), re.MULTILINE)
    written = protocols.headers(SPECS.values())
    return Recipe(source, include=INCLUDE, written=written, hooks=dict.fromkeys(at_tc, "tc"))


_Role = Callable[[Hooked], int]
"""Which of the programs a link has."""


def _first_at_xdp(hooked: Hooked) -> int:
    return hooked.first[Hook.XDP]


def _first_at_tc(hooked: Hooked) -> int:
    return hooked.first[Hook.TC]


def _handover(hooked: Hooked) -> int:
    return hooked.handover


def _needed(languages: Iterable[Spec], *, edge: bool) -> set[str]:
    """The steps that these protocols take; without any, requests are whole keys.

    Userspace fills the cache of a protocol that is not learned, and of all where there is no edge.
    """
    read = [spec for spec in languages if not spec.whole_key]
    needed = {"fastpath"}
    if read:
        needed |= {"read", "answer"}
    if any(spec.joined for spec in read):
        needed.add("join")
    if not edge or any(not spec.learned for spec in languages):
        needed.add("store")
    return needed


def _shapes(places: Iterable[Place]) -> set[str]:
    """The steps that requests at these places take by their shape."""
    return {
        "other" if place.outer or place.inner else "ipv6"
        for place in places
        if place.outer or place.inner or place.address.version == 6
    }


def _unused(languages: Iterable[Spec]) -> dict[str, int]:
    """Large maps that none of these protocols uses: programs name them, so they are made small."""
    sizes = dict[str, int]()
    if not any(spec.nameless for spec in languages):
        sizes |= {"repeats": 1, "remembered_keys": 1}
    if not any("spelled" in spec.functions for spec in languages):
        sizes["spellings"] = 1
    return sizes


class FastPath(Resource):
    """The fast path, loaded: it answers where it is attached, until it is closed.

    `lease` and `clock` are the maps' own cells: reads and writes need no system call. `store` has
    the entries of all services, `edge` the programs at the socket's edge, if it was made with them.
    `attached` is what is on interfaces.
    """

    def __init__(
        self,
        *,
        policy: Policy = "lru",
        admit: Admit = "always",
        capacity: int = 10_000,
        memory: int = 0,
        languages: Iterable[Spec] = (),
        edge: bool = False,
        room: Room | None = None,
        counted: int = 1,
        max_hits: int = 0,
        shadow: int = 0,
        beside: Sequence[Path] = (),
        pinned: Pinned | None = None,
        services: Sequence[str] = (),
        hooks: Sequence[Hook] = tuple(Hook),
        test_clock: bool = False,
    ):
        """Compile, and load for where it is first: `hooks`. XDP has TC's beside it.

        `capacity` is in entries; with `memory` the store holds what so many bytes do. `languages`
        are the protocols to support, `edge` adds the programs for fronted servers, `counted`
        services get counters of their own, and the C files `beside` it share its maps. Of one CPU
        there are at most `max_hits` replies a second (0: any). Of `shadow` hits one goes up, to be
        compared (0: none). What is `pinned` outlives it, and is taken over if it was for the same
        `services`; it says so by `taken_over`. With `test_clock` the programs' time is the `clock`
        cell, in seconds.

        Raises UsageError for a capacity that memory cannot hold or a `room` beyond ROOM_MAX,
        PrivilegeError, CompileError, VerifierError, BPFError.
        """
        extent = Extent(capacity, admit, memory, counted)
        check_memory(extent.capacity)
        self.max_hits = max_hits
        self._room = (room or Room()).sizes()
        self._counted = counted
        languages = set(languages)
        self._needed = _needed(languages, edge=edge)
        entries = {
            **self._room,
            **extent.sizes(),
            **_unused(languages),
            "places": PLACES_MAX + libbpf.possible_cpus(),
            "verdicts": (1 + counted) * len(Hook) * VERDICTS,
            "reply_times": counted,
            "lasting": max(_LASTING_LEAST, extent.capacity),
            "pairs": PAIRS_BYTES if shadow else mmap.PAGESIZE,
        }
        hashes = Hashes()
        self._module = Module(
            recipe(),
            entries=entries,
            parameters={
                **timing(jiffies_per_second(), test_clock=test_clock),
                "tc_first": Hook.TC in hooks,
                "max_hits": max_hits,
                "shadow": shadow,
                "dry": False,
                "noted": Noted.NOT,
                "languages": protocols.bits(languages),
                "counted": counted,
                **hashes.parameters,
            },
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self._module.close)
            self._pinned = pinned
            self._links = pinned.links if pinned else ENDING
            links = [link_name(one) for one in EDGES] if edge else []
            taken = pinned.take_over(self._module, entries, services, links) if pinned else None
            if taken:
                hashes = taken
            self.taken_over = taken is not None
            self._beside = [
                stack.enter_context(Module(_beside(source), beside=self._module))
                for source in beside
            ]
            self._hooks = hooks
            self._shapes = set[str]()
            self._asking, self._tracing = threading.Lock(), threading.Lock()
            self._changing = threading.RLock()
            self._twin: Hooked | None = None
            self.closed = False
            self._module.load(self._wanted(edge=edge))
            self._read_clock = self._module.program("read_clock")
            self._hooked = Hooked(self._module, hooks, self._needed)
            self._placed = dict[Link | TCLink, _Role]()
            self._behind: tuple[Filter, _Role] | None = None
            self._verdicts = self._module.map("verdicts")
            self._places = stack.enter_context(Places(self._module, self._room["services"]))
            self._own = stack.enter_context(OwnAddresses(self._module, self._room["own_addresses"]))
            self._allowed = Mirror(
                self._module.map("allowed"), "allowed prefixes", self._room["allowed"]
            )
            self._ways = Mirror(self._module.map("ways"), "ways", 2 * WAYS_MAX)
            self._neighbours = Mirror(
                self._module.map("neighbours"), "neighbours", 2 * NEIGHBOURS_MAX
            )
            self.lease = self._module.cells("lease", 1)
            stack.callback(self.lease.release)
            self.clock = self._module.cells("clock", 1)
            stack.callback(self.clock.release)
            drafts = "store" in self._needed
            self.store = stack.enter_context(
                Store(self._module, hashes, extent, policy, drafts=drafts, pinned=pinned)
            )
            self.edge = stack.enter_context(Edge(self._module)) if edge else None
            if pinned:
                pinned.keep(self._module.maps(), hashes)
            self._stack = stack.pop_all()
        self.attached = Attached()

    def _wanted(self, *, edge: bool) -> Iterator[str]:
        """The names of all programs that it needs at first, so that they are loaded together."""
        yield from ("read_clock", "tc_handover", *CALLED, *(HOOKS if edge else ()))
        for hook in Hook:
            yield from steps(hook, self._hooks, self._needed).values()

    @property
    def digest(self) -> str:
        """The name under which its compilation is kept."""
        return self._module.digest

    @property
    def program(self) -> int:
        """The descriptor of the fast path's first program at XDP."""
        return self._hooked.first[Hook.XDP]

    @property
    def tc_program(self) -> int:
        """The same at TC."""
        return self._hooked.first[Hook.TC]

    @property
    def handover_program(self) -> int:
        """The descriptor of the one at TC that takes what XDP has no room for."""
        return self._hooked.handover

    @contextlib.contextmanager
    def dry(self) -> Iterator[Mapping[Hook, int]]:
        """The hooks' first programs once more: they change nothing but the packet and `walks`.

        They have the maps of those that are attached, and the same steps follow them. One thread at
        a time has them. Raises VerifierError, BPFError.
        """
        with self._asking, self._another({"dry": True, "noted": Noted.DRY}) as module:
            yield self._hooked_of(module).first

    def _another(
        self,
        parameters: Mapping[str, int],
        apart: Iterable[str] = (),
        entries: Mapping[str, int] | None = None,
    ) -> Module:
        """The programs once more, with the same maps but for those that are apart."""
        apart = (*CHAINS, EDGE_CHAIN, *apart)
        return Module(
            recipe(), parameters=parameters, entries=entries, beside=self._module, apart=apart
        )

    def _hooked_of(self, module: Module, *, traced: bool = False) -> Hooked:
        return Hooked(module, self._hooks, self._needed | self._shapes, traced=traced)

    @contextlib.contextmanager
    def traced(self, tracing: bytes, room: int) -> Iterator[Module]:
        """Have the attached programs once more in their place, which hand out samples besides.

        They do what the others do, with the same maps, but for those of trace.h: `tracing` is what
        is asked for, packed, and `room` bytes of samples may wait. Raises BusyError while another
        trace runs, VerifierError, BPFError.
        """
        if not self._tracing.acquire(blocking=False):
            raise BusyError("this carom is traced already", hint="one trace runs at a time")
        try:
            with self._another({"noted": Noted.TRACED}, _OF_A_TRACE, {"samples": room}) as module:
                libbpf.update(module.map("tracings"), bytes(4), tracing)
                twin = self._hooked_of(module, traced=True)
                try:
                    self._enter_by(twin)
                    yield module
                finally:
                    self._enter_by(None)
                    time.sleep(_REST)
        finally:
            self._tracing.release()

    def swap(self, *, max_hits: int) -> None:
        """Load the programs that packets enter by anew, and put them into the old ones' places.

        That is done between two packets, and both have the same maps: no packet is lost, and no
        write unseen. While packets are traced, what traces them stays. Raises VerifierError,
        BPFError; then the old ones go on.
        """
        with self._changing, contextlib.ExitStack() as stack:
            module = stack.enter_context(self._another({"max_hits": max_hits}))
            old, hooked = self._hooked, self._hooked_of(module)
            seen_by = self.edge.seen_by if self.edge else {}
            programs = self.edge.load(module) if self.edge else {}
            if self._pinned:
                self._pinned.put_chains(module.maps())
            try:
                self._go_on_by(hooked, programs)
            except OSError as error:
                self._go_on_by(old, seen_by)
                raise BPFError(f"the kernel refused other programs: {error}") from error
            stack.pop_all()
            if self._pinned:
                self._pinned.publish_chains()
            if old.module is self._module:
                self._module.unload(("read_clock", *CALLED, DRAINS), (*CHAINS, EDGE_CHAIN))
            else:
                old.module.close()
            self._module.say(max_hits=max_hits)
            self.max_hits = max_hits

    def _go_on_by(self, hooked: Hooked, programs: Mapping[EdgeName, int]) -> None:
        """Have packets enter by these programs, or once a trace is over. Raises OSError."""
        self._hooked = hooked
        self._enter_by(self._twin)
        if self.edge:
            self.edge.enter_by(programs)

    def _enter_by(self, twin: Hooked | None) -> None:
        """Have packets come to traced programs, or to its own; none is lost. Raises OSError."""
        with self._changing:
            self._twin = twin
            if self.closed:
                return
            if twin:  # shapes that came meanwhile
                twin.follow(self._shapes)
            entries = twin or self._hooked
            self._placed = {
                link: role for link, role in self._placed.items() if replaced(link, role(entries))
            }
            if self._behind:  # the links have the filter
                behind, role = self._behind
                behind.go_on(role(entries))

    def load(self, name: str) -> int:
        """The descriptor of an XDP program beside the fast path's own. Raises VerifierError."""
        beside = (module for module in self._beside if name in module.programs())
        return next(beside, self._module).program(name)

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        return self._module.map(name)

    def attach(
        self,
        interface: Interface,
        hook: HookOption = "xdp",
        mode: ModeOption = "auto",
        behind: Filter | None = None,
    ) -> Attachment:
        """Attach to an interface: at TC, or at XDP with TC for what XDP has no room for.

        Where it is `behind` a filter of that hook, it sees only what the filter accepts. Raises
        BusyError, InterfaceError, PrivilegeError; a part may be `attached` then.
        """
        with self._changing:
            return self._attach(interface, hook, mode, behind)

    def _attach(
        self, interface: Interface, hook: HookOption, mode: ModeOption, behind: Filter | None
    ) -> Attachment:
        entries = self._twin or self._hooked
        role = _first_at_tc if hook == "tc" else _first_at_xdp
        first = role(entries)
        if behind:
            self._behind = behind, role
            behind.go_on(first)
            first = behind.program
        links, index = self.attached, interface.ifindex
        if hook == "tc":
            tc_link = links.add(index, TCLink(first, interface, links=self._links))
            self._place(tc_link, role, behind)
            return Attachment(interface, hook, None, False)
        link = links.add(index, Link(first, interface, mode, links=self._links))
        if link.mode == "native":
            check_arrival(interface)
        self._place(link, role, behind)
        handover = TCLink(entries.handover, interface, links=self._links)
        self._place(links.add(index, handover), _handover, None)
        return Attachment(interface, hook, link.mode, True)

    def _place(self, link: Link | TCLink, role: _Role, behind: Filter | None) -> None:
        """Note which program a link has, or that it has the one of a filter."""
        if behind:
            behind.follow(link)
        else:
            self._placed[link] = role

    def entered(self) -> dict[str, int]:
        """Descriptors, by name, of the programs that packets enter it by."""
        entries = self._twin or self._hooked
        return entries.entered() | (self.edge.entered() if self.edge else {})

    def program_ids(self) -> list[int]:
        """The kernel's ids of the programs for interfaces, and of those at the socket's edge."""
        programs = {program for one in filter(None, (self._hooked, self._twin)) for program in one}
        programs |= {*self.edge.programs()} if self.edge else set()
        return [libbpf.program_id(program) for program in programs]

    def withdraw(self, places: Iterable[Place]) -> None:
        """Stop answering wherever is not among these places; no place is added."""
        self._places.withdraw(places)

    def answer_at(self, places: Iterable[Place]) -> None:
        """Answer at these places, and at no others from now on.

        Programs for tagged frames and IPv6 are loaded with the first such place. Raises BPFError
        when there is no room for all; what is left out is not answered. Raises VerifierError.
        """
        places = list(places)
        with self._changing:
            shapes = _shapes(places) - self._shapes
            if shapes:
                self._hooked.follow(shapes)
                self._shapes |= shapes
                if self._twin:
                    self._twin.follow(shapes)
        self._places.answer_at(places)

    def refuse(self, addresses: Iterable[Address]) -> None:
        """Never answer requests from these addresses, which are this host's own.

        Raises BPFError when there is no room for all.
        """
        self._own.refuse(addresses)

    def allow(self, prefixes: Iterable[str]) -> None:
        """Answer requests from these prefixes alone, at places with an allow-list.

        IPv4 addresses are stored as ::ffff:a.b.c.d, but no IPv6 prefix covers them. Raises
        BPFError when there is no room for all.
        """
        wanted = {PREFIX.pack(96, packed_address(_ANY_IPV4)): b"\0"}
        for network in map(ipaddress.ip_network, prefixes):
            length = network.prefixlen + (96 if network.version == 4 else 0)
            wanted[PREFIX.pack(length, packed_address(network.network_address))] = b"\1"
        self._allowed.hold(wanted)

    def reach(self, ways: Mapping[tuple[int, Network], Way]) -> None:
        """Set how replies leave, by ifindex and the source's prefix, at places with an allow-list.

        Sources in none of these prefixes are not answered there.
        """
        wanted = {}
        for (link, network), way in ways.items():
            length = 32 + network.prefixlen + (96 if network.version == 4 else 0)
            key = WAY_PREFIX.pack(length, link, packed_address(network.network_address))
            macs = (*way.via, *[b""] * GATEWAYS_MAX)[:GATEWAYS_MAX]
            wanted[key] = WAY.pack(way.direct, len(way.via), *macs)
        self._ways.hold(wanted)

    def know(self, stations: Mapping[tuple[int, Address], bytes]) -> None:
        """Set the MACs of neighbours, by ifindex and address; all others are forgotten."""
        wanted = {
            NEIGHBOUR.pack(packed_address(address), link): STATION.pack(mac)
            for (link, address), mac in stations.items()
        }
        self._neighbours.hold(wanted)

    def station_of(self, link: int, address: Address) -> bytes | None:
        """The MAC that replies to an address go to, as far as `reach` and `know` have told it."""
        wanted = packed_address(address)
        bits = int.from_bytes(wanted)
        ways = dict[int, bytes]()
        for key, value in list(self._ways.now.items()):  # another thread may change it
            length, index, network = WAY_PREFIX.unpack(key)
            others = 160 - length  # bits of the address
            if index == link and bits >> others == int.from_bytes(network) >> others:
                ways[length] = value
        if not ways:
            return None
        direct, count, *macs = WAY.unpack(ways[max(ways)])
        near = self._neighbours.now.get(NEIGHBOUR.pack(wanted, link)) if direct else None
        if near:
            return bytes(STATION.unpack(near)[0])
        return bytes(macs[0]) if count else None

    def know_one(self, link: int, address: Address, mac: bytes | None) -> None:
        """Set one neighbour's MAC; None forgets it."""
        key = NEIGHBOUR.pack(packed_address(address), link)
        if mac is None:
            self._neighbours.remove(key)
        elif key in self._neighbours.now or len(self._neighbours.now) < NEIGHBOURS_MAX:
            self._neighbours.set(key, STATION.pack(mac))

    def read_jiffies(self) -> int:
        """The kernel's jiffies now."""
        libbpf.test_run(self._read_clock, bytes(64))
        return self.clock[0]

    def verdicts(self, hook: Hook) -> dict[Verdict, int]:
        """How often each verdict was given at a hook since the start, over all CPUs."""
        cells = self._cells()
        return {
            verdict: sum(cells[hook * VERDICTS + verdict :: len(Hook) * VERDICTS])
            for verdict in Verdict
        }

    def verdicts_of(self, service: int) -> dict[Verdict, int]:
        """The same for one service that has counters of its own, over both hooks."""
        start = (1 + service) * len(Hook) * VERDICTS
        own = self._cells()[start : start + len(Hook) * VERDICTS]
        return {verdict: sum(own[verdict::VERDICTS]) for verdict in Verdict}

    def _cells(self) -> list[int]:
        """The counter of each verdict, by hook, by place: of no service, then of each one's."""
        return libbpf.counters(self._verdicts, (1 + self._counted) * len(Hook) * VERDICTS)

    def strays(self) -> dict[int, Stray]:
        """By CPU: the last packet to a service's port that was no service's, where one came."""
        cpus = libbpf.possible_cpus()
        value = libbpf.lookup(self._module.map("strays"), bytes(4), STRAY.size * cpus)
        strays = {}
        for cpu, (endpoint, _, seen) in enumerate(STRAY.iter_unpack(value or b"")):
            packed, ifindex, outer, inner, port, _ = ENDPOINT.unpack(endpoint)
            address = ipaddress.IPv6Address(packed)
            where = address.ipv4_mapped or address
            if seen:
                strays[cpu] = Stray(where, int.from_bytes(port, "big"), ifindex, outer, inner, seen)
        return strays

    def close(self) -> None:
        """Detach, and free programs and maps; a trace ends."""
        with self._changing:
            self.closed = True
        try:
            self.attached.close()
        finally:
            if self._hooked.module is not self._module:
                self._stack.callback(self._hooked.module.close)
            self._stack.close()
