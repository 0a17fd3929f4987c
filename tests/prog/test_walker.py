# SPDX-License-Identifier: Apache-2.0
"""What `carom why` says of a packet is what the attached programs do with it, without a trace."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from carom.daemon.remedies import REMEDIES, STOPS
from carom.daemon.walker import Walk, Walker
from carom.kernel import libbpf
from carom.kernel.abi import BUDGET_CELLS, Fast, Hook, Stop, Verdict
from carom.lab.tools import bench as bench_tool
from carom.lab.tools.bench import Bench
from carom.protocols import SPECS
from carom.protocols.spec import Spec
from prog.mutations import MUTATIONS, WEIGHTS, right_sums
from prog.packets import PLAIN

FRAMES, LONG = 1_500, 20_000
"""Of each protocol, at each hook."""

SERVED = 51_141
_ASKED = {
    "raw": [b"known", b"unknown", b"x" * 256, b"x" * 257, b""],
    "kv": [b"GET 10", b"GET 11", b"PUT 10 1", b"DELETE 3"],
    "memcached": [b"get a-key-of-twenty-bytes", b"get a b", b"set a 0 0 1", b"stats", b"junk"],
    "dns": [b"www.example.org", b"www.example.com AAAA", b"example.org MX"],
    "coap": [b"/sensors/1", b"/sensors/2?unit=K"],
}


class Asked(Bench):
    """Every protocol's service, its samples in the cache; and programs that are only asked."""

    def __init__(self, stack: contextlib.ExitStack, **place: object):
        super().__init__(stack, **place)
        self.fill(b"known", b"reply")
        bench_tool._protocols(self)
        self.walker = Walker(self.fastpath, stack.enter_context(self.fastpath.dry()))
        self.programs = {
            Hook.XDP: self.fastpath.program,
            Hook.TC: self.fastpath.tc_program,
        }
        self.last = {hook: self.fastpath.verdicts(hook) for hook in Hook}

    def live(self, frame: bytes, hook: Hook) -> tuple[Verdict, bytes]:
        """What the programs that would be attached do with it: the verdict, the frame after."""
        data = libbpf.test_run(self.programs[hook], frame).data
        counts = self.fastpath.verdicts(hook)
        (verdict,) = [one for one in Verdict if counts[one] != self.last[hook][one]]
        self.last[hook] = counts
        return verdict, data

    def state(self) -> list[bytes]:
        """All that a packet may change."""
        store, fastpath = self.fastpath.store, self.fastpath
        cells = (store.versions, store.voids, store.holds, store._usage, store._buckets)
        state = [bytes(part.cast("B")) for part in (*cells, store._drained)]
        state += [bytes(chunk) for chunk in store._chunks]
        state += [repr(fastpath.verdicts(hook)).encode() for hook in Hook]
        for name, size in (("budgets", 16), ("responses", 16), ("echoes", 4)):
            keys = (number.to_bytes(4, "little") for number in range(0, BUDGET_CELLS, 7))
            state.append(
                b"".join(libbpf.lookup(fastpath.map(name), key, size) or b"" for key in keys)
            )
        return state


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    """With bounds, so that there is something to charge."""
    with contextlib.ExitStack() as stack:
        yield Asked(stack, prefix_rate=2**40, total_rate=2**40, echoes=1_000)


def frames(spec: Spec, count: int) -> Iterator[bytes]:
    """Requests of a protocol, mutated up to three times, some with their checksums mended."""
    rng = random.Random(f"walk {spec.name}")
    payloads = [spec.asking(name) for name in _ASKED[spec.name]]
    payloads += [sample.request for sample in spec.samples("198.18.0.1")]
    for _ in range(count):
        payload = rng.choice([one for one in payloads if one is not None])
        ports = rng.choice((40_000, 40_001, 80, SERVED))
        frame = bytearray(bench_tool.frame(payload, spec.port or SERVED, ports))
        for mutate in rng.choices(MUTATIONS, WEIGHTS, k=rng.choice((0, 0, 1, 2, 3))):
            mutate(rng, frame, PLAIN)
        yield right_sums(PLAIN, bytes(frame)) if rng.random() < 0.7 else bytes(frame)


def taken(frame: bytes, hook: Hook) -> bool:
    """BPF_PROG_TEST_RUN makes no skb with half an IP header."""
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 14)
    return len(frame) >= (shortest if hook == Hook.TC else 14)


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
@pytest.mark.parametrize("name", SPECS)
def test_it_says_what_is_done(asked: Asked, hook: Hook, name: str, long_form: bool) -> None:
    seen: Counter[Verdict] = Counter()
    for frame in frames(SPECS[name], LONG if long_form else FRAMES):
        if not taken(frame, hook):
            continue
        walk = asked.walker.walk(frame, hook, 0)[0]
        verdict, after = asked.live(frame, hook)
        seen[verdict] += 1
        assert walk.verdict is verdict, frame.hex()
        if walk.reply:  # but for an id that is drawn (docs/packet-walk.md)
            assert (walk.reply[:18], walk.reply[26:]) == (after[:18], after[26:])
            assert walk.last is Stop.ANSWER
    known = seen[Verdict.HIT] + seen[Verdict.MISS_VOID]  # a write in between may void all
    assert known > 20 and len(seen) > 10, seen


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
def test_it_leaves_no_trace(asked: Asked, hook: Hook) -> None:
    before = asked.state()
    found: Counter[Verdict] = Counter()
    for spec in SPECS.values():
        for frame in frames(spec, FRAMES // 4):
            if taken(frame, hook):
                found[asked.walker.walk(frame, hook, 0)[0].verdict] += 1
    assert asked.state() == before
    assert found[Verdict.HIT] and found[Verdict.PASS_WRITE], found


def test_what_waits_is_stored_before(asked: Asked) -> None:
    """As the packet itself would have it."""
    cache = bench_tool.Cache(asked.fastpath.store, asked.clock, 3600)
    cache.fill(b"waits", b"reply", cache.take(b"waits"))
    (walk,) = asked.walker.walk(bench_tool.frame(b"waits"), Hook.XDP, 0)
    assert walk.verdict is Verdict.HIT


def test_a_second_is_not_spent(asked: Asked) -> None:
    """However often it is asked of a service with few responses a second."""
    with contextlib.ExitStack() as stack:
        few = Asked(stack, responses=1, slip=2)
        spec = SPECS["dns"]
        request = bench_tool.frame(spec.samples("198.18.0.1")[0].request, spec.port or 0)
        verdicts = {few.walker.walk(request, Hook.XDP, 0)[0].verdict for _ in range(20)}
    assert verdicts == {Verdict.HIT}


class TestStops:
    """How far a packet came."""

    def walk(self, asked: Asked, frame: bytes) -> Walk:
        return asked.walker.walk(frame, Hook.XDP, 0)[0]

    def test_of_a_hit(self, asked: Asked) -> None:
        walk = self.walk(asked, bench_tool.frame(b"known"))
        assert (walk.verdict, walk.last, walk.service) == (Verdict.HIT, Stop.ANSWER, 0)

    def test_of_a_miss(self, asked: Asked) -> None:
        walk = self.walk(asked, bench_tool.frame(b"unknown"))
        assert (walk.verdict, walk.last) == (Verdict.MISS, Stop.LOOK_UP)

    def test_of_somebody_elses(self, asked: Asked) -> None:
        walk = self.walk(asked, bench_tool.frame(b"known", 9))
        assert (walk.verdict, walk.last) == (Verdict.PASS_SERVICE, Stop.SERVICE)

    def test_of_what_is_cut_off(self, asked: Asked) -> None:
        assert self.walk(asked, bench_tool.frame(b"known")[:30]).last is Stop.PARSE

    def test_of_a_port_that_is_served(self, asked: Asked) -> None:
        """Its own is seen in the packet, another's in the maps."""
        assert self.walk(asked, bench_tool.frame(b"known", SERVED, SERVED)).last is Stop.SOURCE
        walk = self.walk(asked, bench_tool.frame(b"known", SERVED, 11_211))
        assert (walk.verdict, walk.last) == (Verdict.PASS_SOURCE_SERVED, Stop.MAPS)

    def test_of_a_bounce(self) -> None:
        with contextlib.ExitStack() as stack:
            walk = self.walk(Bounced(stack), bench_tool.frame(b"x"))
        assert (walk.verdict, walk.last) == (Verdict.BOUNCE, Stop.ANSWER)

    def test_one_checksum_or_the_other(self, asked: Asked) -> None:
        frame = bytearray(bench_tool.frame(b"known"))
        frame[41] ^= 1
        assert self.walk(asked, bytes(frame)).last is Stop.CHECKSUM
        frame[25] ^= 1
        assert self.walk(asked, bytes(frame)).last is Stop.HEADER


class Bounced(Asked):
    """One that bounces."""

    def __init__(self, stack: contextlib.ExitStack):
        super().__init__(stack, fast=Fast.BOUNCE)


def test_each_verdict_and_stop_has_words() -> None:
    assert REMEDIES.keys() == set(Verdict)
    assert STOPS.keys() == set(Stop)
