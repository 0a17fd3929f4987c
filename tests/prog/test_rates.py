# SPDX-License-Identifier: Apache-2.0
"""Replies are bounded in bytes a second, to a source's prefix and to all."""

from __future__ import annotations

import itertools

from carom.include.abi import Verdict
from prog.host import Host, passed
from prog.packets import request

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


def test_no_bound(host: Host) -> None:
    ready(host)
    assert {verdict(host) for _ in range(100)} == {Verdict.HIT}
