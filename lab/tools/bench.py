# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per packet, by BPF_PROG_TEST_RUN: the fast path beside the least that XDP can do.

A call runs one program many times on one packet. Before each run the packet is made the request
once more (again.c); what that costs is measured as well, and taken off. Each case is compared with
a MAC swap of the same packet in the same round.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import statistics
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock, jiffies_per_second
from carom.daemon.fastpath import FastPath
from carom.daemon.learning import Learner
from carom.daemon.options import HITS_MAX, SHADOW_MAX
from carom.daemon.places import Place
from carom.daemon.store import Admit
from carom.daemon.thread import Thread
from carom.errors import ExperimentError, UsageError
from carom.filters.filter import Endpoint, Filter
from carom.filters.names import NAMES
from carom.kernel import libbpf
from carom.kernel.abi import Fast
from carom.kernel.bpf import Module
from carom.kernel.links import interface
from carom.kernel.recipe import Recipe
from carom.kernel.ways import Way
from carom.lab.experiments.ports import concurrency, ports
from carom.protocols import SPECS, default
from carom.protocols.spec import Around, Filled, Sample, Spec
from carom.vm.namespace import Namespace
from carom.xdp.link import Link

MAC = "02:00:00:00:00:01"
_CLIENT, SERVER = ("198.18.0.1", 40_000), ("198.18.0.2", 51_141)
_LOOPBACK = 1  # the interface that made-up packets come in by
_HERE = Path(__file__).resolve().parent
_WORKERS = _HERE.parent / "experiments/ports"
_WHOLE = default(Filled.DAEMON)
_FRAME_ROOM = 2048
_FRAME = struct.Struct(f"=4I{_FRAME_ROOM}s")
_RUNS = 2_000
"""Runs of each program in each round."""

SWAP = "MAC swap"


def _port(spec: Spec) -> int:
    return spec.port or SERVER[1]


class Figure(NamedTuple):
    """One case, in nanoseconds a packet, over the rounds; without what the loop itself costs."""

    name: str
    nanoseconds: float
    """The median."""
    above: float
    """Above a MAC swap of the same packet: the median of the rounds' differences."""
    least: float
    """The same of the fastest round of each."""


class _Case(NamedTuple):
    name: str
    program: int
    frame: bytes
    action: int
    keys: int = 0
    """How many keys it asks for, drawn anew for each packet; 0: always the frame's own."""


def frame(payload: bytes, port: int = SERVER[1], client_port: int = _CLIENT[1]) -> bytes:
    """The frame of a request, as Bench's client sends it."""
    return bytes(
        Ether(src=MAC, dst=MAC)
        / IP(src=_CLIENT[0], dst=SERVER[0], ttl=255)
        / UDP(sport=client_port, dport=port)
        / payload
    )


def _key(number: int) -> bytes:
    return number.to_bytes(4, "big") * 8


_UNSUMMED = frame(_key(0))[:40] + b"\0\0" + _key(0)  # IPv4 allows no checksum


class Bench:
    """A loaded fast path whose lease never ends, with a service of each protocol.

    `capacity`, `admit`, `counted`, `max_hits` and `shadow` are the fast path's; other keywords are
    those of each service's `Place`.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        *,
        capacity: int = 10_000,
        admit: Admit = "always",
        counted: int = 1,
        max_hits: int = 0,
        shadow: int = 0,
        **place: Any,
    ):
        self.fastpath = stack.enter_context(
            FastPath(
                languages=SPECS.values(),
                capacity=capacity,
                admit=admit,
                counted=counted,
                max_hits=max_hits,
                shadow=shadow,
            )
        )
        self._learner = Learner(self.fastpath)
        self.clock = JiffiesClock(self.fastpath.read_jiffies)
        self.fastpath.lease[0] = 2**64 - 1
        self.fastpath.allow(["198.18.0.0/15"])
        via = Way(False, (bytes.fromhex(MAC.replace(":", "")),))
        self.fastpath.reach({(_LOOPBACK, ipaddress.ip_network("198.18.0.0/15")): via})
        self.fastpath.answer_at(
            Place(
                address=ipaddress.IPv4Address(SERVER[0]),
                port=_port(spec),
                ifindex=_LOOPBACK,
                mac=bytes.fromhex(MAC.replace(":", "")),
                mtu=1500,
                service=spec.number,
                protocol=spec,
                **place,
            )
            for spec in SPECS.values()
        )

    def fill(self, request: bytes, reply: bytes, protocol: Spec = _WHOLE) -> None:
        """Store a reply in the protocol's form."""
        cache = Cache(self.fastpath.store, self.clock, 3600, protocol.number, protocol)
        cache.fill(request, reply, cache.take(request))
        self.fastpath.store.drain_all()

    def learn(self, sample: Sample, protocol: Spec) -> None:
        """Store a sample's reply as the socket's edge does."""
        if not self._learner.learn(protocol, sample.request, sample.reply):
            raise ExperimentError(f"a reply of {protocol.name} was not learned")

    def around(self, spec: Spec) -> Around:
        """What prepares a sample; there is no server."""
        return Around(self.fastpath.map, self.clock, spec.number, _port(spec), list, Thread)

    def case(
        self, name: str, payload: bytes, *, protocol: Spec = _WHOLE, answered: bool = True
    ) -> _Case:
        """A case whose request has this payload."""
        action = libbpf.XDP_TX if answered else libbpf.XDP_PASS
        return _Case(name, self.fastpath.program, frame(payload, _port(protocol)), action)


def _cases(stack: contextlib.ExitStack) -> list[_Case]:
    cache = Bench(stack)
    bouncer = Bench(stack, fast=Fast.BOUNCE)
    request, foreign = bytes(range(32)), frame(bytes(32), 1)
    return [
        _Case("pass: no service there", cache.fastpath.program, foreign, libbpf.XDP_PASS),
        cache.case("miss: 32-byte key", request, answered=False),
        cache.case("miss: 250-byte key", bytes(250), answered=False),
        bouncer.case("bounce: 32 bytes", request),
        bouncer.case("bounce: 1,400 bytes", bytes(1400)),
        _published(stack),
        *_sizes(cache),
        *_protocols(cache),
        *_defences(stack),
        *_filters(stack),
        *_work(stack),
    ]


def _published(stack: contextlib.ExitStack) -> _Case:
    """A hit of the design that was published, without most of the checks."""
    module = stack.enter_context(Module(Recipe(_HERE / "published.c")))
    libbpf.update(module.map("replies"), b"a", struct.pack("=i1s3x", 0, b"b"))
    program = module.program("published")
    return _Case("hit: 1/1 bytes, as published", program, frame(b"a"), libbpf.XDP_TX)


def _sizes(bench: Bench) -> list[_Case]:
    """Hits by the lengths of request and reply."""
    cases = []
    for asked, replied in ((1, 1), (32, 32), (64, 64), (64, 512), (250, 250), (250, 1400)):
        payload = bytes([replied % 251]) * asked
        bench.fill(payload, bytes(replied))
        cases.append(bench.case(f"hit: {asked}/{replied:,} bytes", payload))
    return cases


def _protocols(bench: Bench) -> list[_Case]:
    """The misses and the hits of each protocol."""
    samples = [(spec, sample) for spec in SPECS.values() for sample in spec.samples(_CLIENT[0])]
    misses = [
        bench.case(f"miss: {sample.miss[0]}", sample.miss[1], protocol=spec, answered=False)
        for spec, sample in samples
        if sample.miss
    ]
    for spec, sample in samples:
        sample.prepare(bench.around(spec))
        if spec.learned:
            bench.learn(sample, spec)
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
        "with --allow and both rates": {
            "allow_list": True,
            "prefix_rate": 2**40,
            "total_rate": 2**40,
        },
        "with --echoes": {"echoes": 1000},
        "with --max-hits-per-cpu": {"max_hits": HITS_MAX},
        "with --shadow": {"shadow": SHADOW_MAX},
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
    address, port = ipaddress.ip_address(SERVER[0]), _port(spec)
    place.filter([Endpoint(address, port, _LOOPBACK, bytes.fromhex(MAC.replace(":", "")))])
    put = frame(spec.filtered, port)
    cases = []
    for name in NAMES:
        place.load(name)
        action = libbpf.XDP_DROP if name == "reject" else libbpf.XDP_PASS
        cases.append(_Case(f"filter: {name}", place.program, put, action))
    return cases


def _work(stack: contextlib.ExitStack) -> list[_Case]:
    """The least and the most work of `carom lab run concurrency`."""
    request = frame(b"work", ports.FIRST_PORT, ports.FIRST_PORT + 1)
    cases = []
    for loops in (min(concurrency.Settings().loops), max(concurrency.Settings().loops)):
        defines = {f"LOOPS_{which}": loops for which in ports.PORTS}
        module = stack.enter_context(
            Module(Recipe(_WORKERS / "concurrency.c", include=(_WORKERS,), defines=defines))
        )
        program = module.program("concurrency")
        cases.append(_Case(f"concurrency: {loops:,} loops", program, request, libbpf.XDP_TX))
    return cases


class _Loop:
    """again.c, with the programs that it measures."""

    def __init__(self, stack: contextlib.ExitStack, cases: Sequence[_Case]):
        module = stack.enter_context(Module(Recipe(_HERE / "again.c")))
        self._again = module.program("again")
        self._frames = module.map("frames")
        programs = [module.program("nothing"), module.program("swap_macs")]
        programs += dict.fromkeys(case.program for case in cases)
        module.chain("measured", dict(enumerate(programs)))
        self._indices = {program: index for index, program in enumerate(programs)}
        self._nothing, self._swap = programs[:2]
        self._attach(stack)

    def _attach(self, stack: contextlib.ExitStack) -> None:
        """Attach it to an interface without packets. For a program that is attached nowhere, the
        kernel waits for all CPUs before and after each call (bpf_prog_change_xdp)."""
        namespace = stack.enter_context(Namespace("bench"))
        namespace.netlink(
            lambda netlink: netlink.link(
                "add", ifname="bench", kind="veth", peer={"ifname": "peer"}
            )
        )
        at = namespace.call(functools.partial(interface, "bench"))
        stack.enter_context(namespace.call(functools.partial(Link, self._again, at, "generic")))

    def round(self, case: _Case, runs: int) -> tuple[int, int]:
        """What a case and a MAC swap of its packet take, in nanoseconds a packet."""
        nothing = self._time(case, self._nothing, libbpf.XDP_PASS, runs)
        swap = self._time(case._replace(name=SWAP), self._swap, libbpf.XDP_TX, runs)
        return self._time(case, case.program, case.action, runs) - nothing, swap - nothing

    def _time(self, case: _Case, program: int, action: int, runs: int) -> int:
        """Raises ExperimentError if a program does not return its action."""
        front = len(case.frame), case.keys, self._indices[program], 0
        libbpf.update(self._frames, bytes(4), _FRAME.pack(*front, case.frame))
        run = libbpf.test_run(self._again, case.frame, runs)
        if run.retval != action:
            raise ExperimentError(f"{case.name}: its program returned {run.retval}, not {action}")
        return run.nanoseconds


def bench(
    rounds: int = 50,
    runs: int = _RUNS,
    progress: Callable[[int], None] = lambda done: None,
    *,
    entries: Sequence[int] = (),
) -> list[Figure]:
    """Run every case `runs` times in each round, and compare; the MAC swap's own figures are of the
    first case. With `entries`, the cases are hits among each of these numbers of entries.

    Raises UsageError, PrivilegeError, CompileError, VerifierError, ExperimentError.
    """
    with contextlib.ExitStack() as stack:
        cases = _growth(stack, entries) if entries else _cases(stack)
        loop = _Loop(stack, cases)
        times: list[list[tuple[int, int]]] = [[] for _ in cases]
        for done in range(rounds):
            for case, measured in zip(cases, times, strict=True):
                measured.append(loop.round(case, runs))
            progress(done + 1)
    swap = _figure(SWAP, [(swap, swap) for _, swap in times[0]])
    return [
        swap,
        *(_figure(case.name, measured) for case, measured in zip(cases, times, strict=True)),
    ]


def _growth(stack: contextlib.ExitStack, entries: Sequence[int]) -> list[_Case]:
    """Hits of 32/32 bytes, each of another key, so that entries come from memory where the CPU's
    caches are too small for all of them."""
    cases = []
    for count in entries:
        if count < 1:
            raise UsageError(f"{count} entries cannot be hit", hint="--entries 1000,1000000")
        bench = Bench(stack, capacity=count)
        cache = Cache(bench.fastpath.store, bench.clock, 3600)
        for number in range(count):
            key = _key(number)
            cache.fill(key, key, cache.take(key))
        bench.fastpath.store.drain_all()
        name = f"hit among {count:,} entries"
        cases.append(_Case(name, bench.fastpath.program, _UNSUMMED, libbpf.XDP_TX, count))
    return cases


def _figure(name: str, measured: Sequence[tuple[int, int]]) -> Figure:
    ours, swaps = zip(*measured, strict=True)
    return Figure(
        name=name,
        nanoseconds=statistics.median(ours),
        above=statistics.median(one - swap for one, swap in measured),
        least=min(ours) - min(swaps),
    )
