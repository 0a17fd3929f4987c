# SPDX-License-Identifier: Apache-2.0
"""What of a fast path outlives its daemon, with --pin, and what the next one takes over.

Links stay attached, and the maps that hold the cache, the marks of servers' sockets and what was
voided stay as they are: writes at a fronted server go on voiding what they write to. Nothing is
answered meanwhile, as nobody renews the lease. The next daemon loads its own programs, with those
maps and places of its own, puts them into the links' places, and lets them answer.

What is written here is one record, and always whole: without it nothing is taken over.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from carom import __version__, log
from carom.errors import BPFError, PrivilegeError, UsageError
from carom.kernel import forked, libbpf, objects
from carom.kernel.bpf import Module, version
from carom.kernel.hashes import Hashes
from carom.kernel.libbpf import MapShape
from carom.kernel.pins import PinnedLinks, Pins, is_link, is_part
from carom.kernel.recipe import INCLUDE
from carom.kernel.resource import Resource

OLDEST = (6, 6)
"""The first kernel version whose TC programs have links."""

CHAINS = {"xdp_next", "tc_next", "edge_programs"}
"""Maps of programs, which the kernel empties when nobody has them: those of the running programs
are pinned, and nobody takes them over."""

OWN = {
    *CHAINS,
    "services",
    "own_addresses",
    "own_filter",
    "ports",
    "places",
    "allowed",
    "ways",
    "neighbours",
    "verdicts",
    "strays",
    "events",
    "reply_times",
    "scratches",
    "edge_scratches",
    "learnings",
    "clock",
    "walks",
    "samples",
    "samplers",
    "tracings",
    "pairs",
    "wanted",
    "waitings",
    "cookies",
    "cookie_sights",
    "wall",
}
"""Maps that each daemon makes anew: what it is told by its options, its host and its server; its
counters; and what programs keep for themselves."""

_RECORD, _RECORD_BYTES = "daemon-record", 65_536
_LENGTH = struct.Struct("=I")
_ARRAY = 2  # BPF_MAP_TYPE_ARRAY, linux/bpf.h


def _hashing() -> str:
    """A digest of how programs hash keys, and so of where what they stored is found."""
    read = (INCLUDE / name for name in ("hash.h", "key_hash.h", "slot.h", "siphash.h"))
    return hashlib.sha256(b"".join(one.read_bytes() for one in read)).hexdigest()


class Plan(msgspec.Struct, frozen=True):
    """What has to be the same for maps to be taken over."""

    layout: str
    """A digest of how they are laid out, and of how keys are hashed."""
    sizes: dict[str, int]
    """How many elements they have room for."""
    services: list[str]
    """Which services there are, in words, by their numbers."""

    def differs(self, other: Plan) -> str:
        """What is another in `other`, in words; empty if nothing is."""
        if self.layout != other.layout:
            return "the programs were of other sources, with other maps"
        if self.services != other.services:
            return f"the services were {', '.join(other.services)}"
        for name in self.sizes.keys() | other.sizes.keys():
            if self.sizes.get(name) != other.sizes.get(name) and name not in OWN:
                return "the cache had another size, or was for other protocols"
        return ""


class Record(msgspec.Struct, frozen=True):
    """What is said of the maps that are pinned: whose they are, and what they were made by."""

    version: str
    abi: str
    plan: Plan
    parameters: dict[str, int]
    """Secrets of hashes, which programs were loaded with."""
    maps: list[str]
    """The names of all that are taken over."""


class Pinned(Resource):
    """The pins of one daemon, from before its fast path is loaded until after it is gone.

    `links` makes its links. What it puts is of use to the next daemon from `publish` on.
    """

    def __init__(self, where: Path):
        """Raises UsageError for what another version pinned, and for a kernel without TCX;
        BusyError, BPFError, PrivilegeError."""
        if version(os.uname().release) < OLDEST:
            raise UsageError(
                f"pinning needs Linux {OLDEST[0]}.{OLDEST[1]}: this is {os.uname().release}",
                hint="without --pin the fast path ends with carom",
            )
        self._pins = Pins(where)
        try:
            self._record = self._read()
            if self._record and self._record.abi != objects.abi():
                raise UsageError(
                    f"what is pinned in {where} is of carom {self._record.version} with ABI "
                    f"{self._record.abi[:12]}; this is carom {__version__} with "
                    f"{objects.abi()[:12]}",
                    hint="`carom unpin` takes it away: requests go to the server alone then",
                )
        except BaseException:
            self._pins.close()
            raise
        self.links = PinnedLinks(self._pins)
        self._published = False
        self._used = set[str]()
        self._plan, self._parameters = Plan("", {}, []), dict[str, int]()

    @property
    def folder(self) -> Path:
        """Where all is pinned."""
        return self._pins.folder

    def _read(self) -> Record | None:
        """What is said of the maps; None where nothing was published."""
        descriptor = self._pins.take(_RECORD)
        if descriptor is None:
            return None
        try:
            value = libbpf.lookup(descriptor, bytes(4), _RECORD_BYTES) or b""
            (length,) = _LENGTH.unpack_from(value)
            return msgspec.json.decode(value[_LENGTH.size :][:length], type=Record)
        except (OSError, struct.error, msgspec.MsgspecError) as error:
            raise BPFError(
                f"what is pinned in {self.folder} cannot be read: {error}",
                hint="`carom unpin` takes it away",
            ) from error
        finally:
            forked.close(descriptor)

    def take_over(
        self,
        module: Module,
        sizes: Mapping[str, int],
        services: Iterable[str],
        links: Iterable[str],
    ) -> Hashes | None:
        """Have a module go on with the maps of a daemon before; returns the hashes of its keys.

        None where there are none or no services, where their layout, sizes or services differ, as
        in Plan, or where not all of these `links` are attached: the log says why. Raises BPFError.
        """
        plan = self._plan = Plan(module.layout(OWN) + _hashing(), dict(sizes), list(services))
        if not plan.services:
            self._record = None
        if not self._record:
            return None
        why = plan.differs(self._record.plan)
        if not why and not all(map(self.links.live, links)):
            why = "servers' sockets were not watched all the time"
        lacks = {*self._record.maps} - {*self._pins.names()}
        if not why and lacks:
            why = f"somebody has removed {', '.join(sorted(lacks))}"
        if why:
            log.warning("what is pinned is not taken over: the cache begins empty", why=why)
            self._record = None
            return None
        taken = ((name, self.take(name)) for name in self._record.maps)
        maps = {name: descriptor for name, descriptor in taken if descriptor is not None}
        module.go_on(maps, self._record.parameters)
        return Hashes(parameters=self._record.parameters)

    def take(self, name: str) -> int | None:
        """A descriptor of the pinned map of this name, as in Pins."""
        self._used.add(name)
        return self._pins.take(name)

    def put(self, name: str, descriptor: int) -> None:
        """Pin a map, as in Pins."""
        self._used.add(name)
        self._pins.put(name, descriptor)

    def keep(self, maps: Mapping[str, int], hashes: Hashes) -> None:
        """Pin what a loaded fast path has, of which some may be taken over. Raises BPFError."""
        for name, descriptor in maps.items():
            if name in CHAINS or (name not in OWN and name not in self._used):
                self.put(name, descriptor)
        self._parameters = hashes.parameters

    def put_chains(self, maps: Mapping[str, int]) -> None:
        """Pin the maps of programs that will be in the links, beside those of the ones before."""
        for name in CHAINS & maps.keys():
            self._pins.put(name, maps[name], later=True)

    def publish_chains(self) -> None:
        """Those programs are in the links now: unpin the maps of the ones before."""
        self._pins.publish()

    def _say(self) -> None:
        maps = sorted(name for name in self._used if not is_part(name) and name not in OWN)
        record = Record(__version__, objects.abi(), self._plan, self._parameters, maps)
        said = msgspec.json.encode(record)
        shape = MapShape(_ARRAY, 4, _RECORD_BYTES, 1, 0, 0, 0)
        descriptor = forked.made(lambda: libbpf.create_map("record", shape, None))
        try:
            value = (_LENGTH.pack(len(said)) + said).ljust(_RECORD_BYTES, b"\0")
            libbpf.update(descriptor, bytes(4), value)
            self.put(_RECORD, descriptor)
        finally:
            forked.close(descriptor)

    def publish(self) -> None:
        """From now on what is pinned is for the next daemon; what this one does not use goes."""
        if not self._record:  # until the new record is there, nothing is taken over
            self._pins.remove(_RECORD)
        self._pins.publish()
        self._say()
        self._published = True
        for name in self._pins.names():
            if name not in self._used and name not in self.links.used:
                self._pins.remove(name)

    def close(self) -> None:
        """Leave all to the next; without `publish` there is nothing of this daemon's to leave.

        Where it has put its programs into links of the one before, their maps are gone with it: the
        next begins with an empty cache.
        """
        if not self._published:
            if self.links.took_over:
                self._pins.remove(_RECORD)
            if self._pins.made:
                self._pins.clear()
            else:
                self._pins.forget()
        self._pins.close()


def unpin(where: Path) -> list[str]:
    """Take away what is pinned in a folder; returns the names of it, links first.

    Raises UsageError where nothing is, BusyError where a carom runs with it, BPFError,
    PrivilegeError.
    """
    try:
        there = where.exists()
    except PermissionError as error:
        raise PrivilegeError(
            f"this user may not look at what is pinned in {where}", hint="sudo carom unpin"
        ) from error
    if not there:
        raise UsageError(
            f"nothing is pinned in {where}",
            hint="CAROM_PINS names another folder; each network namespace has its own",
        )
    with Pins(where, anybodys=True) as pins:
        names = pins.names()
        pins.remove(_RECORD)  # before what it tells of
        pins.clear()
    return sorted(names, key=lambda name: not is_link(name))
