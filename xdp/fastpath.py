# SPDX-License-Identifier: Apache-2.0
"""The fast path's programs and maps, compiled and loaded: userspace's side of fastpath.c."""

from __future__ import annotations

import functools
import ipaddress
import struct
from pathlib import Path
from typing import Literal

from carom.errors import BPFError, UsageError
from carom.include import libbpf
from carom.include.abi import (
    ENDPOINT,
    ENTRY,
    INTERFACE,
    KEY,
    SERVICE,
    SERVICES_MAX,
    SLOTS,
    Fast,
    Verdict,
)
from carom.include.bpf import Module
from carom.include.netlink import Interface
from carom.include.resource import Resource
from carom.xdp.link import Link, Mode, ModeOption

Policy = Literal["lru", "fcfs"]

_HERE = Path(__file__).resolve().parent
_PROTOCOLS = _HERE.parent / "protocols"
_MAP_TYPES: dict[Policy, str] = {"lru": '"lru_hash"', "fcfs": '"hash"'}
_ONLY = struct.pack("=I", 0)
_ENTRY_BYTES = KEY.size + ENTRY.size + 64  # and the kernel's own part of a hash element
_MEMORY_SHARE = 0.8


@functools.cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return int(ranges[-1].split("-")[-1]) + 1


def _check_memory(capacity: int) -> None:
    """The kernel allocates all entries at once, and would take every page that there is."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    needed = capacity * _ENTRY_BYTES
    if needed > _MEMORY_SHARE * available:
        raise UsageError(
            f"a capacity of {capacity} needs {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} are available",
            hint=f"at most --capacity {int(_MEMORY_SHARE * available) // _ENTRY_BYTES} here",
        )


class FastPath(Resource):
    """The fast path of one interface: loaded on entry, answering once attached, gone on exit.

    `versions`, `lease` and `clock` are the maps' own cells: reads and writes need no system call.
    Versions are read there, but only `bump` adds to them.
    """

    SERVICE = 0
    """The id of the one service: several to an interface are yet to come."""

    def __init__(self, *, policy: Policy = "lru", capacity: int = 10_000, test_clock: bool = False):
        """Compile and load. With `test_clock` the program's time is what the `clock` cell says.

        Raises UsageError for a capacity that memory cannot hold, PrivilegeError, CompileError,
        VerifierError, BPFError.
        """
        _check_memory(capacity)
        self._module = Module(
            _HERE / "fastpath.c",
            include=(_PROTOCOLS,),
            defines={
                "CACHE_TYPE": _MAP_TYPES[policy],
                "CACHE_CAPACITY": capacity,
                **({"TEST_CLOCK": None} if test_clock else {}),
            },
        )
        try:
            self.program = self._module.program("fastpath")
            self._bump = self._module.program("bump")
            self._read_clock = self._module.program("read_clock")
            self.cache_fd = self._module.map("cache")
            self.services_fd = self._module.map("services")
            self._interfaces = self._module.map("interfaces")
            self._verdicts = self._module.map("verdicts")
            self.versions = self._module.cells("versions", SLOTS + SERVICES_MAX)
            self.lease = self._module.cells("lease", 1)
            self.clock = self._module.cells("clock", 1)
        except BaseException:
            self._module.close()
            raise
        self.capacity = capacity
        self._link: Link | None = None
        self._endpoints: set[bytes] = set()

    def describe(self, interface: Interface, *, skb_mode: bool) -> None:
        """Tell the program about the interface that it runs on: before any service is named."""
        libbpf.update(
            self._interfaces, _ONLY, INTERFACE.pack(interface.mac, interface.mtu, skb_mode)
        )

    def attach(self, interface: Interface, mode: ModeOption = "auto") -> Mode:
        """Attach to the interface and return the mode that it took.

        Raises BusyError, InterfaceError.
        """
        self._link = Link(self.program, interface, mode)
        self.describe(interface, skb_mode=self._link.mode == "generic")
        return self._link.mode

    def serve(self, addresses: tuple[ipaddress.IPv4Address, ...], port: int, fast: Fast) -> None:
        """Answer for these addresses and this port, and for no others from now on."""
        wanted = {ENDPOINT.pack(a.packed, port.to_bytes(2, "big"), 0) for a in addresses}
        for endpoint in self._endpoints - wanted:
            libbpf.delete(self.services_fd, endpoint)
        for endpoint in wanted:
            libbpf.update(self.services_fd, endpoint, SERVICE.pack(self.SERVICE, fast))
        self._endpoints = wanted

    def bump(self, cell: int) -> None:
        """Add one to a version: entries with the token before are void, on every CPU, from now."""
        frame = struct.pack("=I", cell).ljust(64, b"\0")
        if libbpf.test_run(self._bump, frame).retval != libbpf.XDP_PASS:
            raise BPFError(f"versions has no cell {cell}")

    def read_jiffies(self) -> int:
        """The kernel's jiffies now."""
        libbpf.test_run(self._read_clock, bytes(64))
        return self.clock[0]

    def verdicts(self) -> dict[Verdict, int]:
        """How often each verdict was given since the start, over all CPUs."""
        cpus = possible_cpus()
        counts = {}
        for verdict in Verdict:
            value = libbpf.lookup(self._verdicts, struct.pack("=I", verdict), 8 * cpus)
            counts[verdict] = sum(struct.unpack(f"={cpus}Q", value or bytes(8 * cpus)))
        return counts

    def close(self) -> None:
        """Detach, and free programs and maps."""
        if self._link:
            self._link.close()
        self.versions.release()
        self.lease.release()
        self.clock.release()
        self._module.close()
