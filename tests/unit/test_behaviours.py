# SPDX-License-Identifier: Apache-2.0
"""What the behaviours send, byte for byte as published."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from carom.errors import UsageError
from carom.lab.clients.behaviours import BEHAVIOURS, Choice, Step

# Written out by hand from the published sequences, and by nothing that the behaviours use.
PUTS = [
    b"PUT\x0a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0a\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0a\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0a\x00\x00\x00\xfb\xff\xff\xff\xff\xff\xff\xff",
]
ONE = b"PUT\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
GET = b"GET\x0a\x00\x00\x00"
DELETE = b"DELETE\x0a\x00\x00\x00"
STOP = b"STOP"
BAD_256 = b"BAD" + b"\x00" * 256
BAD_1024 = b"BAD" + b"\x00" * 1024
BAD_EQUAL = b"BAD" + b"\x00" * 12
SIF = [
    b"GET\x0a\x00\x00\x00",
    b"PUT\x34\x12\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x02\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x04\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x06\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x08\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0a\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0c\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x0e\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x10\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x12\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"PUT\x14\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
    b"GET\x0a\x00\x00\x00",
    b"GET\x12\x00\x00\x00",
    b"GET\x14\x00\x00\x00",
    b"DELETE\x0a\x00\x00\x00",
    b"GET\x0a\x00\x00\x00",
    b"STOP",
]

SENT: list[tuple[Choice, list[bytes]]] = [
    (Choice(name="thor"), [*PUTS, *PUTS, STOP]),
    (Choice(name="odin"), [*PUTS, GET, *PUTS, GET, STOP]),
    (
        Choice(name="loki", packets=3),
        [*PUTS, GET, BAD_1024, BAD_1024, BAD_1024, *PUTS, GET, STOP],
    ),
    (
        Choice(name="loki", packets=1, equal_length=True),
        [*PUTS, GET, BAD_EQUAL, *PUTS, GET, STOP],
    ),
    (
        Choice(name="njord"),
        [*PUTS, GET, DELETE, DELETE, DELETE, DELETE, DELETE, *PUTS, GET, DELETE, STOP],
    ),
    (Choice(name="sylvie", packets=4), [ONE, ONE, ONE, ONE, STOP]),
    (Choice(name="sylvie", packets=0), [STOP]),
    (Choice(name="sif"), SIF),
    (
        Choice(name="frey", packets=5, percent=40),
        [ONE, ONE, ONE, BAD_256, BAD_256, GET, STOP],
    ),
    (
        Choice(name="frey", packets=2, percent=50, equal_length=True),
        [ONE, BAD_EQUAL, GET, STOP],
    ),
    (Choice(name="frey", packets=2, percent=0), [ONE, ONE, GET, STOP]),
    (Choice(name="frey", packets=2, percent=100), [BAD_256, BAD_256, GET, STOP]),
    (Choice(name="frigg", packets=0), [GET]),
    (
        Choice(name="frigg", packets=250, percent=10),
        [ONE] * 90 + [BAD_256] * 10 + [ONE] * 90 + [BAD_256] * 10 + [ONE] * 45 + [BAD_256] * 5
        + [GET],
    ),
    (  # 3.125 invalid in all: after 100 and 200 packets 1.2 and 2.4
        Choice(name="frigg", packets=250, percent=1.25, equal_length=True),
        [ONE] * 99 + [BAD_EQUAL] + [ONE] * 99 + [BAD_EQUAL] + [ONE] * 49 + [BAD_EQUAL] + [GET],
    ),
    (Choice(name="stop"), [STOP]),
    (Choice(name="getstop"), [GET, STOP]),
]  # fmt: skip


def sent(choice: Choice) -> list[bytes]:
    return [step.payload for step in choice.steps() for _ in range(step.times)]


def test_every_behaviour_is_here() -> None:
    assert {choice.name for choice, _ in SENT} == set(BEHAVIOURS)


@pytest.mark.parametrize(
    ("choice", "right"),
    SENT,
    ids=[f"{choice.name}-{choice.packets}-{choice.percent}" for choice, _ in SENT],
)
def test_the_bytes(choice: Choice, right: list[bytes]) -> None:
    assert sent(choice) == right
    for step in choice.steps():
        assert step.times > 0
        assert step.payload.startswith(step.word.encode())
        assert step.valid != step.payload.startswith(b"BAD")
        assert step.word != "GET" or step.times == 1


def test_as_published_in_full() -> None:
    """The two that are too long to write out."""
    loki = list(Choice(name="loki").steps())
    assert [step.times for step in loki] == [1, 1, 1, 1, 1, 1_000_000, 1, 1, 1, 1, 1, 1]
    assert loki[5] == Step("BAD", BAD_1024, 1_000_000)
    assert list(Choice(name="sylvie").steps()) == [
        Step("PUT", ONE, 10_000_000),
        Step("STOP", STOP),
    ]


def test_frey_and_frigg_have_defaults() -> None:
    assert sent(Choice(name="frey")) == [ONE] * 500 + [BAD_256] * 500 + [GET, STOP]
    assert sent(Choice(name="frigg")) == ([ONE] * 50 + [BAD_256] * 50) * 10 + [GET]


@pytest.mark.parametrize("name", ["frey", "frigg"])
@pytest.mark.parametrize(
    ("packets", "percent", "invalid"),
    [
        (1, 50, 1),  # a half, up
        (1, 49, 0),
        (3, 50, 2),
        (99, 1, 1),
        (101, 1, 1),
        (149, 1, 1),
        (150, 1, 2),
        (997, 33, 329),
        (1000, 0.1, 1),
        (1000, 99.95, 1000),
        (12_345, 75, 9259),
        (100_003, 29, 29_001),
        (7, 0, 0),
        (7, 100, 7),
        (0, 50, 0),
        (1_000_000, 0.00035, 4),  # 3.5 as it is written; in binary it is less
    ],
)
def test_totals_are_exact(name: str, packets: int, percent: float, invalid: int) -> None:
    steps = list(Choice(name=name, packets=packets, percent=percent).steps())
    bad = sum(step.times for step in steps if step.word == "BAD")
    puts = sum(step.times for step in steps if step.word == "PUT")
    assert (puts, bad) == (packets - invalid, invalid)


@pytest.mark.parametrize("percent", [1, 25, 50, 75, 99])
def test_each_full_round_of_friggs_has_its_percent(percent: int) -> None:
    payloads = sent(Choice(name="frigg", packets=1000, percent=percent))
    for n in range(0, 1000, 100):
        right = [ONE] * (100 - percent) + [BAD_256] * percent
        assert payloads[n : n + 100] == right


def test_invalid_packets_can_be_as_long_as_a_put() -> None:
    for name in ("loki", "frey", "frigg"):
        choice = Choice(name=name, packets=300, percent=None, equal_length=True)
        lengths = {len(step.payload) for step in choice.steps() if not step.valid}
        assert lengths == {len(ONE)} == {15}


@pytest.mark.parametrize("name", ["loki", "sylvie", "frey", "frigg"])
def test_a_billion_packets_take_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        steps = Choice(name=name, packets=1_000_000_000).steps()
        for _ in itertools.islice(steps, 10_000):
            pass
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("choice", "words", "hint"),
    [
        (Choice(name="balder"), "no behaviour 'balder'", "thor, odin, loki"),
        (Choice(name="frey", percent=-1), "percent -1", "0 to 100"),
        (Choice(name="frigg", percent=100.5), "percent 100.5", "0 to 100"),
        (Choice(name="frey", percent=float("nan")), "percent nan", "0 to 100"),
        (Choice(name="frey", packets=-1), "packets -1", "0 to 1000000000"),
        (Choice(name="loki", packets=10**9 + 1), "packets 1000000001", "0 to"),
        (Choice(name="thor", packets=5), "thor has no number", "loki, sylvie, frey, frigg"),
        (Choice(name="loki", percent=5), "loki has no percentage", "frey, frigg"),
        (Choice(name="sylvie", equal_length=True), "no invalid packets", "loki, frey, frigg"),
    ],
)
def test_a_choice_that_cannot_be(choice: Choice, words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        choice.steps()  # at once, not when the first step is asked for
    assert hint in (caught.value.hint or "")
