# SPDX-License-Identifier: Apache-2.0
"""`--shadow`: which hits go up, and which pairs of replies userspace is handed."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from carom.daemon import shadow
from carom.daemon.fastpath import FastPath
from carom.daemon.learning import before_reply
from carom.daemon.shadow import ShadowCheck
from carom.daemon.walker import Walker
from carom.kernel import libbpf
from carom.kernel.abi import PAIR, REPLY_MAX, Fast, Hook, Verdict
from carom.lab.tools import bench as bench_tool
from carom.lab.tools.bench import Bench
from carom.protocols import SPECS, spec
from netns.process import until
from prog.conftest import GENERIC, SETTINGS
from prog.host import Host, passed

QUESTION, ANSWER = b"is it so", b"it is so"
EVERY = 4
_seconds = itertools.count(40_000, 10)

Pair = tuple[int, bytes, bytes, bytes]


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Each CPU counts by itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(params=SETTINGS + GENERIC, ids=str)
def host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """One of whose hits every fourth goes up; the next is one that does."""
    host = Host(load_fastpath(policy="lru", test_clock=True, shadow=EVERY), request.param)
    host.fill(QUESTION, ANSWER)
    while host.asks(QUESTION).verdict is not Verdict.PASS_SHADOW:
        pass
    for _ in range(EVERY - 1):
        assert host.asks(QUESTION).verdict is Verdict.HIT
    return host


@contextlib.contextmanager
def handed(fastpath: FastPath) -> Iterator[list[Pair]]:
    """The pairs that come inside, once it is over: service, key, cached, served."""
    records: list[bytes] = []
    ring = libbpf.Ring(fastpath.map("pairs"), lambda record: records.append(record))
    found: list[Pair] = []
    try:
        ring.drain()
        records.clear()
        yield found
        ring.drain()
    finally:
        ring.close()
    found += map(unpacked, records)


def unpacked(record: bytes) -> Pair:
    """A pair's service, key, cached and served reply."""
    _, _, _, _, length, _, _, _, _, _, service, key_length, *rest = PAIR.unpack(record)
    key, served_length, cached, served = rest
    return service, key[:key_length], cached[:length], served[:served_length]


def refilled(host: Host, reply: bytes, payload: bytes = QUESTION) -> list[Pair]:
    """The pairs of one more fill."""
    with handed(host.fastpath) as pairs:
        host.fill(payload, reply)
        host.fastpath.store.drain_all()
    return pairs


class TestTurns:
    """One in so many hits goes up, untouched."""

    def test_they_come_round(self, host: Host) -> None:
        for _ in range(3):
            assert host.asks(QUESTION) == host.missed(Verdict.PASS_SHADOW, QUESTION)
            for _ in range(EVERY - 1):
                assert host.asks(QUESTION) == host.hit(ANSWER)

    def test_what_is_no_hit_takes_none(self, host: Host) -> None:
        assert host.asks(b"unknown").verdict is Verdict.MISS
        host.describe(max_reply=1)
        assert host.asks(QUESTION).verdict is Verdict.PASS_MTU
        host.describe(max_reply=1472)
        assert host.asks(QUESTION).verdict is Verdict.PASS_SHADOW

    def test_bounces_take_none(self, host: Host) -> None:
        host.serve(Fast.BOUNCE)
        assert {host.asks(QUESTION).verdict for _ in range(20)} == {Verdict.BOUNCE}
        host.serve(Fast.CACHE)
        assert host.asks(QUESTION).verdict is Verdict.PASS_SHADOW

    def test_none_is_charged(self, host: Host) -> None:
        """It is no reply of the kernel's."""
        host.clock.advance(next(_seconds))
        host.fill(QUESTION, ANSWER)
        host.describe(total_rate=host.wire.headers + len(ANSWER))
        found = [host.asks(QUESTION).verdict for _ in range(3)]
        assert found == [Verdict.PASS_SHADOW, Verdict.HIT, Verdict.PASS_RATE]

    def test_all_and_none(self, load_fastpath: Callable[..., FastPath]) -> None:
        for every, verdict in ((1, Verdict.PASS_SHADOW), (0, Verdict.HIT)):
            host = Host(load_fastpath(policy="lru", test_clock=True, shadow=every))
            host.fill(QUESTION, ANSWER)
            assert {host.asks(QUESTION).verdict for _ in range(50)} == {verdict}


class TestPairs:
    """A reply that takes a live one's place is handed over with it."""

    @pytest.mark.parametrize(
        "served",
        [ANSWER, b"", b"x", b"it is no", bytes(REPLY_MAX), ANSWER + b"\0"],
        ids=["same", "empty", "short", "other", "longest", "zero"],
    )
    @pytest.mark.parametrize("cached", [ANSWER, b"", bytes(range(256)) * 5], ids=len)
    def test_both_as_they_are(self, host: Host, cached: bytes, served: bytes) -> None:
        refilled(host, cached)
        assert refilled(host, served) == [(0, QUESTION, cached, served)]

    def test_what_is_new_has_none(self, host: Host) -> None:
        assert refilled(host, ANSWER, b"another question") == []

    def test_what_was_voided_is_no_difference(self, host: Host) -> None:
        host.cache.invalidate(QUESTION)
        assert refilled(host, b"it is not") == []
        assert refilled(host, b"nor now") == [(0, QUESTION, b"it is not", b"nor now")]
        host.cache.flush()
        assert refilled(host, b"it is again") == []

    def test_what_has_expired_is_none(self, host: Host) -> None:
        host.fill(QUESTION, ANSWER, ttl=10)
        host.fastpath.store.drain_all()
        host.clock.advance(9)
        (pair,) = refilled(host, b"by then")
        assert pair[2] == ANSWER
        host.fill(QUESTION, ANSWER, ttl=10)
        host.fastpath.store.drain_all()
        host.clock.advance(10)
        assert refilled(host, b"by then") == []

    def test_an_older_reply_is_none(self, host: Host) -> None:
        """It was asked for before what is live, and a void between them says that both may be."""
        token = host.cache.take(QUESTION)
        host.cache.invalidate(QUESTION)
        host.fill(QUESTION, b"it is now")
        host.fastpath.store.drain_all()
        with handed(host.fastpath) as pairs:
            host.cache.fill(QUESTION, ANSWER, token)
            host.fastpath.store.drain_all()
        assert pairs == []

    def test_without_a_check_none(self, load_fastpath: Callable[..., FastPath]) -> None:
        host = Host(load_fastpath(policy="lru", test_clock=True))
        host.fill(QUESTION, ANSWER)
        assert refilled(host, b"it is not") == []

    def test_more_than_there_is_room_for(self, host: Host) -> None:
        """What is beyond is left out, and stored all the same."""
        with handed(host.fastpath) as pairs:
            for number in range(1000):
                host.fill(QUESTION, b"%d" % number)
                host.fastpath.store.drain_all()
        assert 200 < len(pairs) < 300
        assert [served for *_, served in pairs] == [b"%d" % number for number in range(len(pairs))]
        assert host.held()[QUESTION] == b"999"


@pytest.mark.parametrize("setting", SETTINGS + GENERIC, ids=str)
def test_learned(load_fastpath: Callable[..., FastPath], setting: object) -> None:
    """A DNS reply: id, name and TTLs are zeros in both, so that these are no difference."""
    dns = spec("dns")
    options = {"languages": (dns,), "test_clock": True, "shadow": EVERY}
    host = Host(load_fastpath(**options), setting)  # type: ignore[arg-type]
    host.describe(protocol=dns, service=dns.number)
    learn = host.fastpath.load("learn_frame")
    query = bytes(DNS(id=7, rd=0, qd=DNSQR(qname="www.example.org")))

    def learned(**fields: object) -> list[Pair]:
        record = DNSRR(rrname="www.example.org", **{"ttl": 3600, "rdata": "198.18.0.9"} | fields)
        reply = bytes(DNS(id=1, qr=1, aa=1, rd=0, qd=DNSQR(qname="www.example.org"), an=record))
        front = before_reply(dns, query, host.fastpath.store.voids[0])
        with handed(host.fastpath) as pairs:
            assert libbpf.test_run(learn, front + reply).retval == libbpf.XDP_PASS
        return pairs

    learned()
    ((service, key, cached, served),) = learned(ttl=7)
    assert (service, key[:4]) == (dns.number, b"\3www")
    assert cached == served
    ((_, _, cached, served),) = learned(rdata="198.18.0.10")
    assert cached != served
    found = [host.asks(query).verdict for _ in range(4 * EVERY)]
    assert found.count(Verdict.PASS_SHADOW) == 4
    assert found.count(Verdict.HIT) == 4 * (EVERY - 1)


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
def test_why_takes_no_turn(hook: Hook) -> None:
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, shadow=2)
        bench.fill(QUESTION, ANSWER)
        walker = Walker(bench.fastpath, stack.enter_context(bench.fastpath.dry()))
        frame = bench_tool.frame(QUESTION)
        programs = {Hook.XDP: bench.fastpath.program, Hook.TC: bench.fastpath.tc_program}
        libbpf.test_run(programs[hook], frame)
        assert {walker.walk(frame, hook, 0)[0].verdict for _ in range(9)} == {Verdict.HIT}
        libbpf.test_run(programs[hook], frame)
        libbpf.test_run(programs[hook], frame)
        counts = bench.fastpath.verdicts(hook)
        assert (counts[Verdict.HIT], counts[Verdict.PASS_SHADOW]) == (1, 2)


def test_a_request_for_several_keys_takes_none() -> None:
    """What a server answers to several is not learned."""
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, shadow=1)
        bench_tool._protocols(bench)
        memcached = spec("memcached")
        key = memcached.samples("198.18.0.1")[0].request.split()[1]
        found = []
        for keys in (key + b" " + key, key):
            request = memcached.asking(b"get " + keys)
            assert request
            frame = bench_tool.frame(request, memcached.port or 0)
            found.append(libbpf.test_run(bench.fastpath.program, frame).retval)
        assert found == [libbpf.XDP_TX, libbpf.XDP_PASS]
        assert bench.fastpath.verdicts(Hook.XDP)[Verdict.PASS_SHADOW] == 1


def test_no_pair_is_torn(load_fastpath: Callable[..., FastPath]) -> None:
    """Two CPUs fill one key at once, with values of one letter: so has each reply of a pair."""
    memcached = spec("memcached")
    options = {"languages": (memcached,), "test_clock": True, "shadow": 1}
    fastpath = load_fastpath(**options)
    Host(fastpath)
    learn = fastpath.load("learn_frame")
    cpus = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU alone")

    def fill(cpu: int, letters: bytes) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        request = b"\0\x07\0\0\0\1\0\0get key\r\n"
        front = before_reply(memcached, request, fastpath.store.voids[0])
        for number in range(400):
            letter = letters[number % len(letters) :][:1]
            reply = b"\0\x07\0\0\0\1\0\0VALUE key 0 900\r\n" + 900 * letter + b"\r\nEND\r\n"
            libbpf.test_run(learn, front + reply, 200)

    records: list[bytes] = []
    ring = libbpf.Ring(fastpath.map("pairs"), lambda record: records.append(record))
    with contextlib.closing(ring), ThreadPoolExecutor(2) as threads:
        fills = [threads.submit(fill, *how) for how in zip(cpus, (b"abc", b"xyz"), strict=True)]
        while not all(one.done() for one in fills):
            ring.drain()
            time.sleep(0.001)
    for one in fills:
        one.result()
    assert records
    for _, key, *replies in map(unpacked, records):
        assert key.endswith(b"key")
        for reply in replies:
            assert len(set(reply.split(b"\r\n")[1])) == 1, reply


def test_passed_as_it_came(host: Host) -> None:
    frame = host.wire.request(QUESTION)
    assert host.run(frame) == passed(Verdict.PASS_SHADOW, frame)


class TestCheck:
    """What userspace makes of the pairs: by the same voids that decide on a hit."""

    @pytest.fixture
    def plain(self, load_fastpath: Callable[..., FastPath]) -> Host:
        return Host(load_fastpath(policy="lru", test_clock=True, shadow=EVERY))

    @pytest.fixture
    def backend(self, plain: Host) -> SimpleNamespace:
        options = SimpleNamespace(port=53, shadow_policy="off")
        receiver = SimpleNamespace(switched_off=False)
        counts = {"compared": 0, "differing": 0, "id": 0}
        return SimpleNamespace(
            **counts, options=options, receiver=receiver, cache=plain.cache, protocol=SPECS["raw"]
        )

    @pytest.fixture
    def offs(self) -> list[None]:
        return []

    @pytest.fixture
    def check(
        self,
        plain: Host,
        backend: SimpleNamespace,
        offs: list[None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[ShadowCheck]:
        """One that leaves it to the test when a pair that differs counts."""
        monkeypatch.setattr(shadow, "DOUBT", math.inf)
        made = ShadowCheck(plain.fastpath, [backend], lambda: offs.append(None))  # type: ignore[list-item]
        with contextlib.closing(made):
            yield made

    def doubt(self, plain: Host, backend: SimpleNamespace, check: ShadowCheck) -> None:
        """A pair that differs has come."""
        before = backend.compared
        refill(plain, ANSWER)
        refill(plain, b"it is not")
        until(lambda: backend.compared > before and check._doubts, "the pair")

    def test_what_stands_counts(
        self, plain: Host, backend: SimpleNamespace, check: ShadowCheck, offs: list[None]
    ) -> None:
        self.doubt(plain, backend, check)
        check._judge(check._doubts[0])
        assert (backend.differing, backend.receiver.switched_off, len(offs)) == (1, True, 1)
        assert plain.held() == {}, "what it had is void"
        check._judge(check._doubts[0]._replace(token=2**63))
        assert (backend.differing, len(offs)) == (2, 1)

    @pytest.mark.parametrize("void", ["invalidate", "flush"])
    def test_what_was_voided_since_does_not(
        self, plain: Host, backend: SimpleNamespace, check: ShadowCheck, offs: list[None], void: str
    ) -> None:
        self.doubt(plain, backend, check)
        plain.cache.invalidate(QUESTION) if void == "invalidate" else plain.cache.flush()
        check._judge(check._doubts[0])
        assert (backend.differing, backend.receiver.switched_off, offs) == (0, False, [])

    def test_other_keys_voids_do_not_matter(
        self, plain: Host, backend: SimpleNamespace, check: ShadowCheck
    ) -> None:
        self.doubt(plain, backend, check)
        other = next(b"%d" % n for n in range(99) if plain.cache.take(b"%d" % n)[0] != slot(plain))
        plain.cache.invalidate(other)
        check._judge(check._doubts[0])
        assert backend.differing == 1

    def test_doubts_are_bounded(
        self,
        plain: Host,
        backend: SimpleNamespace,
        check: ShadowCheck,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(shadow, "DOUBTS_MAX", 3)
        for number in range(9):
            refill(plain, b"%d" % number)
        until(lambda: backend.compared >= 8, "all pairs")
        assert len(check._doubts) == 3


def refill(host: Host, reply: bytes) -> None:
    host.fill(QUESTION, reply)
    host.fastpath.store.drain_all()


def slot(host: Host) -> int:
    token = host.cache.take(QUESTION)
    assert token
    return token[0]
