# SPDX-License-Identifier: Apache-2.0
"""One of many replies that may go in a loop is left out, by the kernel."""

from __future__ import annotations

import itertools

from carom.kernel.abi import Verdict
from prog.host import Action, Host
from prog.packets import PLAIN

EVERY = 5
_ports = itertools.count(20_000)
"""From which no other test has asked."""


def fill(host: Host, payload: bytes, reply: bytes, *, loops: bool) -> None:
    host.cache.fill(payload, reply, host.cache.take(payload), loops=loops)


def verdicts(host: Host, payload: bytes, port: int, times: int) -> list[Verdict]:
    found = []
    for _ in range(times):
        outcome = host.run(host.wire.request(payload, udp={"sport": port}))
        assert (outcome.action is Action.DROP) == (outcome.verdict is Verdict.DROP_LOOP)
        found.append(outcome.verdict)
    return found


def often(verdict: Verdict) -> list[Verdict]:
    return [*[verdict] * (EVERY - 1), Verdict.DROP_LOOP] * 2


def test_a_marked_reply(any_host: Host) -> None:
    fill(any_host, b"echo", b"echo", loops=True)
    any_host.describe(echoes=EVERY)
    assert verdicts(any_host, b"echo", next(_ports), 2 * EVERY) == often(Verdict.HIT)


def test_a_longer_one(any_host: Host) -> None:
    """As one of several that go round may be."""
    fill(any_host, b"there", b"and back again", loops=True)
    any_host.describe(echoes=EVERY)
    assert verdicts(any_host, b"there", next(_ports), 2 * EVERY) == often(Verdict.HIT)


def test_any_other_is_never(any_host: Host) -> None:
    fill(any_host, b"ask", b"answer", loops=False)
    any_host.describe(echoes=EVERY)
    assert set(verdicts(any_host, b"ask", next(_ports), 5 * EVERY)) == {Verdict.HIT}


def test_bounced(any_bouncer: Host) -> None:
    any_bouncer.describe(echoes=EVERY)
    assert verdicts(any_bouncer, b"echo", next(_ports), 2 * EVERY) == often(Verdict.BOUNCE)


def test_off(any_host: Host) -> None:
    fill(any_host, b"echo", b"echo", loops=True)
    any_host.describe(echoes=0)
    assert set(verdicts(any_host, b"echo", next(_ports), 20)) == {Verdict.HIT}


def test_clients_and_requests_are_counted_apart(host: Host) -> None:
    """But for those that share a cell by chance, one in thousands."""
    texts = [b"one", b"another"]
    for text in texts:
        fill(host, text, text, loops=True)
    host.describe(echoes=EVERY)

    def apart() -> bool:
        ports = [next(_ports) for _ in range(3)]
        asked = list(itertools.product(ports, texts)) * (EVERY - 1)
        hits = [verdicts(host, text, port, 1) == [Verdict.HIT] for port, text in asked]
        last = verdicts(host, texts[0], ports[0], 1) == [Verdict.DROP_LOOP]
        other = PLAIN.request(texts[0], ip={"src": "198.18.0.77"}, udp={"sport": ports[1]})
        return all(hits) and last and host.run(other).verdict is Verdict.HIT

    assert any(apart() for _ in range(3))


def test_what_is_left_out_costs_nothing(host: Host) -> None:
    host.clock.advance(5000)
    fill(host, b"echo", b"echo", loops=True)
    host.describe(echoes=2, prefix_rate=3 * 46)
    found = verdicts(host, b"echo", next(_ports), 7)
    assert found.count(Verdict.HIT) == 3
    assert found[-1] is Verdict.PASS_RATE
