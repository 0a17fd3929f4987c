# SPDX-License-Identifier: Apache-2.0
"""The fast path's programs and maps, compiled, loaded and attached: userspace's side of the C."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import secrets
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from carom import cgroup, protocols, tc, xdp
from carom.cgroup.link import EdgeLink
from carom.errors import BPFError, UsageError
from carom.filters.filter import Filter
from carom.include import libbpf
from carom.include.abi import (
    KEY,
    KEY_MAX,
    KEY_SHORT,
    LONG_ENTRY,
    LONG_REPLY,
    MEDIUM_REPLY,
    PREFIX,
    REPLY_MAX,
    REPLY_MEDIUM,
    SEEN_PER_ENTRY,
    SERVICE,
    SERVICES_MAX,
    SHORT_ENTRY,
    SHORT_KEY,
    SLOTS,
    VERDICTS,
    WATCH,
    Event,
    Fast,
    Hook,
    Protocol,
    Verdict,
    packed_address,
    packed_endpoint,
)
from carom.include.bpf import Module
from carom.include.netlink import Address, Interface
from carom.include.resource import Resource
from carom.tc.link import TCLink
from carom.xdp.link import Link, Mode, ModeOption

Policy = Literal["lru", "fcfs"]
Admit = Literal["always", "second"]
HookOption = Literal["xdp", "tc", "none"]

_MAP_TYPES: dict[Policy, str] = {"lru": '"lru_hash"', "fcfs": '"hash"'}
_ELEMENT_BYTES = 64  # the kernel's own part of a hash element
_KEPT_MAX = (
    128  # free places of an LRU map for one CPU: LOCAL_FREE_TARGET, kernel/bpf/bpf_lru_list.c
)
_MEMORY_SHARE = 0.8
_DIRECTIONS: tuple[Literal["ingress", "egress"], ...] = ("ingress", "egress")
CLOCK_MONOTONIC_COARSE = 6  # linux/time.h
_WORD = struct.Struct("=Q")
_ANY_IPV4 = ipaddress.ip_address("0.0.0.0")


class LengthClass(NamedTuple):
    """One map of entries or replies: those of at most `room` bytes that no shorter class takes."""

    room: int
    map: str
    key: struct.Struct
    value: struct.Struct


ENTRY_CLASSES = (
    LengthClass(KEY_SHORT, "short_entries", SHORT_KEY, SHORT_ENTRY),
    LengthClass(KEY_MAX, "long_entries", KEY, LONG_ENTRY),
)
REPLY_CLASSES = (
    LengthClass(REPLY_MEDIUM, "medium_replies", _WORD, MEDIUM_REPLY),
    LengthClass(REPLY_MAX, "long_replies", _WORD, LONG_REPLY),
)
ENTRY_BYTES = SEEN_PER_ENTRY * _WORD.size + sum(
    one.key.size + one.value.size + _ELEMENT_BYTES for one in (*ENTRY_CLASSES, *REPLY_CLASSES)
)
"""Memory that a capacity of one takes: the kernel allocates every class at once."""


class Place(NamedTuple):
    """Where a service is answered, and how.

    `ifindex`, `mac` and `mtu` are the interface's; `multiple` bounds a reply by its request's
    length (0: not at all); `learn` leaves tokens for a server's replies; `skb_mode` says that XDP
    is generic there, `second_tier` that TC ingress takes what XDP has no room for. Rates are bytes
    of replies a second (0: any), to a source's /24 or IPv6 /64, and to all.
    """

    address: Address
    port: int
    ifindex: int
    mac: bytes
    mtu: int
    outer: int = 0
    inner: int = 0
    service: int = 0
    fast: Fast = Fast.CACHE
    protocol: Protocol = Protocol.RAW
    skb_mode: bool = False
    second_tier: bool = False
    multiple: int = 0
    allow_list: bool = False
    learn: bool = False
    prefix_rate: int = 0
    total_rate: int = 0

    def packed(self) -> tuple[bytes, bytes]:
        """Key and value in `services`."""
        return (
            packed_endpoint(self.address, self.port, self.ifindex, self.outer, self.inner),
            SERVICE.pack(
                self.service,
                self.fast,
                self.protocol,
                self.skb_mode,
                self.second_tier,
                self.mac,
                self.mtu,
                self.multiple,
                self.allow_list,
                self.learn,
                self.prefix_rate,
                self.total_rate,
            ),
        )


class Attachment(NamedTuple):
    """How the fast path came on an interface: `mode` is XDP's, None with `hook` tc."""

    interface: Interface
    hook: HookOption
    mode: Mode | None
    second_tier: bool


def _check_memory(capacity: int) -> None:
    """The kernel allocates all entries at once, and would take every page that there is."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    needed = capacity * ENTRY_BYTES
    if needed > _MEMORY_SHARE * available:
        raise UsageError(
            f"a capacity of {capacity} needs {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} are available",
            hint=f"at most --capacity {int(_MEMORY_SHARE * available) // ENTRY_BYTES} here",
        )


def _counter(map_fd: int, index: int) -> int:
    """A per-CPU counter's sum."""
    cpus = libbpf.possible_cpus()
    value = libbpf.lookup(map_fd, struct.pack("=I", index), 8 * cpus)
    return sum(struct.unpack(f"={cpus}Q", value or bytes(8 * cpus)))


def jiffies_per_second() -> int:
    """HZ of this kernel: CLOCK_MONOTONIC_COARSE is advanced by the same tick."""
    return round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))


def _folder(package: object) -> Path:
    return Path(str(package.__file__)).resolve().parent  # type: ignore[attr-defined]


class FastPath(Resource):
    """The fast path: loaded on entry, answering where it is attached, gone on exit.

    `versions`, `lease` and `clock` are the maps' own cells: reads and writes need no system call.
    Versions are read there, but only `bump` adds to them. `seen` and `room` (include/admission.h)
    are such cells too, with `admit` second, and else None. The caches of its services share
    `stamps`, of which no two fills have the same, and `orphans`: a full class of replies is to be
    swept. One sweeps at a time (`sweeping`); `removed` entries is what all sweeps took.
    """

    def __init__(
        self,
        *,
        policy: Policy = "lru",
        admit: Admit = "always",
        capacity: int = 10_000,
        languages: Iterable[Protocol] = (),
        edge: bool = False,
        beside: Sequence[Path] = (),
        test_clock: bool = False,
    ):
        """Compile and load, with what `languages` besides raw need, with `edge` for servers that
        are fronted, and with the C files `beside` it, which share its maps. With
        `test_clock` the programs' time, in seconds, is what the `clock` cell says.

        Raises UsageError for a capacity that memory cannot hold, PrivilegeError, CompileError,
        VerifierError, BPFError.
        """
        _check_memory(capacity)
        self._module = Module(
            _folder(xdp) / "fastpath.c",
            _folder(xdp) / "clock.c",
            _folder(tc) / "fastpath.c",
            *((_folder(cgroup) / "edge.c",) if edge else ()),
            *beside,
            include=(_folder(protocols), _folder(cgroup)),
            defines={
                "CACHE_TYPE": _MAP_TYPES[policy],
                "CAPACITY": capacity,
                "TICKS": 1 if test_clock else jiffies_per_second(),
                **({"SEEN": SEEN_PER_ENTRY * capacity} if admit == "second" else {}),
                "SEED": f"{secrets.randbits(64):#x}ull",
                **{f"WITH_{one.name}": None for one in languages if one != Protocol.RAW},
                **({"TEST_CLOCK": None} if test_clock else {}),
                **({"NETNS_COOKIE": None} if libbpf.cgroup_skb_has_netns_cookie() else {}),
            },
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self._module.close)
            self.program = self._module.program("xdp_fastpath")
            self.tc_program = self._module.program("tc_fastpath", "tc")
            self.second_tier_program = self._module.program("tc_second_tier", "tc")
            self._bump = self._module.program("bump")
            self._read_clock = self._module.program("read_clock")
            self._edge = (
                {
                    direction: self._module.program(f"edge_{direction}", "cgroup")
                    for direction in _DIRECTIONS
                }
                if edge
                else {}
            )
            self._may_call("xdp_next", self._module.program("xdp_second"))
            self._may_call("tc_next", self._module.program("tc_second", "tc"), self.tc_program)
            if edge:
                self._may_call("stream_programs", self._module.program("edge_stream", "cgroup"))
            self._maps = {
                name: self._module.map(name)
                for name in ("services", "own_addresses", "served_ports", "allowed", "verdicts")
            }
            self.versions = self._module.cells("versions", SLOTS + SERVICES_MAX)
            self.holds = self._module.cells("holds", SLOTS + SERVICES_MAX)
            self.lease = self._module.cells("lease", 1)
            self.clock = self._module.cells("clock", 1)
            self.seen = self.room = None
            if admit == "second":
                self.seen = self._module.cells("seen", SEEN_PER_ENTRY * capacity)
                self.room = self._module.cells("room", 1)
                stack.callback(self.seen.release)
                stack.callback(self.room.release)
            for cells in (self.versions, self.holds, self.lease, self.clock):
                stack.callback(cells.release)
            self._stack = stack.pop_all()
        self._capacity = capacity
        self.set_room(0)
        self._watching = False
        self.stamps = itertools.count(time.time_ns())
        self.orphans = False
        self.sweeping = threading.Lock()
        self.removed = 0
        self._places: dict[bytes, bytes] = {}
        self._ports: dict[int, int] = {}
        self._own_addresses: dict[bytes, bytes] = {}
        self._allowed: dict[bytes, bytes] = {}

    def _may_call(self, name: str, *programs: int) -> None:
        """Put programs where others look for them to go on with."""
        for index, program in enumerate(programs):
            words = struct.pack("=I", index), struct.pack("=I", program)
            libbpf.update(self._module.map(name), *words)

    def load(self, name: str) -> int:
        """The descriptor of an XDP program beside the fast path's own. Raises VerifierError."""
        return self._module.program(name)

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

        `behind` a filter of that hook only what it accepts is looked at. Raises BusyError,
        InterfaceError, PrivilegeError.
        """
        own = self.tc_program if hook == "tc" else self.program
        first = behind.program if behind else own
        if behind:
            behind.go_on(own)
        if hook == "tc":
            tc_link = self._stack.enter_context(TCLink(first, interface))
            if behind:
                behind.follow(tc_link)
            return Attachment(interface, hook, None, False)
        link = self._stack.enter_context(Link(first, interface, mode))
        if behind:
            behind.follow(link)
        self._stack.enter_context(TCLink(self.second_tier_program, interface))
        return Attachment(interface, hook, link.mode, True)

    def watch(self, port: int, service: int, protocol: Protocol, ttl: int, netns: int = 0) -> None:
        """See what the sockets that hold a port are asked to write, and answer.

        `ttl` in seconds bounds the life of what is learned: in the network namespace with the
        cookie `netns` alone, where the kernel can tell (0: in any). Raises BPFError,
        PrivilegeError.
        """
        watch = WATCH.pack(service, protocol, ttl, 0, netns)
        libbpf.update(self.map("watched"), struct.pack("=I", port), watch)
        if not self._watching:
            self._watching = True
            for direction in _DIRECTIONS:  # writes first: nothing is learned that none would void
                self._stack.enter_context(EdgeLink(self._edge[direction], direction))

    def serve(self, places: Iterable[Place]) -> None:
        """Answer at these places, and at no others from now on."""
        places = list(places)
        wanted = dict(place.packed() for place in places)
        bits: dict[int, int] = {}
        for place in places:
            bits[place.port // 64] = bits.get(place.port // 64, 0) | 1 << place.port % 64
        for index in self._ports.keys() | bits.keys():
            word = _WORD.pack(bits.get(index, 0))
            libbpf.update(self._maps["served_ports"], struct.pack("=I", index), word)
        self._ports = bits
        for endpoint in self._places.keys() - wanted.keys():
            libbpf.delete(self._maps["services"], endpoint)
        for endpoint, service in wanted.items():
            libbpf.update(self._maps["services"], endpoint, service)
        self._places = wanted

    def refuse(self, addresses: Iterable[Address]) -> None:
        """Never answer requests from these: this host's own addresses."""
        self._own_addresses = libbpf.replace(
            self._maps["own_addresses"],
            self._own_addresses,
            dict.fromkeys(map(packed_address, addresses), b"\1"),
        )

    def allow(self, prefixes: Iterable[str]) -> None:
        """Where a place has an allow-list: the prefixes whose requests are answered.

        IPv4 addresses stand as ::ffff:a.b.c.d, yet no prefix of IPv6 takes them in.
        """
        wanted = {PREFIX.pack(96, packed_address(_ANY_IPV4)): b"\0"}
        for network in map(ipaddress.ip_network, prefixes):
            length = network.prefixlen + (96 if network.version == 4 else 0)
            wanted[PREFIX.pack(length, packed_address(network.network_address))] = b"\1"
        self._allowed = libbpf.replace(self._maps["allowed"], self._allowed, wanted)

    def bump(self, cell: int) -> None:
        """Add one to a version: entries with the token before are void, on every CPU, from now."""
        frame = struct.pack("=I", cell).ljust(64, b"\0")
        if libbpf.test_run(self._bump, frame).retval != libbpf.XDP_PASS:
            raise BPFError(f"versions has no cell {cell}")

    def set_room(self, entries: int, taken: int = 0) -> None:
        """Say that so many entries live, of all services, and so many were filled since.

        An LRU map evicts before it is full, for each CPU keeps free places to itself.
        """
        if self.room:
            cpus = libbpf.possible_cpus()
            kept = cpus * min(_KEPT_MAX, max(1, self._capacity // cpus // 2))
            self.room[0] = max(0, self._capacity - kept - entries - taken)

    def read_jiffies(self) -> int:
        """The kernel's jiffies now."""
        libbpf.test_run(self._read_clock, bytes(64))
        return self.clock[0]

    def verdicts(self, hook: Hook) -> dict[Verdict, int]:
        """How often each verdict was given at a hook since the start, over all CPUs."""
        fd = self._maps["verdicts"]
        return {verdict: _counter(fd, hook * VERDICTS + verdict) for verdict in Verdict}

    def events(self) -> dict[Event, int]:
        """What happened at the socket's edge since the start; empty without it."""
        fd = self.map("events") if self._edge else None
        return {} if fd is None else {event: _counter(fd, event) for event in Event}

    def close(self) -> None:
        """Detach, and free programs and maps."""
        self._stack.close()
