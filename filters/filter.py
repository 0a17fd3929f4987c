# SPDX-License-Identifier: Apache-2.0
"""Filters in the kernel: carom's are all loaded, one is attached, and a swap loses no packet."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from carom import protocols, xdp
from carom.errors import UsageError
from carom.filters.capture import Capture, unpack
from carom.filters.keys import KEYS_MAX, Keys
from carom.filters.names import NAMES, PLACES, Name, Place
from carom.filters.own import Own
from carom.filters.own_filter import OwnFilter
from carom.kernel import libbpf
from carom.kernel.abi import ENDPOINTS_MAX, packed_endpoint
from carom.kernel.attached import Attached, Swappable, replaced
from carom.kernel.bpf import Module
from carom.kernel.links import Interface
from carom.kernel.netlink import Address
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing
from carom.tc.link import PRIORITY, TCLink
from carom.xdp.link import Link, Mode, ModeOption

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
"""The counters, in the order of enum tally of filter.h; `lost` counts captures."""

LEARN_SECONDS = 1.0
"""Seconds in which existing-key accepts everything at first, as PUTs may be on their way."""

CAPTURE_SECONDS = 2.0
"""Seconds in which packets are captured after captures were last asked for."""

CAPTURES_KEPT = 10_000
_SO_ATTACH_BPF = 50  # asm-generic/socket.h
_FILTERED = struct.Struct("=6s2x")
_WORD = struct.Struct("=I")


class Clock(Protocol):
    """Time in jiffies."""

    def now(self) -> int:
        """Jiffies now."""

    def ticks(self, seconds: float) -> int:
        """The number of jiffies in `seconds`."""


class Endpoint(NamedTuple):
    """Where the requests to filter come in; a VLAN id is 0 where there is no tag."""

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


def recipe(place: Place) -> Recipe:
    """All filters for one place: what a program is given differs from place to place."""
    here = Path(__file__).resolve().parent
    return Recipe(
        Path(str(xdp.__file__)).resolve().parent / "clock.c",
        *(here / f"{_function(name)}.c" for name in NAMES),
        include=(here, *protocols.INCLUDE),
        defines={"PLACE": PLACES.index(place), "KEYS_MAX": KEYS_MAX},
        hooks={_function(name): place for name in NAMES},
        packaged=f"filters-{place}",
    )


class Filter(Resource):
    """A filter at one place, until it is closed.

    `attached` are its programs on interfaces. Who holds the lock `swapping` knows that no filter is
    swapped meanwhile; while one is, nothing may be attached or detached.
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
        """Compile and load all filters, and use the one of this name.

        `ticks` are jiffies a second; there is `room` for that many endpoints. With `test_clock`
        time is what a test sets it to.

        Raises PrivilegeError, CompileError, VerifierError.
        """
        self.place = place
        self._module = Module(
            recipe(place),
            entries={"filtered": room},
            parameters=timing(ticks, test_clock=test_clock),
        )
        self._links: list[Swappable] = []
        self._lock = threading.Lock()
        self._captures: deque[Capture] = deque(maxlen=CAPTURES_KEPT)
        self._ringing = False
        self._filtered: dict[bytes, bytes] = {}
        self.swapping = threading.RLock()
        with contextlib.ExitStack() as stack:
            stack.callback(self._module.close)
            self._settings = self._module.cells("settings", SETTINGS)
            stack.callback(self._settings.release)
            self.clock = self._module.cells("clock", 1)
            stack.callback(self.clock.release)
            self.keys = Keys(
                self._module.map("arrived_puts"), self._module.map("stored_keys"), self._overflow
            )
            self._own: OwnFilter | None = None
            stack.callback(self._close_own)
            self.attached = stack.enter_context(Attached())
            self._settings[ACCEPT] = 1
            # All at once: so a swap cannot fail later, and needs no privilege.
            self._programs = {key: self._module.program(_function(key)) for key in NAMES}
            self.load(name)
            self._stack = stack.pop_all()

    def read_jiffies(self) -> int:
        """The kernel's jiffies now."""
        libbpf.test_run(self._module.program("read_clock"), bytes(64))
        return self.clock[0]

    def load(self, name: Name) -> None:
        """Use this filter from now on; where one is attached, swap it between two packets."""
        self._use(name, self._programs[name], None)

    def load_own(self, own: Own) -> None:
        """The same with a filter of the user's own.

        Raises ObjectError, VerifierError, BPFError; then the one before goes on.
        """
        loaded = OwnFilter(own, self._module)
        try:
            self._use(own.name, loaded.program, loaded)
        except BaseException:
            loaded.close()
            raise

    def _use(self, name: str, program: int, own: OwnFilter | None) -> None:
        with self._lock, self.swapping:
            self._links = [link for link in self._links if replaced(link, program)]
            self.name, self.program = name, program
            before, self._own = self._own, own
            if before:
                before.close()

    def program_id(self) -> int:
        """The number by which the kernel knows the program that runs."""
        with self._lock:
            return libbpf.program_id(self.program)

    def runs(self) -> libbpf.Runs:
        """How often and how long it ran while the kernel took its time."""
        with self._lock:
            return libbpf.runs(self.program)

    def maps(self) -> list[dict[str, Any]]:
        """The maps of an own filter that are shown."""
        with self._lock:
            return [one.words() for one in self._own.maps] if self._own else []

    def tables(self, most: int) -> list[dict[str, Any]]:
        """What is in them, up to `most` entries of each."""
        with self._lock:
            return [one.words() for one in self._own.tables(most)] if self._own else []

    def events(self, most: int) -> list[dict[str, Any]]:
        """Up to `most` records of an own filter's ring buffers since the last call."""
        with self._lock:
            return self._own.events(most) if self._own else []

    def learn(self, keys: Iterable[int], clock: Clock) -> None:
        """To be called before existing-key is loaded: these keys exist.

        For LEARN_SECONDS others may exist too.
        """
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
        """Hand accepted requests, and packets that are not filtered, on to this program."""
        libbpf.update(self._module.map("accepted"), _WORD.pack(0), _WORD.pack(program_fd))

    def follow(self, link: Swappable) -> None:
        """Replace this link's program too when the filter is swapped."""
        self._links.append(link)

    def attach_socket(self, udp: socket.socket, ttl_floor: int = 0) -> None:
        """Filter what comes to a UDP socket, and drop packets with a TTL below `ttl_floor`."""
        self._settings[TTL_FLOOR] = ttl_floor
        link = _SocketLink(udp)
        link.replace(self.program)
        self.follow(link)

    def filter(self, endpoints: Iterable[Endpoint]) -> None:
        """At XDP and TC: from now on filter only the requests to these endpoints.

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
        """The settings that `set` can change, with their values."""
        return {name: self._settings[cell] for name, cell in _SETTABLE.items()}

    def set(self, name: str, value: int) -> None:
        """Change a setting, from the next packet on. Raises UsageError: a wrong name or value."""
        self._settings[_cell(name, value)] = value

    def tallies(self) -> dict[str, list[int]]:
        """Each counter by name, with a value for each CPU."""
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

    def _close_own(self) -> None:
        if self._own:
            self._own.close()

    def close(self) -> None:
        """Detach, and free programs and maps."""
        self._stack.close()


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
