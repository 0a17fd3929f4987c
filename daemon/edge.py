# SPDX-License-Identifier: Apache-2.0
"""The socket's edge: the programs that see the packets of servers' sockets, and their maps."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import threading
from collections.abc import Mapping
from typing import NamedTuple

from carom.cgroup.link import EDGES, PROGRAM_KINDS, EdgeLink
from carom.cgroup.link import Edge as EdgeName
from carom.kernel import libbpf
from carom.kernel.abi import (
    PAYER,
    REPLY_TIMES,
    SERVICES_MAX,
    SLOTS,
    WAITING,
    WATCH,
    Ends,
    Event,
)
from carom.kernel.attached import ENDING, Links
from carom.kernel.bpf import Module
from carom.kernel.compiled import Hook
from carom.kernel.resource import Resource

WAITING_AT_ONCE = 512
"""The most replies that one call of `Edge.waiting` gives."""

STEPS = (
    "stream",
    "sum",
    "request",
    "cookie",
    "messages",
    "payload",
    "heard",
    "value",
    "reply",
    "commands",
    "learn",
    "answer",
    "store",
)
"""Programs that those at the edge tail-call, in the order of cgroup/edge.h."""

EDGE_CHAIN = "edge_programs"
"""The map that they are in."""

HOOKS: dict[str, Hook] = {
    **{f"edge_{edge}": PROGRAM_KINDS[edge] for edge in EDGES},
    **{f"edge_{step}": "cgroup" for step in STEPS},
}
"""Where each program runs."""

_WORD = struct.Struct("=Q")
_PORT_WORDS = 65_536 // 64  # of `door_ports`


class Watch(NamedTuple):
    """A fronted service: `ttl` in seconds bounds the life of what is learned.

    A socket that a process of the user `uid` binds where the server is counts as the server's
    until it is looked at.
    """

    protocol: int
    ttl: int
    uid: int
    ends: Ends = Ends.IGNORED
    """What is done where the server's items may end by themselves."""
    alone: bool = False
    """Whether one process has all that is stored: a write at any of its sockets shows at all."""
    away: int = 0
    """Odd while the server is away, and may start again in any network namespace."""
    losses: int = 0
    """How many of the sockets that it lost were looked after (`Edge.losses`)."""
    changed: int = 0
    """How often marks of sockets that had one were changed: the kernel looks them up anew."""


class Edge(Resource):
    """The loaded programs at the socket's edge; from `attach` on they see this host's sockets.

    `changes`, `unreads`, `ended` and `settled` are the maps' own cells: reads and writes need no
    system call. A service holds `marking` while it says which processes are its server's.
    """

    def __init__(self, module: Module):
        """Raises VerifierError."""
        self._module = module
        self.seen_by: Mapping[EdgeName, int] = self.load(module)
        """The programs that see sockets."""
        self._links = dict[EdgeName, EdgeLink]()
        with contextlib.ExitStack() as stack:

            def cells(name: str, count: int) -> memoryview:
                memory = module.cells(name, count)
                stack.callback(memory.release)
                return memory

            self.changes = cells("changes", 2 * SERVICES_MAX)
            self.unreads = cells("unreads", 2 * SERVICES_MAX)
            self.ended = cells("ended", SLOTS + 2 * SERVICES_MAX)
            self.settled = cells("settled", SERVICES_MAX)
            module.ring("waitings", self._take_waiting)
            self._stack = stack.pop_all()
        self.marking = threading.Lock()
        self._opening = threading.Lock()
        self._opened: dict[int, set[int]] = {}
        self._open_words: set[int] = set()
        self._waiting: list[tuple[int, bytes, int, int]] = []

    def entered(self) -> dict[str, int]:
        """Descriptors of the programs that are attached, by name."""
        return {f"edge_{edge}": program for edge, program in self.seen_by.items()}

    def attach(self, links: Links = ENDING) -> None:
        """See this host's sockets from now on: their packets, and when they are bound and released.

        Sockets of no watched service are left alone. Raises BPFError, PrivilegeError.
        """
        for edge in EDGES:  # writes first: what is learned, a write can void
            link = EdgeLink(self.seen_by[edge], edge, links)
            self._links[edge] = self._stack.enter_context(link)

    @staticmethod
    def load(module: Module) -> dict[EdgeName, int]:
        """Load a module's programs for the edge; descriptors of those that see sockets.

        Raises VerifierError, BPFError.
        """
        module.load(HOOKS)
        steps = (module.program(f"edge_{step}") for step in STEPS)
        module.chain(EDGE_CHAIN, dict(enumerate(steps)))
        return {edge: module.program(f"edge_{edge}") for edge in EDGES}

    def enter_by(self, programs: Mapping[EdgeName, int]) -> None:
        """Have sockets seen by other programs with the same maps, which `load` gave. OSError."""
        self.seen_by = programs
        for edge, link in self._links.items():
            link.replace(programs[edge])

    def programs(self) -> list[int]:
        """The descriptors of those that see sockets."""
        return list(self.seen_by.values())

    def watch(self, service: int, watch: Watch) -> None:
        """Watch a fronted service; `Marks` says which sockets are its server's."""
        libbpf.update(self.map("watches"), struct.pack("=I", service), WATCH.pack(*watch))

    def watched(self, service: int) -> Watch:
        """How a service is watched now."""
        value = libbpf.lookup(self.map("watches"), struct.pack("=I", service), WATCH.size)
        protocol, ttl, uid, ends, *rest = WATCH.unpack(value or bytes(WATCH.size))
        return Watch(protocol, ttl, uid, Ends(ends), *rest)

    def losses(self, service: int) -> int:
        """How many of its own sockets, or of those that listen, a service's server has lost."""
        return self.changes[SERVICES_MAX + service] & 0xFFFFFFFF

    def open_ports(self, service: int, ports: set[int]) -> None:
        """Look at packets of sockets at these ports, which the service's server is bound to."""
        with self._opening:
            self._opened[service] = ports
            bits: dict[int, int] = {}
            for port in set().union(*self._opened.values()):
                bits[port // 64] = bits.get(port // 64, 0) | 1 << port % 64
            for index in self._open_words | bits.keys():
                word = _WORD.pack(bits.get(index, 0))
                libbpf.update(self.map("door_ports"), struct.pack("=I", index), word)
            self._open_words = set(bits)

    def take_over_ports(self, service: int) -> None:
        """Go on with the ports that a daemon before has opened, until the service says its own."""
        with self._opening:
            if not self._opened:
                opened = libbpf.batches(self.map("door_ports"), 4, _WORD.size, _PORT_WORDS + 1)
                self._open_words = {
                    n for _, _, words in opened for n, word in enumerate(words.cast("Q")) if word
                }
            self._opened.setdefault(service, set())

    def waiting(self, patience: float) -> list[tuple[int, bytes, int, int]]:
        """Learned replies that wait to be given a life, after `patience` seconds at most.

        Each is the service number (with the view) and the bytes of its key, the cell that voids it,
        and its item. For one thread alone.
        """
        self._waiting.clear()
        self._module.wait(patience)
        return list(self._waiting)

    def _take_waiting(self, record: bytes) -> bool:
        service, length, key, cell, item = WAITING.unpack(record)
        self._waiting.append((service, key[:length], cell, item))
        return len(self._waiting) < WAITING_AT_ONCE

    def say_lasting(self, item: int, asked: int) -> None:
        """Tell the kernel that an item does not end by itself; `asked` is when, in jiffies."""
        libbpf.update(self.map("lasting"), _WORD.pack(item), _WORD.pack(asked))

    def events(self) -> dict[Event, int]:
        """How often each event happened at the edge since the start."""
        fd = self.map("events")
        return dict(zip(Event, libbpf.counters(fd, len(Event)), strict=True))

    def reply_times(self, service: int) -> list[int]:
        """How many of a service's timed replies took how long, and the sum, as REPLY_TIMES says."""
        key, cpus = struct.pack("=I", service), libbpf.possible_cpus()
        value = libbpf.lookup(self.map("reply_times"), key, REPLY_TIMES.size * cpus) or b""
        return [sum(cells) for cells in zip(*REPLY_TIMES.iter_unpack(value), strict=True)]

    def voiders(self, service: int, most: int = 10) -> dict[str, int]:
        """How often prefixes sent requests that may void the whole service: the `most` frequent."""
        counts = {}
        for _, keys, values in libbpf.batches(self.map("voiders"), PAYER.size, _WORD.size):
            for key, (count,) in zip(
                PAYER.iter_unpack(keys), _WORD.iter_unpack(values), strict=True
            ):
                prefix, owner, ipv4 = key
                if owner == service:
                    packed = prefix[4:8] if ipv4 else prefix + bytes(8)
                    network = ipaddress.ip_network((packed, 24 if ipv4 else 64))
                    counts[str(network)] = count
        return dict(sorted(counts.items(), key=lambda item: -item[1])[:most])

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        return self._module.map(name)

    def close(self) -> None:
        """Detach, and release the cells; programs and maps are the module's."""
        self._stack.close()
