# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per packet, by BPF_PROG_TEST_RUN: the fast path beside the least that XDP can do.

There are two ways to measure, each with a MAC swap as its baseline. *Repeated*: one packet many
times within a call. It keeps the edits of its last run, so this is for packets that do not change,
or whose reply is a request again (client and server have one MAC, and both ends are services).
*Single*: a fresh packet for each call, for replies of another length than their request; the call's
own reading of the clock and cold caches are in both figures.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import random
import statistics
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock, jiffies_per_second
from carom.daemon.fastpath import FastPath, Place
from carom.daemon.store import Admit
from carom.daemon.thread import Thread
from carom.errors import ExperimentError, UsageError
from carom.filters.filter import Endpoint, Filter
from carom.filters.names import NAMES
from carom.kernel import libbpf
from carom.kernel.abi import TTL_FLOOR, Fast
from carom.kernel.bpf import Module
from carom.kernel.links import interface
from carom.kernel.ways import Way
from carom.lab.experiments.ports import concurrency, ports
from carom.protocols import SPECS, default
from carom.protocols.spec import Around, Filled, Spec
from carom.vm.namespace import Namespace
from carom.xdp.link import Link

_MAC = "02:00:00:00:00:01"
_ENDS = (("198.18.0.1", 40_000), ("198.18.0.2", 51_141))
_LOOPBACK = 1  # the interface that made-up packets come in by
_REPEAT = 255 - TTL_FLOOR  # runs until the TTL, which falls by 1 in each, reaches the floor
_HERE = Path(__file__).resolve().parent
_WORKERS = _HERE.parent / "experiments/ports"
_WHOLE = default(Filled.DAEMON)


def _port(spec: Spec) -> int:
    return spec.port or _ENDS[1][1]


_BASELINE = "MAC swap"


class Figure(NamedTuple):
    """One case: the median of the rounds, and the lowest and highest, ns per packet."""

    name: str
    way: str
    """`repeated` or `single`."""
    nanoseconds: float
    low: float
    high: float
    ratio: float
    """To the MAC swap measured the same way: the median of the ratios of each round."""
    above: float
    """Nanoseconds above that MAC swap: the median of the differences of each round."""


class _Case(NamedTuple):
    name: str
    repeated: bool
    program: int
    frames: Sequence[bytes]
    """Used in turn."""
    action: int


def frame(payload: bytes, port: int = _ENDS[1][1], client_port: int = _ENDS[0][1]) -> bytes:
    """The frame of a request, as the client end of Bench sends it."""
    client, server = (address for address, _ in _ENDS)
    return bytes(
        Ether(src=_MAC, dst=_MAC)
        / IP(src=client, dst=server, ttl=255)
        / UDP(sport=client_port, dport=port)
        / payload
    )


def _key(number: int) -> bytes:
    return number.to_bytes(4, "big") * 8


_UNSUMMED = frame(_key(0))[:40] + b"\0\0"  # up to its payload; IPv4 allows no checksum


class Bench:
    """A loaded fast path whose lease never ends, with a service at both ends, and one for each
    protocol.

    `capacity` and `admit` are the fast path's; other keywords are those of each service's `Place`.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        *,
        capacity: int = 10_000,
        admit: Admit = "always",
        **place: Any,
    ):
        self.fastpath = stack.enter_context(
            FastPath(
                languages=SPECS.values(),
                capacity=capacity,
                admit=admit,
                beside=[_HERE / "learn.c"],
            )
        )
        self._learn = self.fastpath.load("learn_frame")
        self.clock = JiffiesClock(self.fastpath.read_jiffies)
        self.fastpath.lease[0] = 2**64 - 1
        self.fastpath.allow(["198.18.0.0/15"])
        via = Way(False, (bytes.fromhex(_MAC.replace(":", "")),))
        self.fastpath.reach({(_LOOPBACK, ipaddress.ip_network("198.18.0.0/15")): via})
        places = [(_WHOLE, *end) for end in _ENDS]
        places += [(spec, _ENDS[1][0], _port(spec)) for spec in SPECS.values()]
        self.fastpath.answer_at(
            Place(
                address=ipaddress.IPv4Address(address),
                port=port,
                ifindex=_LOOPBACK,
                mac=bytes.fromhex(_MAC.replace(":", "")),
                mtu=1500,
                service=spec.number,
                protocol=spec,
                **place,
            )
            for spec, address, port in places
        )
        # Here a reply is the next request, so it must be allowed to come from a served port.
        for index in range(65536 // 64):
            ports = self.fastpath.map("served_ports")
            libbpf.update(ports, struct.pack("=I", index), bytes(8))

    def fill(self, request: bytes, reply: bytes, protocol: Spec = _WHOLE) -> None:
        """Store a reply in the protocol's form."""
        cache = Cache(self.fastpath.store, self.clock, 3600, protocol.number, protocol)
        cache.fill(request, reply, cache.take(request))

    def learn(self, reply: bytes, protocol: Spec, asked: int = 0) -> None:
        """Store a reply as the socket's edge does: the reply names its request's key, and `asked`
        is what the request asked beside it."""
        asking = struct.pack("=II", protocol.number, asked)
        learned = libbpf.test_run(self._learn, asking + reply).retval
        if learned != libbpf.XDP_PASS:
            raise ExperimentError(f"a reply of {protocol.name} was not learned")

    def around(self, spec: Spec) -> Around:
        """What prepares a sample; there is no server."""
        return Around(self.fastpath.map, self.clock, spec.number, _port(spec), list, Thread)

    def case(
        self,
        name: str,
        payload: bytes,
        *,
        repeated: bool = False,
        protocol: Spec = _WHOLE,
        answered: bool = True,
    ) -> _Case:
        """A case whose request has this payload."""
        action = libbpf.XDP_TX if answered else libbpf.XDP_PASS
        request = frame(payload, _port(protocol))
        return _Case(name, repeated, self.fastpath.program, [request], action)


def _cases(stack: contextlib.ExitStack) -> list[_Case]:
    plain = stack.enter_context(Module(_HERE / "macswap.c")).program("macswap")
    cache = Bench(stack)
    bouncer = Bench(stack, fast=Fast.BOUNCE)
    request, long = bytes(range(32)), bytes(range(256))
    absent, no_service = bytes(32), [frame(request, 1)]
    swap = [
        _Case(_BASELINE, repeated, plain, [frame(request)], libbpf.XDP_TX)
        for repeated in (True, False)
    ]
    for payload in (request, long):
        cache.fill(payload, payload)
    return [
        *swap,
        _Case("pass: no service there", True, cache.fastpath.program, no_service, libbpf.XDP_PASS),
        cache.case("miss: 32-byte key", absent, repeated=True, answered=False),
        cache.case("miss: 250-byte key", bytes(250), repeated=True, answered=False),
        cache.case("hit: 32/32 bytes", request, repeated=True),
        cache.case("hit: 256/256 bytes", long, repeated=True),
        bouncer.case("bounce: 32 bytes", request, repeated=True),
        bouncer.case("bounce: 1,400 bytes", bytes(1400), repeated=True),
        *_sizes(cache),
        *_protocols(cache),
        *_defences(stack),
        *_filters(stack),
        *_work(stack),
    ]


def _sizes(bench: Bench) -> list[_Case]:
    """Hits whose replies differ in length from their requests; the first does not, to compare."""
    cases = []
    for asked, replied in ((32, 32), (64, 512), (250, 1400)):
        payload = bytes([asked]) * asked
        bench.fill(payload, bytes(replied))
        cases.append(bench.case(f"hit: {asked}/{replied:,} bytes", payload))
    return cases


def _protocols(bench: Bench) -> list[_Case]:
    """The misses and the hits of each protocol."""
    samples = [(spec, sample) for spec in SPECS.values() for sample in spec.samples(_ENDS[0][0])]
    misses = [
        bench.case(
            f"miss: {sample.miss[0]}", sample.miss[1], repeated=True, protocol=spec, answered=False
        )
        for spec, sample in samples
        if sample.miss
    ]
    for spec, sample in samples:
        sample.prepare(bench.around(spec))
        if spec.learned:
            bench.learn(sample.reply, spec, sample.asked)
        else:
            bench.fill(sample.request, sample.reply, spec)
    hits = [
        bench.case(f"hit: {sample.name}", sample.request, protocol=spec) for spec, sample in samples
    ]
    return [*misses, *hits]


def _defences(stack: contextlib.ExitStack) -> list[_Case]:
    """A hit of 32/32 bytes with each bound that costs a look-up, to compare with the plain one."""
    payload = bytes([32]) * 32
    cases = []
    bounds: dict[str, dict[str, Any]] = {
        "with --amplify": {"multiple": 16},
        "with --allow": {"allow_list": True},
        "with both rates": {"prefix_rate": 2**40, "total_rate": 2**40},
        "with --echoes": {"echoes": 1000},
    }
    for name, place in bounds.items():
        bench = Bench(stack, **place)
        bench.fill(payload, bytes(32))
        cases.append(bench.case(f"hit: 32/32 bytes, {name}", payload))
    return cases


def _filters(stack: contextlib.ExitStack) -> list[_Case]:
    """Every filter at XDP, by itself, on a command."""
    place: Filter = stack.enter_context(Filter("simple", "xdp", jiffies_per_second()))
    spec = next(known for known in SPECS.values() if known.filtered)
    address, port = ipaddress.ip_address(_ENDS[1][0]), _port(spec)
    place.filter([Endpoint(address, port, _LOOPBACK, bytes.fromhex(_MAC.replace(":", "")))])
    put = frame(spec.filtered, port)
    cases = []
    for name in NAMES:
        place.load(name)
        action = libbpf.XDP_DROP if name == "reject" else libbpf.XDP_PASS
        cases.append(_Case(f"filter: {name}", True, place.program, [put], action))
    return cases


def _work(stack: contextlib.ExitStack) -> list[_Case]:
    """The least and the most work of `carom lab run concurrency`. A reply is a request too, to a
    port with the same work."""
    request = frame(b"work", ports.FIRST_PORT, ports.FIRST_PORT + 1)
    cases = []
    for loops in (min(concurrency.Settings().loops), max(concurrency.Settings().loops)):
        defines = {f"LOOPS_{which}": loops for which in ports.PORTS}
        module = stack.enter_context(
            Module(_WORKERS / "concurrency.c", include=(_WORKERS,), defines=defines)
        )
        program = module.program("concurrency")
        cases.append(
            _Case(f"concurrency: {loops:,} loops", True, program, [request], libbpf.XDP_TX)
        )
    return cases


def _attach(stack: contextlib.ExitStack, cases: Sequence[_Case]) -> None:
    """Attach the programs that run repeatedly, to interfaces without packets. For a program that is
    attached nowhere, the kernel waits for all CPUs before and after each run
    (bpf_prog_change_xdp)."""
    namespace = stack.enter_context(Namespace("bench"))
    for program in dict.fromkeys(case.program for case in cases if case.repeated):
        name = f"bench{program}"
        with namespace.netlink() as netlink:
            netlink.link("add", ifname=name, kind="veth", peer={"ifname": f"peer{program}"})
        at = namespace.call(functools.partial(interface, name))
        stack.enter_context(namespace.call(functools.partial(Link, program, at, "generic")))


def _time(case: _Case, runs: int, start: int = 0) -> float:
    """The mean of repeated runs, or the median of single ones, ns, from the frame `start` on.

    Raises ExperimentError if a program does not return the case's action.
    """
    times = []
    for turn in range(start, start + runs):
        request = case.frames[turn % len(case.frames)]
        run = libbpf.test_run(case.program, request, _REPEAT if case.repeated else 1)
        if run.retval != case.action:
            raise ExperimentError(
                f"{case.name}: its program returned {run.retval}, not {case.action}"
            )
        times.append(run.nanoseconds)
    return statistics.fmean(times) if case.repeated else statistics.median(times)


def bench(
    rounds: int = 20,
    runs: int = 100,
    progress: Callable[[int], None] = lambda done: None,
    *,
    entries: Sequence[int] = (),
) -> list[Figure]:
    """Measure every case `runs` times in each round, and compare. With `entries`, the cases are
    hits among each of these numbers of entries.

    Raises UsageError, PrivilegeError, CompileError, VerifierError, ExperimentError.
    """
    with contextlib.ExitStack() as stack:
        cases = _growth(stack, entries, rounds * runs) if entries else _cases(stack)
        _attach(stack, cases)
        times: list[list[float]] = [[] for _ in cases]
        for done in range(rounds):
            for case, measured in zip(cases, times, strict=True):
                measured.append(_time(case, runs, done * runs))
            progress(done + 1)
    baselines = {
        case.repeated: measured
        for case, measured in zip(cases, times, strict=True)
        if case.name == _BASELINE
    }
    return [
        _figure(case, measured, baselines[case.repeated])
        for case, measured in zip(cases, times, strict=True)
    ]


def _growth(stack: contextlib.ExitStack, entries: Sequence[int], asked: int) -> list[_Case]:
    """Hits of 32/32 bytes, each of another key, so that entries come from memory where the CPU's
    caches are too small for all of them."""
    plain = stack.enter_context(Module(_HERE / "macswap.c")).program("macswap")
    cases = [_Case(_BASELINE, False, plain, [_unsummed(0)], libbpf.XDP_TX)]
    for count in entries:
        if count < 1:
            raise UsageError(f"{count} entries cannot be hit", hint="--entries 1000,1000000")
        bench = Bench(stack, capacity=count + count // 4 + 1000)  # an LRU map is never quite full
        cache = Cache(bench.fastpath.store, bench.clock, 3600)
        for number in range(count):
            key = _key(number)
            cache.fill(key, key, cache.take(key))
        drawn = random.Random(count).choices(range(count), k=asked)
        frames = [_unsummed(number) for number in drawn]
        name = f"hit among {count:,} entries"
        cases.append(_Case(name, False, bench.fastpath.program, frames, libbpf.XDP_TX))
    return cases


def _unsummed(number: int) -> bytes:
    """The request for a numbered key, without a checksum, which is quick to make."""
    return _UNSUMMED + _key(number)


def _figure(case: _Case, measured: list[float], baseline: list[float]) -> Figure:
    pairs = list(zip(measured, baseline, strict=True))
    return Figure(
        name=case.name,
        way="repeated" if case.repeated else "single",
        nanoseconds=statistics.median(measured),
        low=min(measured),
        high=max(measured),
        ratio=statistics.median(ours / swap for ours, swap in pairs),
        above=statistics.median(ours - swap for ours, swap in pairs),
    )
