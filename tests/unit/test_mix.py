# SPDX-License-Identifier: Apache-2.0
"""What the load generator sends in which order."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from carom.errors import UsageError
from carom.lab.clients.mix import DRAWS_MAX, Choice, Mix, planned, rate, read
from carom.lab.clients.requests import Plan


def keys(count: int) -> list[bytes]:
    return planned(Plan(keys=count))


def test_requests_are_those_that_ping_sends() -> None:
    plan = Plan(size=(4, 64), keys=20, draw="sequential")
    assert planned(plan) == next(plan.blocks()).payloads[:20]


def test_sequential_comes_round_without_a_jump() -> None:
    order = Mix(keys(300), [], Choice(draw="sequential")).order
    assert order.size == DRAWS_MAX // 300 * 300
    assert np.array_equal(order, np.arange(order.size) % 300)


def test_uniform_draws_all_alike() -> None:
    counts = np.bincount(Mix(keys(16), [], Choice(draw="uniform")).order.astype(int))
    assert counts.size == 16
    assert np.allclose(counts / counts.sum(), 1 / 16, rtol=0.02)


@pytest.mark.parametrize("exponent", [0.0, 0.99, 2.0])
def test_zipf_draws_by_rank(exponent: float) -> None:
    order = Mix(keys(8), [], Choice(draw="zipf", exponent=exponent)).order
    counts = np.bincount(order.astype(int), minlength=8)
    weights = np.arange(1, 9) ** -exponent
    assert np.allclose(counts / counts.sum(), weights / weights.sum(), rtol=0.02)


def test_a_seed_says_the_order() -> None:
    def order(seed: int) -> bytes:
        return Mix(keys(9), [], Choice(draw="zipf", seed=seed)).order.tobytes()

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("draw", ["uniform", "zipf", "sequential"])
@pytest.mark.parametrize("share", [0.05, 0.375, 0.5])
def test_the_share_of_writes_is_exact_in_every_block(
    draw: Literal["uniform", "zipf", "sequential"], share: float
) -> None:
    mix = Mix(keys(10), [b"write 1", b"write 2"], Choice(draw=draw, writes=share))
    assert (mix.reads, mix.requests[10:]) == (10, [b"write 1", b"write 2"])
    size = Fraction(str(share)).denominator
    blocks = (mix.order >= 10).reshape(-1, size)
    assert np.all(blocks.sum(axis=1) == share * size)
    assert len({row.tobytes() for row in blocks}) > 1, "at random places"
    writes = mix.order[mix.order >= 10]
    assert np.array_equal(writes, 10 + np.arange(writes.size) % 2)
    if draw == "sequential":
        reads = mix.order[mix.order < 10]
        assert np.array_equal(reads, np.arange(reads.size) % 10)
        assert reads[-1] == 9, "the order can be gone through again"


def test_nothing_but_writes() -> None:
    assert set(Mix(keys(1), [b"write"], Choice(writes=1.0)).order.tolist()) == {1}


def test_a_file_holds_text_and_hex(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_bytes(b"get a\n0x00ff0a\n\nget \xc3\xa4\r\n0x\n")
    assert read(path) == [b"get a", b"\0\xff\n", "get ä".encode()]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"get a\n0xzz\n", "line 2: '0xzz' is not hex"), (b"\n", "no payload"), (None, "cannot read")],
)
def test_a_file_that_cannot_be(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "requests"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("text", "value"), [("5000", 5000), ("0.5", 0.5), ("100k", 1e5), ("1.5M", 1.5e6), ("max", None)]
)
def test_rates(text: str, value: float | None) -> None:
    assert rate(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "k", "1G", "nan", "inf", "1e9", "most"])
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate"):
        rate(text)


@pytest.mark.parametrize(
    ("reads", "writes", "choice", "words"),
    [
        ([b"a"], [b"w"], Choice(), "belong together"),
        ([b"a"], [], Choice(writes=0.1), "belong together"),
        ([b"a"], [b"w"], Choice(writes=1.1), "writes 1.1"),
        ([b"a"], [], Choice(draw="zipf", exponent=-1), "exponent -1"),
        ([], [], Choice(), "0 different requests"),
        ([b"a"] * (DRAWS_MAX + 1), [], Choice(), "different requests"),
    ],
)
def test_a_mix_that_cannot_be(
    reads: list[bytes], writes: list[bytes], choice: Choice, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Mix(reads, writes, choice)


def test_too_many_keys_are_refused_before_they_are_made() -> None:
    with pytest.raises(UsageError, match="keys"):
        planned(Plan(keys=DRAWS_MAX + 1))
