# SPDX-License-Identifier: Apache-2.0
"""The open-loop client: XDP sends requests at a rate, whether replies come or not, and takes these.

Kernel and userspace share the maps of load.c. A source port has one request outstanding, so a
reply's port says which request it answers. Each request that is sent ends as exactly one of:
answered, reordered (the right reply after the timeout), wrong, lost (no reply within twice the
timeout), or, when the end is not waited for, outstanding.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import struct
import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from carom.errors import (
    ExperimentError,
    InterfaceError,
    UsageError,
)
from carom.kernel import libbpf
from carom.kernel.bpf import Module, check_privileges
from carom.kernel.links import Interface, interface
from carom.kernel.resource import Resource
from carom.lab.clients.buckets import BUCKETS, Tally
from carom.lab.clients.mix import Mix, rate
from carom.lab.clients.neighbour import neighbour, on_link
from carom.lab.clients.ping import Expect, pinned
from carom.lab.clients.recipes import load as recipe
from carom.lab.record import RoundTrips
from carom.settings import Option, check, seconds
from carom.xdp.link import Link, Mode, ModeOption

PAYLOAD_MAX = 1472
"""Bytes: what an MTU of 1500 leaves after IPv4 and UDP."""

_ONLY = struct.pack("=I", 0)
_HEADERS = 42
_BODY_MIN = 18
_ROOM_MIN = 32
_NO_REPLY = 0xFFFF
"""A length beyond any that load.c has room for: whatever comes is wrong."""
_MEMORY_MAX = 2**30

# load.c's structures.
_SETTINGS = struct.Struct("=6s6s4s4s2sHIII4xQQ")
_ENTRY = struct.Struct("=HHI")  # of a request or a reply: length, sum, zero; its bytes follow
_STATE = ("draw", "port", "reads", "writes", "reads_lost", "writes_lost", "skipped", "faults")
_OUTCOMES = 8

_TICK = 100e-6  # seconds that pacing sleeps at least, so that it does not spin
_CHUNK = 4096  # requests per call when there is no rate
_GRACE = 0.1  # seconds at the end, for duplicated replies
_LAST_SECONDS = 0.02  # until no CPU runs a detached program any more


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to send. It ends after `count` requests or `seconds`, whichever is first.

    Times are in seconds; a rate is in requests a second (None: as fast as possible).
    """

    rate: Annotated[
        float | None,
        Option("Requests a second.", example="100k", read=rate, metavar="RATE|max", standing="10k"),
    ] = 10_000.0
    count: Annotated[int | None, Option("Requests.", 1, example="10000", short="-c")] = None
    seconds: Annotated[
        float | None,
        Option("How long; default 5, or until --count is reached.", 1e-6, 1e9, standing=""),
    ] = 5.0
    source_ports: Annotated[int, Option("The most requests outstanding at once.", 1, 64_512)] = 4096
    first_port: Annotated[int, Option("The lowest source port.", 1024, 65_535)] = 61_000
    timeout: Annotated[
        float,
        Option(
            "When a reply is late; after twice that, it is lost.",
            1e-6,
            30,
            "10ms",
            read=seconds,
            unit=" s",
            metavar="TIME",
            standing="100ms",
        ),
    ] = 0.1
    burst: Annotated[int, Option("Requests sent in one go at most.", 1, 256)] = 64
    cpu: Annotated[int | None, Option("Send from this CPU only.", 0, example="1")] = None
    mode: Annotated[ModeOption, Option("XDP's mode.")] = "auto"

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        check(self)
        if self.count is None and self.seconds is None:
            raise UsageError("an end is needed", hint="a count, or seconds")
        if self.source_ports > 65_536 - self.first_port:
            raise UsageError(
                f"{self.source_ports} source ports from {self.first_port} on are out of range",
                hint="1024 to 65535",
            )
        return self


class Target(NamedTuple):
    """A service on the interface's link, and the addresses of a frame to it."""

    interface: Interface
    source: ipaddress.IPv4Address
    mac: bytes
    address: ipaddress.IPv4Address
    port: int


class Writes(msgspec.Struct, kw_only=True, frozen=True):
    """The requests that write, by outcome; their replies are not verified."""

    sent: int
    answered: int
    lost: int
    outstanding: int


class Load(msgspec.Struct, kw_only=True, frozen=True):
    """The result: `sent` requests that read, and their round trips, timed in XDP.

    `sent` is the sum of answered (`round_trips.count`), reordered, wrong, lost and `outstanding`.
    A slot in which every source port was taken is `skipped`. `offered` is slots a second, `asked`
    the rate asked for (None: as fast as possible).
    """

    sent: int
    skipped: int
    outstanding: int
    writes: Writes
    asked: float | None
    offered: float
    mode: str
    complete: bool
    round_trips: RoundTrips


def target(name: str, address: str, port: int) -> Target:
    """Where to send, with the neighbour's MAC address. Raises UsageError or InterfaceError."""
    try:
        service = ipaddress.IPv4Address(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is not an IPv4 address") from error
    own = interface(name)
    if not own.up:
        raise InterfaceError(f"{name} is down", hint=f"ip link set {name} up")
    source = on_link(own, service)
    check_privileges()
    return Target(own, source, neighbour(own, service), service, port)


def _room(payloads: Sequence[bytes | None]) -> int:
    """Bytes that hold the longest payload: a power of two, for the verifier."""
    longest = max(len(payload or b"") for payload in payloads)
    return int(max(_ROOM_MIN, 1 << (longest - 1).bit_length() if longest else 0))


def _sum(payload: bytes) -> int:
    """The one's-complement sum of a payload's 16-bit words in memory order."""
    total = sum(memoryview(payload + b"\0" * (len(payload) % 2)).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _check_sizes(mtu: int, payloads: Sequence[bytes | None], kind: str) -> None:
    longest, limit = max(len(payload or b"") for payload in payloads), min(mtu - 28, PAYLOAD_MAX)
    if longest > limit:
        raise UsageError(
            f"a {kind} of {longest} bytes does not fit into one frame",
            hint=f"at most {limit} bytes with an MTU of {mtu}: fragments are not supported",
        )


class Generator(Resource):
    """load.c with its maps filled: `send` sends requests; once attached, it takes replies."""

    def __init__(
        self,
        to: Target,
        mix: Mix,
        options: Options,
        expect: Expect | None = None,
        *,
        test_clock: bool = False,
    ):
        """Compile, load, and fill the maps.

        `expect` gives the right reply to a request; without it no reply is compared. Raises
        UsageError, PrivilegeError, CompileError, VerifierError, BPFError.
        """
        first = options.checked().first_port
        if to.port in range(first, first + options.source_ports):
            raise UsageError(
                f"port {to.port} is among the source ports",
                hint="choose others by --first-port and --source-ports",
            )
        replies = [expect(payload) for payload in mix.requests[: mix.reads]] if expect else [None]
        _check_sizes(to.interface.mtu, mix.requests, "request")
        _check_sizes(to.interface.mtu, replies, "reply")
        room, reply_room = _room(mix.requests), _room(replies) if expect else 2048
        if len(mix.requests) * (room + 8) + len(replies) * (reply_room + 8) > _MEMORY_MAX:
            raise UsageError("so many requests of this size need too much memory", hint="use fewer")
        self._module = Module(
            recipe(),
            entries={
                "requests": len(mix.requests),
                "replies": len(replies),
                "draws": mix.order.size,
                "flights": options.source_ports,
            },
            sizes={"requests": _ENTRY.size + room, "replies": _ENTRY.size + reply_room},
            parameters={
                "request_room": room,
                "reply_room": reply_room,
                "draw_count": mix.order.size,
                "port_count": options.source_ports,
                "test_clock": test_clock,
            },
        )
        self._link: Link | None = None
        self._burst = options.burst
        self._frame = bytes(_HEADERS + max(map(len, (*mix.requests, bytes(_BODY_MIN)))))
        self._reads = mix.reads
        try:
            self.program = self._module.program("load")
            self._fill("requests", room, mix.requests)
            self._fill("replies", reply_room, replies)
            self._cells("draws", mix.order.size)[:] = mix.order
            self.state = self._cells("generator", len(_STATE))
            self.flights = self._cells("flights", options.source_ports * 2).reshape(-1, 2)
            self.clock = self._cells("clock", 1)
            self.configure(to, options, verify=expect is not None)
        except BaseException:
            self._module.close()
            raise

    def _cells(self, name: str, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        return np.frombuffer(self._module.cells(name, count), dtype=np.uint64)

    def _fill(self, name: str, room: int, payloads: Sequence[bytes | None]) -> None:
        stride = _ENTRY.size + room
        cells = self._module.cells(name, len(payloads) * stride // 8).cast("B")
        for at, payload in enumerate(payloads):
            length, total = (len(payload), _sum(payload)) if payload else (0, 0)
            if payload is None:
                length = _NO_REPLY
            entry = _ENTRY.pack(length, total if name == "requests" else 0, 0) + (payload or b"")
            cells[at * stride : at * stride + len(entry)] = entry

    def configure(self, to: Target, options: Options, *, verify: bool) -> None:
        """Tell the program where to send, and how long to wait."""
        timeout = round(options.timeout * 1e9)
        settings = _SETTINGS.pack(
            to.mac,
            to.interface.mac,
            to.address.packed,
            to.source.packed,
            to.port.to_bytes(2, "big"),
            options.first_port,
            to.interface.ifindex,
            self._reads,
            int(verify),
            timeout,
            2 * timeout,
        )
        libbpf.update(self._module.map("settings"), _ONLY, settings)

    def attach(self, own: Interface, mode: ModeOption) -> Mode:
        """Take replies at an interface; returns the mode. Raises BusyError, InterfaceError."""
        self._link = Link(self.program, own, mode, answers=False)
        return self._link.mode

    def detach(self) -> None:
        """Take no more replies: outstanding requests stay outstanding."""
        if self._link:
            self._link.close()
            self._link = None
            time.sleep(_LAST_SECONDS)

    def send(self, slots: int) -> None:
        """Send a request in each slot that finds a free port; a signal ends it early."""
        with contextlib.suppress(InterruptedError):
            libbpf.send_frames(self.program, self._frame, slots, self._burst)

    def counter(self, name: str) -> int:
        """A counter of the generator, one of `_STATE`."""
        return int(self.state[_STATE.index(name)])

    def outstanding(self) -> tuple[int, int]:
        """How many requests are outstanding: reads, and writes."""
        pending = self.flights[self.flights[:, 0] != 0, 1] & np.uint64(0xFFFFFFFF)
        reads = int((pending < self._reads).sum())
        return reads, pending.size - reads

    def tally(self) -> tuple[dict[str, int], Tally]:
        """The replies so far by outcome, and the round trips of the right ones."""
        words = _OUTCOMES + 3 + BUCKETS
        tallies = libbpf.lookup(
            self._module.map("tallies"), _ONLY, 8 * words * libbpf.possible_cpus()
        )
        cells = np.frombuffer(tallies or b"", dtype=np.uint64).reshape(-1, words)
        names = ("answered", "reordered", "wrong", "duplicated", "write_answered")
        outcomes = dict(zip(names, cells.sum(axis=0).tolist(), strict=False))
        minima = cells[:, _OUTCOMES + 1]
        return outcomes, Tally(
            cells[:, _OUTCOMES + 3 :].sum(axis=0, dtype=np.uint64),
            total=int(cells[:, _OUTCOMES].sum()),
            minimum=int(minima[minima > 0].min(initial=2**63)) if minima.any() else 0,
            maximum=int(cells[:, _OUTCOMES + 2].max()),
        )

    def close(self) -> None:
        """Detach, and free program and maps."""
        self.detach()
        del self.state, self.flights, self.clock
        self._module.close()


class _Run:
    """One run: sending, waiting for the last replies, adding up."""

    def __init__(self, generator: Generator, options: Options):
        self._generator = generator
        self._options = options
        self._seconds = 0.0
        self._slots = 0

    def send(self) -> bool:
        """Send everything; False when it was interrupted."""
        begin = time.perf_counter()
        try:
            with pinned(self._options.cpu):
                begin = time.perf_counter()  # moving to a busy CPU may have taken a while
                self._pace(begin)
        except KeyboardInterrupt:
            return False
        finally:
            self._seconds = time.perf_counter() - begin
        return True

    def _pace(self, begin: float) -> None:
        options, generator, clock = self._options, self._generator, time.perf_counter
        count = math.inf if options.count is None else options.count
        seconds = math.inf if options.seconds is None else options.seconds
        rate = options.rate
        most = _CHUNK if rate is None else options.burst
        while True:
            passed = clock() - begin
            left = count - generator.counter("reads") - generator.counter("writes")
            if left <= 0 or (passed >= seconds and self._slots):
                return
            due = most if rate is None else int(passed * rate) + 1 - self._slots
            if due > 0:
                slots = int(min(due, most, left))
                generator.send(slots)
                self._slots += slots
            elif rate:
                time.sleep(max(_TICK, min(self._slots / rate, seconds) - passed))

    def drain(self) -> bool:
        """Wait until no reply can be in time any more; False when it was interrupted."""
        end = time.monotonic() + 2 * self._options.timeout
        try:
            while any(self._generator.outstanding()) and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(_GRACE)
        except KeyboardInterrupt:
            return False
        return True

    def result(self, mode: str, *, sent_all: bool, drained: bool) -> Load:
        """Add up. Raises ExperimentError if the counts disagree."""
        generator = self._generator
        generator.detach()
        left = generator.outstanding()
        reads_lost, writes_lost = left if drained else (0, 0)
        reads_left, writes_left = (0, 0) if drained else left
        outcomes, tally = generator.tally()
        count = generator.counter
        skipped = count("skipped")
        trips = tally.round_trips(
            lost=count("reads_lost") + reads_lost,
            duplicated=outcomes["duplicated"],
            reordered=outcomes["reordered"],
            wrong=outcomes["wrong"],
            seconds=self._seconds,
        )
        writes = Writes(
            sent=count("writes"),
            answered=outcomes["write_answered"],
            lost=count("writes_lost") + writes_lost,
            outstanding=writes_left,
        )
        slots = count("reads") + writes.sent + skipped
        result = Load(
            sent=count("reads"),
            skipped=skipped,
            outstanding=reads_left,
            writes=writes,
            asked=self._options.rate,
            offered=slots / self._seconds,
            mode=mode,
            complete=sent_all and drained,
            round_trips=trips,
        )
        _check(result, count("faults"))
        return result


def _check(result: Load, faults: int) -> None:
    trips, writes = result.round_trips, result.writes
    ends = trips.count + trips.reordered + trips.wrong + trips.lost + result.outstanding
    write_ends = writes.answered + writes.lost + writes.outstanding
    if faults or ends != result.sent or write_ends != writes.sent:
        raise ExperimentError(
            f"the counts disagree: {result.sent} requests sent and {ends} ended, "
            f"{writes.sent} writes sent and {write_ends} ended, {faults} not made",
            hint="this is a bug in carom; please report it",
        )


def load(to: Target, mix: Mix, options: Options, expect: Expect | None = None) -> Load:
    """Send as asked and account for every request; Ctrl-C ends it early and keeps what was done.

    Raises UsageError, InterfaceError, BusyError, PrivilegeError, BPFError, ExperimentError.
    """
    with Generator(to, mix, options, expect) as generator:
        mode = generator.attach(to.interface, options.mode)
        run = _Run(generator, options)
        sent_all = run.send()
        drained = run.drain()
        return run.result(mode, sent_all=sent_all, drained=drained)
