# SPDX-License-Identifier: Apache-2.0
"""Plans of requests: exact shares, keys that differ, and what cannot be is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom.errors import UsageError
from carom.lab.clients.requests import Plan


@given(
    keys=st.integers(2, 20),
    hot=st.integers(1, 19),
    share=st.integers(0, 1000).map(lambda n: n / 1000),
    seed=st.integers(0, 99),
)
def test_every_block_gives_hot_keys_exactly_their_share(
    keys: int, hot: int, share: float, seed: int
) -> None:
    plan = Plan(size=(2, 2), keys=keys, hot=min(hot, keys - 1), hot_share=share, seed=seed)
    hot_payloads = {plan.payload(number) for number in range(plan.hot)}
    for block in itertools.islice(plan.checked().blocks(), 3):
        found = sum(payload in hot_payloads for payload in block.payloads)
        assert found == block.hot
        assert block.hot / len(block.payloads) == pytest.approx(share, abs=1e-12)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    def draws(seed: int) -> list[bytes]:
        plan = Plan(size=(1, 1), keys=8, hot=4, hot_share=0.5, seed=seed)
        return next(plan.blocks()).payloads

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_unique_requests_never_come_twice() -> None:
    plan = Plan(size=(8, 8), draw="unique")
    payloads = [p for block in itertools.islice(plan.blocks(), 30) for p in block.payloads]
    assert len(set(payloads)) == len(payloads) == 30 * plan.block_size()


def test_sequential_requests_come_in_turn_from_the_first() -> None:
    plan = Plan(size=(1, 1), keys=3, draw="sequential", first=5)
    assert next(plan.blocks()).payloads[:6] == [b"\x05", b"\x06", b"\x07"] * 2


@given(st.integers(1, 255), st.integers(0, 40), st.integers(0, 255))
def test_a_key_has_one_payload_of_a_length_within_bounds(low: int, more: int, number: int) -> None:
    plan = Plan(size=(low, low + more), keys=256)
    assert plan.payload(number) == plan.payload(number)
    assert low <= len(plan.payload(number)) <= low + more
    assert plan.payload(number) != plan.payload(number + 1 if number < 255 else 0)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(size=(0, 1)), "size"),
        (Plan(size=(9, 3)), "size"),
        (Plan(size=(1, 70_000)), "size"),
        (Plan(keys=0), "keys"),
        (Plan(size=(1, 1), keys=257), "do not fit"),
        (Plan(keys=4, hot=2, hot_share=1.5), "hot-share"),
        (Plan(keys=4, hot=0, hot_share=0.5), "hot"),
        (Plan(keys=4, hot=4, hot_share=0.5), "hot"),
    ],
)
def test_what_cannot_be_is_named(plan: Plan, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan.checked()
