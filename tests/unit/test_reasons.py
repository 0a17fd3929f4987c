# SPDX-License-Identifier: Apache-2.0
"""Why a service has no hits, by its counters."""

from __future__ import annotations

import pytest

from carom.daemon.options import Options
from carom.daemon.reasons import LEAST, Counts, reason
from carom.kernel.abi import Event, Verdict

OPTIONS = Options(port=53)
MISSES = {Verdict.MISS: 50, Verdict.PASS_SIZE: 3}
EXPIRED = {Verdict.MISS_EXPIRED: 50}
SHARED = Counts(MISSES, events={Event.FULL: 50}, shared=True)
STRAY = "they come to 198.18.0.9 port 53 by eth0"


@pytest.mark.parametrize(
    ("counts", "what", "why"),
    [
        (Counts(MISSES, kept=50), "miss", "hardly any is asked for twice"),
        (Counts(MISSES, kept=50, swept=30), "miss", "reach the end of their time"),
        (Counts(MISSES, kept=50, evicted=30), "miss", "make room for others"),
        (Counts(MISSES, kept=2, replies=50), "miss", "not to be kept (cache=False"),
        (Counts(MISSES, replies=2), "miss", "no reply to them (its handler returns None)"),
        (Counts(MISSES, replies=2, own={"handler_errors": 48}), "miss", "the handler fails"),
        (Counts(MISSES, replies=0, own={"send_errors": 48}), "miss", "cannot be sent"),
        (Counts(MISSES, replies=50, own={"unfit": 50}), "miss", "longer than 1,472 bytes"),
        (Counts(MISSES, replies=50, own={"refused": 40}), "miss", "the cache is full"),
        (Counts(MISSES, replies=50, own={"not_admitted": 49}), "miss", "no key is asked for twice"),
        (Counts(MISSES, replies=50, own={"held": 49}), "miss", "written a moment before"),
        (Counts(EXPIRED, kept=50, own={"ended": 40}), "miss_expired", "end within two seconds"),
        (Counts(EXPIRED, kept=50, own={"unanswered": 40}), "miss_expired", "does not say in time"),
        (Counts(EXPIRED, kept=50, own={"unanswered": 4}), "miss_expired", "end of their time"),
        (Counts(MISSES, kept=50, own={"ended": 40}), "miss", "end within two seconds"),
        (SHARED._replace(kept=60), "miss", "not asked for twice, as far as the edge can tell"),
        (SHARED._replace(kept=1), "miss", "the cache is full: --capacity, --memory; counted for"),
        (SHARED._replace(events={}), "miss", "no reply to them leaves the server's sockets"),
        (Counts(MISSES, events={}), "miss", "no reply to them leaves the server's sockets (pid 5)"),
        (Counts(MISSES, events={Event.STRANGER: 99}), "miss", "that is not the server's does"),
        # Another server's at the same port, in another network namespace.
        (Counts(MISSES, events={Event.STRANGER: 99, Event.FULL: 9}), "miss", "the cache is full"),
        (
            Counts(MISSES, events={Event.UNASKED: 9}),
            "miss",
            "no request was seen for there (pid 5)",
        ),
        (Counts(MISSES, events={Event.FULL: 9, Event.HELD: 8}), "miss", "the cache is full"),
        (Counts(MISSES, strays=49), "miss", ""),
        (Counts(MISSES, strays=51, stray=STRAY), "pass_service", STRAY),
        (Counts({Verdict.PASS_AMPLIFY: 10}), "pass_amplify", "--amplify 16"),
        (Counts({Verdict.PASS_TO_TC: 90, Verdict.MISS_VOID: 10}), "miss_void", "void"),
        (Counts({Verdict.PASS_LENGTH: 10}), "pass_length", "not understood"),
        (Counts({}, replies=10), "elsewhere", "do not come in by the interfaces"),
        (Counts({Verdict.MISS: 9}, replies=19), "elsewhere", "do not come in by the interfaces"),
    ],
)
def test_reason(counts: Counts, what: str, why: str) -> None:
    found = reason(counts, OPTIONS, "pid 5")
    assert found
    assert found.what == what
    assert why in found.why


@pytest.mark.parametrize(
    "counts",
    [
        Counts({}),
        Counts({Verdict.MISS: LEAST - 1}),
        Counts({Verdict.MISS: LEAST - 1}, replies=LEAST),
        Counts({Verdict.MISS: 1000, Verdict.HIT: 1}),
        Counts({Verdict.BOUNCE: 1}, strays=1000),
    ],
)
def test_no_reason(counts: Counts) -> None:
    assert reason(counts, OPTIONS, "") is None


def test_each_verdict_has_words() -> None:
    """But for those of what is cut, or disagrees with itself."""
    malformed = {Verdict.PASS_TRUNCATED, Verdict.PASS_ETHERTYPE, Verdict.PASS_VERSION}
    malformed |= {Verdict.PASS_OPTIONS, Verdict.PASS_FRAGMENT, Verdict.PASS_PROTOCOL}
    malformed |= {Verdict.PASS_LENGTH, Verdict.PASS_SERVICE}
    answered = {Verdict.HIT, Verdict.BOUNCE, Verdict.SLIP, Verdict.PASS_TO_TC}
    for verdict in set(Verdict) - malformed - answered:
        found = reason(Counts({verdict: 99}), OPTIONS, "")
        assert found
        assert "not understood" not in found.why, verdict
