# SPDX-License-Identifier: Apache-2.0
"""Replies are bounded in bytes a second, to a source's prefix and to all."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.kernel.abi import Hook, Verdict
from prog.host import Host, Setting, passed
from prog.packets import Wire, request

QUESTION, ANSWER = b"how much", b"x" * 100
_seconds = itertools.count(10_000, 10)
"""In which no other test has spent anything."""

BYTES = 14 + 20 + 8 + len(ANSWER)
"""Of a reply's frame."""


def verdict(host: Host, source: str = "198.18.0.2") -> Verdict:
    frame = request(QUESTION, ip={"src": source})
    outcome = host.run(frame)
    if outcome.verdict is Verdict.PASS_RATE:
        assert outcome == passed(Verdict.PASS_RATE, frame)
    return outcome.verdict


def ready(host: Host, **rates: int) -> Host:
    host.clock.advance(next(_seconds))
    host.fill(QUESTION, ANSWER)
    host.describe(**rates)
    return host


def test_one_prefix(host: Host) -> None:
    """Sources of one /24 share, others have their own; the next second begins anew."""
    ready(host, prefix_rate=3 * BYTES)
    assert [verdict(host, f"198.18.0.{n}") for n in (2, 3, 254)] == [Verdict.HIT] * 3
    assert verdict(host, "198.18.0.9") is Verdict.PASS_RATE
    assert verdict(host, "198.18.1.2") is Verdict.HIT
    host.clock.advance(1)
    assert verdict(host, "198.18.0.9") is Verdict.HIT


def test_all_sources(host: Host) -> None:
    ready(host, prefix_rate=1000 * BYTES, total_rate=3 * BYTES + BYTES - 1)
    assert [verdict(host, f"198.18.{n}.2") for n in range(4)] == [
        *[Verdict.HIT] * 3,
        Verdict.PASS_RATE,
    ]
    host.clock.advance(1)
    assert verdict(host) is Verdict.HIT


def test_only_what_is_sent_is_paid(host: Host) -> None:
    """Nothing by a reply that is refused, for its length or by the other rate."""
    ready(host, prefix_rate=3 * BYTES, total_rate=10 * BYTES, mtu=20 + 8 + len(ANSWER) - 1)
    assert {verdict(host) for _ in range(10)} == {Verdict.PASS_ROOM}
    host.describe(mtu=1500, max_reply=len(ANSWER) - 1)
    assert {verdict(host) for _ in range(10)} == {Verdict.PASS_MTU}
    host.describe(max_reply=1472, total_rate=BYTES - 1)
    assert {verdict(host) for _ in range(10)} == {Verdict.PASS_RATE}
    host.describe(total_rate=10 * BYTES, prefix_rate=BYTES - 1)
    assert {verdict(host) for _ in range(10)} == {Verdict.PASS_RATE}
    host.describe(prefix_rate=3 * BYTES)
    assert [verdict(host) for _ in range(4)] == [*[Verdict.HIT] * 3, Verdict.PASS_RATE]


def test_a_reply_too_large_for_the_rest_leaves_it_to_others(host: Host) -> None:
    ready(host, prefix_rate=2 * BYTES - 1)
    short = b"short"
    host.fill(b"in brief", short)
    assert [verdict(host) for _ in range(3)] == [Verdict.HIT, *[Verdict.PASS_RATE] * 2]
    assert host.run(request(b"in brief")).verdict is Verdict.HIT


def test_bounced(bouncer: Host) -> None:
    """Replies of a bounce are bounded as well."""
    ready(bouncer, total_rate=3 * (42 + 60))
    frame = request(bytes(60))
    found = [bouncer.run(frame) for _ in range(4)]
    assert [one.verdict for one in found] == [*[Verdict.BOUNCE] * 3, Verdict.PASS_RATE]
    assert found[3] == passed(Verdict.PASS_RATE, frame)


def test_ipv6_prefixes(load_fastpath: Callable[..., FastPath]) -> None:
    """Sources of one /64 share."""
    wire = Wire(6)
    host = Host(load_fastpath(policy="lru", test_clock=True), Setting(Hook.XDP, wire))
    bytes_ = 14 + 40 + 8 + len(ANSWER)
    ready(host, prefix_rate=bytes_)

    def of(source: str) -> Verdict:
        return host.run(wire.request(QUESTION, ip={"src": source})).verdict

    assert of("2001:db8:1:2::1") is Verdict.HIT
    assert of("2001:db8:1:2:3::1") is Verdict.PASS_RATE
    assert of("2001:db8:1:3::1") is Verdict.HIT


def test_services_have_totals_of_their_own(host: Host) -> None:
    ready(host, total_rate=BYTES)
    assert [verdict(host), verdict(host)] == [Verdict.HIT, Verdict.PASS_RATE]
    host.describe(service=1)
    host.cache = Cache(host.fastpath.store, host.clock, 100, 1)
    host.fill(QUESTION, ANSWER)
    assert [verdict(host), verdict(host)] == [Verdict.HIT, Verdict.PASS_RATE]


def test_no_bound(host: Host) -> None:
    ready(host)
    assert {verdict(host) for _ in range(100)} == {Verdict.HIT}
