# SPDX-License-Identifier: Apache-2.0
"""Filters in the kernel: loaded together, one of them attached, swapped without losing a packet."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

from pyroute2 import NetlinkError

from carom import protocols, xdp
from carom.errors import UsageError
from carom.filters.capture import Capture, unpack
from carom.filters.keys import KEYS_MAX, Keys
from carom.filters.names import NAMES, Name
from carom.kernel import libbpf
from carom.kernel.abi import ENDPOINTS_MAX, packed_endpoint
from carom.kernel.attached import Attached
from carom.kernel.bpf import Module
from carom.kernel.links import Interface
from carom.kernel.netlink import Address
from carom.kernel.resource import Resource
from carom.tc.link import PRIORITY, TCLink
from carom.xdp.link import Link, Mode, ModeOption

Place = Literal["xdp", "tc", "socket"]
PLACES: tuple[Place, ...] = get_args(Place)

(
    ACCEPT,
    RATE,
    CLIENT_RATE,
    TTL_FLOOR,
    LEARN_UNTIL,
    OVERFLOWN,
    CAPTURE_UNTIL,
    CAPTURE_RATE,
    SETTINGS,
) = range(9)
TALLIES = ("invalid_rejected", "invalid_accepted", "valid_rejected", "valid_accepted", "lost")
"""Counters, as enum tally of filter.h has them; `lost` are captures."""

LEARN_SECONDS = 1.0
"""How long existing-key lets everything pass at first: what is on its way to the server by then."""

CAPTURE_SECONDS = 2.0
"""How long packets are captured after they were last asked for."""

CAPTURES_KEPT = 10_000
_SO_ATTACH_BPF = 50  # asm-generic/socket.h
_FILTERED = struct.Struct("=6s2x")
_WORD = struct.Struct("=I")


class Clock(Protocol):
    """Time in jiffies."""

    def now(self) -> int:
        """Jiffies now."""

    def ticks(self, seconds: float) -> int:
        """Jiffies in so many seconds."""


class Swappable(Protocol):
    """Where a program is attached, and another can take its place between two packets."""

    def attached(self) -> bool:
        """Whether it is there still."""

    def replace(self, program_fd: int) -> None:
        """Put another program there."""


class Endpoint(NamedTuple):
    """Where requests to be filtered come in."""

    address: Address
    port: int
    ifindex: int
    mac: bytes
    outer: int = 0
    inner: int = 0


class _SocketLink:
    """A socket's filter: attaching one replaces the one before."""

    def __init__(self, udp: socket.socket):
        self._udp = udp

    def attached(self) -> bool:
        return True

    def replace(self, program_fd: int) -> None:
        self._udp.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program_fd)


def _replaced(link: Swappable, program_fd: int) -> bool:
    """Put another program there; False where an interface has taken what was there along.

    It may go at any moment, also between a look and the swap. Raises OSError.
    """
    try:
        if link.attached():
            link.replace(program_fd)
            return True
    except (OSError, NetlinkError):
        if link.attached():
            raise
    return False


class Filter(Resource):
    """One filter at one place: compiled on entry, gone on exit.

    `attached` is what it attached to interfaces. While it is `swapping` nothing may be attached or
    detached.
    """

    def __init__(
        self,
        name: Name,
        place: Place,
        ticks: int,
        *,
        room: int = ENDPOINTS_MAX,
        test_clock: bool = False,
    ):
        """Compile and load all filters, and take this one. `ticks` are jiffies a second.

        `room` is for how many endpoints.

        Raises PrivilegeError, CompileError, VerifierError.
        """
        here = Path(__file__).resolve().parent
        self.place = place
        self._module = Module(
            Path(str(xdp.__file__)).resolve().parent / "clock.c",
            *(here / f"{_function(name)}.c" for name in NAMES),
            include=(here, *protocols.INCLUDE),
            defines={
                "PLACE": PLACES.index(place),
                "KEYS_MAX": KEYS_MAX,
                "ENDPOINT_ROOM": room,
                "TICKS": 1 if test_clock else ticks,
                **({"TEST_CLOCK": None} if test_clock else {}),
            },
        )
        self._settings = self._module.cells("settings", SETTINGS)
        self.clock = self._module.cells("clock", 1)
        self._links: list[Swappable] = []
        self._lock = threading.Lock()
        self._captures: deque[Capture] = deque(maxlen=CAPTURES_KEPT)
        self._ringing = False
        self._filtered: dict[bytes, bytes] = {}
        self.keys = Keys(
            self._module.map("arrived_puts"), self._module.map("stored_keys"), self._overflow
        )
        self._stack = contextlib.ExitStack()
        self.attached = self._stack.enter_context(Attached())
        self.swapping = threading.RLock()
        self._settings[ACCEPT] = 1
        # All at once: a swap can then fail no more, and asks for no privilege.
        self._programs = {key: self._module.program(_function(key), place) for key in NAMES}
        self.load(name)

    def read_jiffies(self) -> int:
        """The kernel's jiffies now."""
        libbpf.test_run(self._module.program("read_clock"), bytes(64))
        return self.clock[0]

    def load(self, name: Name) -> None:
        """Take this filter from now on; where one is attached, swap it between two packets."""
        program = self._programs[name]
        with self.swapping:
            self._links = [link for link in self._links if _replaced(link, program)]
            self.name, self.program = name, program

    def learn(self, keys: Iterable[int], clock: Clock) -> None:
        """Before existing-key is loaded: these keys exist, and others may, for LEARN_SECONDS."""
        self._settings[OVERFLOWN] = 0
        self._settings[LEARN_UNTIL] = clock.now() + clock.ticks(LEARN_SECONDS)
        self.keys.start(keys)

    def _overflow(self) -> None:
        self._settings[OVERFLOWN] = 1

    def attach(self, interface: Interface, mode: ModeOption) -> Mode | None:
        """Filter what comes in by an interface; the mode is XDP's.

        Raises BusyError, InterfaceError, PrivilegeError.
        """
        index = interface.ifindex
        if self.place == "tc":
            own = self.attached.add(index, TCLink(self.program, interface, priority=PRIORITY - 1))
            self.follow(own)
            return None
        link = self.attached.add(index, Link(self.program, interface, mode))
        self.follow(link)
        return link.mode

    def go_on(self, program_fd: int) -> None:
        """Hand accepted requests to this program, and what is not filtered too."""
        libbpf.update(self._module.map("accepted"), _WORD.pack(0), _WORD.pack(program_fd))

    def follow(self, link: Swappable) -> None:
        """This program is attached there: swap it with the others."""
        self._links.append(link)

    def attach_socket(self, udp: socket.socket, ttl_floor: int = 0) -> None:
        """Filter what comes to a UDP socket, and drop what has a smaller TTL than this."""
        self._settings[TTL_FLOOR] = ttl_floor
        link = _SocketLink(udp)
        link.replace(self.program)
        self.follow(link)

    def filter(self, endpoints: Iterable[Endpoint]) -> None:
        """At XDP and TC: filter the requests to these, and to no others from now on.

        Raises OSError when there is no room for all.
        """
        wanted = {
            packed_endpoint(
                endpoint.address, endpoint.port, endpoint.ifindex, endpoint.outer, endpoint.inner
            ): (_FILTERED.pack(endpoint.mac))
            for endpoint in endpoints
        }
        libbpf.replace(self._module.map("filtered"), self._filtered, wanted)

    def settings(self) -> dict[str, int]:
        """What `set` may change, as it is."""
        return {name: self._settings[cell] for name, cell in _SETTABLE.items()}

    def set(self, name: str, value: int) -> None:
        """Change a setting, for the next packet. Raises UsageError for one that is not there."""
        self._settings[_cell(name, value)] = value

    def tallies(self) -> dict[str, list[int]]:
        """Each counter, CPU by CPU."""
        cpus, fd = libbpf.possible_cpus(), self._module.map("tallies")
        counts = {}
        for index, name in enumerate(TALLIES):
            value = libbpf.lookup(fd, _WORD.pack(index), 8 * cpus)
            counts[name] = list(struct.unpack(f"={cpus}Q", value or bytes(8 * cpus)))
        return counts

    def captures(self, clock: Clock, rate: int, limit: int) -> list[Capture]:
        """Up to `limit` packets captured since the last call, `rate` a second at most.

        Packets are captured from the first call until CAPTURE_SECONDS after the last one.
        """
        with self._lock:
            self._settings[CAPTURE_RATE] = rate
            self._settings[CAPTURE_UNTIL] = clock.now() + clock.ticks(CAPTURE_SECONDS)
            if not self._ringing:
                self._ringing = True
                self._module.ring("captures", self._keep)
            self._module.drain()
            return [self._captures.popleft() for _ in range(min(limit, len(self._captures)))]

    def _keep(self, data: bytes) -> None:
        self._captures.append(unpack(data))

    def close(self) -> None:
        """Detach, and free programs and maps."""
        self._stack.close()
        self._settings.release()
        self.clock.release()
        self._module.close()


_SETTABLE = {"accept": ACCEPT, "rate": RATE, "client-rate": CLIENT_RATE}


def _function(name: Name) -> str:
    return name.replace("-", "_")


def _cell(name: str, value: int) -> int:
    if name not in _SETTABLE:
        raise UsageError(
            f"a filter has no setting {name!r}", hint=f"there are {', '.join(_SETTABLE)}"
        )
    if not 0 <= value < 2**32 or (name == "accept" and value > 1):
        raise UsageError(
            f"{name} {value} is out of range",
            hint="accept is on or off; rates are 0 (any) to 4,294,967,295 a second",
        )
    return _SETTABLE[name]
