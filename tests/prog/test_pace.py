# SPDX-License-Identifier: Apache-2.0
"""`--max-hits-per-cpu`: one CPU gives so many replies a second, and the rest passes untouched."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from carom.daemon.cache import Cache
from carom.daemon.clock import jiffies_per_second
from carom.daemon.fastpath import FastPath
from carom.daemon.learning import before_reply
from carom.daemon.walker import Walker
from carom.kernel import libbpf
from carom.kernel.abi import Fast, Hook, Stop, Verdict
from carom.lab.tools import bench as bench_tool
from carom.lab.tools.bench import Bench
from carom.protocols import spec
from prog.conftest import GENERIC, SETTINGS
from prog.host import Host, passed

QUESTION, ANSWER = b"how often", b"as often as it may"
LIMIT = 3
_seconds = itertools.count(30_000, 10)
"""In which no other test has spent anything."""


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[int]:
    """Programs that a test runs run on its CPU: it has one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


@pytest.fixture(params=SETTINGS + GENERIC, ids=str)
def host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """One that gives LIMIT replies a second, and knows an answer."""
    host = Host(load_fastpath(policy="lru", test_clock=True, max_hits=LIMIT), request.param)
    host.clock.advance(next(_seconds))
    host.fill(QUESTION, ANSWER)
    return host


def asked(host: Host, times: int, payload: bytes = QUESTION) -> list[Verdict]:
    """The verdicts on so many requests; those beyond are untouched."""
    found = []
    for _ in range(times):
        outcome = host.asks(payload)
        if outcome.verdict is Verdict.PASS_CPU:
            assert outcome == host.missed(Verdict.PASS_CPU, payload)
        found.append(outcome.verdict)
    return found


def within(beyond: int, answered: Verdict = Verdict.HIT) -> list[Verdict]:
    return [answered] * LIMIT + [Verdict.PASS_CPU] * beyond


def test_at_the_limit_and_above(host: Host) -> None:
    assert asked(host, LIMIT) == within(0)
    assert asked(host, 5) == [Verdict.PASS_CPU] * 5


def test_the_next_second_begins_anew(host: Host) -> None:
    for _ in range(3):
        assert asked(host, LIMIT + 2) == within(2)
        host.clock.advance(1)


def test_nothing_is_saved(host: Host) -> None:
    """Neither in a long rest nor in a second whose share was not used up."""
    asked(host, 1)
    host.clock.advance(1)
    assert asked(host, LIMIT + 1) == within(1)
    host.clock.advance(10_000_000)
    host.fill(QUESTION, ANSWER)
    assert asked(host, LIMIT + 1) == within(1)


def test_a_clock_that_stands_still_gives_nothing(host: Host) -> None:
    assert asked(host, 1000)[LIMIT:] == [Verdict.PASS_CPU] * (1000 - LIMIT)


def test_what_is_not_answered_costs_nothing(host: Host) -> None:
    """A miss, a reply that is refused later, a frame that is not ours."""
    assert set(asked(host, 10, b"unknown")) == {Verdict.MISS}
    host.describe(max_reply=len(ANSWER) - 1)
    assert set(asked(host, 10)) == {Verdict.PASS_MTU}
    host.describe(max_reply=1472, fast=Fast.OFF)
    assert set(asked(host, 10)) == {Verdict.PASS_OFF}
    host.describe(fast=Fast.CACHE)
    assert asked(host, LIMIT + 1) == within(1)


def test_beyond_nothing_is_looked_up(host: Host) -> None:
    """Misses pass at the same place; who is no service's, or refused before, keeps its verdict."""
    asked(host, LIMIT)
    assert set(asked(host, 5, b"unknown")) == {Verdict.PASS_CPU}
    stray = host.wire.request(QUESTION, udp={"dport": 9})
    assert host.run(stray) == passed(Verdict.PASS_SERVICE, stray)
    host.fastpath.lease[0] = 0
    assert host.asks(QUESTION) == host.missed(Verdict.PASS_LEASE, QUESTION)


def test_bounces_count(host: Host) -> None:
    host.serve(Fast.BOUNCE)
    assert asked(host, LIMIT + 2) == within(2, Verdict.BOUNCE)
    host.serve(Fast.CACHE)
    assert asked(host, 2) == [Verdict.PASS_CPU] * 2


def test_all_services_share(host: Host) -> None:
    asked(host, LIMIT - 1)
    host.describe(service=1)
    host.cache = Cache(host.fastpath.store, host.clock, 100, 1)
    host.fill(QUESTION, ANSWER)
    assert asked(host, 2) == [Verdict.HIT, Verdict.PASS_CPU]


def test_each_cpu_has_its_own(host: Host, one_cpu: int) -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    others = os.sched_getaffinity(0) - {one_cpu}
    if not others:
        pytest.skip("one CPU alone")
    os.sched_setaffinity(0, {one_cpu})
    assert asked(host, LIMIT + 1) == within(1)
    os.sched_setaffinity(0, {min(others)})
    assert asked(host, LIMIT + 1) == within(1)
    os.sched_setaffinity(0, {one_cpu})
    assert asked(host, 1) == [Verdict.PASS_CPU]


def test_without_a_limit(load_fastpath: Callable[..., FastPath]) -> None:
    host = Host(load_fastpath(policy="lru", test_clock=True))
    host.fill(QUESTION, ANSWER)
    assert set(asked(host, 1000)) == {Verdict.HIT}


@pytest.mark.parametrize("setting", SETTINGS + GENERIC, ids=str)
def test_of_a_protocol(load_fastpath: Callable[..., FastPath], setting: object) -> None:
    """Whose requests are read and answered by further programs; a slip is a reply too."""
    dns = spec("dns")
    options = {"languages": (dns,), "test_clock": True, "max_hits": LIMIT}
    host = Host(load_fastpath(**options), setting)  # type: ignore[arg-type]
    host.clock.advance(next(_seconds))
    host.describe(protocol=dns, service=dns.number)
    answer = DNSRR(rrname="www.example.org", ttl=3600, rdata="198.18.0.9")
    reply = bytes(DNS(qr=1, aa=1, rd=0, qd=DNSQR(qname="www.example.org"), an=answer))
    query = bytes(DNS(id=7, rd=0, qd=DNSQR(qname="www.example.org")))
    front = before_reply(dns, query, host.fastpath.store.voids[0])
    learn = host.fastpath.load("learn_frame")
    assert libbpf.test_run(learn, front + reply).retval == libbpf.XDP_PASS
    assert asked(host, LIMIT + 2, query) == within(2)
    host.clock.advance(1)
    host.describe(responses=1, slip=1)
    assert asked(host, LIMIT + 2, query) == [
        Verdict.HIT,
        *[Verdict.SLIP] * (LIMIT - 1),
        *[Verdict.PASS_CPU] * 2,
    ]


class TestByTheRealClock:
    """A second's share comes tick by tick."""

    @pytest.mark.parametrize("rate", [1, 50, 1000, 12_345])
    @pytest.mark.parametrize("fast", [Fast.CACHE, Fast.BOUNCE])
    def test_never_more_than_its_ticks_have(self, rate: int, fast: Fast) -> None:
        ticks = jiffies_per_second()
        with contextlib.ExitStack() as stack:
            bench = Bench(stack, max_hits=rate, fast=fast)
            bench.fill(QUESTION, ANSWER)
            frame, read = bench_tool.frame(QUESTION), bench.fastpath.read_jiffies
            begin = read()
            while read() - begin < ticks / 4:
                for _ in range(rate // 100 + 10):
                    libbpf.test_run(bench.fastpath.program, frame)
            passed, found = read() - begin, bench.fastpath.verdicts(Hook.XDP)
        answered = found[Verdict.HIT] + found[Verdict.BOUNCE]
        assert answered
        assert answered * ticks <= rate * (passed + 1) + ticks
        assert answered + found[Verdict.PASS_CPU] + found[Verdict.MISS] == sum(found.values())


class TestWhy:
    """`carom why` spends nothing, and says so where all is spent."""

    @pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
    def test_it(self, hook: Hook) -> None:
        with contextlib.ExitStack() as stack:
            bench = Bench(stack, max_hits=1)
            bench.fill(QUESTION, ANSWER)
            walker = Walker(bench.fastpath, stack.enter_context(bench.fastpath.dry()))
            frame = bench_tool.frame(QUESTION)
            programs = {Hook.XDP: bench.fastpath.program, Hook.TC: bench.fastpath.tc_program}
            assert {walker.walk(frame, hook, 0)[0].verdict for _ in range(50)} == {Verdict.HIT}
            for _ in range(2):
                libbpf.test_run(programs[hook], frame)
            assert bench.fastpath.verdicts(hook)[Verdict.HIT] == 1
            (walk,) = walker.walk(frame, hook, 0)
            assert (walk.verdict, walk.last) == (Verdict.PASS_CPU, Stop.CPU)
